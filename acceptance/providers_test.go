//go:build unix

package acceptance_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/parley-chat/parley/internal/llm/llmtest"
)

// outcome is how a response ends, as its reader sees it.
type outcome struct {
	status, finish, code string
	text                 string
	cut                  bool // not all of the text need have arrived
}

func whole(text, finish string) outcome {
	return outcome{status: "complete", finish: finish, text: text}
}

func failed(code, text string) outcome { return outcome{status: "failed", code: code, text: text} }

// fault is something that an upstream does, and how the response ends then.
type fault struct {
	script  string
	want    outcome
	differs map[string]outcome // by the provider's type, where it does not end like that
	cause   string             // is in the log; empty: there is no failure
}

const (
	rejected    = "llm_rejected"
	unavailable = "llm_unavailable"
	timedOut    = "llm_timeout"
)

var faults = []fault{
	{script: "flood", want: failed(rejected, ""), cause: "too long"},
	{script: "echo", want: whole("The question is Größe 🦊.", "stop")},
	{script: "words-5", want: whole(llmtest.Text(5), "stop")},
	{script: "length-5", want: whole(llmtest.Text(5), "length"), differs: map[string]outcome{
		"dify": whole(llmtest.Text(5), "stop"), // gives no reasons
	}},
	{script: "filter-5", want: whole(llmtest.Text(5), "content_filter")},
	{script: "reasoning-5", want: whole(llmtest.Text(5), "stop")},
	{script: "crlf-5", want: whole(llmtest.Text(5), "stop")},
	{script: "cr-5", want: whole(llmtest.Text(5), "stop")},
	{script: "comments-5", want: whole(llmtest.Text(5), "stop")},
	{script: "pings-5", want: whole(llmtest.Text(5), "stop")},
	{script: "bytes-5", want: whole(llmtest.Text(5), "stop")},
	{script: "escaped-5", want: whole(llmtest.Text(5), "stop")},
	{script: "gzip-5", want: whole(llmtest.Text(5), "stop")},
	{script: "line-1000000", want: whole(strings.Repeat("x", 1000000), "stop")},
	{script: "unmetered-5", want: whole(llmtest.Text(5), "stop")},
	{script: "bare-5", want: whole(llmtest.Text(5), "stop")},
	{script: "unfinished-5", want: whole(llmtest.Text(5), "stop")},
	{script: "linger-5", want: whole(llmtest.Text(5), "stop")},
	{script: "tools", want: failed(rejected, ""), cause: "tool", differs: map[string]outcome{
		"dify": whole("", "stop"), // calls tools itself
	}},
	{script: "tools-after-3", want: failed(rejected, llmtest.Text(3)), cause: "tool", differs: map[string]outcome{
		"dify": whole(llmtest.Text(3), "stop"),
	}},
	{script: "hang", want: failed(timedOut, ""), cause: "first_token timeout"},
	{script: "stall-after-3", want: failed(timedOut, llmtest.Text(3)), cause: "idle timeout"},
	{script: "pings-after-3-100ms", want: failed(timedOut, llmtest.Text(3)), cause: "idle timeout"},
	{script: "end-after-3", want: failed(unavailable, llmtest.Text(3)), cause: "cut off"},
	{script: "cut-after-3", want: failed(unavailable, llmtest.Text(3)), cause: "unexpected EOF"},
	{script: "reset-after-3", want: outcome{status: "failed", code: unavailable, text: llmtest.Text(3), cut: true}, cause: "provider"},
	{script: "error-after-3", want: failed(unavailable, llmtest.Text(3)), cause: llmtest.Detail},
	{script: "overloaded-after-3", want: failed(unavailable, llmtest.Text(3)), cause: llmtest.Detail},
	{script: "garbage-after-3", want: failed(unavailable, llmtest.Text(3)), cause: "JSON"},
	{script: "huge-line", want: failed(unavailable, ""), cause: "too long"},
	{script: "status-400", want: failed(rejected, ""), cause: llmtest.Detail},
	{script: "status-401", want: failed(rejected, ""), cause: llmtest.Detail},
	{script: "status-403", want: failed(rejected, ""), cause: llmtest.Detail},
	{script: "nothing", want: failed(rejected, ""), cause: "404"},
	{script: "status-429", want: failed(unavailable, ""), cause: "429"},
	{script: "status-500", want: failed(unavailable, ""), cause: llmtest.Detail},
	{script: "status-503", want: failed(unavailable, ""), cause: llmtest.Detail},
	{script: "status-529", want: failed(unavailable, ""), cause: "529"},
	{script: "refused", want: failed("content_filtered", ""), cause: llmtest.Detail, differs: map[string]outcome{
		"anthropic": failed(rejected, ""), "dify": failed(rejected, ""),
	}},
	{script: "html", want: failed(unavailable, ""), cause: "text/html"},
	{script: "json", want: failed(unavailable, ""), cause: "application/json"},
	{script: "redirect", want: failed(unavailable, ""), cause: "307"},
}

