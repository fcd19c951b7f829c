package dify_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/llm/dify"
	"github.com/parley-chat/parley/internal/llm/llmtest"
	"github.com/parley-chat/parley/internal/llm/upstream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const key = "app-the-secret-key"

// open returns a provider that is closed when the test ends, and before the servers that the test started.
func open(t *testing.T, baseURL string) chat.Provider {
	t.Helper()
	return openConfig(t, upstream.Config{ID: "upstream", APIKey: key, BaseURL: baseURL})
}

func openConfig(t *testing.T, config upstream.Config) *dify.Provider {
	t.Helper()
	p, err := dify.New(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func TestTranscripts(t *testing.T) { llmtest.TestTranscripts(t, open) }

func TestTruncatedTranscripts(t *testing.T) {
	llmtest.TestTruncated(t, "chatbot", `"event":"message_end"`, open)
	llmtest.TestTruncated(t, "chatflow", `"event":"message_end"`, open)
	llmtest.TestTruncated(t, "new-agent", `"event":"message_end"`, open)
}

func TestRequest(t *testing.T) {
	fake := llmtest.NewServer(t)
	p := open(t, fake.BaseURL+"/")
	request := llmtest.Question("words-1")
	temperature := 0.5
	request.Parameters = chat.Parameters{Temperature: &temperature, MaxOutputTokens: 64} // are the application's
	for _, system := range []string{"", "Be brief."} {
		want := map[string]any{
			"inputs": map[string]any{"model": "words-1"}, "query": "How are you?", "response_mode": "streaming",
			"conversation_id": "", "user": "user-1", "auto_generate_name": false,
		}
		if system != "" {
			request.Messages = append([]chat.PromptMessage{{Role: chat.RoleSystem, Text: system}}, request.Messages...)
			want["inputs"] = map[string]any{"model": "words-1", "system_prompt": system}
		}
		if _, err := llmtest.Ask(t.Context(), t, p, request); err != nil {
			t.Fatal(err)
		}
		requests := fake.Requests()
		last := requests[len(requests)-1]
		var got map[string]any
		if err := json.Unmarshal(last.Body, &got); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got %s, %v; want %v", last.Body, err, want)
		}
		if last.Authorization != "Bearer "+key || last.Path != "/v1/chat-messages" {
			t.Errorf("got %q, %q", last.Authorization, last.Path)
		}
	}
}

// conversation asks one question after the other, as a session does.
type conversation struct {
	t        *testing.T
	provider chat.Provider
	request  chat.Request
}

func (c *conversation) ask(ctx context.Context, model, id, text string) (llmtest.Answer, error) {
	c.t.Helper()
	c.request.Model, c.request.UserID, c.request.MessageID = model, "user-1", "answer to "+id
	c.request.Messages = append(c.request.Messages, chat.PromptMessage{ID: id, Role: chat.RoleUser, Text: text})
	got, err := llmtest.Ask(ctx, c.t, c.provider, c.request)
	if got.State != "" {
		c.request.States = map[string]string{"another": "state", "upstream": got.State}
	}
	if got.Text != "" {
		answer := chat.PromptMessage{ID: c.request.MessageID, Role: chat.RoleAssistant, Text: got.Text}
		c.request.Messages = append(c.request.Messages, answer)
	}
	return got, err
}

func TestAConversationIsKept(t *testing.T) {
	fake := llmtest.NewServer(t)
	c := conversation{t: t, provider: open(t, fake.BaseURL)}
	for _, question := range []string{"One", "Two", "Three"} {
		if _, err := c.ask(t.Context(), "words-1", "m-"+question, question); err != nil {
			t.Fatal(err)
		}
	}
	requests := fake.Requests()
	if requests[0].ConversationID != "" || requests[0].Query != "One" {
		t.Errorf("the first request is %s", requests[0].Body)
	}
	for i, query := range map[int]string{1: "Two", 2: "Three"} {
		if requests[i].ConversationID == "" || requests[i].ConversationID != requests[1].ConversationID ||
			requests[i].Query != query {
			t.Errorf("request %d is %s", i, requests[i].Body)
		}
	}
}

// What an answer said before it failed belongs to the conversation if the session keeps it.
func TestAFailedAnswerKeepsItsConversation(t *testing.T) {
	for _, model := range []string{"error-after-2", "cut-after-2", "garbage-after-2", "filter-2"} {
		fake := llmtest.NewServer(t)
		c := conversation{t: t, provider: open(t, fake.BaseURL)}
		if got, _ := c.ask(t.Context(), model, "m-1", "One"); got.State == "" {
			t.Errorf("%s: no state", model)
		}
		c.ask(t.Context(), model, "m-2", "Two")
		if got := fake.Requests()[1]; got.ConversationID == "" || got.Query != "Two" {
			t.Errorf("%s: the next request is %s", model, got.Body)
		}
	}
}

// A conversation keeps the inputs that it began with, and the model is one.
func TestAnotherModelIsAnotherConversation(t *testing.T) {
	fake := llmtest.NewServer(t)
	c := conversation{t: t, provider: open(t, fake.BaseURL)}
	for i, model := range []string{"words-1", "words-2", "words-2"} {
		if _, err := c.ask(t.Context(), model, fmt.Sprintf("m-%d", i), "Go on"); err != nil {
			t.Fatal(err)
		}
	}
	requests := fake.Requests()
	if requests[1].ConversationID != "" || !strings.Contains(requests[1].Query, llmtest.Text(1)) {
		t.Errorf("the request to the other model is %s", requests[1].Body)
	}
	if requests[2].ConversationID == "" || requests[2].Query != "Go on" {
		t.Errorf("the next one is %s", requests[2].Body)
	}
}

func TestALostConversationIsBegunAnew(t *testing.T) {
	fake, other := llmtest.NewServer(t), llmtest.NewServer(t)
	c := conversation{t: t, provider: open(t, fake.BaseURL)}
	c.ask(t.Context(), "words-2", "m-1", "One")
	old := c.request.States["upstream"]
	c.provider = open(t, other.BaseURL)
	got, err := c.ask(t.Context(), "words-2", "m-2", "Two")
	if err != nil || got.Text != llmtest.Text(2) || got.FinishReason != chat.FinishStop {
		t.Errorf("got %+v, %v", got, err)
	}
	if !strings.Contains(got.State, `"through":"answer to m-2"`) || got.State == old {
		t.Errorf("got the state %s after %s", got.State, old)
	}
	requests := other.Requests()
	if len(requests) != 2 || requests[0].Query != "Two" || requests[0].ConversationID == "" ||
		requests[1].ConversationID != "" || !strings.Contains(requests[1].Query, "User: One") ||
		!strings.HasSuffix(requests[1].Query, "\n\nTwo") {
		t.Errorf("got the requests %+v", requests)
	}
}

func TestWhatIsNoLostConversation(t *testing.T) {
	answers := map[string]struct {
		body     string
		requests int
	}{
		"a lost one that is lost again": {`{"code":"not_found","message":"Conversation Not Exists.","status":404}`, 2},
		"an ended one":                  {`{"code":"conversation_completed","message":"m","status":400}`, 2},
		"a bad request":                 {`{"code":"invalid_param","message":"m","status":400}`, 1},
		"a key that is wrong":           {`{"code":"unauthorized","message":"m","status":401}`, 1},
	}
	for name, answer := range answers {
		requests := 0
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			requests++
			var wire struct{ Status int }
			json.Unmarshal([]byte(answer.body), &wire)
			w.WriteHeader(wire.Status)
			io.WriteString(w, answer.body)
		}))
		t.Cleanup(server.Close)
		request := llmtest.Question("any")
		request.Messages = append(request.Messages, chat.PromptMessage{ID: "answer-0", Role: chat.RoleAssistant, Text: "Fine."},
			chat.PromptMessage{ID: "question-2", Role: chat.RoleUser, Text: "Good."})
		request.States = map[string]string{"upstream": `{"conversation_id":"c","through":"answer-0","model":"any"}`}
		_, err := llmtest.Ask(t.Context(), t, open(t, server.URL), request)
		if !errors.Is(err, chat.NewError(chat.CodeLLMRejected, "")) || requests != answer.requests {
			t.Errorf("%s: got %v after %d requests, want %d", name, err, requests, answer.requests)
		}
	}
}

