package wire

import (
	"encoding/json"
	"maps"
)

// Again gives the frame that a client would send to say what is left of this one, after it was validated and sanitised.
func (f *Frame) Again() ([]byte, error) {
	again := map[string]any{"type": f.Type, "ref": f.Ref}
	maps.Copy(again, f.values)
	return json.Marshal(again)
}
