package matrix_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/llm/llmtest"
	"github.com/parley-chat/parley/internal/llm/upstream"
)

// outcome is what is seen of an answer.
type outcome struct {
	text      string // exactly what came before the fault, if there was one
	reasoning string
	finish    chat.FinishReason
	usage     string // as of the function usage; empty: not told

	code          chat.Code // empty: no error
	retryAfter    time.Duration
	misconfigured bool
	unbegun       bool // no event came before the error, so that Anthropic has told no usage and Dify no state
}

// usage is that of n words to the question of three words.
func usage(n int) string { return usageOf(&chat.Usage{InputTokens: 3, OutputTokens: n}) }

func usageOf(u *chat.Usage) string {
	if u == nil {
		return ""
	}
	return fmt.Sprintf("%+v", *u)
}

// whole is an answer of n words.
func whole(n int, finish chat.FinishReason) outcome {
	return outcome{text: llmtest.Text(n), finish: finish, usage: usage(n)}
}

// unmetered is an answer of n words whose usage is not told.
func unmetered(n int) outcome { return outcome{text: llmtest.Text(n), finish: chat.FinishStop} }

// broken is an answer that ends with an error after some text.
func broken(text string, code chat.Code) outcome { return outcome{text: text, code: code} }

// started is broken, for Anthropic, whose answers begin with the usage so far.
func started(o outcome) outcome {
	o.usage = usage(1)
	return o
}

// unavailable and rejected are errors instead of an answer.
func unavailable(retryAfter time.Duration) outcome {
	return outcome{code: chat.CodeLLMUnavailable, retryAfter: retryAfter, unbegun: true}
}

func rejected() outcome { return outcome{code: chat.CodeLLMRejected, unbegun: true} }

func misconfigured() outcome {
	return outcome{code: chat.CodeLLMRejected, misconfigured: true, unbegun: true}
}

// but is what differs, by type.
type but map[string]outcome

const stop = chat.FinishStop

var answers = []struct {
	model string
	want  outcome
	but   but
}{
	{"words-200", whole(200, stop), nil},
	{"words-0", whole(0, stop), nil},
	{"echo", outcome{text: "How are you?", finish: stop, usage: usage(3)}, nil},
	{"reasoning-4", outcome{text: llmtest.Text(4), reasoning: llmtest.Text(4), finish: stop, usage: usage(4)}, nil},
	{"crlf-8", whole(8, stop), nil},
	{"cr-8", whole(8, stop), nil},
	{"comments-8", whole(8, stop), nil},
	{"pings-8", whole(8, stop), nil},
	{"bytes-8", whole(8, stop), nil},
	{"escaped-8", whole(8, stop), nil},
	{"gzip-8", whole(8, stop), nil},
	{"line-1000000", outcome{text: strings.Repeat("x", 1_000_000), finish: stop, usage: usage(1)}, nil},
	{"agent-8", whole(8, stop), nil},
	{"new-agent-8", whole(8, stop), nil},
	{"workflow-8", whole(8, stop), nil},
	{"unmetered-8", unmetered(8), nil},
	{"sequence-8", whole(8, stop), nil},

	// Dify does not tell of lengths.
	{"length-8", whole(8, chat.FinishLength), but{difyAI: whole(8, stop)}},
	{"window-8", whole(8, chat.FinishLength), but{difyAI: whole(8, stop)}},
	{"filter-8", whole(8, chat.FinishContentFilter), nil},
	{"refusal-8", whole(8, chat.FinishContentFilter), nil},

	// Of Anthropic and Dify the usage is part of the finish.
	{"bare-8", unmetered(8), but{anthropicAI: whole(8, stop), difyAI: whole(8, stop)}},
	{"unfinished-8", unmetered(8), but{
		anthropicAI: outcome{text: llmtest.Text(8), finish: stop, usage: usage(1)}, difyAI: whole(8, stop),
	}},
}

func TestAnswers(t *testing.T) {
	each(t, func(t *testing.T, name string, _ *llmtest.Server, p chat.Provider) {
		for _, test := range answers {
			want, ok := test.but[name]
			if !ok {
				want = test.want
			}
			t.Run(test.model, func(t *testing.T) { check(t, name, p, test.model, want) })
		}
	})
}

