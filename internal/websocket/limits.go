package websocket

import (
	"time"

	"github.com/parley-chat/parley/chat"
)

// What one connection may send beside what its user may (rate limits count over all of a user's connections, and only
// frames that cost something).
//
// Every frame costs a little, a ping or an empty fragment as much as any. A browser sends a few in a second; the burst
// is what may have gathered while a slow command was carried out, or a message in a thousand fragments.
const (
	framesPerSecond = 500
	frameBurst      = 3000
)

// A client whose frames are refused and refused again is broken, or is looking for a hole.
const (
	maxErrors   = 50
	errorWindow = 10 * time.Second
)

// frameBucket is a token bucket of frameBurst frames that fills with framesPerSecond. It is kept as the moment at which
// it will be full again (the generic cell rate algorithm), so it needs no refilling.
type frameBucket struct{ full time.Time }

// take takes one frame out, and reports whether there was one.
func (b *frameBucket) take(now time.Time) bool {
	const each = time.Second / framesPerSecond
	full := b.full
	if full.Before(now) {
		full = now
	}
	if full = full.Add(each); full.Sub(now) > frameBurst*each {
		return false
	}
	b.full = full
	return true
}

// isClients reports whether an error is the client's own doing: not what may succeed later, as when the storage is away or
// another server has the session; but to ask too often is.
func isClients(code chat.Code) bool { return !code.Retryable() || code == chat.CodeRateLimited }

// errorTimes are when a connection's latest frames were refused: maxErrors at the most. Most connections never have one.
type errorTimes struct {
	times []time.Time
	next  int // the oldest one's place, once there are maxErrors
}

// add adds an error, and reports whether that makes more than maxErrors within the window.
func (e *errorTimes) add(now time.Time) bool {
	if len(e.times) < maxErrors {
		e.times = append(e.times, now)
		return false
	}
	oldest := e.times[e.next]
	e.times[e.next] = now
	e.next = (e.next + 1) % maxErrors
	return now.Sub(oldest) < errorWindow
}