func TestErrors(t *testing.T) {
	tests := []struct {
		code          string
		status        int
		want          chat.Code
		misconfigured bool
	}{
		{"invalid_param", 400, chat.CodeLLMRejected, false},
		{"bad_request", 400, chat.CodeLLMRejected, false},
		{"app_unavailable", 400, chat.CodeLLMRejected, true},
		{"not_chat_app", 400, chat.CodeLLMRejected, true},
		{"provider_not_initialize", 400, chat.CodeLLMRejected, true},
		{"provider_quota_exceeded", 400, chat.CodeLLMRejected, true},
		{"model_currently_not_support", 400, chat.CodeLLMRejected, true},
		{"completion_request_error", 400, chat.CodeLLMUnavailable, false},
		{"unauthorized", 401, chat.CodeLLMRejected, true},
		{"forbidden", 403, chat.CodeLLMRejected, true},
		{"not_found", 404, chat.CodeLLMRejected, true},
		{"too_many_requests", 429, chat.CodeLLMUnavailable, false},
		{"rate_limit_error", 429, chat.CodeLLMRejected, true},
		{"internal_server_error", 500, chat.CodeLLMUnavailable, false},
		{"bad_gateway", 502, chat.CodeLLMUnavailable, false},
	}
	for _, test := range tests {
		problem := map[string]any{"event": "error", "code": test.code, "message": llmtest.Detail, "status": test.status}
		body, _ := json.Marshal(problem)
		asEvent := llmtest.ServeStream(t, func(w http.ResponseWriter) {
			io.WriteString(w, `data: {"event":"message","task_id":"t","answer":"So far"}`+"\n\ndata: "+string(body)+"\n\n")
		})
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(test.status)
			w.Write(body)
		}))
		t.Cleanup(server.Close)
		for url, text := range map[string]string{asEvent: "So far", server.URL: ""} {
			got, err := llmtest.Ask(t.Context(), t, open(t, url), llmtest.Question("any"))
			if !errors.Is(err, chat.NewError(test.want, "")) || got.Text != text ||
				errors.Is(err, upstream.ErrMisconfigured) != test.misconfigured {
				t.Errorf("%s: got %q, %v; want %q, %s", test.code, got.Text, err, text, test.want)
			}
			if !strings.Contains(err.Error(), llmtest.Detail) {
				t.Errorf("%s: the cause of %v does not say what Dify said", test.code, err)
			}
		}
	}
}

