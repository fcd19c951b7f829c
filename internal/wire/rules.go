package wire

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/parley-chat/parley/chat"
)

// The limits of what a client may send, beside the size of the whole frame.
const (
	MaxMessageIDLength = 64   // characters of [A-Za-z0-9_-]
	MaxTitleLength     = 200  // characters
	MaxReasonLength    = 1000 // characters
	MaxMetadataBytes   = 4096 // of all names and values
	MaxHistory         = 200  // messages
	DefaultHistory     = 50

	maxIDLength    = 128  // characters of an identifier that the server or the operator made
	maxTokenLength = 8192 // bytes
)

// frameRules are the fields that a type of frame knows, and what it becomes.
type frameRules struct {
	fields  []fieldRule
	command func(values) chat.Command
}

// fieldRule checks one field. parse gives its value; clean, where there is one, makes the value safe.
type fieldRule struct {
	name     string
	required bool
	parse    func(name string, raw json.RawMessage) (any, error)
	clean    func(name string, value any) (any, error)
}

// frameTypes is the whole of what a client may send.
var frameTypes = map[string]frameRules{
	"session.open": {
		fields: []fieldRule{
			{name: "session_id", parse: openedSessionID},
			{name: "after", parse: integer(0, 1<<53)},
			{name: "epoch", parse: text(0, maxIDLength)},
			{name: "model", parse: text(1, maxIDLength)},
			{name: "as", parse: oneOf(chat.AsUser, chat.AsAgent, chat.AsObserver)},
			{name: "history", parse: integer(0, MaxHistory)},
			{name: "metadata", parse: metadata, clean: cleanMetadata},
		},
		command: func(v values) chat.Command {
			history := int64(DefaultHistory)
			if h := get[*int64](v, "history"); h != nil {
				history = *h
			}
			as := get[chat.AttachAs](v, "as")
			if as == "" {
				as = chat.AsUser
			}
			return chat.OpenSession{
				SessionID: get[string](v, "session_id"),
				After:     get[*int64](v, "after"),
				Epoch:     get[string](v, "epoch"),
				Model:     get[string](v, "model"),
				As:        as,
				History:   int(history),
				Metadata:  get[map[string]string](v, "metadata"),
			}
		},
	},
	"session.leave": {
		fields:  []fieldRule{boundSession},
		command: func(v values) chat.Command { return chat.LeaveSession{Bound: bound(v)} },
	},
	"message.send": {
		fields: []fieldRule{
			boundSession,
			{name: "message_id", required: true, parse: messageID},
			{name: "text", required: true, parse: anyText, clean: cleanText},
			{name: "interrupt", parse: boolean},
			{name: "replaces", parse: messageID},
		},
		command: func(v values) chat.Command {
			return chat.SendMessage{
				Bound:     bound(v),
				MessageID: get[string](v, "message_id"),
				Text:      get[string](v, "text"),
				Interrupt: get[bool](v, "interrupt"),
				Replaces:  get[string](v, "replaces"),
			}
		},
	},
	"response.cancel": {
		fields: []fieldRule{boundSession, {name: "message_id", parse: messageID}},
		command: func(v values) chat.Command {
			return chat.CancelResponse{Bound: bound(v), MessageID: get[string](v, "message_id")}
		},
	},
	"response.retry": {
		fields: []fieldRule{boundSession, {name: "interrupt", parse: boolean}},
		command: func(v values) chat.Command {
			return chat.RetryResponse{Bound: bound(v), Interrupt: get[bool](v, "interrupt")}
		},
	},
	"session.update": {
		fields: []fieldRule{
			boundSession,
			{name: "title", parse: textPointer(0, MaxTitleLength), clean: cleanTitle},
			{name: "model", parse: textPointer(1, maxIDLength)},
		},
		command: func(v values) chat.Command {
			return chat.UpdateSession{
				Bound: bound(v),
				Title: get[*string](v, "title"),
				Model: get[*string](v, "model"),
			}
		},
	},
	"session.end": {
		fields:  []fieldRule{boundSession},
		command: func(v values) chat.Command { return chat.EndSession{Bound: bound(v)} },
	},
	"help.request": {
		fields: []fieldRule{boundSession, {name: "reason", parse: text(0, MaxReasonLength), clean: cleanOptionalText}},
		command: func(v values) chat.Command {
			return chat.RequestHelp{Bound: bound(v), Reason: get[string](v, "reason")}
		},
	},
	"typing": {
		fields: []fieldRule{boundSession, {name: "active", required: true, parse: boolean}},
		command: func(v values) chat.Command {
			return chat.SetTyping{Bound: bound(v), Active: get[bool](v, "active")}
		},
	},
	"auth.refresh": {
		fields: []fieldRule{boundSession, {name: "token", required: true, parse: token}},
		command: func(v values) chat.Command {
			return chat.RefreshAuth{Bound: bound(v), Token: get[string](v, "token")}
		},
	},
	"ping": {
		fields:  []fieldRule{boundSession},
		command: func(v values) chat.Command { return chat.Ping{Bound: bound(v)} },
	},
}

// boundSession is the session_id that any frame but session.open may carry: it has to be the bound session's.
var boundSession = fieldRule{name: "session_id", parse: func(name string, raw json.RawMessage) (any, error) {
	id, err := parseString(name, raw)
	if err == nil && id == "" {
		err = chat.NewError(chat.CodeSessionMismatch, "the frame is for another session than the bound one")
	}
	return id, err
}}

