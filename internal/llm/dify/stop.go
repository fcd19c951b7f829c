package dify

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"time"
)

// stopTimeout is how long a request that stops an answer may take.
const stopTimeout = 2 * time.Second

// stop has Dify stop an answer ("Stop Chat Message Generation"): it need not do so because nobody reads any more. Nobody
// waits for it, and where it fails the answer that nobody reads costs what it costs.
func (p *Provider) stop(task, user string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closing.Err() != nil {
		return
	}
	p.stops.Go(func() {
		ctx, cancel := context.WithTimeout(p.closing, stopTimeout)
		defer cancel()
		_ = p.postStop(ctx, task, user) // there is nobody to tell
	})
}

func (p *Provider) postStop(ctx context.Context, task, user string) error {
	body, err := json.Marshal(map[string]string{"user": user})
	if err != nil {
		return err
	}
	stop := p.url.JoinPath(url.PathEscape(task), "stop")
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, stop.String(), bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header = p.header.Clone()
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", "parley")
	response, err := p.client.Do(r)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	_, err = io.Copy(io.Discard, io.LimitReader(response.Body, 4<<10)) // read to its end a connection is used again
	return err
}
