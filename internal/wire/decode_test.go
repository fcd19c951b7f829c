package wire_test

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/wire"
)

// accept takes a frame through all steps to its command.
func accept(data string) (chat.Command, error) {
	f, err := wire.Decode([]byte(data))
	if err == nil {
		err = f.Validate()
	}
	if err == nil {
		err = f.Sanitize()
	}
	if err != nil {
		return nil, err
	}
	return f.Command(), nil
}

func TestFramesBecomeCommands(t *testing.T) {
	title := "Trip to Rome"
	tests := []struct {
		frame string
		want  chat.Command
	}{
		{`{"type":"ping"}`, chat.Ping{}},
		{`{"type":"ping","ref":null,"nonsense":[1,{}]}`, chat.Ping{}},
		{`{"type":"session.open"}`, chat.OpenSession{As: chat.AsUser, History: 50}},
		{
			`{"type":"session.open","session_id":"S","after":0,"epoch":"E","model":"m","as":"observer","history":0,"metadata":{"k":"v"}}`,
			chat.OpenSession{
				SessionID: "S", After: new(int64(0)), Epoch: "E", Model: "m", As: chat.AsObserver,
				Metadata: map[string]string{"k": "v"},
			},
		},
		{`{"type":"session.leave"}`, chat.LeaveSession{}},
		{
			`{"type":"message.send","message_id":"a_B-9","text":" hi ","session_id":"S","interrupt":true,"replaces":"x"}`,
			chat.SendMessage{Bound: chat.Bound{SessionID: "S"}, MessageID: "a_B-9", Text: " hi ", Interrupt: true, Replaces: "x"},
		},
		{`{"type":"response.cancel","message_id":"m"}`, chat.CancelResponse{MessageID: "m"}},
		{`{"type":"response.retry","interrupt":false}`, chat.RetryResponse{}},
		{`{"type":"session.update","title":" Trip to\nRome\u202e"}`, chat.UpdateSession{Title: &title}},
		{`{"type":"session.end"}`, chat.EndSession{}},
		{`{"type":"help.request","reason":"a\u0000b"}`, chat.RequestHelp{Reason: "ab"}},
		{`{"type":"typing","active":true}`, chat.SetTyping{Active: true}},
		{`{"type":"auth.refresh","token":"t"}`, chat.RefreshAuth{Token: "t"}},
	}
	for _, test := range tests {
		got, err := accept(test.frame)
		if err != nil || !reflect.DeepEqual(got, test.want) {
			t.Errorf("%s\n gives %#v (%v)\n  want %#v", test.frame, got, err, test.want)
		}
	}
}

