//go:build unix

package acceptance_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/parley-chat/parley/internal/llm/llmtest"
)

// breakerState is the figure of a target's circuit breaker.
func breakerState(provider, target, state string) string {
	return fmt.Sprintf(`parley_llm_breaker_state{provider="%s",state="%s",target="%s"}`, provider, state, target)
}

// dead gives the line of a provider that nobody answers at.
func dead(t testing.TB) string {
	return fmt.Sprintf("id: dead, type: openai, base_url: 'http://%s/v1'", deadAddr(t))
}

// Where the first target fails before its first token the second answers, and the reader sees nothing of it.
func TestFailover(t *testing.T) {
	up := startUpstream(t)
	models := []string{"dead/words-5", "up/hang", "up/status-429", "up/status-500", "up/status-401", "up/nothing", "up/html"}
	var lines []string
	for i, first := range models {
		lines = append(lines, model(fmt.Sprint("m", i), first+", good/words-5"))
	}
	s := startServer(t, section("first_token_timeout: 1s\nretry: {initial_backoff: 1ms}\n",
		[]string{dead(t), up.provider("up"), up.provider("good")}, lines...))
	for i, first := range models {
		c := s.dial(token(fmt.Sprint("user", i)))
		c.open("model", fmt.Sprint("m", i))
		end := c.ask("q", "hi")
		id := end.str("message_id")
		if end.str("status") != "complete" || end.str("finish_reason") != "stop" || c.text[id] != llmtest.Text(5) {
			t.Errorf("after %s the response ends as %v with %q", first, end, c.text[id])
		}
		c.quiet()
		created := 0
		for _, f := range c.seen {
			switch f.str("type") {
			case "message.created":
				created++
			case "session.opened", "session.updated", "message.delta", "message.completed", "pong":
			default:
				t.Errorf("after %s the reader is sent %v", first, f)
			}
		}
		if created != 2 || c.countCompleted() != 1 {
			t.Errorf("after %s the reader is sent %v", first, c.seen)
		}
		if m := s.stored(c)[id]; m.str("message", "provider") != "good" {
			t.Errorf("after %s the answer is %v", first, m)
		}
	}
	s.awaitMetrics(map[string]string{
		`parley_llm_requests_total{outcome="unavailable",provider="dead",target="words-5"}`:    "2",
		`parley_llm_retries_total{provider="dead",target="words-5"}`:                           "1",
		`parley_llm_requests_total{outcome="timeout_first_token",provider="up",target="hang"}`: "1",
		`parley_llm_requests_total{outcome="rejected",provider="up",target="status-401"}`:      "1",
		`parley_llm_requests_total{outcome="complete",provider="good",target="words-5"}`:       fmt.Sprint(len(models)),
	})
}

// What is wrong with the question is wrong with it everywhere: nobody else is asked.
func TestNoFailoverForARefusedQuestion(t *testing.T) {
	up := startUpstream(t)
	s := startServer(t, section("", []string{up.provider("up"), up.provider("good")},
		model("bad", "up/status-400, good/words-5"), model("filtered", "up/refused, good/words-5")))
	for id, code := range map[string]string{"bad": rejected, "filtered": "content_filtered"} {
		c := s.dial(token(id))
		c.open("model", id)
		if end := c.ask("q", "hi"); end.str("status") != "failed" || end.str("error", "code") != code {
			t.Errorf("%s: the response ends as %v", id, end)
		}
	}
	if asked := up.requests(t); len(asked) != 2 {
		t.Errorf("there are %d requests", len(asked))
	}
}

// A target that fails again and again is left alone, and is asked again when it may have healed.
func TestBreakerOpensAndHeals(t *testing.T) {
	up := startUpstream(t)
	s := startServer(t, section("retry: {max_attempts: 1}\nbreaker: {failures: 3, delay: 1s}\n",
		[]string{up.provider("first"), up.provider("second")}, model("m", "first/flaky-3-500-4, second/words-6")),
		"rate_limit: {messages: {limit: 1000000, window: 1m}}\n")
	c := s.dial(token("alice"))
	c.open()
	ask := func(n int) string {
		return c.text[c.ask(fmt.Sprint("q", n), "hi").str("message_id")]
	}
	for n := range 3 {
		if got := ask(n); got != llmtest.Text(6) {
			t.Errorf("answer %d is %q", n, got)
		}
	}
	s.awaitMetrics(map[string]string{
		breakerState("first", "flaky-3-500-4", "open"): "1", breakerState("first", "flaky-3-500-4", "closed"): "0",
		breakerState("second", "words-6", "closed"): "1",
	})
	asked := func(script string) (n int) {
		for _, r := range up.requests(t) {
			if r.Model == script {
				n++
			}
		}
		return n
	}
	before := asked("flaky-3-500-4")
	if got := ask(3); got != llmtest.Text(6) || asked("flaky-3-500-4") != before {
		t.Errorf("with an open breaker the answer is %q, after %d requests more", got, asked("flaky-3-500-4")-before)
	}
	healed := 4 // the next question
	for ; healed < 10_000; healed++ {
		if got := ask(healed); got == llmtest.Text(4) {
			break
		} else if got != llmtest.Text(6) {
			t.Fatalf("answer %d is %q", healed, got)
		}
	}
	s.awaitMetrics(map[string]string{
		breakerState("first", "flaky-3-500-4", "open"): "0", breakerState("first", "flaky-3-500-4", "closed"): "1",
	})
	if asked("flaky-3-500-4") != before+1 {
		t.Errorf("the target was asked %d times while its breaker was open", asked("flaky-3-500-4")-before-1)
	}
	entry := s.awaitEntry("a circuit breaker changed", "to", "open")
	if entry["provider"] != "first" || entry["target"] != "flaky-3-500-4" {
		t.Errorf("the log says %v", entry)
	}
}

