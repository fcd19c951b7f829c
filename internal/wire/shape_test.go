package wire_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/wire"
)

// nested gives a ping with a field of so many levels; the frame itself is one more.
func nested(levels int, open, end string) string {
	return `{"type":"ping","x":` + strings.Repeat(open, levels) + `1` + strings.Repeat(end, levels) + `}`
}

// crowded gives a ping with so many fields.
func crowded(fields int) string {
	var b strings.Builder
	b.WriteString(`{"type":"ping"`)
	for i := range fields - 1 {
		fmt.Fprintf(&b, `,"x%d":{"a":1,"b":":"}`, i)
	}
	return b.String() + `}`
}

func TestShapeOfFramesIsLimited(t *testing.T) {
	brackets := strings.Repeat(`[{:`, 1000)
	for name, test := range map[string]struct {
		frame string
		code  chat.Code // empty: it is a ping
	}{
		"arrays at the limit":    {nested(wire.MaxDepth-1, `[`, `]`), ""},
		"arrays beyond it":       {nested(wire.MaxDepth, `[`, `]`), chat.CodeInvalidJSON},
		"objects at the limit":   {nested(wire.MaxDepth-1, `{"a":`, `}`), ""},
		"objects beyond it":      {nested(wire.MaxDepth, `{"a":`, `}`), chat.CodeInvalidJSON},
		"arrays and nothing":     {strings.Repeat(`[`, 60_000), chat.CodeInvalidJSON},
		"objects and nothing":    {strings.Repeat(`{"a":`, 12_000), chat.CodeInvalidJSON},
		"many beside each other": {`{"type":"ping","x":[` + strings.Repeat(`[],`, 1000) + `[]]}`, ""},
		"fields at the limit":    {crowded(wire.MaxFields), ""},
		"fields beyond it":       {crowded(wire.MaxFields + 1), chat.CodeInvalidMessage},
		"one field many times":   {`{"type":"ping"` + strings.Repeat(`,"x":1`, wire.MaxFields) + `}`, chat.CodeInvalidMessage},
		"brackets in a text":     {`{"type":"ping","x":"` + brackets + `"}`, ""},
		"brackets in a name":     {`{"type":"ping","` + brackets + `":1}`, ""},
		"an escaped quote":       {`{"type":"ping","x":"\"` + brackets + `\\"}`, ""},
		"a text without an end":  {`{"type":"ping","x":"\`, chat.CodeInvalidJSON},
		"more ends than begin":   {`]]]]{"type":"ping"}`, chat.CodeInvalidJSON},
	} {
		cmd, err := accept(test.frame)
		shown, _ := errors.AsType[*chat.Error](err)
		switch {
		case test.code == "" && (err != nil || cmd != chat.Ping{}):
			t.Errorf("%s gives %v (%v)", name, cmd, err)
		case test.code != "" && (shown == nil || shown.Code != test.code):
			t.Errorf("%s gives %v (%v), want %s", name, cmd, err, test.code)
		}
	}
}

// What was sanitised once says the same when it is sent again.
func TestSanitizeIsIdempotent(t *testing.T) {
	text := rapid.StringOf(rapid.OneOf(rapid.Rune(), rapid.SampledFrom([]rune("a \n\t\r\x00\x85\u202e\u00a0\u2028\u3000\ufffd"))))
	id := rapid.StringMatching(`[A-Za-z0-9_-]{1,64}`)
	short := rapid.Map(text, func(s string) string { return string([]rune(s)[:min(20, len([]rune(s)))]) })
	frames := rapid.OneOf(
		rapid.Custom(func(r *rapid.T) map[string]any {
			return map[string]any{
				"type": "message.send", "message_id": id.Draw(r, "id"), "text": text.Draw(r, "text"),
				"interrupt": rapid.Bool().Draw(r, "interrupt"), "ref": short.Draw(r, "ref"),
			}
		}),
		rapid.Custom(func(r *rapid.T) map[string]any {
			return map[string]any{
				"type": "session.open", "after": rapid.IntRange(0, 1<<53).Draw(r, "after"), "epoch": short.Draw(r, "epoch"),
				"as":       rapid.SampledFrom([]string{"user", "agent", "observer"}).Draw(r, "as"),
				"metadata": rapid.MapOfN(short, short, 0, 5).Draw(r, "metadata"),
			}
		}),
		rapid.Custom(func(r *rapid.T) map[string]any {
			return map[string]any{"type": "session.update", "title": short.Draw(r, "title")}
		}),
		rapid.Custom(func(r *rapid.T) map[string]any {
			return map[string]any{"type": "help.request", "reason": short.Draw(r, "reason")}
		}),
	)
	rapid.Check(t, func(r *rapid.T) {
		data, err := json.Marshal(frames.Draw(r, "frame"))
		if err != nil {
			r.Fatal(err)
		}
		f, err := wire.Decode(data)
		if err == nil {
			err = f.Validate()
		}
		if err == nil {
			err = f.Sanitize()
		}
		if err != nil {
			r.Skip(err)
		}
		staysTheSame(r, f)
	})
}

// staysTheSame sends a frame that was accepted once more.
func staysTheSame(t rapid.TB, f *wire.Frame) {
	data, err := f.Again()
	if err != nil {
		t.Fatal(err)
	}
	cmd, err := accept(string(data))
	if want := f.Command(); err != nil || !reflect.DeepEqual(cmd, want) {
		t.Fatalf("%s, which was sanitised, gives %#v (%v), want %#v", data, cmd, err, want)
	}
}
