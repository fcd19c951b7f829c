package session_test

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/llm"
	"github.com/parley-chat/parley/internal/session"
	"github.com/parley-chat/parley/internal/store/storetest"
	"github.com/parley-chat/parley/internal/telemetry"
)

// inTurn answers each request by the next of some ways, and every one after these by the last.
func inTurn(ways ...func(context.Context, chat.Request) iter.Seq2[chat.Chunk, error]) func(context.Context, chat.Request) iter.Seq2[chat.Chunk, error] {
	return func(ctx context.Context, r chat.Request) iter.Seq2[chat.Chunk, error] {
		way := ways[0]
		if len(ways) > 1 {
			ways = ways[1:]
		}
		return way(ctx, r)
	}
}

// tracedHouse has a model "m" at two targets of one provider, "m" and "spare", and tells its traces.
func tracedHouse(t *testing.T, edit func(*session.Config), ways ...func(context.Context, chat.Request) iter.Seq2[chat.Chunk, error]) (*house, *tracetest.InMemoryExporter) {
	t.Helper()
	spans := tracetest.NewInMemoryExporter()
	tracer := telemetry.New(sdk.NewTracerProvider(sdk.WithSyncer(spans)))
	m := &model{answer: inTurn(ways...), edit: func(c *llm.Config) {
		c.Tracer = tracer
		c.Retry = llm.Retry{MaxAttempts: 2, InitialBackoff: time.Second, MaxBackoff: time.Second}
		spare := c.Models[0].Targets[0]
		spare.Model = "spare"
		c.Models[0].Targets = append(c.Models[0].Targets, spare)
		for i := range c.Models[0].Targets {
			c.Models[0].Targets[i].Kind, c.Models[0].Targets[i].Address = "openai", "api.example:8443"
		}
	}}
	return newHouse(t, storetest.NewMemory(), m, func(c *session.Config) {
		c.Tracer = tracer
		if edit != nil {
			edit(c)
		}
	}), spans
}

// told is what a span says, without its times.
func told(s tracetest.SpanStub) map[attribute.Key]string {
	all := make(map[attribute.Key]string)
	for _, kv := range s.Attributes {
		all[kv.Key] = kv.Value.String()
	}
	return all
}

// spanSays checks attributes of a span; "" for what it must not have.
func spanSays(t *testing.T, s tracetest.SpanStub, want map[attribute.Key]string) {
	t.Helper()
	got := told(s)
	for key, value := range want {
		if got[key] != value {
			t.Errorf("%s has %s = %q, want %q", s.Name, key, got[key], value)
		}
	}
}

// roots gives the spans that are under no other.
func roots(spans tracetest.SpanStubs) (all tracetest.SpanStubs) {
	for _, s := range spans {
		if !s.Parent.IsValid() {
			all = append(all, s)
		}
	}
	return all
}

// sayNothing checks that no span has any of what was said.
func sayNothing(t *testing.T, spans tracetest.SpanStubs, words ...string) {
	t.Helper()
	text := fmt.Sprintf("%+v", spans)
	for _, w := range words {
		if strings.Contains(text, w) {
			t.Errorf("the spans hold %q: %s", w, text)
		}
	}
}

