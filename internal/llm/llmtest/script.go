package llmtest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// vocabulary has words of one to four bytes a letter, so that text is cut within letters somewhere.
var vocabulary = []string{"alpha", "bèta", "γάμμα", "дельта", "五", "ζ🦊", "<eta>", `"theta"`}

// word returns the i-th word, from 0. Its number makes every word of a text another one.
func word(i int) string { return vocabulary[i%len(vocabulary)] + strconv.Itoa(i+1) }

// Text returns the text of n words as scripts stream it.
func Text(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(piece(i))
	}
	return b.String()
}

// piece is the i-th word with the space before it, where there is one.
func piece(i int) string {
	if i == 0 {
		return word(i)
	}
	return " " + word(i)
}

// Usage returns the usage that an answer of n words to the request reports: every word is a token.
func (r Request) Usage(n int) (input, output int) {
	for _, m := range r.Messages {
		input += len(strings.Fields(m.Content))
	}
	return input, n
}

// exchange is one request being answered.
type exchange struct {
	handler *Handler
	w       http.ResponseWriter
	ctx     context.Context // ends when the client leaves or the handler is closed
	request Request

	n        int           // the script's number
	interval time.Duration // the script's interval
	eol      string
	byBytes  bool
}

// perform answers the request as the name of its model says.
func (h *Handler) perform(w http.ResponseWriter, r *http.Request, request Request) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(h.closed, cancel)()

	name, args := split(request.Model)
	script, ok := scripts[name]
	if !ok {
		writeError(w, http.StatusNotFound, "the model "+request.Model+" does not exist", "model_not_found")
		return
	}
	e := &exchange{handler: h, w: w, ctx: ctx, request: request, n: 10, interval: 20 * time.Millisecond, eol: "\n"}
	for _, arg := range args {
		if n, err := strconv.Atoi(arg); err == nil {
			e.n = n
		} else if d, err := time.ParseDuration(arg); err == nil {
			e.interval = d
		}
	}
	script(e)
}

// split parts a model's name, such as paced-50-20ms, into the script and what begins with a digit after it.
func split(model string) (script string, args []string) {
	parts := strings.Split(model, "-")
	end := len(parts)
	for end > 1 && parts[end-1] != "" && parts[end-1][0] >= '0' && parts[end-1][0] <= '9' {
		end--
	}
	return strings.Join(parts[:end], "-"), parts[end:]
}

var scripts = map[string]func(*exchange){
	"echo":       (*exchange).echo,
	"words":      func(e *exchange) { e.words(); e.end("stop") },
	"paced":      (*exchange).paced,
	"gate":       (*exchange).gate,
	"reasoning":  (*exchange).reasoning,
	"length":     func(e *exchange) { e.words(); e.end("length") },
	"filter":     func(e *exchange) { e.words(); e.end("content_filter") },
	"tools":      func(e *exchange) { e.start(); e.end("tool_calls") },
	"crlf":       func(e *exchange) { e.eol = "\r\n"; e.words(); e.end("stop") },
	"cr":         func(e *exchange) { e.eol = "\r"; e.words(); e.end("stop") },
	"comments":   (*exchange).comments,
	"bytes":      func(e *exchange) { e.byBytes = true; e.words(); e.end("stop") },
	"bare":       func(e *exchange) { e.words(); e.choice(delta{}, "stop") },
	"unfinished": func(e *exchange) { e.words(); e.event("[DONE]") },
	"linger":     func(e *exchange) { e.words(); e.choice(delta{}, "stop"); e.stall() },

	"hang":          (*exchange).stall,
	"stall-after":   func(e *exchange) { e.words(); e.stall() },
	"end-after":     (*exchange).words,
	"cut-after":     func(e *exchange) { e.words(); panic(http.ErrAbortHandler) },
	"reset-after":   func(e *exchange) { e.words(); e.reset() },
	"error-after":   (*exchange).fail,
	"garbage-after": func(e *exchange) { e.words(); e.event(`{"choices":[{"delta":{"content":`) },
	"huge-line":     func(e *exchange) { e.start(); e.text(strings.Repeat("x", 2<<20)); e.end("stop") },
	"flood":         (*exchange).flood,

	"status":   (*exchange).status,
	"refused":  func(e *exchange) { writeError(e.w, http.StatusBadRequest, Detail, "content_filter") },
	"html":     func(e *exchange) { e.page("text/html", "<h1>Welcome to the proxy</h1>") },
	"json":     func(e *exchange) { e.page("application/json", `{"error":{"message":"`+Detail+`"}}`) },
	"redirect": (*exchange).redirect,
}

// Detail stands in every error that a script gives. It must never reach a client.
const Detail = "scripted failure in cluster-7"

