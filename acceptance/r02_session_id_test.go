//go:build unix

package acceptance_test

import (
	"fmt"
	"testing"
)

func TestR02_2_OpenedAgainTheSessionIsTheSame(t *testing.T) {
	s := startServer(t, eliza)
	c := s.dial(token("alice"))
	id := c.open().str("session", "id")
	c.ask("q", "hello")
	d := s.dial(token("alice"))
	if got := d.open("session_id", id).str("session", "id"); got != id {
		t.Errorf("session %q is opened as %q", id, got)
	}
	if f := d.next(); f.str("session_id") != id || f.str("message", "id") != "q" {
		t.Errorf("its first message is %v", f)
	}
}

func TestR02_3_OnlyIDsOfTheServerAreTaken(t *testing.T) {
	s := startServer(t, eliza)
	alice, bob := s.dial(token("alice")), s.dial(token("bob"))
	alices := alice.open().str("session", "id")
	for _, id := range []string{"made-up", "", "../etc", alices} {
		f := bob.refused(fmt.Sprintf(`{"type":"session.open","session_id":%q,"ref":"r"}`, id))
		if f.str("error", "code") != "session_not_found" || f.str("ref") != "r" {
			t.Errorf("session %q of nobody's or somebody else's is answered with %v", id, f)
		}
	}
	if f := bob.refused(`{"type":"message.send","message_id":"q","text":"hi"}`); f.str("error", "code") != "session_not_open" {
		t.Errorf("an unbound connection is told %v", f)
	}
	alice.quiet()
}

func TestR02_4_MismatchedSessionIDChangesNothing(t *testing.T) {
	s := startServer(t, eliza)
	c := s.dial(token("alice"))
	c.open()
	for _, frame := range []string{
		`{"type":"message.send","session_id":"x","message_id":"q","text":"hi"}`, `{"type":"session.end","session_id":"x"}`,
		`{"type":"session.update","session_id":"x","title":"t"}`, `{"type":"session.leave","session_id":"x"}`,
	} {
		if f := c.refused(frame); f.str("error", "code") != "session_mismatch" {
			t.Errorf("%s is answered with %v", frame, f)
		}
	}
	c.quiet()
	c.ask("q", "hello") // and the session is as it was
}

func TestR02_5_TheClientIsToldTheID(t *testing.T) {
	s := startServer(t, eliza)
	a, b := s.dial(token("alice")), s.dial(token("alice"))
	if x, y := a.open().str("session", "id"), b.open().str("session", "id"); x == "" || x == y {
		t.Errorf("two new sessions have the IDs %q and %q", x, y)
	}
}
