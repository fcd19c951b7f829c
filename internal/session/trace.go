package session

import (
	"context"

	"go.opentelemetry.io/otel/trace"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/telemetry"
)

// startSpan begins the response's span. It is the root of its trace: a response belongs to its session, not to who asked
// for it, so that one is linked.
func (t *turn) startSpan() {
	t.ctx, t.span = t.session.manager.cfg.Tracer.Start(t.ctx, "chat "+t.answer.Model, trace.SpanKindInternal, t.cause)
	if t.span.IsRecording() {
		t.span.SetAttributes(
			telemetry.Operation.String(telemetry.OperationChat),
			telemetry.Conversation.String(t.session.id),
			telemetry.RequestModel.String(t.answer.Model),
			telemetry.SessionID.String(t.session.id),
			telemetry.MessageID.String(t.answer.ID),
			telemetry.EndUser.String(t.session.userID),
		)
	}
}

// endSpan says how the response ended, but nothing of what it says.
func (t *turn) endSpan(final chat.Message) {
	defer t.span.End()
	if !t.span.IsRecording() {
		return
	}
	t.span.SetAttributes(telemetry.Status.String(string(final.Status)))
	if final.Provider != "" {
		t.span.SetAttributes(telemetry.Provider.String(final.Provider))
	}
	if final.FinishReason != "" {
		t.span.SetAttributes(telemetry.FinishReasons.StringSlice([]string{string(final.FinishReason)}))
	}
	if u := final.Usage; u != nil {
		t.span.SetAttributes(telemetry.InputTokens.Int(u.InputTokens), telemetry.OutputTokens.Int(u.OutputTokens),
			telemetry.Estimated.Bool(u.Estimated))
	}
	if final.Error != nil {
		telemetry.Fail(t.span, final.Error.Code)
	}
}

// startTitleSpan begins the span of a title's making, after the response that it is linked to.
func (m *Manager) startTitleSpan(ctx context.Context, request chat.Request, cause trace.SpanContext) (context.Context, trace.Span) {
	ctx, span := m.cfg.Tracer.Start(ctx, "chat "+request.Model, trace.SpanKindInternal, cause)
	if span.IsRecording() {
		span.SetAttributes(
			telemetry.Operation.String(telemetry.OperationChat),
			telemetry.Purpose.String("title"),
			telemetry.Conversation.String(request.SessionID),
			telemetry.RequestModel.String(request.Model),
			telemetry.SessionID.String(request.SessionID),
			telemetry.EndUser.String(request.UserID),
		)
	}
	return ctx, span
}