// Where all breakers are open the user is told at once, and when to come back.
func TestAllBreakersOpen(t *testing.T) {
	up := startUpstream(t)
	s := startServer(t, section("retry: {max_attempts: 1}\nbreaker: {failures: 1, delay: 1h}\n",
		[]string{dead(t), up.provider("up")}, model("m", "dead/words-3, up/status-500")))
	c := s.dial(token("alice"))
	c.open()
	c.ask("q1", "hi")
	end := c.ask("q2", "hi")
	if end.str("status") != "failed" || end.str("error", "code") != unavailable || end.at("error", "retryable") != true ||
		end.num("error", "retry_after_ms") < 3_500_000 || end.num("error", "retry_after_ms") > 3_600_000 {
		t.Errorf("the response ends as %v", end)
	}
	if entry := s.awaitEntry("a response failed", "message", end.str("message_id")); !strings.Contains(fmt.Sprint(entry["error"]), "breakers") {
		t.Errorf("the log says %v", entry)
	}
	if asked := up.requests(t); len(asked) != 1 {
		t.Errorf("the upstream was asked %d times", len(asked))
	}
}

// After its first token an answer is its target's to the end. The user may have another one made.
func TestNoFailoverAfterTheFirstToken(t *testing.T) {
	up := startUpstream(t)
	s := startServer(t, section("", []string{up.provider("up"), up.provider("good")}, model("m", "up/cut-after-3, good/words-5"),
		model("other", "good/words-5")))
	c := s.dial(token("alice"))
	c.open()
	end := c.ask("q", "hi")
	broken := end.str("message_id")
	if end.str("status") != "failed" || end.str("error", "code") != unavailable || c.text[broken] != llmtest.Text(3) {
		t.Errorf("the response ends as %v with %q", end, c.text[broken])
	}
	if asked := up.requests(t); len(asked) != 1 {
		t.Errorf("the upstream was asked %d times", len(asked))
	}
	c.send("session.update", "model", "other")
	c.until("session.updated")
	c.send("response.retry")
	created := c.until("message.created")
	again := c.until("message.completed")
	if created.str("message", "replaces") != broken || created.str("message", "reply_to") != "q" ||
		again.str("status") != "complete" || c.text[again.str("message_id")] != llmtest.Text(5) {
		t.Errorf("retried the response begins as %v and ends as %v", created, again)
	}
	asked := up.requests(t)
	if len(asked) != 2 || len(asked[1].Messages) != 1 || asked[1].Messages[0].Content != "hi" {
		t.Errorf("retried the upstream is asked %v", asked[1:])
	}
	messages := s.stored(c)
	if messages[broken].str("message", "text") != llmtest.Text(3) || messages[broken].str("message", "status") != "failed" ||
		messages[again.str("message_id")].str("message", "provider") != "good" {
		t.Errorf("stored are %v", messages)
	}
}

// A target that says when it will be there again is not asked before, and the user is told the same.
func TestRetryAfter(t *testing.T) {
	up := startUpstream(t)
	s := startServer(t, section("", []string{up.provider("up")}, model("later", "up/retry-after-40"),
		model("soon", "up/flaky-1-500-3"), model("reset", "up/flaky-1-0-3")))
	c := s.dial(token("alice"))
	c.open("model", "later")
	end := c.ask("q", "hi")
	if end.str("error", "code") != unavailable || end.num("error", "retry_after_ms") != 40_000 {
		t.Errorf("the response ends as %v", end)
	}
	if asked := up.requests(t); len(asked) != 1 {
		t.Errorf("the upstream was asked %d times", len(asked))
	}
	for _, id := range []string{"soon", "reset"} {
		c.send("session.update", "model", id)
		if end := c.ask("q"+id, "hi"); end.str("status") != "complete" || c.text[end.str("message_id")] != llmtest.Text(3) {
			t.Errorf("%s: asked again the response ends as %v", id, end)
		}
	}
}

// With hedging on a target that takes its time gets a rival. One answer is shown, and the other request is ended.
func TestHedging(t *testing.T) {
	up := startUpstream(t)
	s := startServer(t, section("hedge_after: 100ms\n", []string{up.provider("slow"), up.provider("good")},
		model("m", "slow/hang, good/words-5")))
	c := s.dial(token("alice"))
	c.open()
	idle := s.lowest("go_goroutines")
	end := c.ask("q", "hi")
	if end.str("status") != "complete" || c.text[end.str("message_id")] != llmtest.Text(5) {
		t.Errorf("the response ends as %v with %q", end, c.text[end.str("message_id")])
	}
	up.await(t, "cancelled", 1)
	s.awaitMetrics(map[string]string{
		`parley_llm_hedges_total{provider="good",target="words-5"}`:                      "1",
		`parley_llm_requests_total{outcome="cancelled",provider="slow",target="hang"}`:   "1",
		`parley_llm_requests_total{outcome="complete",provider="good",target="words-5"}`: "1",
	})
	s.settles("go_goroutines", idle+4) // the connections to the upstream stay
}
