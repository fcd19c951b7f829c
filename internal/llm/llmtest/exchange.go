package llmtest

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
	"unicode/utf16"
	"unicode/utf8"
)

// dialect is the wire format of one provider, for one exchange.
type dialect interface {
	read(body []byte) error // into the exchange's request
	admit() bool            // tells whether the provider would take the request, and refuses it if not

	// refuse answers with an error instead of a stream. The code is OpenAI's; others go by the status.
	refuse(status int, code, message string)

	start() // headers, and what comes before the first text
	text(text string)
	reasoning(text string)
	toolCall()
	ping()
	finish(why reason) // the end of the text, with the usage where that is part of it
	usage()            // where it is an event of its own
	end()              // the end mark, where the finish was not one
	fault(overloaded bool)
	garbage() // an event that is not JSON
}

// reason is why an answer ends, in the words that the scripts are named with.
type reason string

const (
	stop     reason = "stop"
	length   reason = "length"
	filter   reason = "filter"
	tools    reason = "tools"
	refusal  reason = "refusal"
	pause    reason = "pause"
	sequence reason = "sequence"
	window   reason = "window"
)

// app is a kind of application of Dify. It decides which events an answer is made of.
type app int

const (
	chatbot app = iota
	agent
	newAgent
	workflow
)

// errStopped is why the context of a stopped task ended.
var errStopped = errors.New("stopped by the user")

// created is the time of all answers, in seconds since 1970.
const created = "1760000000"

// exchange is one request being answered.
type exchange struct {
	dialect
	handler *Handler
	w       http.ResponseWriter
	r       *http.Request
	ctx     context.Context // ends when the client leaves, the handler is closed or the task is stopped
	cancel  context.CancelCauseFunc
	request Request
	attempt int // 1 for the first request for this model in this dialect

	numbers  []int         // the script's numbers
	n        int           // the last of them
	interval time.Duration // the script's interval

	app       app
	eol       string
	byBytes   bool
	escaped   bool
	unmetered bool
	zip       *gzip.Writer // nil: not compressed
	texts     int          // how many were written
}

func newExchange(h *Handler, w http.ResponseWriter, r *http.Request) *exchange {
	return &exchange{handler: h, w: w, r: r, n: 10, interval: 20 * time.Millisecond, eol: "\n"}
}

// text counts what it writes: every text is a word, and so a token of the usage.
func (e *exchange) text(text string) {
	e.texts++
	e.dialect.text(text)
}

// tokens returns the usage of what was written so far.
func (e *exchange) tokens() (input, output int) { return e.request.Usage(e.texts) }

// open sends the headers of a stream, which come before its first event.
func (e *exchange) open() {
	e.w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
	e.w.WriteHeader(http.StatusOK)
	http.NewResponseController(e.w).Flush()
}

// event sends an event; without a name or without data that field is left out.
func (e *exchange) event(name, data string) {
	var b strings.Builder
	if name != "" {
		b.WriteString("event: " + name + e.eol)
	}
	if data != "" {
		b.WriteString("data: " + data + e.eol)
	}
	e.write(b.String() + e.eol)
}

// write sends s at once. That the client has left is seen by the context, so errors say nothing new.
func (e *exchange) write(s string) {
	flusher := http.NewResponseController(e.w)
	if e.zip != nil {
		io.WriteString(e.zip, s)
		e.zip.Flush()
		flusher.Flush()
		return
	}
	size := len(s)
	if e.byBytes {
		size = 1
	}
	for len(s) > 0 {
		io.WriteString(e.w, s[:size])
		flusher.Flush()
		s = s[size:]
	}
}

// quote makes a JSON string.
func (e *exchange) quote(s string) string {
	quoted, _ := json.Marshal(s) // strings cannot fail
	if !e.escaped {
		return string(quoted)
	}
	var b strings.Builder
	for _, r := range string(quoted) {
		if r < utf8.RuneSelf {
			b.WriteRune(r)
			continue
		}
		for _, unit := range utf16.AppendRune(nil, r) {
			fmt.Fprintf(&b, `\u%04x`, unit)
		}
	}
	return b.String()
}

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

// fail answers with an error status.
func (e *exchange) fail(status int) {
	if status < 200 || status > 599 {
		status = http.StatusInternalServerError
	}
	// Some providers repeat the key in what they say about it.
	e.refuse(status, "scripted", Detail+" for "+e.request.Authorization+e.request.APIKey)
}

// writeError sends an error's body.
func (e *exchange) writeError(status int, body string) {
	e.w.Header().Set("Content-Type", "application/json")
	e.w.WriteHeader(status)
	io.WriteString(e.w, body+"\n")
}