func TestTraceOfATurnThatIsTriedAgainAndElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := chat.NewError(chat.CodeLLMUnavailable, "SECRET-ERROR").WithCause(fmt.Errorf("SECRET-CAUSE"))
		h, spans := tracedHouse(t, nil, breaks(down), breaks(down), says(time.Second, "SECRET-ANSWER", " it is"))
		defer h.close(t)
		s := h.create(t)
		defer s.Release()
		r := newReader(t, s)
		asking := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}})
		ctx := telemetry.WithCause(t.Context(), asking)
		if _, err := s.Send(ctx, alice, chat.RoleUser, chat.SendMessage{MessageID: "q", Text: "SECRET-QUESTION"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		r.drain(t, s)
		answer := r.answer(t)

		all := spans.GetSpans()
		tops := roots(all)
		if len(all) != 4 || len(tops) != 1 {
			t.Fatalf("there are %d spans, %d of them roots: %+v", len(all), len(tops), all)
		}
		turn := tops[0]
		if turn.Name != "chat m" || turn.Status.Code != codes.Unset || turn.EndTime.Sub(turn.StartTime) <= 2*time.Second {
			t.Errorf("the turn is %q, %v, and took %v", turn.Name, turn.Status, turn.EndTime.Sub(turn.StartTime))
		}
		spanSays(t, turn, map[attribute.Key]string{
			"gen_ai.operation.name": "chat", "gen_ai.request.model": "m", "gen_ai.response.model": "spare",
			"gen_ai.provider.name": "openai", "gen_ai.conversation.id": s.ID(), "gen_ai.usage.input_tokens": "3",
			"gen_ai.usage.output_tokens": "2", "gen_ai.response.finish_reasons": `["stop"]`, "enduser.id": "alice",
			"parley.session_id": s.ID(), "parley.message_id": answer.MessageID, "parley.status": "complete", "error.type": "",
		})
		if len(turn.Events) != 1 || turn.Events[0].Name != telemetry.EventFirstToken || len(turn.Links) != 1 ||
			turn.Links[0].SpanContext.TraceID() != asking.TraceID() {
			t.Errorf("its events are %v, its links %v", turn.Events, turn.Links)
		}
		for i, want := range []map[attribute.Key]string{
			{"gen_ai.request.model": "m", "parley.attempt": "1", "error.type": "llm_unavailable", "parley.outcome": "unavailable"},
			{"gen_ai.request.model": "m", "parley.attempt": "2", "error.type": "llm_unavailable"},
			{"gen_ai.request.model": "spare", "parley.attempt": "1", "error.type": "", "parley.outcome": "complete"},
		} {
			attempt := all[i] // in the order in which they ended
			want["server.address"], want["server.port"], want["parley.hedged"] = "api.example", "8443", "false"
			if attempt.Parent.SpanID() != turn.SpanContext.SpanID() || attempt.SpanKind != trace.SpanKindClient {
				t.Errorf("attempt %d is a %v under %v", i, attempt.SpanKind, attempt.Parent)
			}
			spanSays(t, attempt, want)
		}
		sayNothing(t, all, "SECRET")
	})
}

func TestTraceOfATurnThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refused := chat.NewError(chat.CodeLLMRejected, "no")
		h, spans := tracedHouse(t, nil, breaks(refused, "SECRET"))
		defer h.close(t)
		s := h.create(t)
		defer s.Release()
		r := newReader(t, s)
		send(t, s, "q", "SECRET")
		r.drain(t, s)
		tops := roots(spans.GetSpans())
		if len(tops) != 1 {
			t.Fatalf("there are %d turns", len(tops))
		}
		id := tops[0].SpanContext.TraceID().String()
		spanSays(t, tops[0], map[attribute.Key]string{"error.type": "llm_rejected", "parley.status": "failed"})
		if tops[0].Status.Code != codes.Error {
			t.Errorf("its status is %v", tops[0].Status)
		}
		answer := r.answer(t)
		if answer.Error.TraceID != id || refused.TraceID != "" {
			t.Errorf("the reader is told the trace %q, want %s; the provider's own error has %q", answer.Error.TraceID, id, refused.TraceID)
		}
		stored, err := h.store.Message(t.Context(), s.ID(), answer.MessageID)
		if err != nil || stored.Error.TraceID != id {
			t.Errorf("stored is %+v (%v)", stored.Error, err)
		}
		if line := "a response failed"; !strings.Contains(h.log.String(), line) || !strings.Contains(h.log.String(), "trace_id="+id) ||
			!strings.Contains(h.log.String(), "user=alice") {
			t.Errorf("the log says %s", h.log)
		}
		sayNothing(t, spans.GetSpans(), "SECRET")
	})
}

func TestTraceOfATitle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, spans := tracedHouse(t, func(c *session.Config) { c.TitleModel = "n" }, says(time.Second, "SECRET-ANSWER"), says(time.Second, "SECRET-TITLE"))
		defer h.close(t)
		s := h.create(t)
		defer s.Release()
		r := newReader(t, s)
		send(t, s, "q", "SECRET-QUESTION")
		time.Sleep(time.Minute)
		r.drain(t, s)
		if r.title != "SECRET-TITLE" {
			t.Fatalf("the title is %q", r.title)
		}
		tops := roots(spans.GetSpans())
		if len(tops) != 2 {
			t.Fatalf("there are %d roots", len(tops))
		}
		title := slices.IndexFunc(tops, func(s tracetest.SpanStub) bool { return told(s)["parley.purpose"] == "title" })
		if title < 0 || len(tops[title].Links) != 1 ||
			tops[title].Links[0].SpanContext.SpanID() != tops[1-title].SpanContext.SpanID() {
			t.Errorf("the title's span is not linked to the response's: %+v", tops)
		}
		sayNothing(t, spans.GetSpans(), "SECRET")
	})
}
