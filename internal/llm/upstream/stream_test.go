package upstream_test

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/llm/llmtest"
	"github.com/parley-chat/parley/internal/llm/upstream"
)

func TestStream(t *testing.T) {
	const finished, cutOff = "", chat.CodeLLMUnavailable
	tests := []struct {
		name, stream, text string
		finish             chat.FinishReason
		usage              bool
		code               chat.Code
	}{
		{"an end mark", "data: text A\n\ndata: text B\n\ndata: done\n\n", "AB", chat.FinishStop, false, finished},
		{"a finish reason", "data: text A\n\ndata: finish length\n\n", "A", chat.FinishLength, false, finished},
		{"both", "data: text A\n\ndata: finish length\n\ndata: done\n\n", "A", chat.FinishLength, false, finished},
		{"nothing but the end", "data: done\n\n", "", chat.FinishStop, false, finished},
		{"usage before the end", "data: usage\n\ndata: done\n\n", "", chat.FinishStop, true, finished},
		{"usage after the finish", "data: finish stop\n\ndata: usage\n\n", "", chat.FinishStop, true, finished},
		{"text after the finish", "data: finish stop\n\ndata: text A\n\n", "", chat.FinishStop, false, finished},
		{"an error after the finish", "data: finish stop\n\ndata: fail\n\n", "", chat.FinishStop, false, finished},
		{"a second finish", "data: finish stop\n\ndata: finish length\n\n", "", chat.FinishStop, false, finished},
		{"half an event after the finish", "data: finish stop\n\ndata: us", "", chat.FinishStop, false, finished},
		{"anything after the end", "data: done\n\ndata: text A\n\ndata: fail\n\n", "", chat.FinishStop, false, finished},
		{"events that say nothing", ": hm\n\nevent: ping\n\ndata\n\ndata: hm\n\ndata: done\n\n", "", chat.FinishStop, false,
			finished},
		{"no end mark", "data: text A\n\n", "A", "", false, cutOff},
		{"half an end mark", "data: text A\n\ndata: done", "A", "", false, cutOff},
		{"no event", "", "", "", false, cutOff},
		{"an error", "data: text A\n\ndata: fail\n\ndata: done\n\n", "A", "", false, chat.CodeLLMUnavailable},
		{"a line of 2 MiB", "data: text " + strings.Repeat("x", 2<<20) + "\n\n", "", "", false, chat.CodeLLMUnavailable},
		{"text of 9 MiB", strings.Repeat("data: text "+strings.Repeat("x", 1<<19)+"\n\n", 18), strings.Repeat("x", 8<<20), "",
			false, chat.CodeLLMRejected},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			url := llmtest.ServeStream(t, func(w http.ResponseWriter) { io.WriteString(w, test.stream) })
			got, err := llmtest.Ask(t.Context(), t, provider{client: open(t, upstream.Config{}), url: url}, chat.Request{})
			if got.Text != test.text || got.FinishReason != test.finish || (got.Usage != nil) != test.usage {
				t.Errorf("got %.200q, %q, %v", got.Text, got.FinishReason, got.Usage)
			}
			if (test.code != "" || err != nil) && !errors.Is(err, chat.NewError(test.code, "")) {
				t.Errorf("got %v, want %q", err, test.code)
			}
		})
	}
}

func TestMisconfigured(t *testing.T) {
	for status, want := range map[int]bool{
		400: false, 401: true, 402: true, 403: true, 404: true, 408: false, 413: false, 429: false, 500: false, 529: false,
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			io.WriteString(w, "the key "+key+" is no good")
		}))
		t.Cleanup(server.Close)
		p := provider{client: open(t, upstream.Config{}), url: server.URL}
		_, err := llmtest.Ask(t.Context(), t, p, chat.Request{})
		if errors.Is(err, upstream.ErrMisconfigured) != want {
			t.Errorf("%d: got %v", status, err)
		}
		if cause := "the key [key] is no good"; !strings.Contains(err.Error(), cause) ||
			!strings.Contains(err.Error(), "provider provider-7: ") || strings.Contains(chat.AsError(err).Message, "no good") {
			t.Errorf("%d: got %v, want the cause %q", status, err, cause)
		}
		p.refused = func(got int, body []byte) *chat.Error {
			if got != status || !strings.Contains(string(body), "is no good") {
				t.Errorf("refused with %d, %q", got, body)
			}
			return upstream.Filtered
		}
		_, err = llmtest.Ask(t.Context(), t, p, chat.Request{})
		if !errors.Is(err, chat.NewError(chat.CodeContentFiltered, "")) || errors.Is(err, upstream.ErrMisconfigured) {
			t.Errorf("%d: got %v in spite of what the body says", status, err)
		}
	}
}

