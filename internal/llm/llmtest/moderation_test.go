package llmtest_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/parley-chat/parley/internal/llm/llmtest"
)

func TestModeration(t *testing.T) {
	h := llmtest.NewHandler()
	for _, test := range []struct {
		body   string
		status int
		want   string
	}{
		{`{"text":"hello"}`, 200, `{"allowed":true}`},
		{`{"text":"what is forbidden"}`, 200, `{"allowed":false,"reason":"scripted"}`},
		{`{"text":"moderator-500"}`, 500, llmtest.Detail},
		{`{`, 400, "unexpected end of JSON input"},
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/moderate", strings.NewReader(test.body)))
		if got := strings.TrimSpace(w.Body.String()); w.Code != test.status || got != test.want {
			t.Errorf("%s: got %d, %s", test.body, w.Code, got)
		}
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/moderations", nil))
	want := `[{"text":"hello"},{"text":"what is forbidden"},{"text":"moderator-500"}]`
	if got := strings.TrimSpace(w.Body.String()); got != want || len(h.Moderations()) != 3 {
		t.Errorf("recorded %s", got)
	}
}

func TestAModeratorThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := llmtest.NewHandler()
		returned := false
		go func() {
			body := strings.NewReader(`{"text":"moderator-hang, forbidden"}`)
			h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/moderate", body))
			returned = true
		}()
		synctest.Wait()
		if returned || len(h.Moderations()) != 1 {
			t.Errorf("returned: %t, recorded %s", returned, h.Moderations())
		}
		h.Close()
		synctest.Wait()
		if !returned {
			t.Error("it hangs although the upstream was closed")
		}
	})
}
