package llmtest_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-chat/parley/internal/llm/llmtest"
)

// What breaks, on a real connection.
func TestBreaks(t *testing.T) {
	tests := []struct {
		model string
		err   error
		fault [3]string // of the speakers
		json  bool
	}{
		{"end-after-5", nil, [3]string{}, true},
		{"cut-after-5", io.ErrUnexpectedEOF, [3]string{}, true},
		{"error-after-5", nil, [3]string{"error", "api_error", "internal_server_error"}, true},
		{"overloaded-after-5", nil, [3]string{"overloaded", "overloaded_error", "too_many_requests"}, true},
		{"garbage-after-5", nil, [3]string{}, false},
	}
	server := llmtest.NewServer(t)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for i, s := range speakers {
		for _, test := range tests {
			t.Run(s.name+"/"+test.model, func(t *testing.T) {
				response, err := client.Do(s.request(t.Context(), server.BaseURL, test.model))
				if err != nil {
					t.Fatal(err)
				}
				defer response.Body.Close()
				body, err := io.ReadAll(response.Body)
				got, ok := s.listen(string(body))
				if !errors.Is(err, test.err) || ok != test.json {
					t.Errorf("got the error %v (JSON: %t), want %v (%t)", err, ok, test.err, test.json)
				}
				if got.Text != llmtest.Text(5) || got.Whole || got.Reason != "" || got.Fault != test.fault[i] {
					t.Errorf("got %+v", got)
				}
			})
		}
		t.Run(s.name+"/reset-after-5", func(t *testing.T) {
			response, err := client.Do(s.request(t.Context(), server.BaseURL, "reset-after-5"))
			if err == nil { // a reset may overtake even the headers
				_, err = io.ReadAll(response.Body)
				response.Body.Close()
			}
			if !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestPingsGoOnUntilTheClientLeaves(t *testing.T) {
	for _, s := range speakers {
		t.Run(s.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := llmtest.NewHandler()
				ctx, cancel := context.WithTimeout(t.Context(), 55*time.Second)
				defer cancel()
				w := httptest.NewRecorder()
				h.ServeHTTP(w, s.request(ctx, "", "pings-after-2-10s"))
				got, _ := s.listen(w.Body.String())
				if got.Text != llmtest.Text(2) || got.Whole {
					t.Errorf("got %+v", got)
				}
				ping := map[string]string{"openai": ": PROCESSING\n\n", "dify": "event: ping\n\n",
					"anthropic": "event: ping\ndata: {\"type\":\"ping\"}\n\n"}[s.name]
				if n := strings.Count(w.Body.String()[strings.LastIndex(w.Body.String(), "2"):], ping); n != 5 {
					t.Errorf("%d pings in 55 seconds, want 5:\n%s", n, w.Body)
				}
			})
		})
	}
}

func TestErrorStatuses(t *testing.T) {
	tests := []struct {
		model           string
		status          int
		retry           string
		anthropic, dify string // type and code
	}{
		{"status-400", 400, "", "invalid_request_error", "bad_request"},
		{"status-401", 401, "", "authentication_error", "unauthorized"},
		{"status-402", 402, "", "billing_error", "payment_required"},
		{"status-403", 403, "", "permission_error", "forbidden"},
		{"status-404", 404, "", "not_found_error", "not_found"},
		{"status-409", 409, "", "conflict_error", "conflict"},
		{"status-413", 413, "", "request_too_large", "request_entity_too_large"},
		{"status-422", 422, "", "invalid_request_error", "unprocessable_entity"},
		{"status-429", 429, "7", "rate_limit_error", "too_many_requests"},
		{"retry-after-30", 429, "30", "rate_limit_error", "too_many_requests"},
		{"status-500", 500, "", "api_error", "internal_server_error"},
		{"status-503", 503, "7", "api_error", "service_unavailable"},
		{"status-504", 504, "", "timeout_error", "gateway_timeout"},
		{"status-529", 529, "", "overloaded_error", "unknown"},
		{"status", 500, "", "api_error", "internal_server_error"},
		{"refused", 400, "", "invalid_request_error", "bad_request"},
		{"json", 200, "", "api_error", "ok"},
		{"gpt-5", 404, "", "not_found_error", "not_found"},
	}
	for _, s := range speakers {
		for _, test := range tests {
			w := s.ask(t, test.model)
			if w.Code != test.status || w.Header().Get("Retry-After") != test.retry {
				t.Errorf("%s: %s: got %d, to be retried after %q", s.name, test.model, w.Code, w.Header()["Retry-After"])
			}
			var body map[string]any
			if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil {
				t.Fatal(err)
			}
			message := str(body, "error", "message")
			switch s.name {
			case "anthropic":
				if body["type"] != "error" || str(body, "error", "type") != test.anthropic ||
					body["request_id"] == nil || body["request_id"] != w.Header().Get("Request-Id") {
					t.Errorf("%s: got %v", test.model, body)
				}
			case "dify":
				message = str(body, "message")
				if body["code"] != test.dify || num(body, "status") != test.status {
					t.Errorf("%s: got %v", test.model, body)
				}
			}
			if test.model != "gpt-5" && !strings.Contains(message, llmtest.Detail) {
				t.Errorf("%s: %s: the message is %q", s.name, test.model, message)
			}
			if strings.HasPrefix(test.model, "status") && !strings.Contains(message, "sk-1") {
				t.Errorf("%s: %s: the message does not repeat the key: %q", s.name, test.model, message)
			}
		}
	}
}

func TestRedirectsLeadToTheSamePath(t *testing.T) {
	for _, s := range speakers {
		w := s.ask(t, "redirect")
		if got := w.Header().Get("Location"); w.Code != http.StatusTemporaryRedirect || got != "/v1"+s.path {
			t.Errorf("%s: status %d to %q", s.name, w.Code, got)
		}
	}
}

func TestFlakyCountsTheRequestsOfAName(t *testing.T) {
	h := llmtest.NewHandler()
	const a, b = "flaky-2-503-1", "flaky-1-529-4"
	for _, s := range speakers {
		var got []int
		for _, model := range []string{a, a, b, a, b} {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, s.request(t.Context(), "", model))
			got = append(got, w.Code)
			if after := w.Header().Get("Retry-After"); after != "" {
				t.Errorf("%s: %s: to be retried after %s", s.name, model, after)
			}
		}
		if want := []int{503, 503, 529, 200, 200}; !slices.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", s.name, got, want)
		}
	}
}

func TestFlakyResetsTheConnection(t *testing.T) {
	server := llmtest.NewServer(t)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for _, s := range speakers {
		_, err := client.Do(s.request(t.Context(), server.BaseURL, "flaky-1-0-3"))
		if !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: got %v at first", s.name, err)
		}
		response, err := client.Do(s.request(t.Context(), server.BaseURL, "flaky-1-0-3"))
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(response.Body)
		response.Body.Close()
		if got, _ := s.listen(string(body)); got.Text != llmtest.Text(3) || !got.Whole {
			t.Errorf("%s: got %+v at last", s.name, got)
		}
	}
}
