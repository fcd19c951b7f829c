// Package moderation asks an operator's HTTP endpoint whether a user's message may go to a model.
package moderation

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/llm/upstream"
	"github.com/parley-chat/parley/internal/telemetry"
)

// maxAnswer bounds what is read of the endpoint's answer, in bytes.
const maxAnswer = 64 << 10

// Config is where the endpoint is, and what happens without it.
type Config struct {
	URL          string
	APIKey       string        // sent as a bearer token; empty: none is sent
	Timeout      time.Duration // of one question
	AllowOnError bool          // messages go to the model unseen while the endpoint is down; else they are refused
}

// Hook is the endpoint. It is safe for concurrent use.
type Hook struct {
	cfg     Config
	client  *upstream.Client
	log     *slog.Logger
	checked *prometheus.CounterVec
}

// New returns a hook with connections of its own. It asks nothing yet.
func New(cfg Config, log *slog.Logger) (*Hook, error) {
	client, err := upstream.New(upstream.Config{ID: "moderation", APIKey: cfg.APIKey, ConnectTimeout: cfg.Timeout})
	if err != nil {
		return nil, err
	}
	h := &Hook{cfg: cfg, client: client, log: log, checked: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "parley_moderations_total", Help: "Messages that the moderation was asked about, by its verdict.",
	}, []string{"verdict"})}
	for _, verdict := range []string{"allowed", "refused", "error"} { // there from the start
		h.checked.WithLabelValues(verdict)
	}
	return h, nil
}

// Describe implements [prometheus.Collector].
func (h *Hook) Describe(ch chan<- *prometheus.Desc) { h.checked.Describe(ch) }

// Collect implements [prometheus.Collector].
func (h *Hook) Collect(ch chan<- prometheus.Metric) { h.checked.Collect(ch) }

// Close closes the connections that no question uses.
func (h *Hook) Close() error { return h.client.Close() }

// question is the body of the request.
type question struct {
	Text      string `json:"text"`
	SessionID string `json:"session_id"`
	UserID    string `json:"user_id"`
	Model     string `json:"model"` // as configured
}

// verdict is the body of the answer, with the status 200.
type verdict struct {
	Allowed *bool  `json:"allowed"`
	Reason  string `json:"reason"` // for the log
}

// Check asks about one message. A refusal is content_filtered. Where the endpoint gives no verdict in time the message
// is allowed or, as llm_unavailable, refused, as configured; the end of ctx is ctx's error.
func (h *Hook) Check(ctx context.Context, request chat.Request, text string) error {
	answer, err := h.ask(ctx, question{text, request.SessionID, request.UserID, request.Model})
	log := telemetry.Log(ctx, h.log).With("session", request.SessionID, "user", request.UserID, "message", request.MessageID)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		h.checked.WithLabelValues("error").Inc()
		log.Warn("the moderation gives no verdict", "error", err, "message_allowed", h.cfg.AllowOnError)
		if h.cfg.AllowOnError {
			return nil
		}
		return chat.NewError(chat.CodeLLMUnavailable, "the message could not be checked right now").WithCause(err)
	case !*answer.Allowed:
		h.checked.WithLabelValues("refused").Inc()
		log.Info("the moderation refused a message", "reason", fmt.Sprintf("%.200s", chat.CleanLine(answer.Reason)))
		return chat.NewError(chat.CodeContentFiltered, "the message was refused because of its content")
	}
	h.checked.WithLabelValues("allowed").Inc()
	return nil
}

func (h *Hook) ask(ctx context.Context, q question) (v verdict, err error) {
	ctx, cancel := context.WithTimeout(ctx, h.cfg.Timeout)
	defer cancel()
	body, err := json.Marshal(q)
	if err != nil {
		return v, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, h.cfg.URL, bytes.NewReader(body))
	if err != nil {
		return v, err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", "parley")
	if h.cfg.APIKey != "" {
		r.Header.Set("Authorization", "Bearer "+h.cfg.APIKey)
	}
	telemetry.Inject(ctx, r.Header)
	response, err := h.client.Do(r)
	if err != nil {
		return v, err
	}
	defer func() { _ = response.Body.Close() }()
	telemetry.Set(ctx, telemetry.ResponseStatus.Int(response.StatusCode))
	if response.StatusCode != http.StatusOK {
		// What comes with it is not quoted: many frameworks repeat what they do not understand, here what a user said.
		return v, fmt.Errorf("the answer has the status %d", response.StatusCode)
	}
	said, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return v, err
	}
	if err := json.Unmarshal(said, &v); err != nil {
		return v, fmt.Errorf("read the verdict: %w", err)
	}
	if v.Allowed == nil {
		return v, errors.New(`the answer has no field "allowed"`)
	}
	return v, nil
}
