// Package llmtest is a language model to test against: an upstream that speaks the wire format of OpenAI's Chat
// Completions and behaves as it is told, so that tests see every way in which a real one answers, stalls and breaks.
//
// In a test's own process [NewServer] starts one; in a process of its own it is the command in the folder upstream.
// What it does is chosen by the name of the model in the request, so one upstream serves any number of scenarios. N is
// a number of words; [Text] gives the text that they make. All parts after the first word of a name may be left out.
//
//	echo                the last user message, word by word
//	words-N             N words, as fast as they go
//	paced-N-INTERVAL    N words, one each INTERVAL, such as paced-50-20ms
//	gate-N              N words, each when it is released: [Handler.Release], or POST /release?n=1
//	reasoning-N         N words of reasoning, then N words
//	length-N, filter-N  N words that end for the reason length, content_filter
//	tools               ends with tool_calls
//	crlf-N, cr-N        N words, with other line ends
//	comments-N          N words with comments between them
//	bytes-N             N words, every byte flushed on its own
//	bare-N              N words and the finish, but neither usage nor [DONE]
//	unfinished-N        N words and [DONE], but no finish reason
//	linger-N            N words and the finish; then the answer stays open until the client leaves
//	hang                not even headers, until the client leaves
//	stall-after-N       N words, then nothing until the client leaves
//	end-after-N         N words, then a proper end of the HTTP answer without an end mark
//	cut-after-N         N words, then the connection is closed in the middle of the answer (FIN)
//	reset-after-N       N words, then the connection is reset (RST)
//	error-after-N       N words, then an error as an event
//	garbage-after-N     N words, then an event that is not JSON
//	huge-line           an event of 2 MiB
//	flood               64 KiB at a time, until the client leaves
//	status-CODE         an error with that HTTP status; 429 and 503 with Retry-After: 7
//	refused             an error 400 of the content filter
//	html, json          a status 200 that is a web page, a JSON error
//	redirect            a redirect 307 to this same upstream
//
// Everything else is answered with the status 404, like a model that does not exist.
package llmtest

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strconv"
	"sync"
)

// Request is one request for an answer as it arrived.
type Request struct {
	Model         string    `json:"model"`
	Messages      []Message `json:"messages"`
	Stream        bool      `json:"stream"`
	StreamOptions struct {
		IncludeUsage bool `json:"include_usage"`
	} `json:"stream_options"`
	Authorization string `json:"authorization"` // the header
}

// Message is one message of a [Request].
type Message struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

// Counts says how many requests there were so far. What has neither finished nor been cancelled is running.
type Counts struct {
	Requests  int `json:"requests"`
	Finished  int `json:"finished"`  // for any reason
	Cancelled int `json:"cancelled"` // those of the finished whose client left before the end
}

func (c Counts) reached(want Counts) bool {
	return c.Requests >= want.Requests && c.Finished >= want.Finished && c.Cancelled >= want.Cancelled
}

// Handler is the upstream. Besides POST /v1/chat/completions (also without /v1) it answers, for tests in another
// process, GET /requests with all requests as a JSON array, GET /await?requests=N&finished=N&cancelled=N like
// [Handler.Await], with the counts as JSON, and POST /release?n=N like [Handler.Release].
type Handler struct {
	mux    *http.ServeMux
	closed context.Context
	close  context.CancelFunc

	mu       sync.Mutex // guards the fields below
	requests []Request
	counts   Counts
	permits  int           // words that gates may let pass
	changed  chan struct{} // closed, and made anew, with every change
}

// NewHandler returns an upstream that has seen no requests.
func NewHandler() *Handler {
	h := &Handler{mux: http.NewServeMux(), changed: make(chan struct{})}
	h.closed, h.close = context.WithCancel(context.Background())
	h.mux.HandleFunc("POST /v1/chat/completions", h.serveChat)
	h.mux.HandleFunc("POST /chat/completions", h.serveChat)
	h.mux.HandleFunc("GET /requests", func(w http.ResponseWriter, r *http.Request) { writeJSON(w, h.Requests()) })
	h.mux.HandleFunc("GET /await", h.serveAwait)
	h.mux.HandleFunc("POST /release", func(_ http.ResponseWriter, r *http.Request) { h.Release(number(r, "n")) })
	return h
}

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) { h.mux.ServeHTTP(w, r) }

// Close ends the answers that wait for something. Servers call it before they shut down.
func (h *Handler) Close() { h.close() }

// Requests returns all requests so far, in the order of their arrival.
func (h *Handler) Requests() []Request {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.requests)
}

// Counts returns the present counts.
func (h *Handler) Counts() Counts {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.counts
}

// Await returns when each count is at least as high as in want, or with ctx's error.
func (h *Handler) Await(ctx context.Context, want Counts) error {
	return h.wait(ctx, func() bool { return h.counts.reached(want) })
}

// Release lets n more words pass the gates.
func (h *Handler) Release(n int) {
	h.change(func() { h.permits += n })
}

// pass waits at the gate for one word.
func (h *Handler) pass(ctx context.Context) error {
	return h.wait(ctx, func() bool {
		if h.permits == 0 {
			return false
		}
		h.permits--
		return true
	})
}

// change calls f under the lock and wakes all that wait.
func (h *Handler) change(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f()
	close(h.changed)
	h.changed = make(chan struct{})
}

// wait returns when ready, which is called under the lock, says so.
func (h *Handler) wait(ctx context.Context, ready func() bool) error {
	for {
		h.mu.Lock()
		ok, changed := ready(), h.changed
		h.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		case <-h.closed.Done():
			return h.closed.Err()
		}
	}
}

func (h *Handler) serveChat(w http.ResponseWriter, r *http.Request) {
	// The server notices that a client has left only once the whole request was read.
	body, err := io.ReadAll(r.Body)
	var request Request
	if err == nil {
		err = json.Unmarshal(body, &request)
	}
	if err != nil {
		writeError(w, http.StatusBadRequest, err.Error(), "invalid_request")
		return
	}
	request.Authorization = r.Header.Get("Authorization")
	h.change(func() {
		h.requests = append(h.requests, request)
		h.counts.Requests++
	})
	defer func() {
		h.change(func() {
			h.counts.Finished++
			if r.Context().Err() != nil {
				h.counts.Cancelled++
			}
		})
	}()
	h.perform(w, r, request)
}

func (h *Handler) serveAwait(w http.ResponseWriter, r *http.Request) {
	want := Counts{
		Requests:  number(r, "requests"),
		Finished:  number(r, "finished"),
		Cancelled: number(r, "cancelled"),
	}
	if err := h.Await(r.Context(), want); err == nil {
		writeJSON(w, h.Counts())
	}
}

// number reads a number from the query; what is not one is 0.
func number(r *http.Request, name string) int {
	n, _ := strconv.Atoi(r.FormValue(name))
	return n
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v)
}