func TestTheCauseIsBounded(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusBadGateway)
		io.WriteString(w, strings.Repeat("é", 1<<20))
	}))
	t.Cleanup(server.Close)
	_, err := llmtest.Ask(t.Context(), t, provider{client: open(t, upstream.Config{}), url: server.URL}, chat.Request{})
	if n := len(chat.AsError(err).Cause.Error()); n < 2000 || n > 2200 {
		t.Errorf("a cause of %d bytes", n)
	}
}

func TestAnErrorThatNeverEnds(t *testing.T) {
	for _, status := range []int{http.StatusInternalServerError, http.StatusOK} { // 200 with another media type
		synctest.Test(t, func(t *testing.T) {
			client := open(t, upstream.Config{Dial: llmtest.Pipes(t, http.HandlerFunc(
				func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("Content-Type", "text/plain")
					w.WriteHeader(status)
					io.WriteString(w, "one moment")
					w.(http.Flusher).Flush()
					<-r.Context().Done()
				}))})
			start := time.Now()
			_, err := llmtest.Ask(t.Context(), t, provider{client: client, url: "http://127.0.0.1"}, chat.Request{})
			if !errors.Is(err, chat.NewError(chat.CodeLLMUnavailable, "")) || !strings.Contains(err.Error(), "one moment") {
				t.Errorf("got %v", err)
			}
			if waited := time.Since(start); waited != 2*time.Second {
				t.Errorf("waited %s", waited)
			}
		})
	}
}

func TestHeader(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.Method != http.MethodPost || string(body) != `{"a":1}` || r.Header.Get("X-Own") != "own" ||
			r.Header.Get("Content-Type") != "application/json" || r.Header.Get("Accept") != "text/event-stream" {
			t.Errorf("got %s with %v, %s", r.Method, r.Header, body)
		}
		hello(w, r)
	}))
	t.Cleanup(server.Close)
	header := http.Header{"X-Own": {"own"}}
	call := upstream.Call{URL: server.URL, Header: header, Body: map[string]int{"a": 1}, Decode: decode}
	for _, err := range open(t, upstream.Config{}).Stream(t.Context(), call) {
		if err != nil {
			t.Error(err)
		}
	}
	if len(header) != 1 {
		t.Errorf("the header of the call has become %v", header)
	}
}

// Its body is the socket: reading it would not end with the request.
func TestSwitchingProtocolsIsNoAnswer(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
		io.Copy(io.Discard, conn) // until the client leaves
	}))
	t.Cleanup(server.Close)
	_, err := llmtest.Ask(t.Context(), t, provider{client: open(t, upstream.Config{}), url: server.URL}, chat.Request{})
	if !errors.Is(err, chat.NewError(chat.CodeLLMUnavailable, "")) {
		t.Errorf("got %v", err)
	}
}

// What of the configuration may be a secret stands in no error, whoever repeats it, and however it is written.
func TestErrorsHoldNoSecret(t *testing.T) {
	const odd = `sk-<"odd">&key`
	echo := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusUnauthorized)
		json.NewEncoder(w).Encode(map[string]string{"bad": odd, "at": r.URL.String()})
		io.WriteString(w, url.QueryEscape(odd)+odd)
	}))
	dead := httptest.NewServer(nil)
	dead.Close()
	t.Cleanup(echo.Close)
	for _, base := range []string{echo.URL + "?key=in-the-query", strings.Replace(dead.URL, "//", "//someone:pass-word@", 1) + "?key=in-the-query"} {
		client, err := upstream.New(upstream.Config{ID: "p", BaseURL: base, APIKey: odd})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { client.Close() })
		_, err = llmtest.Ask(t.Context(), t, provider{client: client, url: client.URL("v1").String()}, chat.Request{})
		if err == nil {
			t.Fatal("no error")
		}
		for _, secret := range []string{"odd", "in-the-query", "someone", "pass-word"} {
			if strings.Contains(err.Error(), secret) {
				t.Errorf("%s is in %q", secret, err)
			}
		}
	}
}
