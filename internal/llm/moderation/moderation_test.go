package moderation_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/llm/llmtest"
	"github.com/parley-chat/parley/internal/llm/moderation"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// secret is what a user says that must not get into the log.
const secret = "my PIN is 4711"

var request = chat.Request{SessionID: "s1", UserID: "alice", Model: "gpt", MessageID: "m1"}

// open makes a hook with a log that can be read once nothing writes it any more.
func open(t *testing.T, cfg moderation.Config) (*moderation.Hook, *bytes.Buffer) {
	t.Helper()
	var log bytes.Buffer
	if cfg.Timeout == 0 {
		cfg.Timeout = time.Minute
	}
	hook, err := moderation.New(cfg, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = hook.Close() })
	return hook, &log
}

func codeOf(err error) chat.Code {
	if shown, ok := errors.AsType[*chat.Error](err); ok {
		return shown.Code
	}
	return ""
}

// verdicts gives how many messages were given a verdict.
func verdicts(t *testing.T, hook *moderation.Hook, verdict string) (n int) {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	if err := registry.Register(hook); err != nil {
		t.Fatal(err)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			if m.GetLabel()[0].GetValue() == verdict {
				n += int(m.GetCounter().GetValue())
			}
		}
	}
	return n
}

func endpoint(server *llmtest.Server) string {
	return strings.TrimSuffix(server.BaseURL, "/v1") + "/moderate"
}

func TestVerdicts(t *testing.T) {
	server := llmtest.NewServer(t)
	tests := []struct {
		name, text string
		open       bool // messages pass where there is no verdict
		timeout    time.Duration
		code       chat.Code
		verdict    string
		logged     string
	}{
		{"allowed", secret, false, 0, "", "allowed", ""},
		{"refused", "forbidden " + secret, false, 0, chat.CodeContentFiltered, "refused", "reason=scripted"},
		{"refused, though open", "forbidden " + secret, true, 0, chat.CodeContentFiltered, "refused", "reason=scripted"},
		{"broken, closed", "moderator-500 " + secret, false, 0, chat.CodeLLMUnavailable, "error", "message_allowed=false"},
		{"broken, open", "moderator-500 " + secret, true, 0, "", "error", "message_allowed=true"},
		{"silent, closed", "moderator-hang " + secret, false, 20 * time.Millisecond, chat.CodeLLMUnavailable, "error", "deadline exceeded"},
		{"silent, open", "moderator-hang " + secret, true, 20 * time.Millisecond, "", "error", "message_allowed=true"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			hook, log := open(t, moderation.Config{URL: endpoint(server), AllowOnError: test.open, Timeout: test.timeout})
			err := hook.Check(t.Context(), request, test.text)
			if codeOf(err) != test.code || err != nil && test.code == "" {
				t.Errorf("it gives %v, want %q", err, test.code)
			}
			if verdicts(t, hook, test.verdict) != 1 {
				t.Errorf("it is not counted as %s", test.verdict)
			}
			if !strings.Contains(log.String(), test.logged) || test.logged == "" && log.Len() > 0 {
				t.Errorf("the log says %q, want %q in it", log, test.logged)
			}
			if test.logged != "" && !strings.Contains(log.String(), "session=s1") {
				t.Errorf("the log does not name the session: %q", log)
			}
			if strings.Contains(log.String(), "4711") {
				t.Errorf("the log has the text: %q", log)
			}
		})
	}
}

func TestQuestion(t *testing.T) {
	var got http.Header
	var body map[string]any
	var method string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got, method = r.Header, r.Method
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			t.Error(err)
		}
		_, _ = io.WriteString(w, `{"allowed": true}`)
	}))
	defer server.Close()
	for _, key := range []string{"", "k-123"} {
		hook, _ := open(t, moderation.Config{URL: server.URL, APIKey: key})
		if err := hook.Check(t.Context(), request, "Grüß \"Gott\"\n"); err != nil {
			t.Fatal(err)
		}
		want := ""
		if key != "" {
			want = "Bearer " + key
		}
		if got.Get("Authorization") != want || got.Get("Content-Type") != "application/json" || method != http.MethodPost {
			t.Errorf("asked was by %s with %v", method, got)
		}
		if len(body) != 4 || body["text"] != "Grüß \"Gott\"\n" || body["session_id"] != "s1" || body["user_id"] != "alice" || body["model"] != "gpt" {
			t.Errorf("asked was %v", body)
		}
	}
}

