package llm_test

import (
	"context"
	"errors"
	"iter"
	"testing"
	"testing/synctest"
	"time"

	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/llm"
	"github.com/parley-chat/parley/internal/telemetry"
)

func recording() (*telemetry.Tracer, *tracetest.InMemoryExporter) {
	spans := tracetest.NewInMemoryExporter()
	return telemetry.New(sdk.NewTracerProvider(sdk.WithSyncer(spans))), spans
}

// Both attempts of a hedged request end, and the one that was begun later says so.
func TestTraceOfAHedgedRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tracer, spans := recording()
		pool := poolOf(t, func(c *llm.Config) { c.Tracer, c.HedgeAfter = tracer, time.Second },
			to("a", acts(hangs())), to("b", acts(says("Hello"))))
		hear(t.Context(), pool).isWhole(t, "Hello", "b")
		got := make(map[string]string)
		for _, s := range spans.GetSpans() {
			says := make(map[string]string)
			for _, kv := range s.Attributes {
				says[string(kv.Key)] = kv.Value.String()
			}
			got[says["parley.provider"]] = says["parley.hedged"] + " " + says["parley.outcome"] + " " + says["error.type"]
		}
		if len(got) != 2 || got["a"] != "false cancelled " || got["b"] != "true complete " {
			t.Errorf("the attempts are %q", got)
		}
	})
}

type refusing struct{ err error }

func (r refusing) Check(context.Context, chat.Request, string) error { return r.err }

func TestTraceOfAModeration(t *testing.T) {
	tracer, spans := recording()
	pool := poolOf(t, func(c *llm.Config) { c.Tracer, c.Moderator = tracer, refusing{errFiltered} }, to("a", acts(says("Hello"))))
	if r := hear(t.Context(), pool); !errors.Is(r.err, errFiltered) {
		t.Errorf("the error is %v", r.err)
	}
	if all := spans.GetSpans(); len(all) != 1 || all[0].Name != "moderation" || all[0].Status.Description != "content_filtered" {
		t.Errorf("the spans are %+v", all)
	}
}

// What passes through the pool costs as much with traces as without: they are of responses, not of tokens.
func TestChunksCostTheSameWithTraces(t *testing.T) {
	tracer, _ := recording()
	for name, of := range map[string]*telemetry.Tracer{"off": nil, "on": tracer} {
		pool := poolOf(t, func(c *llm.Config) { c.Tracer = of }, llm.Target{ProviderID: "p", Provider: endless{}, Model: "m"})
		next, stop := iter.Pull2(pool.Stream(t.Context(), chat.Request{Model: "m"}))
		next()
		if n := testing.AllocsPerRun(1000, func() { next() }); n != 0 {
			t.Errorf("with traces %s a chunk costs %v allocations", name, n)
		}
		stop()
	}
}
