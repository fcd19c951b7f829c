package wire

import (
	"encoding/json"

	"github.com/parley-chat/parley/chat"
)

// DecodeBody reads the body of an HTTP request that asks for what a frame of this type does: the frame's fields, under
// the frame's rules. An empty body has no fields.
//
// The errors are of the codes invalid_json and invalid_message.
func DecodeBody(kind string, data []byte) (chat.Command, error) {
	f := &Frame{Type: kind, Size: len(data), rules: frameTypes[kind]}
	if len(data) > 0 {
		if json.Unmarshal(data, &f.fields) != nil || f.fields == nil {
			return nil, chat.NewError(chat.CodeInvalidJSON, "the body is not a JSON object")
		}
	}
	if err := f.Validate(); err != nil {
		return nil, err
	}
	if err := f.Sanitize(); err != nil {
		return nil, err
	}
	return f.Command(), nil
}
