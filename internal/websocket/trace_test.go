package websocket

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"

	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/router"
	"github.com/parley-chat/parley/internal/telemetry"
)

// failing is a router that can carry out nothing.
type failing struct {
	Router
	err error
}

func (f failing) Do(context.Context, *router.Connection, chat.Command, string) error { return f.err }

// What the server cannot do is traced, and the client and the log are told the trace; what the client may not do is not.
func TestTracesOfRefusedCommands(t *testing.T) {
	down := chat.NewError(chat.CodeStorageUnavailable, "the storage cannot be reached").WithCause(errors.New("SECRET-CAUSE"))
	for name, c := range map[string]struct {
		err    error
		traced bool
	}{
		"storage": {down, true}, "a mistake": {errors.New("SECRET-CAUSE"), true},
		"forbidden": {chat.NewError(chat.CodeForbidden, "no"), false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				spans := tracetest.NewInMemoryExporter()
				h := newHouse(t)
				defer h.close()
				h.cfg.Tracer = telemetry.New(sdk.NewTracerProvider(sdk.WithSyncer(spans)))
				h.Handler.router = failing{h.router, c.err}
				p := h.connect(t)
				defer p.conn.Close()
				p.text(`{"type":"message.send","message_id":"m","text":"SECRET-TEXT"}`)
				told, _ := p.expect("error")["error"].(map[string]any)
				id, _ := told["trace_id"].(string)
				all := spans.GetSpans()
				if !c.traced {
					if len(all) != 0 || id != "" || strings.Contains(h.log.String(), "trace_id") {
						t.Errorf("there are %d spans, the client is told %q, the log says %s", len(all), id, h.log)
					}
					return
				}
				if len(all) != 1 || all[0].Name != "message.send" || all[0].SpanContext.TraceID().String() != id ||
					all[0].Status.Description != told["code"] || !strings.Contains(h.log.String(), "trace_id="+id) {
					t.Fatalf("the client is told %v, the spans are %+v, the log says %s", told, all, h.log)
				}
				for _, kv := range all[0].Attributes {
					if strings.Contains(kv.Value.String(), "SECRET") {
						t.Errorf("the span says %s = %s", kv.Key, kv.Value.String())
					}
				}
			})
		})
	}
}
