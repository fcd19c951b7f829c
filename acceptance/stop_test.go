//go:build unix

package acceptance_test

import (
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/parley-chat/parley/internal/llm/llmtest"
)

// generous lets one user do what a test does.
const generous = "rate_limit: {messages: {limit: 1000000, window: 1m}}\n"

// A stop reaches the upstream, whatever the response is about then.
func TestStop(t *testing.T) {
	up := startUpstream(t)
	s := startServer(t, section("retry: {initial_backoff: 1h, max_backoff: 1h}\nmoderation: {url: '"+up.url+"/moderate', timeout: 1m}\n",
		[]string{up.provider("up")}, model("hang", "up/hang"), model("stall-after-3", "up/stall-after-3"), model("failing", "up/status-500")))
	for _, c := range []struct{ model, question, text string }{
		{"hang", "before the headers", ""},
		{"stall-after-3", "in the middle", llmtest.Text(3)},
		{"failing", "between two attempts", ""},
		{"hang", "while the moderator-hang", ""},
	} {
		t.Run(c.question, func(t *testing.T) {
			before := len(up.requests(t))
			reader := s.dial(token("alice"))
			reader.open("model", c.model)
			reader.send("message.send", "message_id", "q", "text", c.question)
			reader.until("message.created")
			answer := reader.until("message.created").str("message", "id")
			if c.question != "while the moderator-hang" {
				up.await(t, "requests", before+1)
			}
			if c.text != "" {
				for reader.text[answer] != c.text {
					reader.next()
				}
			}
			if c.model == "failing" {
				up.await(t, "finished", before+1)
			}
			reader.send("response.cancel", "message_id", "another")
			reader.send("response.cancel")
			reader.send("response.cancel", "message_id", answer)
			end := reader.until("message.completed")
			if end.str("status") != "cancelled" || end.str("finish_reason") != "cancelled" || end.at("error") != nil ||
				end.str("message_id") != answer || reader.text[answer] != c.text {
				t.Errorf("the response ends as %v with %q", end, reader.text[answer])
			}
			reader.quiet()
			up.await(t, "finished", len(up.requests(t)))
		})
	}
	if got := s.metrics()[`parley_llm_retries_total{provider="up",target="status-500"}`]; got != "0" {
		t.Errorf("there were %s retries", got)
	}
}

// A drain does not begin what waits to be asked again, and does not wait longer than it may.
func TestShutdownDuringABackoff(t *testing.T) {
	up := startUpstream(t)
	s := startServer(t, section("retry: {initial_backoff: 1h, max_backoff: 1h}\nstream_timeout: 2h\n",
		[]string{up.provider("up")}, model("failing", "up/status-500")),
		"server: {addr: 127.0.0.1:0, operations_addr: 127.0.0.1:0, shutdown_timeout: 2s}\n")
	c := s.dial(token("alice"))
	c.open()
	c.send("message.send", "message_id", "q", "text", "hi")
	up.await(t, "finished", 1)
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if end := c.until("message.completed"); end.str("status") != "interrupted" {
		t.Errorf("the response ends as %v", end)
	}
	if code := s.wait(); code != 3 {
		t.Errorf("the server exits with %d", code)
	}
}

// BenchmarkStop measures the time from a reader's response.cancel to the upstream's closed socket; for 200 runs,
//
//	go test -run '^$' -bench Stop -benchtime 200x ./acceptance
func BenchmarkStop(b *testing.B) {
	up := startUpstream(b)
	s := startServer(b, up.scripted("", "stall-after-3"), generous, "log: {level: info}\n")
	c := s.dial(token("alice"))
	c.open()
	var sent []int64
	for i := 0; b.Loop(); i++ {
		c.send("message.send", "message_id", fmt.Sprint("q", i), "text", "hi")
		c.until("message.delta")
		sent = append(sent, time.Now().UnixNano())
		c.send("response.cancel")
		c.until("message.completed")
		up.await(b, "cancelled", i+1)
	}
	requests := up.requests(b)
	if len(requests) != len(sent) {
		b.Fatalf("%d responses were stopped, and there were %d requests", len(sent), len(requests))
	}
	took := make([]int64, len(sent))
	for i, at := range sent {
		took[i] = requests[i].CancelledAt - at
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2])/1e6, "median-ms")
	b.ReportMetric(float64(took[len(took)*99/100])/1e6, "p99-ms")
}
