// Package telemetry tells by traces what the server does, and how long each part of it takes: OpenTelemetry's, sent to
// a collector by OTLP over HTTP. It sets and reads none of OpenTelemetry's globals, for Parley may be a part of somebody
// else's program.
//
// A trace says who, when, how long and how it ended. It never says what was said.
package telemetry

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/parley-chat/parley/chat"
)

// Tracer begins spans. A nil one is tracing that is off: it begins spans that do nothing, and costs nothing.
type Tracer struct {
	tracer  trace.Tracer
	sending *sending // nil: somebody else's provider
}

// scope names what the spans come from.
const scope = "github.com/parley-chat/parley"

// New makes a Tracer of a provider that somebody else ends.
func New(p trace.TracerProvider) *Tracer { return &Tracer{tracer: p.Tracer(scope)} }

// noSpan is the span of tracing that is off.
var noSpan trace.Span = noop.Span{}

// Start begins a span, under that of ctx if there is one. cause is what it is linked to, where that is valid: what it
// was begun for, but is no part of. The caller sets what it knows where the span is recorded, and ends it.
func (t *Tracer) Start(
	ctx context.Context, name string, kind trace.SpanKind, cause trace.SpanContext,
) (context.Context, trace.Span) {
	if t == nil {
		return ctx, noSpan
	}
	return t.start(ctx, name, kind, cause)
}

// start is apart from Start so that tracing that is off allocates nothing.
func (t *Tracer) start(
	ctx context.Context, name string, kind trace.SpanKind, cause trace.SpanContext, more ...trace.SpanStartOption,
) (context.Context, trace.Span) {
	options := append(more, trace.WithSpanKind(kind))
	if cause.IsValid() {
		options = append(options, trace.WithLinks(trace.Link{SpanContext: cause}))
	}
	return t.tracer.Start(ctx, name, options...)
}

// Refused tells of what was refused after it had begun at that time: only now is it known that it is worth a span. It
// returns the span's context, for the log.
func (t *Tracer) Refused(
	ctx context.Context, name string, began time.Time, code chat.Code, attributes ...attribute.KeyValue,
) context.Context {
	if t == nil {
		return ctx
	}
	ctx, span := t.start(ctx, name, trace.SpanKindServer, CauseOf(ctx), trace.WithTimestamp(began))
	span.SetAttributes(attributes...)
	Fail(span, code)
	span.End()
	return ctx
}

// On reports whether there are traces.
func (t *Tracer) On() bool { return t != nil }

// Fail says on a span that it ended with an error. Only the code: what else an error says may be anybody's words.
func Fail(span trace.Span, code chat.Code) {
	if !span.IsRecording() {
		return
	}
	span.SetAttributes(ErrorType.String(string(code)))
	span.SetStatus(codes.Error, string(code))
}

// TraceID gives the ID of the trace that ctx is in; empty: it is in none.
func TraceID(ctx context.Context) string {
	if sc := trace.SpanContextFromContext(ctx); sc.HasTraceID() {
		return sc.TraceID().String()
	}
	return ""
}

// Log gives the logger for what belongs to the trace that ctx is in.
func Log(ctx context.Context, log *slog.Logger) *slog.Logger {
	if id := TraceID(ctx); id != "" {
		return log.With("trace_id", id)
	}
	return log
}

// Mark gives an error the ID of the trace that ctx is in, if that may help: where it is the server's fault or a
// provider's, and somebody will have to look into it. The error itself stays as it is; nil stays nil.
func Mark(ctx context.Context, e *chat.Error) *chat.Error {
	if e == nil || e.TraceID != "" || !isTraced(e.Code) {
		return e
	}
	id := TraceID(ctx)
	if id == "" {
		return e
	}
	marked := *e
	marked.TraceID = id
	return &marked
}

func isTraced(code chat.Code) bool {
	return IsServers(code) || strings.HasPrefix(string(code), "llm_")
}

// IsServers reports whether an error is the server's own.
func IsServers(code chat.Code) bool {
	return code == chat.CodeInternal || code == chat.CodeStorageUnavailable
}

// Set says something on the span of ctx, if there is one that is recorded.
func Set(ctx context.Context, attributes ...attribute.KeyValue) {
	trace.SpanFromContext(ctx).SetAttributes(attributes...)
}

// format is how traces are told between servers: https://www.w3.org/TR/trace-context/.
var format propagation.TraceContext

// Inject tells the receiver of a request which trace and span it is a part of, if it is of one.
func Inject(ctx context.Context, header http.Header) {
	format.Inject(ctx, propagation.HeaderCarrier(header))
}

// Incoming gives the span of the client's that a request says it is a part of. It is for links only. Were it the parent,
// strangers would decide which requests are traced, by its flag, and could put spans into each other's traces, whose IDs
// are no secret.
func (t *Tracer) Incoming(header http.Header) trace.SpanContext {
	if t == nil || header.Get("Traceparent") == "" {
		return trace.SpanContext{}
	}
	told := trace.SpanContextFromContext(format.Extract(context.Background(), propagation.HeaderCarrier(header)))
	return told.WithTraceState(trace.TraceState{}) // which may be anything, and long
}

type causeKey struct{}

// WithCause has what ctx's work begins be linked to cause, if that is valid.
func WithCause(ctx context.Context, cause trace.SpanContext) context.Context {
	if !cause.IsValid() {
		return ctx
	}
	return context.WithValue(ctx, causeKey{}, cause)
}

// CauseOf gives what to link work to that ctx's work begins, and that outlives it.
func CauseOf(ctx context.Context) trace.SpanContext {
	if sc := trace.SpanContextFromContext(ctx); sc.IsValid() {
		return sc
	}
	cause, _ := ctx.Value(causeKey{}).(trace.SpanContext)
	return cause
}