// providerTypes are the types that speak to an upstream.
var providerTypes = []string{"openai", "anthropic", "dify"}

// Whatever an upstream does, its user gets a whole answer or an honest error, once, and nobody is shown what the
// upstream said about it.
func TestProvidersAnswerOrSayWhyNot(t *testing.T) {
	for _, kind := range providerTypes {
		t.Run(kind, func(t *testing.T) {
			up := startUpstream(t)
			var providers, models []string
			for i, f := range faults {
				// Dify has no models: its key says which app is asked.
				id := fmt.Sprintf("%s-%d", kind, i)
				providers = append(providers, fmt.Sprintf("id: %s, type: %s, base_url: %q, api_key: %s/%s",
					id, kind, up.url+"/v1", key, f.script))
				models = append(models, model(f.script, id+"/"+f.script))
			}
			s := startServer(t, section("retry: {max_attempts: 1}\nfirst_token_timeout: 2s\nidle_timeout: 2s\n", providers, models...))
			readers := make([]*client, len(faults))
			for i, f := range faults {
				readers[i] = s.dial(token(f.script))
				readers[i].open("model", f.script)
				readers[i].send("message.send", "message_id", "q", "text", "The question is Größe 🦊.")
			}
			for i, f := range faults {
				want, ok := f.differs[kind]
				if !ok {
					want = f.want
				}
				checkEnding(t, s, readers[i], f, want, fmt.Sprintf("%s-%d", kind, i))
			}
			for _, line := range s.log() {
				if strings.Contains(line, key) {
					t.Errorf("the key is in the log: %s", line)
				}
			}
		})
	}
}

// checkEnding reads to the end of a response and checks what its reader was sent, what the log says and what is stored.
func checkEnding(t *testing.T, s *server, c *client, f fault, want outcome, provider string) {
	t.Helper()
	end := c.until("message.completed")
	c.quiet()
	id := end.str("message_id")
	got := outcome{
		status: end.str("status"), finish: end.str("finish_reason"), code: end.str("error", "code"),
		text: c.text[id], cut: want.cut,
	}
	switch {
	case want.cut && strings.HasPrefix(want.text, got.text), f.script == "flood" && len(got.text) <= 8<<20:
		got.text = want.text
	}
	if got != want {
		t.Errorf("%s ends as %.300v with %.100q, want %.300v", f.script, end, got.text, want)
	}
	if c.countCompleted() != 1 || slices.ContainsFunc(c.seen, func(f frame) bool { return f.str("type") == "error" }) {
		t.Errorf("%s: the reader is sent %v", f.script, c.seen)
	}
	retryable := want.code == unavailable || want.code == timedOut
	if want.code != "" && end.at("error", "retryable") != retryable {
		t.Errorf("%s: the error is %v", f.script, end["error"])
	}
	for _, f := range c.seen {
		if said, _ := json.Marshal(f); strings.Contains(string(said), llmtest.Detail) || strings.Contains(string(said), key) {
			t.Errorf("a reader is sent %s", said)
		}
	}
	if f.cause != "" && want.status == "failed" {
		msg := "a response failed"
		if want.code == timedOut {
			msg = "a response timed out"
		}
		if entry := s.awaitEntry(msg, "message", id); !strings.Contains(fmt.Sprint(entry["error"]), f.cause) {
			t.Errorf("%s: the log says %v, which has not %q", f.script, entry, f.cause)
		}
	}
	// A response is stored before its end is shown.
	if m := s.stored(c)[id]; m.str("message", "provider") != provider || m.str("message", "status") != want.status ||
		m.str("message", "text") != c.text[id] || m.str("message", "error", "code") != want.code {
		t.Errorf("%s is stored as %.300v", f.script, m)
	}
}
