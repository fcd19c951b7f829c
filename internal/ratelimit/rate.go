package ratelimit

import (
	"math"
	"time"
)

// never is a time before every event.
const never = math.MinInt64

// rate is a limit in a window. It does not change; another takes its place.
type rate struct {
	limit  int
	window int64 // in nanoseconds
	floor  int64 // what had left an earlier, shorter window by then stays away
}

// cutoff gives the time at and before which an event has left the window.
func (r *rate) cutoff(now int64) int64 { return max(now-r.window, r.floor) }

// decision describes a key whose events within the window are these, after one more was allowed or refused.
func (r *rate) decision(events *ring, now int64, allowed bool) Decision {
	n := events.count()
	d := Decision{Allowed: allowed, Limit: r.limit, Remaining: max(0, r.limit-n), Window: time.Duration(r.window)}
	if n > 0 {
		d.Reset = time.Duration(events.at(n-1) + r.window - now)
	}
	switch {
	case allowed:
	case r.limit < 1:
		d.RetryAfter = d.Window // the rate may be another by then
	default:
		d.RetryAfter = time.Duration(events.at(n-r.limit) + r.window - now)
	}
	return d
}
