//go:build unix

package acceptance_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/llm/llmtest"
	"github.com/parley-chat/parley/internal/store/sqlite"
)

// openStore opens the store of a server that has ended.
func (s *server) openStore() *sqlite.Store {
	s.t.Helper()
	store, err := sqlite.Open(s.t.Context(), filepath.Join(s.dir, "parley.db"))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { store.Close() })
	return store
}

// What a response cost is told by its provider, or else estimated and marked so; it is shown, summed up and priced.
func TestUsage(t *testing.T) {
	up := startUpstream(t)
	s := startServer(t, section("", []string{up.provider("up")}, model("words-10", "up/words-10", "price: {input: 2, output: 0.5}"),
		model("unmetered-10", "up/unmetered-10"), model("stall-after-3", "up/stall-after-3"), model("failing", "up/status-400")))
	began := time.Now().UTC().Truncate(24 * time.Hour)
	c := s.dial(token("alice"))
	c.open("model", "words-10")
	first := c.ask("q1", "one two three")
	if first.num("usage", "input_tokens") != 3 || first.num("usage", "output_tokens") != 10 || first.at("usage", "estimated") != nil {
		t.Errorf("the usage is %v", first["usage"])
	}
	c.send("session.update", "model", "unmetered-10")
	second := c.ask("q2", "four")
	// 4 tokens a message, and one for every 4 bytes.
	text := len(llmtest.Text(10))
	input, output := int64(4+4+4+(text+3)/4+4+1), int64((text+3)/4)
	if second.num("usage", "input_tokens") != input || second.num("usage", "output_tokens") != output || second.at("usage", "estimated") != true {
		t.Errorf("without the provider's word the usage is %v, want %d and %d", second["usage"], input, output)
	}
	c.send("session.update", "model", "failing")
	if f := c.ask("q3", "five"); f.at("usage") != nil {
		t.Errorf("nobody has answered, and the usage is %v", f["usage"])
	}
	c.send("session.update", "model", "stall-after-3")
	c.send("message.send", "message_id", "q4", "text", "six")
	c.until("message.delta")
	c.send("response.cancel")
	fourth := c.until("message.completed")
	if fourth.at("usage", "estimated") != true || fourth.num("usage", "output_tokens") == 0 {
		t.Errorf("of a response that was stopped the usage is %v", fourth["usage"])
	}
	if m := s.stored(c)[first.str("message_id")]; m.num("message", "usage", "output_tokens") != 10 {
		t.Errorf("the first answer is stored as %v", m)
	}
	s.awaitMetrics(map[string]string{
		`parley_llm_tokens_total{kind="input",model="words-10"}`:      "3",
		`parley_llm_tokens_total{kind="output",model="words-10"}`:     "10",
		`parley_llm_tokens_total{kind="input",model="unmetered-10"}`:  fmt.Sprint(input),
		`parley_llm_tokens_total{kind="output",model="unmetered-10"}`: fmt.Sprint(output),
		`parley_llm_cost_total{model="words-10"}`:                     "1.1e-05",
	})
	d := s.dial(token("bob"))
	d.open("model", "words-10")
	d.ask("q", "hi")

	if code := s.stop(syscall.SIGTERM); code != 0 {
		t.Errorf("the server exits with %d", code)
	}
	store := s.openStore()
	sums, err := store.SumUsage(t.Context(), chat.UsageFilter{})
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]chat.UsageSum)
	for _, sum := range sums {
		if sum.Day.Before(began) || sum.Day.After(time.Now()) {
			t.Errorf("there is the day %v", sum.Day)
		}
		day := sum.Day
		sum.Day = time.Time{}
		if before, ok := got[sum.UserID+" "+sum.Model]; ok {
			t.Errorf("there are %v and, on %v, %v", before, day, sum) // the test began before midnight
		}
		got[sum.UserID+" "+sum.Model] = sum
	}
	stopped := got["alice stall-after-3"]
	for _, want := range []chat.UsageSum{
		{UserID: "alice", Model: "words-10", Responses: 1, InputTokens: 3, OutputTokens: 10, CostMicros: 11},
		{UserID: "alice", Model: "unmetered-10", Responses: 1, Estimated: 1, InputTokens: input, OutputTokens: output},
		{UserID: "alice", Model: "stall-after-3", Responses: 1, Estimated: 1,
			InputTokens: fourth.num("usage", "input_tokens"), OutputTokens: fourth.num("usage", "output_tokens")},
		{UserID: "bob", Model: "words-10", Responses: 1, InputTokens: 1, OutputTokens: 10, CostMicros: 7},
	} {
		if got[want.UserID+" "+want.Model] != want {
			t.Errorf("stored is %+v, want %+v", got[want.UserID+" "+want.Model], want)
		}
	}
	if len(got) != 4 {
		t.Errorf("there are the sums %v", got)
	}
	session, err := store.Session(t.Context(), c.session)
	want := chat.Usage{
		InputTokens: int(3 + input + stopped.InputTokens), OutputTokens: int(10 + output + stopped.OutputTokens), Estimated: true,
	}
	if err != nil || session.Usage != want {
		t.Errorf("the session's usage is %+v, want %+v: %v", session.Usage, want, err)
	}
}

// budget gives settings with a budget whose window ends long after the test. Of the conversation only the newest
// message is sent along, so that each question costs the same.
func budget(tokens int) string {
	return fmt.Sprintf("budget: {tokens: %d, window: 8000h}\nhistory_tokens: 1\n", tokens)
}

