package httpapi

import (
	"context"
	"net/http"

	"go.opentelemetry.io/otel/trace"

	"github.com/parley-chat/parley/internal/telemetry"
)

// startSpan begins the span of a request, which end ends. Its name is the operation's once that is known: a path holds
// IDs.
func (h *Handler) startSpan(w *statusWriter, r *http.Request) (traced *http.Request, end func()) {
	if !h.cfg.Tracer.On() {
		return r, func() {}
	}
	cause := h.cfg.Tracer.Incoming(r.Header)
	if trace.SpanContextFromContext(r.Context()).IsValid() {
		cause = trace.SpanContext{} // who embeds Parley has dealt with it
	}
	ctx, span := h.cfg.Tracer.Start(r.Context(), methodOf(r), trace.SpanKindServer, cause)
	if !span.IsRecording() {
		return r.WithContext(ctx), func() { span.End() }
	}
	span.SetAttributes(telemetry.RequestMethod.String(methodOf(r)))
	return r.WithContext(ctx), func() {
		span.SetAttributes(telemetry.ResponseStatus.Int(w.status))
		span.End()
	}
}

// methodOf gives a request's method, if it is one of the usual: anybody can send any.
func methodOf(r *http.Request) string {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete,
		http.MethodOptions:
		return r.Method
	}
	return "_OTHER" // as the conventions for HTTP have it
}

// nameSpan says which operation a request is.
func (h *Handler) nameSpan(ctx context.Context, op operation) {
	if !h.cfg.Tracer.On() {
		return
	}
	span := trace.SpanFromContext(ctx)
	span.SetName(op.id)
	span.SetAttributes(telemetry.OperationID.String(op.id), telemetry.Route.String(op.path))
}
