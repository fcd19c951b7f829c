//go:build unix

package acceptance_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/parley-chat/parley/internal/llm/llmtest"
)

// tab is a client behind a proxy that does what the page of the protocol tells it to: it comes back when it is told to,
// goes on from its cursor, and sends again what has no receipt.
type tab struct {
	t        *testing.T
	proxy    *reverseProxy
	token    string
	client   *client // nil: none
	last     *client // what it held when it lost its connection
	drains   int     // how often it was sent away
	resets   int
	finished int // responses that it has read to their end
}

// wait lets some time pass, as a client does that was told when to come back.
func wait(milliseconds int64) { <-time.After(time.Duration(milliseconds) * time.Millisecond) }

// come connects, and opens its session, until that works.
func (b *tab) come(after int64) error {
	for deadline := time.Now().Add(2 * patience); time.Now().Before(deadline); {
		wait(after + rand.Int64N(50))
		c, err := b.proxy.dial(b.t, b.token)
		if err != nil {
			after = 100 // both servers drain, or start
			continue
		}
		open := []any{"ref", "open"}
		if b.last != nil {
			c.session, c.epoch, c.last, c.text, c.status, c.order = b.last.session, b.last.epoch, b.last.last, b.last.text, b.last.status, b.last.order
			open = append(open, "session_id", c.session, "after", c.last, "epoch", c.epoch)
		}
		if err := c.trySend("session.open", open...); err != nil {
			continue
		}
		f, err := c.read(patience)
		switch {
		case err != nil:
			after = 100
		case f.str("type") == "session.opened":
			if f["reset"] == true {
				b.resets++
			}
			b.client = c
			return nil
		default: // session_busy: the other server has it for a moment
			after = max(f.num("error", "retry_after_ms"), 50)
			c.conn.CloseNow()
		}
	}
	return errors.New("the client does not get in")
}

// leave forgets a connection that was lost, and keeps what it held.
func (b *tab) leave() {
	b.client.conn.CloseNow()
	b.last, b.client = b.client, nil
}

// ask sends a message until its response has ended, through whatever comes between.
func (b *tab) ask(id string) error {
	for deadline := time.Now().Add(2 * patience); time.Now().Before(deadline); {
		if b.client == nil {
			if err := b.come(0); err != nil {
				return err
			}
		}
		again, err := b.try(id)
		if err != nil || again < 0 {
			return err
		}
		b.leave()
		if err := b.come(again); err != nil {
			return err
		}
	}
	return fmt.Errorf("message %s is not answered", id)
}

// try sends a message, and reads until its response has ended: then again is below 0. Else it says after how many
// milliseconds to come back.
func (b *tab) try(id string) (again int64, err error) {
	c := b.client
	if err := c.trySend("message.send", "message_id", id, "text", "hi", "ref", id); err != nil {
		return 0, nil
	}
	for {
		if answer := c.answerTo(id); answer != "" && c.status[answer] != "streaming" {
			b.finished++
			return -1, nil
		}
		f, err := c.read(patience)
		if err != nil {
			return again, nil
		}
		switch f.str("type") {
		case "server.draining":
			b.drains++
			again = f.num("reconnect_after_ms")
		case "error":
			if f.at("error", "retryable") != true {
				return 0, fmt.Errorf("message %s is refused: %v", id, f)
			}
			// Until the connection is closed.
		}
	}
}

// answerTo gives the ID of the response to a message, if the client holds one.
func (c *client) answerTo(id string) string {
	for _, f := range c.seen {
		if f.str("type") == "message.created" && f.str("message", "reply_to") == id {
			return f.str("message", "id")
		}
	}
	for i, held := range c.order { // from before the connection
		if held == id && i+1 < len(c.order) {
			return c.order[i+1]
		}
	}
	return ""
}

// Two servers on one database stand behind nginx. Each is restarted while clients talk: none of them loses a word.
func TestRollingRestartBehindNginx(t *testing.T) {
	clients, questions := 20, 6
	if raceEnabled {
		clients, questions = 8, 4
	}
	db, up := startMongo(t), startUpstream(t)
	var servers []*server
	var addrs []string
	for range 2 {
		addr := freeAddr(t)
		addrs = append(addrs, addr)
		servers = append(servers, startServer(t, up.models("paced-20-10ms"), db.storage(t),
			strings.Replace(behindProxy, "addr: 127.0.0.1:0", "addr: "+addr, 1)))
	}
	proxy := startNginx(t, addrs...)
	tabs := make([]*tab, clients)
	var talking sync.WaitGroup
	var failed atomic.Bool
	for i := range tabs {
		tabs[i] = &tab{t: t, proxy: proxy, token: token(fmt.Sprint("user", i))}
		talking.Go(func() {
			for q := range questions {
				if err := tabs[i].ask(fmt.Sprint("q", q)); err != nil {
					t.Errorf("user %d: %v", i, err)
					failed.Store(true)
					return
				}
			}
		})
	}
	for i, s := range servers {
		up.await(t, "requests", clients*(2*i+1))
		if code := s.stop(syscall.SIGTERM); code != 0 {
			t.Errorf("a server exits with %d", code)
		}
		s.start()
	}
	talking.Wait()
	if failed.Load() {
		t.FailNow()
	}
	store := db.open(t)
	drains := 0
	for i, b := range tabs {
		drains += b.drains
		c := b.client
		if c == nil {
			c = b.last
		}
		stored, err := store.Messages(t.Context(), c.session, 0, 100)
		if err != nil || len(stored) != 2*questions || len(c.order) != len(stored) {
			t.Errorf("user %d: stored are %d messages, the client holds %d, error %v", i, len(stored), len(c.order), err)
		}
		for _, m := range stored {
			if m.Text != c.text[m.ID] || string(m.Status) != c.status[m.ID] || m.Role == "assistant" && (m.Status != "complete" || m.Text != llmtest.Text(20)) {
				t.Errorf("user %d, message %s: stored %s %q, held %s %q", i, m.ID, m.Status, m.Text, c.status[m.ID], c.text[m.ID])
			}
		}
		if b.resets > 0 {
			t.Errorf("user %d was told to reset %d times", i, b.resets)
		}
	}
	t.Logf("%d clients were sent away %d times, and lost nothing of %d responses", clients, drains, clients*questions)
	if drains == 0 {
		t.Error("nobody was sent away: the servers were restarted too late")
	}
}
