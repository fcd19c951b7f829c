package llmtest_test

import (
	"bufio"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/parley-chat/parley/internal/llm/llmtest"
)

// difyAsk sends a body with a key, none if that is empty.
func difyAsk(h http.Handler, key, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, "/v1/chat-messages", strings.NewReader(body))
	if key != "" {
		r.Header.Set("Authorization", "Bearer "+key)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// difyEvents returns the events of a stream.
func difyEvents(t *testing.T, stream string) (events []map[string]any) {
	t.Helper()
	for line := range strings.Lines(stream) {
		data, found := strings.CutPrefix(line, "data: ")
		if !found {
			continue
		}
		var event map[string]any
		if err := json.Unmarshal([]byte(data), &event); err != nil {
			t.Fatal(err)
		}
		events = append(events, event)
	}
	return events
}

func TestDifyFindsTheScriptInTheInputsOrTheKey(t *testing.T) {
	const rest = `,"query":"hi","user":"ann"}`
	tests := []struct{ key, body, want string }{
		{"app-key/words-2", `{"inputs":{}` + rest, "words-2"},
		{"app/key/words-2", `{"inputs":{}` + rest, "words-2"},
		{"words-2", `{"inputs":{}` + rest, "words-2"},
		{"app-key/words-2", `{"inputs":{"model":"words-3"}` + rest, "words-3"},
		{"app-key/words-2", `{"inputs":{"model":7}` + rest, "words-2"},
	}
	for _, test := range tests {
		h := llmtest.NewHandler()
		w := difyAsk(h, test.key, test.body)
		if got := h.Requests()[0].Model; got != test.want || w.Code != http.StatusOK {
			t.Errorf("%s, %s: got status %d of the model %q, want %q", test.key, test.body, w.Code, got, test.want)
		}
	}
}

func TestDifyRefusesWhatTheAPIDoes(t *testing.T) {
	const missing = `{"code":"not_found","message":"Conversation Not Exists.","status":404}`
	tests := []struct {
		name, key, body string
		status          int
		want            string
	}{
		{"no key", "", `{"inputs":{"model":"words-1"},"query":"hi","user":"ann"}`, 401, `"unauthorized"`},
		{"no inputs", "k/words-1", `{"query":"hi","user":"ann"}`, 400, `"invalid_param"`},
		{"no query", "k/words-1", `{"inputs":{},"user":"ann"}`, 400, `"invalid_param"`},
		{"no user", "k/words-1", `{"inputs":{},"query":"hi"}`, 400, `"invalid_param"`},
		{"not JSON", "k/words-1", `{`, 400, `"bad_request"`},
		{"a conversation that never was", "k/words-1",
			`{"inputs":{},"query":"hi","user":"ann","conversation_id":"00000000-0000-4000-8000-000000000001"}`, 404, missing},
	}
	for _, test := range tests {
		w := difyAsk(llmtest.NewHandler(), test.key, test.body)
		if w.Code != test.status || !strings.Contains(w.Body.String(), test.want) {
			t.Errorf("%s: got %d, %s", test.name, w.Code, w.Body)
		}
	}
}

func TestDifyConversationsGoOn(t *testing.T) {
	h := llmtest.NewHandler()
	ask := func(user, conversation string) (status int, id string) {
		w := difyAsk(h, "k/words-2",
			`{"inputs":{},"query":"hi","user":"`+user+`","conversation_id":"`+conversation+`"}`)
		for _, event := range difyEvents(t, w.Body.String()) {
			if id != "" && str(event, "conversation_id") != id {
				t.Errorf("two conversations in one answer: %v", event)
			}
			id = str(event, "conversation_id")
		}
		return w.Code, id
	}
	_, first := ask("ann", "")
	_, second := ask("ann", "")
	if first == "" || first == second {
		t.Errorf("two new conversations are %q and %q", first, second)
	}
	if status, again := ask("ann", first); status != http.StatusOK || again != first {
		t.Errorf("going on with %q: status %d, %q", first, status, again)
	}
	if status, _ := ask("bob", first); status != http.StatusNotFound {
		t.Errorf("somebody else's conversation: status %d", status)
	}
}

func TestDifyApps(t *testing.T) {
	tests := []struct {
		model string
		want  string
	}{
		{"words-2", "message message message_end"},
		{"reasoning-1", "reasoning_chunk reasoning_chunk message message_end"},
		{"filter-1", "message message_replace message_end"},
		{"tools-after-1", "message agent_thought message_end"},
		{"agent-1", "agent_thought agent_message agent_thought message_end"},
		{"new-agent-2", "agent_message agent_message message message_end"},
		{"workflow-1", "workflow_started node_started message node_finished message_end workflow_finished"},
		{"workflow-failed-1", "workflow_started node_started message node_finished workflow_finished error"},
		{"pause-1", "workflow_started node_started message human_input_required workflow_paused"},
	}
	for _, test := range tests {
		var got []string
		events := difyEvents(t, dify.ask(t, test.model).Body.String())
		for _, event := range events {
			got = append(got, str(event, "event"))
			if (event["task_id"] == nil) != (event["event"] == "error") {
				t.Errorf("%s: every event but error has a task_id: %v", test.model, event)
			}
		}
		if !slices.Equal(got, strings.Fields(test.want)) {
			t.Errorf("%s: got %q, want %s", test.model, got, test.want)
		}
		if test.model == "new-agent-2" && str(events[2], "answer") != llmtest.Text(2) {
			t.Errorf("the closing message is %v", events[2])
		}
	}
}

func TestDifyTasksAreStopped(t *testing.T) {
	server := llmtest.NewServer(t)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(dify.request(t.Context(), server.BaseURL, "stall-after-1"))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	stream := bufio.NewReader(response.Body)
	first, err := stream.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	task := str(difyEvents(t, first)[0], "task_id")

	stop := func(task, key, body string) int {
		t.Helper()
		r, _ := http.NewRequest(http.MethodPost, server.BaseURL+"/chat-messages/"+task+"/stop", strings.NewReader(body))
		r.Header.Set("Authorization", key)
		response, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		said, _ := io.ReadAll(response.Body)
		if success := string(said) == `{"result":"success"}`+"\n"; success != (response.StatusCode == http.StatusOK) {
			t.Errorf("status %d: %s", response.StatusCode, said)
		}
		return response.StatusCode
	}
	for _, test := range []struct {
		task, key, body string
		status          int
	}{
		{task, "", `{"user":"ann"}`, 401},
		{task, "Bearer k", `{}`, 400},
		{task, "Bearer k", `{"user":"bob"}`, 200},
		{"no-such-task", "Bearer k", `{"user":"ann"}`, 200},
	} {
		if got := stop(test.task, test.key, test.body); got != test.status {
			t.Errorf("%v: status %d", test, got)
		}
	}
	if got, want := server.Counts(), (llmtest.Counts{Requests: 1}); got != want {
		t.Errorf("got %+v before the stop, want %+v", got, want)
	}

	stop(task, "Bearer k", `{"user":"ann"}`)
	stop(task, "Bearer k", `{"user":"ann"}`)
	rest, err := io.ReadAll(stream)
	if got, _ := dify.listen(string(rest)); err != nil || !got.Whole || got.Output != 1 {
		t.Errorf("the stream ended with %q, %v", rest, err)
	}
	if err := server.Await(t.Context(), llmtest.Counts{Finished: 1, Stopped: 1}); err != nil {
		t.Fatal(err)
	}
	if got, want := server.Counts(), (llmtest.Counts{Requests: 1, Finished: 1, Stopped: 1}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// A client that stops a task closes its stream too, in either order.
func TestDifyTasksAreStoppedAfterTheirClientLeft(t *testing.T) {
	h := llmtest.NewHandler()
	w := difyAsk(h, "k/end-after-1", `{"inputs":{},"query":"hi","user":"ann"}`)
	task := str(difyEvents(t, w.Body.String())[0], "task_id")
	r := httptest.NewRequest(http.MethodPost, "/chat-messages/"+task+"/stop", strings.NewReader(`{"user":"ann"}`))
	r.Header.Set("Authorization", "Bearer k")
	h.ServeHTTP(httptest.NewRecorder(), r)

	await := httptest.NewRecorder()
	h.ServeHTTP(await, httptest.NewRequest(http.MethodGet, "/await?stopped=1", nil))
	if got := h.Counts().Stopped; got != 1 || !strings.Contains(await.Body.String(), `"stopped":1`) {
		t.Errorf("%d stopped: %s", got, await.Body)
	}
}
