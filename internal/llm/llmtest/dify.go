package llmtest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// dify is Dify's service API, as of the pages "Send Chat Message", "Stop Chat Message Generation", "SSE Streaming" and
// "Errors & Rate Limits" of its documentation.
type dify struct {
	e                           *exchange
	task, message, conversation string

	answer   strings.Builder
	thinking bool // reasoning was sent and not yet ended
	ended    bool // message_end was sent
}

// task is an answer that its user can stop.
type task struct {
	user    string
	cancel  context.CancelCauseFunc
	stopped bool
}

func newDify(e *exchange) dialect { return &dify{e: e} }

func (d *dify) read(body []byte) error {
	var wire struct {
		Inputs         map[string]any `json:"inputs"`
		Query          string         `json:"query"`
		ResponseMode   string         `json:"response_mode"`
		ConversationID string         `json:"conversation_id"`
		User           string         `json:"user"`
	}
	if err := json.Unmarshal(body, &wire); err != nil {
		return err
	}
	model, ok := wire.Inputs["model"].(string)
	if !ok {
		key := strings.TrimPrefix(d.e.r.Header.Get("Authorization"), "Bearer ")
		model = key[strings.LastIndexByte(key, '/')+1:]
	}
	d.e.request = Request{
		Model:          model,
		Messages:       []Message{{Role: "user", Content: wire.Query}},
		Stream:         wire.ResponseMode == "streaming",
		ConversationID: wire.ConversationID,
		Query:          wire.Query,
		User:           wire.User,
		Inputs:         wire.Inputs,
	}
	return nil
}

func (d *dify) admit() bool {
	r := d.e.request
	switch {
	case !bearer(d.e.r):
		d.refuse(http.StatusUnauthorized, "", "Access token is invalid")
	case r.Inputs == nil:
		d.problem(http.StatusBadRequest, "invalid_param", "inputs is required")
	case r.Query == "":
		d.problem(http.StatusBadRequest, "invalid_param", "query is required")
	case r.User == "":
		d.problem(http.StatusBadRequest, "invalid_param", "Arg user must be provided.")
	case !d.begin():
		d.refuse(http.StatusNotFound, "", "Conversation Not Exists.")
	default:
		return true
	}
	return false
}

func bearer(r *http.Request) bool { return strings.HasPrefix(r.Header.Get("Authorization"), "Bearer ") }

// begin makes the task, in a new conversation or the user's own one that the request names. It tells whether that
// exists.
func (d *dify) begin() bool {
	h, r := d.e.handler, d.e.request
	h.mu.Lock()
	defer h.mu.Unlock()
	d.conversation = r.ConversationID
	if d.conversation == "" {
		d.conversation = h.newID()
		h.conversations[d.conversation] = r.User
	} else if user, ok := h.conversations[d.conversation]; !ok || user != r.User {
		return false
	}
	d.task, d.message = h.newID(), h.newID()
	h.tasks[d.task] = &task{user: r.User, cancel: d.e.cancel}
	return true
}

// newID returns a UUID that was not given before. It is called under the lock.
func (h *Handler) newID() string {
	h.lastID++
	return fmt.Sprintf("00000000-0000-4000-8000-%012x", h.lastID)
}

// serveStop stops a task. A task that does not exist, or is another user's, is no error.
func (h *Handler) serveStop(w http.ResponseWriter, r *http.Request) {
	d := &dify{e: newExchange(h, w, r)}
	body, err := io.ReadAll(r.Body)
	var wire struct {
		User string `json:"user"`
	}
	if err == nil {
		err = json.Unmarshal(body, &wire)
	}
	switch {
	case !bearer(r):
		d.refuse(http.StatusUnauthorized, "", "Access token is invalid")
		return
	case err != nil, wire.User == "":
		d.problem(http.StatusBadRequest, "invalid_param", "Arg user must be provided.")
		return
	}
	h.change(func() {
		if t := h.tasks[r.PathValue("task")]; t != nil && t.user == wire.User && !t.stopped {
			t.stopped = true
			t.cancel(errStopped)
			h.counts.Stopped++
		}
	})
	writeJSON(w, map[string]string{"result": "success"})
}

func (d *dify) refuse(status int, _, message string) {
	code := strings.ReplaceAll(strings.ToLower(http.StatusText(status)), " ", "_")
	if code == "" {
		code = "unknown"
	}
	d.problem(status, code, message)
}

func (d *dify) problem(status int, code, message string) {
	d.e.writeError(status, fmt.Sprintf(`{"code":"%s","message":%s,"status":%d}`, code, d.e.quote(message), status))
}