func TestAnAnswerThatNobodyReadsIsStopped(t *testing.T) {
	for _, leave := range []string{"the loop is left", "the context ends"} {
		t.Run(leave, func(t *testing.T) {
			fake := llmtest.NewServer(t)
			p := open(t, fake.BaseURL)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			for chunk := range p.Stream(ctx, llmtest.Question("stall-after-2")) {
				if chunk.State == "" {
					continue
				}
				if cancel(); leave == "the loop is left" {
					break
				}
			}
			if err := fake.Await(t.Context(), llmtest.Counts{Stopped: 1, Finished: 1}); err != nil {
				t.Error(err)
			}
		})
	}
}

// conn tells when it is closed.
type conn struct {
	net.Conn
	closed *atomic.Bool
}

func (c conn) Close() error {
	c.closed.Store(true)
	return c.Conn.Close()
}

func TestTheSocketIsClosedBeforeTheAnswerIsStopped(t *testing.T) {
	var closed atomic.Bool // the first connection
	stops := make(chan string, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.URL.Path != "/chat-messages" {
			if !closed.Load() {
				t.Error("the socket of the answer is still open")
			}
			stops <- r.Method + " " + r.URL.Path + " " + string(body) + " " + r.Header.Get("Authorization")
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		io.WriteString(w, `data: {"event":"message","task_id":"task-1","answer":"a"}`+"\n\n")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}))
	t.Cleanup(server.Close)
	config := upstream.Config{APIKey: key, BaseURL: server.URL}
	config.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, addr)
		return conn{c, &closed}, err
	}
	for range openConfig(t, config).Stream(t.Context(), llmtest.Question("any")) {
		break
	}
	if got, want := <-stops, `POST /chat-messages/task-1/stop {"user":"user-1"} Bearer `+key; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestWhatIsOverIsNotStopped(t *testing.T) {
	fake := llmtest.NewServer(t)
	p := openConfig(t, upstream.Config{ID: "upstream", APIKey: key, BaseURL: fake.BaseURL})
	for _, model := range []string{"words-3", "error-after-3", "filter-3", "status-500", "no-such-model"} {
		llmtest.Ask(t.Context(), t, p, llmtest.Question(model))
	}
	if err := p.Close(); err != nil { // waits for what stops answers
		t.Error(err)
	}
	if counts := fake.Counts(); counts.Stopped != 0 {
		t.Errorf("got %+v", counts)
	}
}

