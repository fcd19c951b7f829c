package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
)

// Config is where traces go.
type Config struct {
	Endpoint    string            // the collector's base URL, such as http://127.0.0.1:4318; empty: traces are off
	Headers     map[string]string // sent along, for who wants to know who sends; they are kept out of the log
	SampleRatio float64           // of the traces, 0 to 1
	Service     string            // the name that they come under
	Version     string            // of the service; empty: not told
}

// What a collector that hangs may cost: so many spans in memory, and so long an attempt. What does not fit is dropped.
const (
	maxQueue      = 2048
	maxBatch      = 512
	batchInterval = 5 * time.Second
	exportTimeout = 10 * time.Second
	dialTimeout   = 5 * time.Second

	maxErrorBody = 1 << 10
	maxTold      = 300 // bytes of an error in the log
	toldInterval = time.Minute
)

// tracesPath is where a collector takes traces, under its base URL
// (https://opentelemetry.io/docs/specs/otlp/#otlphttp-request).
const tracesPath = "/v1/traces"

// sending is what carries spans to the collector.
type sending struct {
	provider *sdk.TracerProvider
	exporter *exporter
}

// Open makes a Tracer whose spans go to the configured collector; nil where none is configured. It dials nobody yet.
// [Tracer.Close] ends it.
func Open(cfg Config, log *slog.Logger) (*Tracer, error) {
	if cfg.Endpoint == "" {
		return nil, nil
	}
	e, err := newExporter(cfg, log)
	if err != nil {
		return nil, fmt.Errorf("telemetry: %w", err)
	}
	of := []attribute.KeyValue{attribute.String("service.name", cfg.Service)}
	if cfg.Version != "" {
		of = append(of, attribute.String("service.version", cfg.Version))
	}
	provider := sdk.NewTracerProvider(
		sdk.WithBatcher(e, sdk.WithMaxQueueSize(maxQueue), sdk.WithMaxExportBatchSize(maxBatch),
			sdk.WithBatchTimeout(batchInterval), sdk.WithExportTimeout(exportTimeout)),
		sdk.WithSampler(sdk.ParentBased(sdk.TraceIDRatioBased(cfg.SampleRatio))),
		sdk.WithResource(resource.NewSchemaless(of...)),
	)
	t := New(provider)
	t.sending = &sending{provider, e}
	return t, nil
}

// Close sends what waits to be sent, as long as ctx lasts, and ends. Nobody needs to have ended their spans: those that
// end later are dropped.
func (t *Tracer) Close(ctx context.Context) {
	if t == nil || t.sending == nil {
		return
	}
	e := t.sending.exporter
	defer context.AfterFunc(ctx, e.giveUp)()
	// It waits for its goroutine, which ends soon after the exporter has given up.
	_ = t.sending.provider.Shutdown(context.WithoutCancel(ctx)) // the exporter has logged what failed
	e.close()
}

// exporter sends spans, and deals with its errors itself: they would go to standard error otherwise.
type exporter struct {
	sdk.SpanExporter
	transport *http.Transport
	secrets   *strings.Replacer
	log       *slog.Logger
	ctx       context.Context // ends when nothing more is to be sent
	giveUp    context.CancelFunc

	mu   sync.Mutex // guards the fields below
	lost int        // spans, since it was last told
	told time.Time
}

func newExporter(cfg Config, log *slog.Logger) (*exporter, error) {
	endpoint, err := url.Parse(cfg.Endpoint)
	if err != nil {
		return nil, errors.New("the endpoint is not a URL") // it may hold a password
	}
	if !strings.HasSuffix(strings.TrimRight(endpoint.Path, "/"), tracesPath) {
		endpoint = endpoint.JoinPath(tracesPath)
	}
	e := &exporter{
		log: log, secrets: secretsOf(cfg.Headers),
		transport: &http.Transport{
			Proxy:               http.ProxyFromEnvironment,
			DialContext:         (&net.Dialer{Timeout: dialTimeout}).DialContext,
			TLSHandshakeTimeout: dialTimeout,
			ForceAttemptHTTP2:   true,
			MaxIdleConns:        1,
			IdleConnTimeout:     time.Minute,
		},
	}
	e.ctx, e.giveUp = context.WithCancel(context.Background())
	// Each option also goes over an OTEL_ variable, which may be meant for another part of the program.
	inner, err := otlptracehttp.New(context.Background(),
		otlptracehttp.WithEndpointURL(endpoint.String()),
		otlptracehttp.WithHeaders(cfg.Headers),
		otlptracehttp.WithTLSClientConfig(nil),
		otlptracehttp.WithCompression(otlptracehttp.GzipCompression),
		otlptracehttp.WithTimeout(exportTimeout),
		otlptracehttp.WithMaxResponseSize(maxErrorBody),
		otlptracehttp.WithHTTPClient(&http.Client{
			Transport: e.transport,
			// The headers are for the configured address and no other.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}),
		otlptracehttp.WithRetry(otlptracehttp.RetryConfig{
			Enabled: true, InitialInterval: time.Second, MaxInterval: 5 * time.Second, MaxElapsedTime: exportTimeout,
		}),
	)
	if err != nil {
		e.giveUp()
		return nil, err
	}
	e.SpanExporter = inner
	return e, nil
}

// minSecret is how long a secret is at least, in bytes: to take a shorter one out of a text would tell more than it hides.
const minSecret = 4

// secretsOf takes the headers' values out of a text, and the words that they are made of: some collectors repeat them.
func secretsOf(headers map[string]string) *strings.Replacer {
	var pairs []string
	for _, value := range headers {
		for _, secret := range append([]string{value}, strings.Fields(value)...) {
			if len(secret) >= minSecret && !strings.EqualFold(secret, "bearer") && !strings.EqualFold(secret, "basic") {
				pairs = append(pairs, secret, "[secret]")
			}
		}
	}
	return strings.NewReplacer(pairs...)
}

// ExportSpans implements [sdk.SpanExporter].
func (e *exporter) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(e.ctx, cancel)()
	if err := e.SpanExporter.ExportSpans(ctx, spans); err != nil {
		e.failed(len(spans), err)
	}
	return nil
}

// failed logs that spans are lost, once a minute.
func (e *exporter) failed(spans int, err error) {
	e.mu.Lock()
	e.lost += spans
	lost, due := e.lost, time.Since(e.told) >= toldInterval
	if due {
		e.lost, e.told = 0, time.Now()
	}
	e.mu.Unlock()
	if due {
		e.log.Warn("traces could not be sent", "spans_lost", lost, "error", e.shown(err))
	}
}

// shown is what of an error may be logged: a collector's answer is in it.
func (e *exporter) shown(err error) string {
	text := e.secrets.Replace(err.Error())
	if len(text) > maxTold {
		text = strings.ToValidUTF8(text[:maxTold], "") + "…"
	}
	return text
}

// close releases what is left when nothing is sent any more.
func (e *exporter) close() {
	e.giveUp()
	e.transport.CloseIdleConnections()
	e.mu.Lock()
	lost := e.lost
	e.mu.Unlock()
	if lost > 0 {
		e.log.Warn("traces could not be sent", "spans_lost", lost)
	}
}