func (d *dify) start() {
	d.e.open()
	switch d.e.app {
	case agent:
		d.thought("", "", "")
	case workflow:
		d.run("workflow_started", `"id":"run-1","workflow_id":"flow-1","inputs":{},"created_at":`+created)
		d.node("node_started", "")
	}
}

func (d *dify) text(text string) {
	d.think("", true)
	d.answer.WriteString(text)
	event := "message"
	if d.e.app == agent || d.e.app == newAgent {
		event = "agent_message"
	}
	d.say(event, text)
}

func (d *dify) reasoning(text string) {
	d.thinking = true
	d.think(text, false)
}

// think sends a part of the reasoning; the final one only where there was another.
func (d *dify) think(text string, final bool) {
	if !d.thinking {
		return
	}
	d.thinking = !final
	d.event("reasoning_chunk", fmt.Sprintf(`"data":{"message_id":"%s","reasoning":%s,"node_id":"llm","is_final":%t}`,
		d.message, d.e.quote(text), final))
}

func (d *dify) toolCall() { d.thought("", "lookup", `{"lookup": {"key": 1}}`) }

// ping has no data.
func (d *dify) ping() { d.e.event("ping", "") }

func (d *dify) finish(why reason) {
	d.think("", true)
	if why == filter || why == refusal {
		d.say("message_replace", "I cannot talk about that.")
	}
	switch d.e.app {
	case agent:
		d.thought(d.answer.String(), "", "")
	case newAgent:
		d.say("message", d.answer.String()) // the whole of it, once more
	case workflow:
		if why == pause {
			d.pause()
			return
		}
		d.node("node_finished", `,"status":"succeeded"`)
	}
	d.end()
	if d.e.app == workflow {
		d.run("workflow_finished", `"id":"run-1","workflow_id":"flow-1","status":"succeeded","error":null`)
	}
}

func (d *dify) pause() {
	d.run("human_input_required", `"form_id":"form-1","node_id":"ask","form_content":"Go on?","form_token":"token-1"`)
	d.run("workflow_paused", `"paused_nodes":["ask"],"reasons":[]`)
	d.ended = true
}

func (d *dify) usage() {}

func (d *dify) end() {
	if d.ended {
		return
	}
	d.ended = true
	usage := ""
	if !d.e.unmetered {
		input, output := d.e.tokens()
		usage = fmt.Sprintf(`"usage":{"prompt_tokens":%d,"prompt_unit_price":"0","prompt_price_unit":"0.001",`+
			`"prompt_price":"0","completion_tokens":%d,"completion_unit_price":"0","completion_price_unit":"0.001",`+
			`"completion_price":"0","total_tokens":%d,"total_price":"0","currency":"USD","latency":0.5}`,
			input, output, input+output)
	}
	d.event("message_end", `"id":"`+d.message+`","metadata":{`+usage+`},"files":null`)
}

func (d *dify) fault(overloaded bool) {
	if d.e.app == workflow {
		d.node("node_finished", `,"status":"failed","error":`+d.e.quote(Detail))
		d.run("workflow_finished",
			`"id":"run-1","workflow_id":"flow-1","status":"failed","error":`+d.e.quote(Detail))
	}
	status, code := http.StatusInternalServerError, "internal_server_error"
	if overloaded {
		status, code = http.StatusTooManyRequests, "too_many_requests"
	}
	d.e.event("", fmt.Sprintf(`{"event":"error","conversation_id":"%s","message_id":"%s","created_at":%s,`+
		`"status":%d,"code":"%s","message":%s}`, d.conversation, d.message, created, status, code, d.e.quote(Detail)))
}

func (d *dify) garbage() { d.e.event("", `{"event":"message","answer":`) }

// say sends an event with a text.
func (d *dify) say(event, text string) {
	d.event(event, `"id":"`+d.message+`","answer":`+d.e.quote(text))
}

// thought sends a step of an agent, which repeats what the agent said in it.
func (d *dify) thought(said, tool, input string) {
	d.event("agent_thought", `"id":"thought-1","position":1,"thought":`+d.e.quote(said)+`,"observation":"","tool":`+
		d.e.quote(tool)+`,"tool_labels":{},"tool_input":`+d.e.quote(input)+`,"message_files":[]`)
}

func (d *dify) node(event, fields string) {
	d.run(event, `"id":"execution-1","node_id":"llm","node_type":"llm","title":"LLM","index":1`+fields)
}

// run sends an event of a workflow.
func (d *dify) run(event, data string) { d.event(event, `"workflow_run_id":"run-1","data":{`+data+`}`) }

func (d *dify) event(name, fields string) {
	d.e.event("", fmt.Sprintf(`{"event":"%s","conversation_id":"%s","message_id":"%s","created_at":%s,"task_id":"%s",%s}`,
		name, d.conversation, d.message, created, d.task, fields))
}
