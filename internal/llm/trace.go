package llm

import (
	"context"
	"net"
	"strconv"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/telemetry"
)

// startSpan begins the span of an attempt at the target. The upstream adds the HTTP status to it, and tells the provider
// of it.
func (t *target) startSpan(ctx context.Context, tracer *telemetry.Tracer, n int, hedged bool) (context.Context, trace.Span) {
	ctx, span := tracer.Start(ctx, "chat "+t.Model, trace.SpanKindClient, trace.SpanContext{})
	if !span.IsRecording() {
		return ctx, span
	}
	span.SetAttributes(
		telemetry.Operation.String(telemetry.OperationChat),
		telemetry.RequestModel.String(t.Model),
		telemetry.Provider.String(t.ProviderID),
		telemetry.Attempt.Int(n),
		telemetry.Hedged.Bool(hedged),
	)
	if t.Kind != "" {
		span.SetAttributes(telemetry.GenAIProvider.String(t.Kind))
	}
	span.SetAttributes(addressOf(t.Address)...)
	return ctx, span
}

// addressOf gives the attributes of host or host:port.
func addressOf(address string) []attribute.KeyValue {
	if address == "" {
		return nil
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return []attribute.KeyValue{telemetry.ServerAddress.String(address)}
	}
	all := []attribute.KeyValue{telemetry.ServerAddress.String(host)}
	if n, err := strconv.Atoi(port); err == nil {
		all = append(all, telemetry.ServerPort.Int(n))
	}
	return all
}

// endSpan says what became of the attempt.
func (a *attempt) endSpan(o outcome, err error) {
	defer a.span.End()
	if !a.span.IsRecording() {
		return
	}
	a.span.SetAttributes(telemetry.Outcome.String(string(o)))
	if o != outcomeComplete && o != outcomeCancelled {
		telemetry.Fail(a.span, chat.AsError(err).Code)
	}
}

// describe says on the response's span who answers it.
func (t *target) describe(ctx context.Context) {
	span := trace.SpanFromContext(ctx)
	if !span.IsRecording() {
		return
	}
	span.SetAttributes(telemetry.ResponseModel.String(t.Model))
	if t.Kind != "" {
		span.SetAttributes(telemetry.GenAIProvider.String(t.Kind))
	}
}
