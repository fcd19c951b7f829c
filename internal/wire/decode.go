// Package wire translates between the frames of the protocol and the commands, events and notices of Parley: a
// client's frame is decoded, validated and sanitised here, in this order, before anything else sees it.
package wire

import (
	"bytes"
	"encoding/json"
	"unicode/utf8"

	"github.com/parley-chat/parley/chat"
)

// MaxRefLength is the longest ref a client's frame may carry, in characters.
const MaxRefLength = 64

// Frame is a client's frame on its way to a [chat.Command]: [Decode], then [Frame.Validate], then [Frame.Sanitize],
// then [Frame.Command].
type Frame struct {
	Type string // empty where it is none of the protocol's
	Ref  string
	Size int // of the frame's text, in bytes

	rules  frameRules
	fields map[string]json.RawMessage
	values values
}

// Decode reads the shape of a frame: a JSON object with a known type. Names are matched exactly. On error the frame
// still has its Type and Ref, as far as they could be read.
//
// The errors are of the codes invalid_json, invalid_message (for ref, type and too many fields) and unknown_type.
func Decode(data []byte) (*Frame, error) {
	f := &Frame{Size: len(data)}
	if err := checkShape(data); err != nil {
		return f, err
	}
	// The decoder's own error is dropped: it may quote what a client sent, and that must not reach a log.
	if json.Unmarshal(data, &f.fields) != nil || f.fields == nil {
		return f, chat.NewError(chat.CodeInvalidJSON, "the frame is not a JSON object")
	}
	ref, refErr := f.optionalString("ref", MaxRefLength)
	f.Ref = ref
	kind, typeErr := f.optionalString("type", f.Size)
	rules, known := frameTypes[kind]
	if known {
		f.Type, f.rules = kind, rules
	}
	switch {
	case refErr != nil:
		return f, refErr
	case typeErr != nil:
		return f, typeErr
	case kind == "":
		return f, chat.InvalidField("type", "a frame needs a type")
	}
	if !known {
		return f, chat.NewError(chat.CodeUnknownType, "there is no frame of this type")
	}
	return f, nil
}

func (f *Frame) optionalString(name string, most int) (string, error) {
	raw, ok := f.fields[name]
	if !ok || isNull(raw) {
		return "", nil
	}
	var s string
	if json.Unmarshal(raw, &s) != nil {
		return "", chat.InvalidField(name, "it has to be a string")
	}
	if utf8.RuneCountInString(s) > most {
		return "", chat.InvalidField(name, "it is too long")
	}
	return s, nil
}

func isNull(raw json.RawMessage) bool { return bytes.Equal(raw, []byte("null")) }

// Validate checks every field that the frame's type knows; others are ignored, and null stands for absent. The error
// names the first field that is wrong.
func (f *Frame) Validate() error {
	f.values = values{}
	for _, rule := range f.rules.fields {
		raw, ok := f.fields[rule.name]
		if !ok || isNull(raw) {
			if rule.required {
				return chat.InvalidField(rule.name, "it is required")
			}
			continue
		}
		value, err := rule.parse(rule.name, raw)
		if err != nil {
			return err
		}
		f.values[rule.name] = value
	}
	return nil
}

// Sanitize replaces the frame's texts by what [chat.CleanText] leaves of them, and checks again that what must not be
// empty is not.
func (f *Frame) Sanitize() error {
	for _, rule := range f.rules.fields {
		value, ok := f.values[rule.name]
		if !ok || rule.clean == nil {
			continue
		}
		cleaned, err := rule.clean(rule.name, value)
		if err != nil {
			return err
		}
		f.values[rule.name] = cleaned
	}
	return nil
}

// Command makes the command of a frame that was validated and sanitised.
func (f *Frame) Command() chat.Command { return f.rules.command(f.values) }