func (e *exchange) echo() {
	e.start()
	for i := len(e.request.Messages) - 1; i >= 0; i-- {
		if m := e.request.Messages[i]; m.Role == "user" {
			pieces := strings.SplitAfter(m.Content, " ")
			e.n = len(pieces)
			for _, piece := range pieces {
				e.text(piece)
			}
			break
		}
	}
	e.end("stop")
}

func (e *exchange) paced() {
	ticker := time.NewTicker(e.interval)
	defer ticker.Stop()
	e.start()
	for i := range e.n {
		select {
		case <-ticker.C:
			e.text(piece(i))
		case <-e.ctx.Done():
			return
		}
	}
	e.end("stop")
}

func (e *exchange) gate() {
	e.start()
	for i := range e.n {
		if e.handler.pass(e.ctx) != nil {
			return
		}
		e.text(piece(i))
	}
	e.end("stop")
}

func (e *exchange) reasoning() {
	e.start()
	for i := range e.n {
		e.choice(delta{Reasoning: piece(i)}, "")
	}
	for i := range e.n {
		e.text(piece(i))
	}
	e.end("stop")
}

func (e *exchange) comments() {
	e.start()
	for i := range e.n {
		e.write(": PROCESSING" + e.eol + e.eol)
		e.text(piece(i))
	}
	e.end("stop")
}

func (e *exchange) fail() {
	e.words()
	e.event(`{"error":{"message":"` + Detail + `","type":"server_error","code":"overloaded"}}`)
}

func (e *exchange) flood() {
	e.start()
	text := strings.Repeat("x", 64<<10)
	for e.ctx.Err() == nil {
		e.text(text)
	}
}

func (e *exchange) stall() { <-e.ctx.Done() }

// reset closes the connection with RST: what lies in its buffers is thrown away.
func (e *exchange) reset() {
	conn, _, err := http.NewResponseController(e.w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		tcp.SetLinger(0)
	}
	conn.Close()
}

func (e *exchange) status() {
	if e.n == http.StatusTooManyRequests || e.n == http.StatusServiceUnavailable {
		e.w.Header().Set("Retry-After", "7")
	}
	if e.n < 200 || e.n > 599 {
		e.n = http.StatusInternalServerError
	}
	// Some providers repeat the key in what they say about it.
	writeError(e.w, e.n, Detail+" for "+e.request.Authorization, "scripted")
}

func (e *exchange) page(contentType, body string) {
	e.w.Header().Set("Content-Type", contentType)
	io.WriteString(e.w, body)
}

func (e *exchange) redirect() {
	e.w.Header().Set("Location", "/chat/completions")
	e.w.WriteHeader(http.StatusTemporaryRedirect)
}

// delta is what a chunk adds to the answer.
type delta struct {
	Role      string  `json:"role,omitempty"`
	Content   *string `json:"content,omitempty"`
	Reasoning string  `json:"reasoning_content,omitempty"`
}

func (e *exchange) start() {
	e.w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
	e.w.WriteHeader(http.StatusOK)
	e.choice(delta{Role: "assistant", Content: new(string)}, "")
}

func (e *exchange) words() {
	e.start()
	for i := 0; i < e.n && e.ctx.Err() == nil; i++ {
		e.text(piece(i))
	}
}

func (e *exchange) text(text string) { e.choice(delta{Content: &text}, "") }

// end gives the finish reason, the usage if it was asked for, and [DONE].
func (e *exchange) end(reason string) {
	e.choice(delta{}, reason)
	if e.request.StreamOptions.IncludeUsage {
		input, output := e.request.Usage(e.n)
		e.chunk(fmt.Sprintf(`"choices":[],"usage":{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d}`,
			input, output, input+output))
	}
	e.event("[DONE]")
}

func (e *exchange) choice(d delta, finishReason string) {
	reason := "null"
	if finishReason != "" {
		reason = `"` + finishReason + `"`
	}
	added, _ := json.Marshal(d) // strings only: cannot fail
	e.chunk(`"choices":[{"index":0,"delta":` + string(added) + `,"finish_reason":` + reason + `}]`)
}

func (e *exchange) chunk(rest string) {
	e.event(`{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1760000000,"model":` +
		strconv.Quote(e.request.Model) + `,` + rest + `}`)
}

func (e *exchange) event(data string) { e.write("data: " + data + e.eol + e.eol) }

// write sends s at once. That the client has left is seen by the context, so errors say nothing new.
func (e *exchange) write(s string) {
	size := len(s)
	if e.byBytes {
		size = 1
	}
	flusher := http.NewResponseController(e.w)
	for len(s) > 0 {
		io.WriteString(e.w, s[:size])
		flusher.Flush()
		s = s[size:]
	}
}

func writeError(w http.ResponseWriter, status int, message, code string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(map[string]any{"error": map[string]string{"message": message, "code": code}})
}