func bound(v values) chat.Bound { return chat.Bound{SessionID: get[string](v, "session_id")} }

// openedSessionID takes any string for an ID: one that the server did not make is simply not found.
func openedSessionID(name string, raw json.RawMessage) (any, error) {
	id, err := parseString(name, raw)
	if err != nil {
		return nil, err
	}
	if id == "" || len(id) > maxIDLength {
		return nil, chat.NewError(chat.CodeSessionNotFound, "there is no such session")
	}
	return id, nil
}

// values are the fields of a validated frame by name.
type values map[string]any

func get[T any](v values, name string) T {
	value, _ := v[name].(T)
	return value
}

func parseString(name string, raw json.RawMessage) (string, error) {
	var s string
	if json.Unmarshal(raw, &s) != nil {
		return "", chat.InvalidField(name, "it has to be a string")
	}
	return s, nil
}

func anyText(name string, raw json.RawMessage) (any, error) { return parseString(name, raw) }

// text takes a string of least to most characters.
func text(least, most int) func(string, json.RawMessage) (any, error) {
	return func(name string, raw json.RawMessage) (any, error) {
		s, err := parseString(name, raw)
		if err != nil {
			return nil, err
		}
		return s, checkLength(name, s, least, most)
	}
}

func textPointer(least, most int) func(string, json.RawMessage) (any, error) {
	return func(name string, raw json.RawMessage) (any, error) {
		s, err := parseString(name, raw)
		if err != nil {
			return nil, err
		}
		return &s, checkLength(name, s, least, most)
	}
}

func checkLength(name, s string, least, most int) error {
	if n := utf8.RuneCountInString(s); n < least || n > most {
		return chat.InvalidField(name, fmt.Sprintf("it has to have %d to %d characters", least, most))
	}
	return nil
}

func messageID(name string, raw json.RawMessage) (any, error) {
	id, err := parseString(name, raw)
	if err != nil {
		return nil, err
	}
	if !ValidMessageID(id) {
		return nil, chat.InvalidField(name, "it has to be 1 to 64 of A-Z, a-z, 0-9, _ and -")
	}
	return id, nil
}

// ValidMessageID reports whether a client may give a message this ID: 1 to 64 of [A-Za-z0-9_-].
func ValidMessageID(id string) bool {
	return id != "" && len(id) <= MaxMessageIDLength && strings.IndexFunc(id, func(r rune) bool {
		return (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '_' && r != '-'
	}) < 0
}

func token(name string, raw json.RawMessage) (any, error) {
	s, err := parseString(name, raw)
	if err != nil {
		return nil, err
	}
	if s == "" || len(s) > maxTokenLength {
		return nil, chat.InvalidField(name, "it is empty or too long")
	}
	return s, nil
}

func boolean(name string, raw json.RawMessage) (any, error) {
	var b bool
	if json.Unmarshal(raw, &b) != nil {
		return nil, chat.InvalidField(name, "it has to be true or false")
	}
	return b, nil
}

func integer(least, most int64) func(string, json.RawMessage) (any, error) {
	return func(name string, raw json.RawMessage) (any, error) {
		var n int64
		if json.Unmarshal(raw, &n) != nil || n < least || n > most {
			return nil, chat.InvalidField(name, fmt.Sprintf("it has to be a whole number from %d to %d", least, most))
		}
		return &n, nil
	}
}

func oneOf[T ~string](allowed ...T) func(string, json.RawMessage) (any, error) {
	return func(name string, raw json.RawMessage) (any, error) {
		s, err := parseString(name, raw)
		if err != nil {
			return nil, err
		}
		for _, a := range allowed {
			if string(a) == s {
				return a, nil
			}
		}
		return nil, chat.InvalidField(name, fmt.Sprintf("it has to be one of %v", allowed))
	}
}

func metadata(name string, raw json.RawMessage) (any, error) {
	var given map[string]*string
	if json.Unmarshal(raw, &given) != nil {
		return nil, chat.InvalidField(name, "it has to be an object of strings")
	}
	m, size := make(map[string]string, len(given)), 0
	for k, v := range given {
		if v == nil {
			return nil, chat.InvalidField(name, "it has to be an object of strings")
		}
		m[k] = *v
		size += len(k) + len(*v)
	}
	if size > MaxMetadataBytes {
		return nil, chat.InvalidField(name, fmt.Sprintf("its names and values have more than %d bytes", MaxMetadataBytes))
	}
	return m, nil
}

func cleanText(name string, value any) (any, error) {
	s := chat.CleanText(value.(string))
	if strings.TrimSpace(s) == "" {
		return nil, chat.InvalidField(name, "it is empty")
	}
	return s, nil
}

func cleanOptionalText(_ string, value any) (any, error) { return chat.CleanText(value.(string)), nil }

func cleanTitle(_ string, value any) (any, error) {
	title := chat.CleanLine(*value.(*string))
	return &title, nil
}

func cleanMetadata(_ string, value any) (any, error) {
	given := value.(map[string]string)
	cleaned := make(map[string]string, len(given))
	for _, k := range slices.Sorted(maps.Keys(given)) { // so that of names that become the same the last one wins
		cleaned[chat.CleanLine(k)] = chat.CleanText(given[k])
	}
	return cleaned, nil
}