// What is no verdict does not pass for one, and nothing of what the endpoint repeats of the text gets into the log.
func TestAnswersThatAreNoVerdict(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		t.Error("the text, or the key, went where the redirect pointed")
	}))
	defer elsewhere.Close()
	say := func(status int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", elsewhere.URL)
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		}
	}
	repeats := func(status int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			w.WriteHeader(status)
			_, _ = w.Write(append([]byte(`{"detail": "not understood", "input": `), append(body, '}')...))
		}
	}
	answers := map[string]http.HandlerFunc{
		"not JSON":              say(200, secret),
		"nothing":               say(200, ""),
		"cut":                   say(200, `{"allowed": tr`),
		"not a verdict":         say(200, `{"ok": true}`),
		"null":                  say(200, `{"allowed": null}`),
		"another type":          say(200, `{"allowed": "true"}`),
		"a list":                say(200, `[true]`),
		"too long":              say(200, `{"allowed": true, "reason": "`+strings.Repeat("x", 70<<10)+`"}`),
		"another success":       say(202, `{"allowed": true}`),
		"moved":                 say(307, `{"allowed": true}`),
		"moved permanently":     say(301, `{"allowed": true}`),
		"refuses the key":       say(401, `{"allowed": true}`),
		"repeats the question":  repeats(422),
		"repeats it in a 500":   repeats(500),
		"repeats it in a 200":   repeats(200),
		"closes the connection": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	}
	for name, answer := range answers {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(answer)
			defer server.Close()
			for _, pass := range []bool{false, true} {
				hook, log := open(t, moderation.Config{URL: server.URL, APIKey: "k-123", AllowOnError: pass})
				err := hook.Check(t.Context(), request, secret)
				if pass && err != nil || !pass && codeOf(err) != chat.CodeLLMUnavailable {
					t.Errorf("with allow_on_error %v it gives %v", pass, err)
				}
				if verdicts(t, hook, "error") != 1 {
					t.Error("it is not counted as an error")
				}
				if said := log.String(); strings.Contains(said, "4711") || strings.Contains(said, "k-123") || said == "" {
					t.Errorf("the log says %q", said)
				}
				if err != nil && strings.Contains(err.Error(), "4711") {
					t.Errorf("the error has the text: %v", err)
				}
			}
		})
	}
}

func TestEndpointThatIsNotThere(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	server.Close()
	hook, _ := open(t, moderation.Config{URL: server.URL})
	if err := hook.Check(t.Context(), request, secret); codeOf(err) != chat.CodeLLMUnavailable {
		t.Errorf("it gives %v", err)
	}
	hook, _ = open(t, moderation.Config{URL: server.URL, AllowOnError: true})
	if err := hook.Check(t.Context(), request, secret); err != nil {
		t.Errorf("though open it gives %v", err)
	}
}

// The end of who asks is no verdict, and no fault of the endpoint's.
func TestLeavingTheModeration(t *testing.T) {
	server := llmtest.NewServer(t)
	for _, pass := range []bool{false, true} {
		hook, log := open(t, moderation.Config{URL: endpoint(server), AllowOnError: pass})
		ctx, cancel := context.WithCancel(t.Context())
		asked := len(server.Moderations())
		var checks sync.WaitGroup
		checks.Go(func() {
			if err := hook.Check(ctx, request, "moderator-hang"); !errors.Is(err, context.Canceled) || codeOf(err) != "" {
				t.Errorf("it gives %v", err)
			}
		})
		for len(server.Moderations()) == asked {
			runtime.Gosched()
		}
		cancel()
		checks.Wait()
		if log.Len() > 0 || verdicts(t, hook, "error") != 0 {
			t.Errorf("it is told as a failure: %s", log)
		}
	}
}

// A reason is one line of bounded length in the log.
func TestReasonIsOneLine(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"allowed": false, "reason": "a\nb\x1b[31m" + strings.Repeat("ä", 500)})
	}))
	defer server.Close()
	hook, log := open(t, moderation.Config{URL: server.URL})
	err := hook.Check(t.Context(), request, secret)
	if codeOf(err) != chat.CodeContentFiltered || strings.Contains(err.Error(), "ä") {
		t.Errorf("the user is told %v", err)
	}
	if n := strings.Count(log.String(), "ä"); n == 0 || n > 200 || strings.Contains(log.String(), `\n`) || strings.Contains(log.String(), "x1b") {
		t.Errorf("the log says %q", log)
	}
}
