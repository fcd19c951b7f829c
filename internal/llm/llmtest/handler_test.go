package llmtest_test

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/parley-chat/parley/internal/llm/llmtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func request(ctx context.Context, baseURL, model string) *http.Request {
	body := `{"model":"` + model + `","stream":true,"stream_options":{"include_usage":true},` +
		`"messages":[{"role":"user","content":"one two"}]}`
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, baseURL+"/chat/completions", strings.NewReader(body))
	if err != nil {
		panic(err)
	}
	return r
}

// contents returns the text that the events in body carry.
func contents(t *testing.T, body string) string {
	t.Helper()
	var text strings.Builder
	for line := range strings.Lines(body) {
		data, ok := strings.CutPrefix(strings.TrimSpace(line), "data: ")
		if !ok || data == "[DONE]" {
			continue
		}
		var chunk struct {
			Choices []struct{ Delta struct{ Content string } }
		}
		if err := json.Unmarshal([]byte(data), &chunk); err != nil {
			t.Fatalf("%q: %v", data, err)
		}
		for _, choice := range chunk.Choices {
			text.WriteString(choice.Delta.Content)
		}
	}
	return text.String()
}

func TestPacedWordsComeInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := llmtest.NewHandler()
		w := httptest.NewRecorder()
		start := time.Now()
		h.ServeHTTP(w, request(t.Context(), "/v1", "paced-5-30ms"))
		if took := time.Since(start); took != 150*time.Millisecond {
			t.Errorf("took %s", took)
		}
		if got := contents(t, w.Body.String()); got != llmtest.Text(5) {
			t.Errorf("got %q", got)
		}
		if !strings.HasSuffix(w.Body.String(), `"usage":{"prompt_tokens":2,"completion_tokens":5,"total_tokens":7}}`+
			"\n\ndata: [DONE]\n\n") {
			t.Errorf("ends with %q", w.Body.String())
		}
	})
}

func TestAGateOpensWordByWord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := llmtest.NewHandler()
		w := httptest.NewRecorder()
		go h.ServeHTTP(w, request(t.Context(), "", "gate-3"))
		for n := range 4 {
			synctest.Wait()
			if got := contents(t, w.Body.String()); got != llmtest.Text(n) {
				t.Errorf("after %d permits: %q", n, got)
			}
			if finished := h.Counts().Finished; finished != n/3 {
				t.Errorf("after %d permits: %d finished", n, finished)
			}
			h.Release(1)
		}
	})
}

func TestCloseEndsWhatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := llmtest.NewHandler()
		for _, model := range []string{"hang", "stall-after-2", "gate-2", "linger"} {
			go h.ServeHTTP(httptest.NewRecorder(), request(t.Context(), "", model))
		}
		go h.Await(t.Context(), llmtest.Counts{Requests: 100})
		synctest.Wait()
		h.Close()
		synctest.Wait()
		if got, want := h.Counts(), (llmtest.Counts{Requests: 4, Finished: 4}); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	})
}

func TestClientsThatLeaveAreCounted(t *testing.T) {
	server := llmtest.NewServer(t)
	ctx, cancel := context.WithCancel(t.Context())
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request(ctx, server.BaseURL, "stall-after-2"))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if err := server.Await(t.Context(), llmtest.Counts{Requests: 1}); err != nil {
		t.Fatal(err)
	}
	if counts := server.Counts(); counts.Finished != 0 {
		t.Errorf("%+v while it stalls", counts)
	}
	if at := server.Requests()[0].CancelledAt; at != 0 {
		t.Errorf("cancelled at %d while it stalls", at)
	}
	left := time.Now().UnixNano()
	cancel()
	if err := server.Await(t.Context(), llmtest.Counts{Finished: 1, Cancelled: 1}); err != nil {
		t.Error(err)
	}
	if at := server.Requests()[0].CancelledAt; at < left || at > time.Now().UnixNano() {
		t.Errorf("cancelled at %d, the client left at %d", at, left)
	}
}

func TestControlOverHTTP(t *testing.T) {
	server := llmtest.NewServer(t)
	root := strings.TrimSuffix(server.BaseURL, "/v1")
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

	response, err := client.Do(request(t.Context(), server.BaseURL, "gate-2"))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body := bufio.NewReader(response.Body)
	released, err := client.Post(root+"/release?n=2", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	released.Body.Close()
	answer, err := io.ReadAll(body)
	if err != nil || contents(t, string(answer)) != llmtest.Text(2) {
		t.Errorf("got %q, %v", answer, err)
	}

	var counts llmtest.Counts
	get(t, client, root+"/await?requests=1&finished=1", &counts)
	if want := (llmtest.Counts{Requests: 1, Finished: 1}); counts != want {
		t.Errorf("got %+v, want %+v", counts, want)
	}
	var requests []llmtest.Request
	get(t, client, root+"/requests", &requests)
	if len(requests) != 1 || requests[0].Model != "gate-2" || requests[0].Messages[0].Content != "one two" {
		t.Errorf("got %+v", requests)
	}
}

func get(t *testing.T, client *http.Client, url string, v any) {
	t.Helper()
	response, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if err := json.NewDecoder(response.Body).Decode(v); err != nil {
		t.Fatal(err)
	}
}

func TestStatuses(t *testing.T) {
	for model, want := range map[string]int{
		"status-429": 429, "status-500": 500, "status-7": 500, "status": 500, "refused": 400, "html": 200, "json": 200,
		"redirect": 307, "gpt-5": 404, "": 404, "words-": 404,
	} {
		w := httptest.NewRecorder()
		llmtest.NewHandler().ServeHTTP(w, request(t.Context(), "/v1", model))
		if w.Code != want {
			t.Errorf("%q: status %d, want %d", model, w.Code, want)
		}
	}
}

func TestABodyThatIsNoRequest(t *testing.T) {
	h := llmtest.NewHandler()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/v1/chat/completions", strings.NewReader("{")))
	if w.Code != http.StatusBadRequest || len(h.Requests()) != 0 {
		t.Errorf("status %d, %d requests", w.Code, len(h.Requests()))
	}
}
