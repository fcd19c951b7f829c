package upstream

import "time"

// RetryAfter is retryAfter for tests.
func RetryAfter(header string, now time.Time) time.Duration { return retryAfter(header, now) }
