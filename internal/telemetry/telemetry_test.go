package telemetry_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func recording(t *testing.T) (*telemetry.Tracer, *tracetest.InMemoryExporter) {
	t.Helper()
	spans := tracetest.NewInMemoryExporter()
	provider := sdk.NewTracerProvider(sdk.WithSyncer(spans))
	t.Cleanup(func() { _ = provider.Shutdown(context.Background()) })
	return telemetry.New(provider), spans
}

func TestOffCostsNothing(t *testing.T) {
	off, err := telemetry.Open(telemetry.Config{}, slog.New(slog.DiscardHandler))
	if off != nil || err != nil {
		t.Fatalf("without an endpoint there is %v, %v", off, err)
	}
	ctx, log := t.Context(), slog.New(slog.DiscardHandler)
	shown := chat.NewError(chat.CodeInternal, "oh")
	header := http.Header{"Traceparent": {"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}}
	allocations := testing.AllocsPerRun(100, func() {
		inner, span := off.Start(ctx, "chat m", trace.SpanKindClient, telemetry.CauseOf(ctx))
		span.AddEvent(telemetry.EventFirstToken)
		telemetry.Fail(span, chat.CodeInternal)
		span.End()
		if inner != ctx || span.IsRecording() || off.On() {
			t.Error("there is a span")
		}
		if telemetry.Log(inner, log) != log || telemetry.Mark(inner, shown) != shown || off.Incoming(header).IsValid() {
			t.Error("there is a trace")
		}
	})
	if allocations != 0 {
		t.Errorf("it allocates %v times", allocations)
	}
	off.Close(ctx)
}

func TestMarkedErrors(t *testing.T) {
	tracer, _ := recording(t)
	ctx, span := tracer.Start(t.Context(), "it", trace.SpanKindServer, trace.SpanContext{})
	defer span.End()
	id := span.SpanContext().TraceID().String()
	for code, want := range map[chat.Code]string{
		chat.CodeInternal: id, chat.CodeStorageUnavailable: id, chat.CodeLLMTimeout: id, chat.CodeLLMRejected: id,
		chat.CodeForbidden: "", chat.CodeContentFiltered: "", chat.CodeRateLimited: "",
	} {
		e := chat.NewError(code, "oh")
		if got := telemetry.Mark(ctx, e); got.TraceID != want || e.TraceID != "" {
			t.Errorf("%s has the trace %q, and the error itself %q", code, got.TraceID, e.TraceID)
		}
	}
	if telemetry.Mark(ctx, nil) != nil {
		t.Error("no error became one")
	}
}

// A stranger's traceparent decides neither whether there is a trace nor which it is.
func TestIncomingTracesAreLinks(t *testing.T) {
	tracer, spans := recording(t)
	const theirs = "0af7651916cd43dd8448eb211c80319c"
	header := http.Header{"Traceparent": {"00-" + theirs + "-b7ad6b7169203331-00"}, "Tracestate": {"a=b"}}
	ctx := telemetry.WithCause(t.Context(), tracer.Incoming(header))
	tracer.Refused(ctx, "message.send", time.Now(), chat.CodeInternal)
	span := spans.GetSpans()[0]
	if span.SpanContext.TraceID().String() == theirs || span.Parent.IsValid() || !span.SpanContext.IsSampled() {
		t.Errorf("the span is of %v, under %v", span.SpanContext, span.Parent)
	}
	if len(span.Links) != 1 || span.Links[0].SpanContext.TraceID().String() != theirs ||
		span.Links[0].SpanContext.TraceState().Len() != 0 {
		t.Errorf("its links are %v", span.Links)
	}
	for _, bad := range []string{"", "x", "00-" + strings.Repeat("0", 32) + "-b7ad6b7169203331-01"} {
		if tracer.Incoming(http.Header{"Traceparent": {bad}}).IsValid() {
			t.Errorf("%q is taken for a span", bad)
		}
	}
}

// journalled is a log that can be read.
type journalled struct {
	mu sync.Mutex // guards the field below
	b  bytes.Buffer
}

func (j *journalled) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.Write(p)
}

func (j *journalled) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.String()
}

const token = "tok-123456"

func open(t *testing.T, endpoint string) (*telemetry.Tracer, *journalled) {
	t.Helper()
	log := &journalled{}
	tracer, err := telemetry.Open(telemetry.Config{
		Endpoint: endpoint, Headers: map[string]string{"authorization": "Bearer " + token}, SampleRatio: 1, Service: "test",
	}, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	return tracer, log
}

func tell(tracer *telemetry.Tracer) {
	_, span := tracer.Start(context.Background(), "it", trace.SpanKindServer, trace.SpanContext{})
	span.End()
}

// The collector is asked at its usual address, with the headers; what it says against it is logged without them.
func TestACollectorThatRefuses(t *testing.T) {
	var asked []string
	collector := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.Method+" "+r.URL.Path+" "+r.Header.Get("Authorization"))
		http.Error(w, "who is "+r.Header.Get("Authorization")+"?", http.StatusUnauthorized)
	}))
	defer collector.Close()
	tracer, log := open(t, collector.URL)
	tell(tracer)
	tracer.Close(t.Context())
	if len(asked) != 1 || asked[0] != "POST /v1/traces Bearer "+token {
		t.Errorf("asked was %q", asked)
	}
	if said := log.String(); !strings.Contains(said, "traces could not be sent") || !strings.Contains(said, "spans_lost=1") ||
		strings.Contains(said, token) || strings.Count(said, "\n") != 1 {
		t.Errorf("the log says %s", said)
	}
	tell(tracer) // which nobody takes any more
}

// A collector that hangs is given up when the time to close is over.
func TestACollectorThatHangs(t *testing.T) {
	asked, release := make(chan struct{}), make(chan struct{})
	collector := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		close(asked)
		<-release
	}))
	defer collector.Close()
	defer close(release)
	tracer, log := open(t, collector.URL)
	for range 5000 { // more than may wait
		tell(tracer)
	}
	<-asked // a batch is full
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("the time is over"))
	tracer.Close(ctx)
	if !strings.Contains(log.String(), "traces could not be sent") {
		t.Errorf("the log says %s", log)
	}
}
