//go:build unix

package acceptance_test

import (
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
)

// key is the API key of the providers in these tests. Nobody but the upstream may ever see it.
const key = "sk-9f2c-Zq81LmTw04"

// section gives the llm section of a configuration: settings of its own, providers and models, one a line each.
func section(settings string, providers []string, models ...string) string {
	var b strings.Builder
	b.WriteString("llm:\n")
	for line := range strings.Lines(settings) {
		b.WriteString("  " + line)
	}
	b.WriteString("\n  providers:\n")
	for _, p := range providers {
		b.WriteString("    - {" + p + "}\n")
	}
	b.WriteString("  models:\n")
	for _, m := range models {
		b.WriteString("    - {" + m + "}\n")
	}
	return b.String()
}

// provider gives the line of a provider at the upstream, with settings of its own.
func (u *upstream) provider(id string, settings ...string) string {
	return strings.Join(append([]string{
		"id: " + id, "type: openai", fmt.Sprintf("base_url: %q", u.url+"/v1"), "api_key: " + key,
	}, settings...), ", ")
}

// model gives the line of a model with its targets and, behind them, settings of its own.
func model(id, targets string, settings ...string) string {
	return strings.Join(append([]string{"id: " + id, "targets: [" + targets + "]"}, settings...), ", ")
}

// scripted gives the section with one provider, up, of OpenAI's type, and models by the names of the upstream's scripts.
func (u *upstream) scripted(settings string, scripts ...string) string {
	var models []string
	for _, script := range scripts {
		models = append(models, model(script, "up/"+script))
	}
	return section(settings, []string{u.provider("up")}, models...)
}

// awaitEntry waits for a log entry with a message that has a value.
func (s *server) awaitEntry(msg, name, value string) map[string]any {
	s.t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		s.mu.Lock()
		more := s.more
		s.mu.Unlock()
		for _, line := range s.log() {
			var entry map[string]any
			if json.Unmarshal([]byte(line), &entry) == nil && entry["msg"] == msg && entry[name] == value {
				return entry
			}
		}
		select {
		case <-more:
		case <-time.After(time.Until(deadline)):
		}
	}
	s.t.Fatalf("the server never said %q with %s %s:\n%s", msg, name, value, strings.Join(s.log(), "\n"))
	return nil
}

// stored has somebody else open the client's session, and gives its messages, by their IDs.
func (s *server) stored(c *client) map[string]frame {
	s.t.Helper()
	d := s.dial(token("observer of "+c.session, "admin"))
	opened := d.open("session_id", c.session, "as", "observer")
	messages := make(map[string]frame)
	for d.last < opened.num("seq") {
		if f := d.next(); f.str("type") == "message.created" {
			messages[f.str("message", "id")] = f
		}
	}
	return messages
}

// deadAddr gives an address that nobody listens on.
func deadAddr(t testing.TB) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

// silentAddr gives the address of one who accepts connections and says nothing on them.
func silentAddr(t testing.TB) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		var conns []net.Conn
		for {
			conn, err := listener.Accept()
			if err != nil {
				break
			}
			conns = append(conns, conn)
		}
		for _, conn := range conns {
			conn.Close()
		}
	}()
	t.Cleanup(func() {
		listener.Close()
		<-done
	})
	return listener.Addr().String()
}

// countCompleted gives how many ends of responses a client was sent.
func (c *client) countCompleted() int {
	n := 0
	for _, f := range c.seen {
		if f.str("type") == "message.completed" {
			n++
		}
	}
	return n
}
