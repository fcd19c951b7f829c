package openai

import (
	"context"
	"net"
	"time"
)

// DialWith makes the provider use dial for its connections.
func (p *Provider) DialWith(dial func(ctx context.Context, network, addr string) (net.Conn, error)) {
	p.transport.DialContext = dial
}

// RetryAfter is retryAfter for tests.
func RetryAfter(header string, now time.Time) time.Duration { return retryAfter(header, now) }
