package parley

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/parley-chat/parley/config"
	"github.com/parley-chat/parley/internal/telemetry"
)

// newTracer makes the tracer that is configured; nil: none is.
func newTracer(cfg config.Telemetry, log *slog.Logger) (*telemetry.Tracer, error) {
	headers, err := config.ParseHeaders(cfg.OTLPHeaders)
	if err != nil {
		return nil, fmt.Errorf("telemetry.otlp_headers: %w", err)
	}
	return telemetry.Open(telemetry.Config{
		Endpoint: cfg.OTLPEndpoint, Headers: headers, SampleRatio: cfg.SampleRatio, Service: cfg.ServiceName,
	}, log)
}

// How long a shutdown waits for the collector to take the last traces: they are worth a moment, and no more. The second
// is for a shutdown whose time is over.
const (
	tracePatience     = 2 * time.Second
	lastTracePatience = 100 * time.Millisecond
)

// closeTracer sends the last traces, before ctx ends if it can.
func (s *Server) closeTracer(ctx context.Context) {
	patience := tracePatience
	if deadline, ok := ctx.Deadline(); ok {
		patience = min(patience, time.Until(deadline))
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), max(patience, lastTracePatience))
	defer cancel()
	s.tracer.Close(ctx)
}