var faults = []struct {
	model string
	want  outcome
	but   but
}{
	{"end-after-5", broken(llmtest.Text(5), chat.CodeLLMUnavailable), nil},
	{"cut-after-5", broken(llmtest.Text(5), chat.CodeLLMUnavailable), nil},
	{"error-after-5", broken(llmtest.Text(5), chat.CodeLLMUnavailable), nil},
	{"error-after-0", broken("", chat.CodeLLMUnavailable), but{difyAI: unavailable(0)}},
	{"overloaded-after-5", broken(llmtest.Text(5), chat.CodeLLMUnavailable), nil},
	{"workflow-failed-5", broken(llmtest.Text(5), chat.CodeLLMUnavailable), nil},
	{"garbage-after-5", broken(llmtest.Text(5), chat.CodeLLMUnavailable), nil},
	{"huge-line", broken("", chat.CodeLLMUnavailable), but{difyAI: unavailable(0)}},
	{"flood", broken(strings.Repeat("x", 8<<20), chat.CodeLLMRejected), nil},

	// Dify calls tools itself.
	{"tools", broken("", chat.CodeLLMRejected), but{difyAI: whole(0, stop)}},
	{"tools-after-5", broken(llmtest.Text(5), chat.CodeLLMRejected), but{difyAI: whole(5, stop)}},
	// Elsewhere a pause is an end for length. Asked again, Dify's workflow would pause again.
	{"pause-5", whole(5, chat.FinishLength), but{
		anthropicAI: started(broken(llmtest.Text(5), chat.CodeLLMUnavailable)),
		difyAI:      broken(llmtest.Text(5), chat.CodeLLMRejected),
	}},

	{"html", unavailable(0), nil},
	{"json", unavailable(0), nil},
	{"redirect", unavailable(0), nil},
	{"refused", rejected(), but{openAI: {code: chat.CodeContentFiltered, unbegun: true}}},
	{"no-such-model", misconfigured(), nil},
	{"flaky-1-0-5", unavailable(0), nil}, // reset before the headers
	{"status-204", unavailable(0), nil},
	{"status-400", rejected(), nil},
	{"status-401", misconfigured(), nil},
	{"status-402", misconfigured(), nil},
	{"status-403", misconfigured(), nil},
	{"status-404", misconfigured(), nil},
	{"status-408", unavailable(0), nil},
	{"status-409", rejected(), but{anthropicAI: unavailable(0)}},
	{"status-413", rejected(), nil},
	{"status-422", rejected(), nil},
	{"status-429", unavailable(7 * time.Second), nil},
	{"retry-after-30", unavailable(30 * time.Second), nil},
	{"status-500", unavailable(0), nil},
	{"status-502", unavailable(0), nil},
	{"status-503", unavailable(7 * time.Second), nil},
	{"status-504", unavailable(0), nil},
	{"status-529", unavailable(0), nil},
}

func TestFaults(t *testing.T) {
	each(t, func(t *testing.T, name string, fake *llmtest.Server, p chat.Provider) {
		for i, test := range faults {
			want, ok := test.but[name]
			if !ok {
				want = test.want
				if name == anthropicAI && !want.unbegun {
					want = started(want)
				}
			}
			t.Run(test.model, func(t *testing.T) { check(t, name, p, test.model, want) })
			// Neither a refused request nor a redirected one was sent once more.
			if n := len(fake.Requests()); n != i+1 {
				t.Fatalf("%d requests after %s", n, test.model)
			}
		}
	})
}

// check asks for an answer and compares what is seen of it.
func check(t *testing.T, name string, p chat.Provider, model string, want outcome) {
	t.Helper()
	answer, err := llmtest.Ask(t.Context(), t, p, llmtest.Question(model))
	got := outcome{
		text: answer.Text, reasoning: answer.Reasoning, finish: answer.FinishReason, usage: usageOf(answer.Usage),
		misconfigured: errors.Is(err, upstream.ErrMisconfigured), unbegun: want.unbegun,
	}
	if err != nil {
		shown, ok := errors.AsType[*chat.Error](err)
		if !ok {
			t.Fatalf("%v cannot be shown", err)
		}
		got.code, got.retryAfter = shown.Code, shown.RetryAfter
		checkSecrets(t, model, shown)
	}
	if got != want {
		t.Errorf("got %s, %v; want %s", got, err, want)
	}
	if stateful := name == difyAI && !want.unbegun; stateful != (answer.State != "") {
		t.Errorf("got the state %q", answer.State)
	}
}

// checkSecrets checks that the upstream's words are in the cause, and the key nowhere.
func checkSecrets(t *testing.T, model string, shown *chat.Error) {
	t.Helper()
	if shown.Message == "" || strings.Contains(shown.Message, llmtest.Detail) {
		t.Errorf("%q is shown", shown.Message)
	}
	if strings.Contains(shown.Error(), key) {
		t.Errorf("%q tells the key", shown)
	}
	if shown.Cause == nil {
		return
	}
	if !strings.Contains(shown.Cause.Error(), "provider "+providerID) {
		t.Errorf("the cause does not name the provider: %v", shown.Cause)
	}
	for _, said := range []string{"error-after", "overloaded-after", "status-4", "status-5", "json", "refused"} {
		if strings.HasPrefix(model, said) && !strings.Contains(shown.Cause.Error(), llmtest.Detail) {
			t.Errorf("the cause does not say what the upstream said: %v", shown.Cause)
		}
	}
}

// String leaves out most of a long text.
func (o outcome) String() string {
	return fmt.Sprintf("%.200q (%d bytes), reasoning %q, finish %q, usage %q, error %q, retry after %s, misconfigured %t",
		o.text, len(o.text), o.reasoning, o.finish, o.usage, o.code, o.retryAfter, o.misconfigured)
}
