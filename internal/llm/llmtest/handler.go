// Package llmtest is a language model to test against: an upstream that speaks the wire formats of several providers
// and behaves as it is told, so that tests see every way in which a real one answers, stalls and breaks.
//
// In a test's own process [NewServer] starts one; in a process of its own it is the command in the folder upstream.
// The path of a request, with or without /v1 before it, chooses the dialect, and the name of the model what happens:
//
//	POST /chat/completions  OpenAI's Chat Completions
//	POST /messages          Anthropic's Messages
//	POST /chat-messages     Dify's Send Chat Message, and POST /chat-messages/{task_id}/stop
//
// Dify's requests name no model: there it is the input called model or, without one, what follows the last slash of the
// API key, so that the key app-key/words-20 asks for words-20. All dialects stream, asked to or not.
//
// One upstream serves any number of scenarios. N is a number of words, 10 where it is left out; [Text] gives the text
// that they make. The end mark is [DONE], message_stop or message_end. Whole answers:
//
//	echo                the last user message, word by word
//	words-N             N words, as fast as they go
//	paced-N-INTERVAL    N words, one each INTERVAL, such as paced-50-20ms
//	gate-N              N words, each when it is released: [Handler.Release], or POST /release?n=1
//	reasoning-N         N words of reasoning, then N words
//	length-N, filter-N  N words that end for the reason length, content_filter: max_tokens and refusal of Anthropic;
//	                    Dify gives no reasons, and replaces what its moderation filters
//	refusal-N, pause-N, sequence-N, window-N
//	                    N words that end for Anthropic's refusal, pause_turn, stop_sequence and
//	                    model_context_window_exceeded; elsewhere for what is nearest. Dify pauses a workflow
//	crlf-N, cr-N        N words, with other line ends
//	comments-N          N words with comments between them
//	pings-N             N words with the provider's pings between them; OpenAI has none but comments
//	bytes-N             N words, every byte flushed on its own
//	escaped-N           N words, all that is not ASCII as JSON escapes
//	gzip-N              N words compressed, each flushed, if the request accepts that
//	line-N              one event with N bytes of text, all of them x
//	unmetered-N         N words without usage
//	bare-N              N words and the finish, but nothing after it: of OpenAI neither usage nor [DONE]
//	unfinished-N        N words and the end mark, but no finish reason
//	linger-N            N words and the finish; then the answer stays open until the client leaves
//	live                like a real model: one word, or a thousand if it is asked to count; no more than the request
//	                    allows; and nothing for [WrongKey]
//	agent-N, new-agent-N, workflow-N
//	                    N words as these apps of Dify send them; elsewhere like words-N
//
// Faults:
//
//	tools, tools-after-N    no words or N words, then a tool call that nobody asked for. Dify calls tools itself: there
//	                        the answer is whole
//	hang                    not even headers, until the client leaves
//	stall-after-N           N words, then nothing until the client leaves
//	pings-after-N-INTERVAL  N words, then a ping each INTERVAL until the client leaves
//	end-after-N             N words, then a proper end of the HTTP answer without an end mark
//	cut-after-N             N words, then the connection is closed in the middle of the answer (FIN)
//	reset-after-N           N words, then the connection is reset (RST)
//	error-after-N           N words, then an error as an event
//	overloaded-after-N      N words, then the error of an overload as an event
//	workflow-failed-N       N words of a workflow of Dify that fails; elsewhere like error-after-N
//	garbage-after-N         N words, then an event that is not JSON
//	huge-line               an event of 2 MiB
//	flood                   64 KiB at a time, until the client leaves
//	status-CODE             an error with that HTTP status; 429 and 503 with Retry-After: 7
//	retry-after-SECONDS     an error 429 with that Retry-After
//	flaky-K-CODE-N          the first K requests for this name in this dialect fail with that status, without
//	                        Retry-After, later ones get N words; the CODE 0 resets the connection before any header
//	refused                 an error 400, of OpenAI that of the content filter
//	html, json              a status 200 that is a web page, a JSON error
//	redirect                a redirect 307 to this same upstream
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
	"time"
)

