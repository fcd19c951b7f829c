package llmtest

import (
	"compress/gzip"
	"context"
	"errors"
	"io"
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

// Detail stands in every error that a script gives. It must never reach a client.
const Detail = "scripted failure in cluster-7"

var scripts = map[string]func(*exchange){
	"echo":       (*exchange).echo,
	"words":      func(e *exchange) { e.answer(stop) },
	"paced":      (*exchange).paced,
	"gate":       (*exchange).gate,
	"live":       (*exchange).live,
	"reasoning":  (*exchange).reason,
	"length":     func(e *exchange) { e.answer(length) },
	"filter":     func(e *exchange) { e.answer(filter) },
	"refusal":    func(e *exchange) { e.answer(refusal) },
	"pause":      func(e *exchange) { e.app = workflow; e.answer(pause) },
	"sequence":   func(e *exchange) { e.answer(sequence) },
	"window":     func(e *exchange) { e.answer(window) },
	"crlf":       func(e *exchange) { e.eol = "\r\n"; e.answer(stop) },
	"cr":         func(e *exchange) { e.eol = "\r"; e.answer(stop) },
	"comments":   func(e *exchange) { e.interleave(e.comment) },
	"pings":      func(e *exchange) { e.interleave(e.ping) },
	"bytes":      func(e *exchange) { e.byBytes = true; e.answer(stop) },
	"escaped":    func(e *exchange) { e.escaped = true; e.answer(stop) },
	"gzip":       (*exchange).compress,
	"line":       func(e *exchange) { e.line(e.n) },
	"unmetered":  func(e *exchange) { e.unmetered = true; e.answer(stop) },
	"bare":       func(e *exchange) { e.words(); e.finish(stop) },
	"unfinished": func(e *exchange) { e.words(); e.end() },
	"linger":     func(e *exchange) { e.words(); e.finish(stop); e.stall() },
	"agent":      func(e *exchange) { e.app = agent; e.answer(stop) },
	"new-agent":  func(e *exchange) { e.app = newAgent; e.answer(stop) },
	"workflow":   func(e *exchange) { e.app = workflow; e.answer(stop) },

	"tools":            func(e *exchange) { e.start(); e.toolCall(); e.conclude(tools) },
	"tools-after":      func(e *exchange) { e.words(); e.toolCall(); e.conclude(tools) },
	"hang":             (*exchange).stall,
	"stall-after":      func(e *exchange) { e.words(); e.stall() },
	"pings-after":      (*exchange).pingOnly,
	"end-after":        (*exchange).words,
	"cut-after":        func(e *exchange) { e.words(); panic(http.ErrAbortHandler) },
	"reset-after":      func(e *exchange) { e.words(); e.reset() },
	"error-after":      func(e *exchange) { e.words(); e.fault(false) },
	"overloaded-after": func(e *exchange) { e.words(); e.fault(true) },
	"workflow-failed":  func(e *exchange) { e.app = workflow; e.words(); e.fault(false) },
	"garbage-after":    func(e *exchange) { e.words(); e.garbage() },
	"huge-line":        func(e *exchange) { e.line(2 << 20) },
	"flood":            (*exchange).flood,

	"status":      (*exchange).status,
	"retry-after": func(e *exchange) { e.retryAfter(e.n); e.fail(http.StatusTooManyRequests) },
	"flaky":       (*exchange).flaky,
	"refused":     func(e *exchange) { e.refuse(http.StatusBadRequest, "content_filter", Detail) },
	"html":        (*exchange).page,
	"json":        func(e *exchange) { e.refuse(http.StatusOK, "scripted", Detail) },
	"redirect":    (*exchange).redirect,
}

// perform answers the request as the name of its model says.
func (e *exchange) perform() {
	e.ctx, e.cancel = context.WithCancelCause(e.r.Context())
	defer e.cancel(nil)
	defer context.AfterFunc(e.handler.closed, func() { e.cancel(nil) })()

	if !e.admit() {
		return
	}
	name, args := split(e.request.Model)
	script, ok := scripts[name]
	if !ok {
		e.refuse(http.StatusNotFound, "model_not_found", "the model "+e.request.Model+" does not exist")
		return
	}
	for _, arg := range args {
		if n, err := strconv.Atoi(arg); err == nil {
			e.n = n
			e.numbers = append(e.numbers, n)
		} else if d, err := time.ParseDuration(arg); err == nil {
			e.interval = d
		}
	}
	script(e)
	if errors.Is(context.Cause(e.ctx), errStopped) {
		e.end()
	}
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

// number returns the script's i-th number, from 0.
func (e *exchange) number(i, otherwise int) int {
	if i < len(e.numbers) {
		return e.numbers[i]
	}
	return otherwise
}

func (e *exchange) words() {
	e.start()
	for i := 0; i < e.n && e.ctx.Err() == nil; i++ {
		e.text(piece(i))
	}
}

func (e *exchange) answer(why reason) {
	e.words()
	e.conclude(why)
}

// conclude gives the finish reason, the usage and the end mark.
func (e *exchange) conclude(why reason) {
	e.finish(why)
	e.usage()
	e.end()
}

func (e *exchange) echo() {
	e.start()
	for i := len(e.request.Messages) - 1; i >= 0; i-- {
		if m := e.request.Messages[i]; m.Role == "user" {
			for _, piece := range strings.SplitAfter(m.Content, " ") {
				e.text(piece)
			}
			break
		}
	}
	e.conclude(stop)
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
	e.conclude(stop)
}

// WrongKey is an API key that the script live refuses.
const WrongKey = "no-key-at-all"

func (e *exchange) live() {
	if strings.Contains(e.request.Authorization+e.request.APIKey, WrongKey) {
		e.fail(http.StatusUnauthorized)
		return
	}
	n, why := 1, stop
	if last := len(e.request.Messages) - 1; last >= 0 && strings.Contains(e.request.Messages[last].Content, "Count") {
		n = 1000
	}
	if most := max(e.request.MaxTokens, e.request.MaxCompletionTokens); most > 0 && n > most {
		n, why = most, length
	}
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	e.start()
	for i := range n {
		select {
		case <-ticker.C:
			e.text(piece(i))
		case <-e.ctx.Done():
			return
		}
	}
	e.conclude(why)
}

func (e *exchange) gate() {
	e.start()
	for i := range e.n {
		if e.handler.pass(e.ctx) != nil {
			return
		}
		e.text(piece(i))
	}
	e.conclude(stop)
}

func (e *exchange) reason() {
	e.start()
	for i := range e.n {
		e.reasoning(piece(i))
	}
	for i := range e.n {
		e.text(piece(i))
	}
	e.conclude(stop)
}

// interleave writes something before every word.
func (e *exchange) interleave(something func()) {
	e.start()
	for i := range e.n {
		something()
		e.text(piece(i))
	}
	e.conclude(stop)
}

// comment sends what OpenRouter keeps connections open with.
func (e *exchange) comment() { e.write(": PROCESSING" + e.eol + e.eol) }

func (e *exchange) compress() {
	if strings.Contains(e.r.Header.Get("Accept-Encoding"), "gzip") {
		e.w.Header().Set("Content-Encoding", "gzip")
		e.zip = gzip.NewWriter(e.w)
		defer e.zip.Close()
	}
	e.answer(stop)
}

// line sends an event with size bytes of text.
func (e *exchange) line(size int) {
	e.start()
	e.text(strings.Repeat("x", size))
	e.conclude(stop)
}

func (e *exchange) stall() { <-e.ctx.Done() }

func (e *exchange) pingOnly() {
	e.words()
	ticker := time.NewTicker(e.interval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			e.ping()
		case <-e.ctx.Done():
			return
		}
	}
}

func (e *exchange) flood() {
	e.start()
	text := strings.Repeat("x", 64<<10)
	for e.ctx.Err() == nil {
		e.text(text)
	}
}

func (e *exchange) status() {
	if e.n == http.StatusTooManyRequests || e.n == http.StatusServiceUnavailable {
		e.retryAfter(7)
	}
	e.fail(e.n)
}

func (e *exchange) retryAfter(seconds int) { e.w.Header().Set("Retry-After", strconv.Itoa(seconds)) }

func (e *exchange) flaky() {
	failures, code := e.number(0, 1), e.number(1, http.StatusInternalServerError)
	switch {
	case e.attempt > failures:
		e.n = e.number(2, 10)
		e.answer(stop)
	case code == 0:
		e.reset()
	default:
		e.fail(code)
	}
}

func (e *exchange) page() {
	e.w.Header().Set("Content-Type", "text/html")
	io.WriteString(e.w, "<h1>Welcome to the proxy</h1>")
}

func (e *exchange) redirect() {
	e.w.Header().Set("Location", e.request.Path)
	e.w.WriteHeader(http.StatusTemporaryRedirect)
}
