//go:build unix

package acceptance_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// Whatever a session.open asks for, it is answered, at once, and with nothing of anybody else's.
func TestBadOpens(t *testing.T) {
	s := startServer(t, eliza)
	alice, bob := s.dial(token("alice")), s.dial(token("bob"))
	alice.open("metadata", map[string]string{"page": "alices-page"})
	alice.ask("alices-key", "alices-words")
	bob.open()
	bob.ask("bobs-key", "bobs-words")
	ended := s.dial(token("bob"))
	ended.open()
	ended.ask("q", "gone")
	ended.send("session.end")
	ended.until("session.ended")

	bobs := func(rest string) string {
		return fmt.Sprintf(`{"type":"session.open","ref":"r","session_id":%q%s}`, bob.session, rest)
	}
	own, foreign := fmt.Sprintf(`,"epoch":%q`, bob.epoch), fmt.Sprintf(`,"epoch":%q`, alice.epoch)
	other := func(id, rest string) string {
		return fmt.Sprintf(`{"type":"session.open","ref":"r","session_id":%q%s}`, id, rest)
	}
	tests := []struct{ frame, code, field string }{
		{bobs(own + fmt.Sprintf(`,"after":%d`, bob.last+1)), "invalid_message", "after"},
		{bobs(own + `,"after":9007199254740992`), "invalid_message", "after"},
		{bobs(own + `,"after":9007199254740993`), "invalid_message", "after"},
		{bobs(own + `,"after":99999999999999999999`), "invalid_message", "after"},
		{bobs(own + `,"after":-1`), "invalid_message", "after"},
		{bobs(own + `,"after":1.5`), "invalid_message", "after"},
		{bobs(own + `,"after":"1"`), "invalid_message", "after"},
		{bobs(`,"after":1,"epoch":7`), "invalid_message", "epoch"},
		{bobs(`,"after":1,"epoch":"` + strings.Repeat("e", 129) + `"`), "invalid_message", "epoch"},
		{other(alice.session, ""), "session_not_found", ""},
		{other(alice.session, foreign+`,"after":1`), "session_not_found", ""},
		{other(alice.session, foreign+`,"after":1000`), "session_not_found", ""},
		{other(alice.session, own+`,"after":1`), "session_not_found", ""},
		{other(alice.session, `,"model":"eliza"`), "session_not_found", ""},
		{other(alice.session, `,"as":"observer"`), "forbidden", ""},
		{other(alice.session, `,"as":"agent"`), "forbidden", ""},
		{other(strings.ToLower(bob.session), ""), "session_not_found", ""},
		{other(bob.session+" ", ""), "session_not_found", ""},
		{other(bob.session[1:], own+`,"after":1`), "session_not_found", ""},
		{other(strings.Repeat("A", 26), ""), "session_not_found", ""},
		{other("", ""), "session_not_found", ""},
		{other("../"+alice.session, ""), "session_not_found", ""},
		{other("' OR 1=1 --", ""), "session_not_found", ""},
		{other(strings.Repeat("A", 10_000), ""), "session_not_found", ""},
		{other(ended.session, ""), "session_ended", ""},
		{other(ended.session, fmt.Sprintf(`,"epoch":%q,"after":%d`, ended.epoch, ended.last)), "session_ended", ""},
		{other(ended.session, foreign+`,"after":1`), "session_ended", ""},
	}
	for _, test := range tests {
		f := bob.refused(test.frame)
		if f.str("error", "code") != test.code || f.str("error", "field") != test.field || f.str("ref") != "r" || f.str("error", "message") == "" {
			t.Errorf("%.200s is answered with %v", test.frame, f)
		}
	}
	bob.quiet()
	bob.ask("after-all", "still here") // the connection is bound as it was
	for _, c := range []*client{bob, ended} {
		c.sawNothingOf(alice)
	}
	alice.quiet()
}

// sawNothingOf makes sure that a client was sent nothing of another one's session.
func (c *client) sawNothingOf(other *client) {
	c.t.Helper()
	data, err := json.Marshal(c.seen)
	if err != nil {
		c.t.Fatal(err)
	}
	secrets := append([]string{other.session, other.epoch, "alices-"}, other.order...)
	for _, secret := range secrets {
		if strings.Contains(string(data), secret) {
			c.t.Errorf("somebody else was sent %q", secret)
		}
	}
}

func TestForeignEpochIsAReset(t *testing.T) {
	s := startServer(t, eliza)
	alice, bob := s.dial(token("alice")), s.dial(token("bob"))
	alice.open()
	alice.ask("alices-key", "alices-words")
	bob.open()
	bob.ask("q", "bobs-words")
	last, answer := bob.last, bob.text[bob.order[1]]
	for _, x := range []struct {
		name string
		kv   []any
	}{
		{"another session's epoch", []any{"after", 1, "epoch", alice.epoch}},
		{"a made-up epoch", []any{"after", last, "epoch", "made-up"}},
		{"a made-up epoch, far beyond the end", []any{"after", 1 << 40, "epoch", "made-up"}},
		{"an empty epoch", []any{"after", last, "epoch", ""}},
		{"no epoch", []any{"after", last}},
		{"the beginning, without an epoch", []any{"after", 0}},
	} {
		opened := bob.open(append(x.kv, "session_id", bob.session)...)
		if opened["reset"] != true || opened["resumed"] != false || opened.num("seq") != last || opened.str("epoch") == alice.epoch {
			t.Errorf("%s: the session is opened as %v", x.name, opened)
		}
		for bob.last < last {
			bob.next()
		}
		if len(bob.order) != 2 || bob.text["q"] != "bobs-words" || bob.text[bob.order[1]] != answer {
			t.Errorf("%s: the messages are %v", x.name, bob.text)
		}
		bob.quiet()
	}
	bob.sawNothingOf(alice)
}