// Counts says how many requests there were so far. What has neither finished nor been cancelled is running.
type Counts struct {
	Requests  int `json:"requests"`
	Finished  int `json:"finished"`  // for any reason
	Cancelled int `json:"cancelled"` // those of the finished whose client left before the end
	Stopped   int `json:"stopped"`   // Dify's tasks that their users stopped, whether or not they were still running
}

func (c Counts) reached(want Counts) bool {
	return c.Requests >= want.Requests && c.Finished >= want.Finished && c.Cancelled >= want.Cancelled &&
		c.Stopped >= want.Stopped
}

// Handler is the upstream. Besides the dialects and POST /moderate it answers, for tests in another process, GET
// /requests with all requests as a JSON array, GET /moderations likewise, GET
// /await?requests=N&finished=N&cancelled=N&stopped=N like [Handler.Await], with the counts as JSON, and POST
// /release?n=N like [Handler.Release].
//
// POST /moderate is a moderator: it takes {"text": …} and answers {"allowed": true}, or false with a reason where the
// text contains "forbidden". A text with "moderator-hang" hangs until the client leaves; one with "moderator-500" is
// answered with that status.
type Handler struct {
	mux    *http.ServeMux
	closed context.Context
	close  context.CancelFunc

	mu            sync.Mutex // guards the fields below
	requests      []Request
	moderations   []json.RawMessage
	counts        Counts
	asked         map[string]int    // requests by dialect and model
	tasks         map[string]*task  // of Dify, by ID
	conversations map[string]string // of Dify: the user of each, by ID
	lastID        int               // of tasks, messages and conversations
	permits       int               // words that gates may let pass
	changed       chan struct{}     // closed, and made anew, with every change
}

// NewHandler returns an upstream that has seen no requests.
func NewHandler() *Handler {
	h := &Handler{
		mux:           http.NewServeMux(),
		asked:         make(map[string]int),
		tasks:         make(map[string]*task),
		conversations: make(map[string]string),
		changed:       make(chan struct{}),
	}
	h.closed, h.close = context.WithCancel(context.Background())
	for _, prefix := range []string{"", "/v1"} {
		h.mux.HandleFunc("POST "+prefix+"/chat/completions", h.serve("openai", newOpenAI))
		h.mux.HandleFunc("POST "+prefix+"/messages", h.serve("anthropic", newAnthropic))
		h.mux.HandleFunc("POST "+prefix+"/chat-messages", h.serve("dify", newDify))
		h.mux.HandleFunc("POST "+prefix+"/chat-messages/{task}/stop", h.serveStop)
	}
	h.mux.HandleFunc("POST /moderate", h.serveModeration)
	h.mux.HandleFunc("GET /requests", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, h.Requests()) })
	h.mux.HandleFunc("GET /moderations", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, h.Moderations()) })
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

// Moderations returns the bodies of all requests for moderation so far, in the order of their arrival.
func (h *Handler) Moderations() []json.RawMessage {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.moderations)
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

// serve answers the requests of one dialect.
func (h *Handler) serve(name string, speak func(*exchange) dialect) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		e := newExchange(h, w, r)
		e.dialect = speak(e)
		// The server notices that a client has left only once the whole request was read.
		body, err := io.ReadAll(r.Body)
		if err == nil {
			err = e.read(body)
		}
		if err != nil {
			e.refuse(http.StatusBadRequest, "invalid_request", err.Error())
			return
		}
		e.request.describe(name, r, body)
		var number int // among the requests
		h.change(func() {
			number = len(h.requests)
			h.requests = append(h.requests, e.request)
			h.counts.Requests++
			key := name + "/" + e.request.Model
			h.asked[key]++
			e.attempt = h.asked[key]
		})
		defer func() {
			ended := time.Now()
			h.change(func() {
				h.counts.Finished++
				if r.Context().Err() != nil {
					h.counts.Cancelled++
					h.requests[number].CancelledAt = ended.UnixNano()
				}
			})
		}()
		e.perform()
	}
}

func (h *Handler) serveAwait(w http.ResponseWriter, r *http.Request) {
	want := Counts{
		Requests:  number(r, "requests"),
		Finished:  number(r, "finished"),
		Cancelled: number(r, "cancelled"),
		Stopped:   number(r, "stopped"),
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