// stopless is an upstream whose answers stall, and whose requests to stop them never end. It counts these.
func stopless(stops chan<- struct{}) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		if r.URL.Path != "/chat-messages" {
			stops <- struct{}{}
			<-r.Context().Done()
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		io.WriteString(w, `data: {"event":"message","task_id":"t","answer":"a"}`+"\n\n")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
}

func TestCloseCancelsStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stops := make(chan struct{}, 2)
		config := upstream.Config{BaseURL: "http://dify"}
		config.Dial = llmtest.Pipes(t, stopless(stops))
		p := openConfig(t, config)
		start := time.Now()
		for range p.Stream(t.Context(), llmtest.Question("any")) {
			break
		}
		<-stops
		p.Close()
		for range p.Stream(t.Context(), llmtest.Question("any")) {
			break
		}
		synctest.Wait()
		if waited := time.Since(start); waited != 0 || len(stops) != 0 {
			t.Errorf("closed after %s, with %d stops after it", waited, len(stops))
		}
	})
}

func TestAStopThatHangsEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stops, ended := make(chan struct{}, 1), make(chan string, 2)
		handler := stopless(stops)
		config := upstream.Config{BaseURL: "http://dify"}
		config.Dial = llmtest.Pipes(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			handler.ServeHTTP(w, r)
			ended <- r.URL.Path
		}))
		for range openConfig(t, config).Stream(t.Context(), llmtest.Question("any")) {
			break
		}
		<-ended // the answer
		start := time.Now()
		if path := <-ended; path != "/chat-messages/t/stop" || time.Since(start) != 2*time.Second {
			t.Errorf("%s ended after %s", path, time.Since(start))
		}
	})
}

func TestUsageThatCannotBeRead(t *testing.T) {
	for _, metadata := range []string{
		`null`, `[]`, `{"usage":5}`, `{"usage":{"prompt_tokens":"many"}}`, `{"usage":{"total_tokens":7}}`,
	} {
		p := open(t, llmtest.ServeStream(t, func(w http.ResponseWriter) {
			io.WriteString(w, `data: {"event":"message_end","metadata":`+metadata+"}\n\n")
		}))
		got, err := llmtest.Ask(t.Context(), t, p, llmtest.Question("any"))
		if err != nil || got.FinishReason != chat.FinishStop || got.Usage != nil {
			t.Errorf("%s: got %+v, %v", metadata, got, err)
		}
	}
}

func TestAPausedWorkflowIsNotAskedAgain(t *testing.T) {
	p := open(t, llmtest.NewServer(t).BaseURL)
	got, err := llmtest.Ask(t.Context(), t, p, llmtest.Question("pause-2"))
	if !errors.Is(err, chat.NewError(chat.CodeLLMRejected, "")) || got.Text != llmtest.Text(2) {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestBadBaseURL(t *testing.T) {
	if _, err := dify.New(upstream.Config{BaseURL: "http://user:hunter2@[::1"}); err == nil {
		t.Error("no error")
	}
}