// checkBudgetExceeded checks that a question is refused and leaves nothing behind.
func checkBudgetExceeded(t *testing.T, s *server, c *client, id string) {
	t.Helper()
	f := c.sendRefused("message.send", "message_id", id, "text", "hi", "ref", "r-"+id)
	if f.str("error", "code") != "budget_exceeded" || f.at("error", "retryable") != true ||
		f.num("error", "retry_after_ms") < 1 || f.num("error", "retry_after_ms") > 8000*3600*1000 || f.str("ref") != "r-"+id {
		t.Errorf("beyond the budget a message is answered with %v", f)
	}
	c.quiet()
	if m := s.stored(c); m[id] != nil {
		t.Errorf("stored is %v", m[id])
	}
}

// A user who has used up the budget is told so, also after a restart; others go on.
func TestBudget(t *testing.T) {
	up := startUpstream(t)
	s := startServer(t, up.scripted(budget(60), "words-10"))
	c := s.dial(token("alice"))
	c.open()
	// Each answer costs 11 tokens of the provider's, and a question is estimated as 5.
	for n := range 5 {
		if end := c.ask(fmt.Sprint("q", n), "hi"); end.str("status") != "complete" {
			t.Errorf("response %d ends as %v", n, end)
		}
	}
	for n, r := range up.requests(t) {
		if want := 60 - 11*n - 5; r.MaxTokens != want {
			t.Errorf("request %d asks for %d tokens at most, want %d", n, r.MaxTokens, want)
		}
	}
	checkBudgetExceeded(t, s, c, "q5")
	if f := c.sendRefused("response.retry", "ref", "retry"); f.str("error", "code") != "budget_exceeded" || f.str("ref") != "retry" {
		t.Errorf("beyond the budget a retry is answered with %v", f)
	}
	d := s.dial(token("bob"))
	d.open()
	if end := d.ask("q", "hi"); end.str("status") != "complete" {
		t.Errorf("another user's response ends as %v", end)
	}
	if code := s.stop(syscall.SIGTERM); code != 0 {
		t.Errorf("the server exits with %d", code)
	}
	s.start()
	again := s.dial(token("alice"))
	again.resume(c)
	checkBudgetExceeded(t, s, again, "q5")
	e := s.dial(token("alice"))
	e.open()
	checkBudgetExceeded(t, s, e, "q0")
	if asked := up.requests(t); len(asked) != 6 {
		t.Errorf("there are %d requests", len(asked))
	}
}

// What a response may cost is reserved, so that those in progress together cannot cost more than there is.
func TestBudgetIsReserved(t *testing.T) {
	up := startUpstream(t)
	s := startServer(t, section(budget(60), []string{up.provider("up")}, model("m", "up/gate-10", "max_output_tokens: 20")))
	readers := make([]*client, 3)
	for i := range readers {
		readers[i] = s.dial(token("alice"))
		readers[i].open()
	}
	for _, c := range readers[:2] {
		c.send("message.send", "message_id", "q", "text", "hi") // 25 tokens of 60
		c.until("message.created")
	}
	up.await(t, "requests", 2)
	// The rest is for a short answer, and the two in progress do not need all of theirs.
	third := readers[2]
	third.send("message.send", "message_id", "q", "text", "hi")
	third.until("message.created")
	up.await(t, "requests", 3)
	fourth := s.dial(token("alice"))
	fourth.open()
	f := fourth.sendRefused("message.send", "message_id", "q", "text", "hi", "ref", "r")
	if f.str("error", "code") != "budget_exceeded" || f.str("ref") != "r" || f.at("error", "retryable") != true {
		t.Errorf("while all is reserved a message is answered with %v", f)
	}
	var most []int
	for _, r := range up.requests(t) {
		most = append(most, r.MaxTokens)
	}
	if fmt.Sprint(most) != "[20 20 5]" {
		t.Errorf("the requests ask for %v tokens at most", most)
	}
	up.release(t, 30)
	for _, c := range readers {
		if end := c.until("message.completed"); end.str("status") != "complete" {
			t.Errorf("a response ends as %v", end)
		}
	}
	up.release(t, 10)
	if end := fourth.ask("q", "hi"); end.str("status") != "complete" { // 33 tokens are spent
		t.Errorf("once the others are settled a response ends as %v", end)
	}
}

// A server that is killed under a response knows afterwards what it cost.
func TestBudgetKnowsInterruptedResponses(t *testing.T) {
	up := startUpstream(t)
	s := startServer(t, up.scripted(budget(40), "gate-200"))
	c := s.dial(token("alice"))
	c.open()
	c.send("message.send", "message_id", "q", "text", "hi")
	up.release(t, 100)
	c.untilWords(100)
	s.stop(syscall.SIGKILL)
	s.start()
	d := s.dial(token("alice"))
	d.open()
	checkBudgetExceeded(t, s, d, "q")
}

// A response that is stopped before its first token has cost its prompt: who stops them all does not ask for nothing.
func TestBudgetOfStoppedResponses(t *testing.T) {
	up := startUpstream(t)
	s := startServer(t, up.scripted(budget(5000), "hang"))
	c := s.dial(token("alice"))
	c.open()
	for n := range 5 {
		c.send("message.send", "message_id", fmt.Sprint("q", n), "text", strings.Repeat("word ", 2000)) // 2504 tokens
		if f := c.next(); f.str("type") == "error" {
			if f.str("error", "code") != "budget_exceeded" || n != 1 {
				t.Errorf("message %d is answered with %v", n, f)
			}
			return
		}
		up.await(t, "requests", n+1)
		c.send("response.cancel")
		if end := c.until("message.completed"); end.num("usage", "input_tokens") == 0 || end.at("usage", "estimated") != true {
			t.Errorf("the usage of a prompt that the upstream has is %v", end["usage"])
		}
	}
	t.Error("five times the budget is spent, and nobody says so")
}