func TestR07_2_BadFramesAreRefusedWithCodeAndField(t *testing.T) {
	long := strings.Repeat("x", 300)
	tests := []struct {
		frame string
		code  chat.Code
		field string
	}{
		{`{"type":"ping"`, chat.CodeInvalidJSON, ""},
		{``, chat.CodeInvalidJSON, ""},
		{`[]`, chat.CodeInvalidJSON, ""},
		{`null`, chat.CodeInvalidJSON, ""},
		{`{"type":"ping"} {}`, chat.CodeInvalidJSON, ""},
		{`{}`, chat.CodeInvalidMessage, "type"},
		{`{"type":7}`, chat.CodeInvalidMessage, "type"},
		{`{"Type":"ping"}`, chat.CodeInvalidMessage, "type"},
		{`{"type":"nope"}`, chat.CodeUnknownType, ""},
		{`{"type":"message.created"}`, chat.CodeUnknownType, ""},
		{`{"type":"` + long + `"}`, chat.CodeUnknownType, ""},
		{`{"type":"ping","ref":1}`, chat.CodeInvalidMessage, "ref"},
		{`{"type":"ping","ref":"` + long[:65] + `"}`, chat.CodeInvalidMessage, "ref"},
		{`{"type":"session.open","session_id":7}`, chat.CodeInvalidMessage, "session_id"},
		{`{"type":"session.open","session_id":""}`, chat.CodeSessionNotFound, ""},
		{`{"type":"session.open","session_id":"` + long + `"}`, chat.CodeSessionNotFound, ""},
		{`{"type":"session.open","after":-1}`, chat.CodeInvalidMessage, "after"},
		{`{"type":"session.open","after":1.5}`, chat.CodeInvalidMessage, "after"},
		{`{"type":"session.open","after":1e300}`, chat.CodeInvalidMessage, "after"},
		{`{"type":"session.open","history":201}`, chat.CodeInvalidMessage, "history"},
		{`{"type":"session.open","as":"root"}`, chat.CodeInvalidMessage, "as"},
		{`{"type":"session.open","metadata":{"a":1}}`, chat.CodeInvalidMessage, "metadata"},
		{`{"type":"session.open","metadata":{"a":null}}`, chat.CodeInvalidMessage, "metadata"},
		{`{"type":"session.open","metadata":{"a":"` + strings.Repeat("x", 4096) + `"}}`, chat.CodeInvalidMessage, "metadata"},
		{`{"type":"message.send","text":"hi"}`, chat.CodeInvalidMessage, "message_id"},
		{`{"type":"message.send","message_id":"","text":"hi"}`, chat.CodeInvalidMessage, "message_id"},
		{`{"type":"message.send","message_id":"a b","text":"hi"}`, chat.CodeInvalidMessage, "message_id"},
		{`{"type":"message.send","message_id":"` + long[:65] + `","text":"hi"}`, chat.CodeInvalidMessage, "message_id"},
		{`{"type":"message.send","message_id":"a"}`, chat.CodeInvalidMessage, "text"},
		{`{"type":"message.send","message_id":"a","text":null}`, chat.CodeInvalidMessage, "text"},
		{`{"type":"message.send","message_id":"a","text":["hi"]}`, chat.CodeInvalidMessage, "text"},
		{`{"type":"message.send","message_id":"a","text":""}`, chat.CodeInvalidMessage, "text"},
		{`{"type":"message.send","message_id":"a","text":" \n\t"}`, chat.CodeInvalidMessage, "text"},
		{`{"type":"message.send","message_id":"a","text":"\u0000\u202e"}`, chat.CodeInvalidMessage, "text"},
		{`{"type":"message.send","message_id":"a","text":"hi","interrupt":"yes"}`, chat.CodeInvalidMessage, "interrupt"},
		{`{"type":"message.send","message_id":"a","text":"hi","session_id":""}`, chat.CodeSessionMismatch, ""},
		{`{"type":"session.update","title":"` + long + `"}`, chat.CodeInvalidMessage, "title"},
		{`{"type":"session.update","model":""}`, chat.CodeInvalidMessage, "model"},
		{`{"type":"help.request","reason":"` + strings.Repeat("x", 1001) + `"}`, chat.CodeInvalidMessage, "reason"},
		{`{"type":"typing"}`, chat.CodeInvalidMessage, "active"},
		{`{"type":"auth.refresh","token":""}`, chat.CodeInvalidMessage, "token"},
	}
	for _, test := range tests {
		_, err := accept(test.frame)
		shown, ok := errors.AsType[*chat.Error](err)
		if !ok || shown.Code != test.code || shown.Field != test.field {
			t.Errorf("%.90s\n gives %v, want %s for field %q", test.frame, err, test.code, test.field)
		}
	}
}

func TestRefIsKeptForTheAnswerToABadFrame(t *testing.T) {
	f, err := wire.Decode([]byte(`{"type":"nope","ref":"r1"}`))
	if err == nil || f.Ref != "r1" {
		t.Errorf("the frame has ref %q and error %v", f.Ref, err)
	}
}

func TestTypeThatIsNoneIsNotKept(t *testing.T) {
	for _, data := range []string{`{"type":"my secret"}`, `{"type":"my secret","ref":1}`} {
		if f, err := wire.Decode([]byte(data)); err == nil || f.Type != "" {
			t.Errorf("%s has the type %q (%v), which a log would tell", data, f.Type, err)
		}
	}
}

func TestLoneSurrogateBecomesReplacementCharacter(t *testing.T) {
	cmd, err := accept(`{"type":"message.send","message_id":"a","text":"x\ud800y"}`)
	if err != nil || cmd.(chat.SendMessage).Text != "x\uFFFDy" {
		t.Errorf("the command is %#v (%v)", cmd, err)
	}
}

func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		`{"type":"ping","ref":"a"}`, `{"type":"session.open","after":3,"epoch":"E","metadata":{"a":"b"}}`,
		`{"type":"message.send","message_id":"a","text":"\ud800\u202e"}`, `{"type":"session.update","title":"\r\n"}`,
		`{"type":"typing","active":1}`, `{"type":null}`, `[[[[`,
		nested(wire.MaxDepth-1, `[`, `]`), nested(wire.MaxDepth, `{"a":`, `}`), crowded(wire.MaxFields), crowded(wire.MaxFields + 1),
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		frame, err := wire.Decode(data)
		if err == nil {
			err = frame.Validate()
		}
		if err == nil {
			err = frame.Sanitize()
		}
		if err != nil {
			if _, ok := errors.AsType[*chat.Error](err); !ok {
				t.Fatalf("%q gives an error that cannot be shown: %v", data, err)
			}
			return
		}
		cmd := frame.Command()
		if send, ok := cmd.(chat.SendMessage); ok {
			if send.Text != chat.CleanText(send.Text) || strings.TrimSpace(send.Text) == "" {
				t.Fatalf("%q lets the text %q through", data, send.Text)
			}
			if !wire.ValidMessageID(send.MessageID) {
				t.Fatalf("%q lets the message_id %q through", data, send.MessageID)
			}
		}
		if !json.Valid(data) {
			t.Fatalf("%q is no JSON and is let through as %#v", data, cmd)
		}
		staysTheSame(t, frame)
	})
}
