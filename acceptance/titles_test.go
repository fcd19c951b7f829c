//go:build unix

package acceptance_test

import (
	"strings"
	"syscall"
	"testing"

	"github.com/parley-chat/parley/internal/llm/llmtest"
)

// awaitTitle gives a session's title once there is one, and how many ends of responses came before it.
func (c *client) awaitTitle() (title string, completed int) {
	c.t.Helper()
	for {
		for _, f := range c.seen {
			switch {
			case f.str("type") == "message.completed":
				completed++
			case f.str("type") == "session.updated" && f.str("title") != "":
				return f.str("title"), completed
			}
		}
		completed = 0
		c.next()
	}
}

// A session is called what its first question begins with.
func TestTitleOfFirstWords(t *testing.T) {
	up := startUpstream(t)
	s := startServer(t, up.scripted("", "words-3", "status-400"))
	for question, want := range map[string]string{
		"  How do I\n\n get\tmy parcel? ": "How do I get my parcel?",
		"Warum heißt das Wörterbuch der Brüder Grimm eigentlich Deutsches Wörterbuch und nicht anders?": "Warum heißt das Wörterbuch der Brüder Grimm eigentlich…",
		strings.Repeat("漢", 100):   strings.Repeat("漢", 59) + "…",
		"<b>{{.Metadata}}</b> 👩‍💻": "<b>{{.Metadata}}</b> 👩‍💻",
	} {
		c := s.dial(token("alice"))
		c.open()
		c.send("message.send", "message_id", "q", "text", question)
		title, completed := c.awaitTitle()
		if title != want || completed != 0 {
			t.Errorf("after %d responses the title is %q, want %q", completed, title, want)
		}
		c.until("message.completed")
		c.ask("q2", "Another question")
		for _, f := range c.seen[len(c.seen)-3:] {
			if f.str("type") == "session.updated" {
				t.Errorf("after the second answer there is %v", f)
			}
		}
		d := s.dial(token("alice"))
		if opened := d.open("session_id", c.session); opened.str("session", "title") != want {
			t.Errorf("opened again the session is %v", opened)
		}
		d.conn.CloseNow()
	}
	if asked := up.requests(t); len(asked) != 8 {
		t.Errorf("there are %d requests", len(asked))
	}
}

// A title that its user gave stays.
func TestTitleOfTheUser(t *testing.T) {
	up := startUpstream(t)
	s := startServer(t, section("title_model: t\n", []string{up.provider("up")}, model("m", "up/gate-2"), model("t", "up/words-3")))
	c := s.dial(token("alice"))
	c.open()
	c.send("message.send", "message_id", "q", "text", "hi")
	up.await(t, "requests", 1)
	c.send("session.update", "title", "Mine")
	c.until("session.updated")
	up.release(t, 2)
	c.until("message.completed")
	c.quiet()
	if asked := up.requests(t); len(asked) != 1 {
		t.Errorf("there are %d requests", len(asked))
	}
}

// A model that is set for it makes titles, once the answer is there; where it does not, the first words do.
func TestTitleOfAModel(t *testing.T) {
	up := startUpstream(t)
	for _, c := range []struct{ script, want string }{
		{"words-4", llmtest.Text(4)},
		{"words-100", llmtest.Text(8) + "…"},
		{"status-400", "Where is it?"},
		{"words-0", "Where is it?"},
	} {
		before := len(up.requests(t))
		s := startServer(t, section("title_model: t\nretry: {max_attempts: 1}\nsystem_prompt: Be brief.\n", []string{up.provider("up")},
			model("m", "up/words-3"), model("t", "up/"+c.script)))
		reader := s.dial(token("alice"))
		reader.open()
		reader.send("message.send", "message_id", "q", "text", "Where is it?")
		title, completed := reader.awaitTitle()
		if !strings.HasPrefix(title, strings.TrimSuffix(c.want, "…")) || completed != 1 {
			t.Errorf("%s: after %d responses the title is %q, want %q", c.script, completed, title, c.want)
		}
		asked := up.requests(t)[before:]
		if len(asked) != 2 || asked[1].Model != c.script || asked[1].MaxTokens != 64 || len(asked[1].Messages) != 2 ||
			asked[1].Messages[1].Content != "User: Where is it?\n\nAssistant: "+llmtest.Text(3) {
			t.Errorf("%s: the upstream is asked %v", c.script, asked)
		}
		if code := s.stop(syscall.SIGTERM); code != 0 {
			t.Errorf("the server exits with %d", code)
		}
		session, err := s.openStore().Session(t.Context(), reader.session)
		if err != nil || session.Title != title {
			t.Errorf("%s: stored is the title %q: %v", c.script, session.Title, err)
		}
	}
}

// The server does not wait for a title when it ends.
func TestTitleIsNotWaitedFor(t *testing.T) {
	up := startUpstream(t)
	s := startServer(t, section("title_model: t\n", []string{up.provider("up")}, model("m", "up/words-3"), model("t", "up/hang")))
	c := s.dial(token("alice"))
	c.open()
	c.ask("q", "Where is it?")
	up.await(t, "requests", 2)
	if code := s.stop(syscall.SIGTERM); code != 0 {
		t.Errorf("the server exits with %d", code)
	}
	up.await(t, "cancelled", 1)
	session, err := s.openStore().Session(t.Context(), c.session)
	if err != nil || session.Title != "Where is it?" {
		t.Errorf("stored is the title %q: %v", session.Title, err)
	}
}
