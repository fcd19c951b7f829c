//go:build unix

package acceptance_test

import (
	"fmt"
	"sync"
	"testing"
)

// mostSeries is more than a server with one model has, whatever goes on. It does not depend on how many people talk.
const mostSeries = 700

// A thousand conversations go on at once, and /metrics tells of them what it tells of one.
func TestMetricsOfAThousandConversations(t *testing.T) {
	people, each := 50, 20
	if raceEnabled {
		each = 2
	}
	conversations := people * each
	up := startUpstream(t)
	s := startServer(t, section("moderation: {url: '"+up.url+"/moderate'}\n", []string{up.provider("up")},
		model("gate-4", "up/gate-4", "price: {input: 1, output: 2}")),
		"websocket: {max_connections: 5000, max_connections_per_user: 100, max_connections_per_address: 5000}\n")
	documented := documentedMetrics(t, s.build(map[string][]string{
		"a model's ID": {"gate-4"}, "a provider's ID": {"up"}, "a target's model": {"gate-4"}, "an operation's ID": s.operationIDs(),
	}))
	first := s.dial(token("first"))
	first.open()
	up.release(t, 4)
	first.ask("q", "hi")
	told, before := s.scrape()
	checkMetrics(t, documented, told)

	clients := make([]*client, 0, conversations)
	for i := range people {
		signed := token(fmt.Sprint("user", i))
		for range each {
			clients = append(clients, s.dial(signed))
		}
	}
	var talking sync.WaitGroup
	for i, c := range clients {
		talking.Go(func() { c.talks(fmt.Sprint("q", i)) })
	}
	up.await(t, "requests", 1+conversations)
	s.awaitMetrics(map[string]string{"parley_responses_in_progress": fmt.Sprint(conversations)})
	over := make(chan struct{})
	go func() {
		defer close(over)
		talking.Wait()
	}()
	for words := 0; ; words++ { // of each answer one, then all tell about it
		told, series := s.scrape()
		checkMetrics(t, documented, told)
		if series > mostSeries {
			t.Fatalf("there are %d series", series)
		}
		if words < 4 {
			up.release(t, conversations)
			continue
		}
		select {
		case <-over:
		default:
			continue
		}
		break
	}
	s.awaitMetrics(map[string]string{
		`parley_responses_total{model="gate-4",provider="up",status="complete"}`: fmt.Sprint(1 + conversations),
		"parley_response_first_token_seconds_count{model=\"gate-4\"}":            fmt.Sprint(1 + conversations),
		`parley_messages_stored_total{role="user"}`:                              fmt.Sprint(1 + conversations),
		"parley_connections":           fmt.Sprint(1 + conversations),
		"parley_responses_in_progress": "0", "parley_journal_waiting_events": "0",
		`parley_rate_limit_keys{bucket="messages"}`: fmt.Sprint(1 + people),
	})
	_, after := s.scrape()
	t.Logf("one conversation makes %d series, %d make %d", before, 1+conversations, after)
	if most := before + 100; after > most {
		t.Errorf("of %d series there are %d after %d conversations", before, after, conversations)
	}
}

// talks has one conversation. It may be called on any goroutine.
func (c *client) talks(id string) {
	for _, step := range []func() error{
		func() error { return c.trySend("session.open") },
		func() error { return c.trySend("message.send", "message_id", id, "text", "hi") },
	} {
		if err := step(); err != nil {
			c.t.Errorf("conversation %s: %v", id, err)
			return
		}
	}
	for {
		f, err := c.read(patience)
		if err != nil {
			c.t.Errorf("conversation %s: %v", id, err)
			return
		}
		if f.str("type") == "message.completed" {
			if f.str("status") != "complete" {
				c.t.Errorf("conversation %s ends with %v", id, f)
			}
			return
		}
	}
}
