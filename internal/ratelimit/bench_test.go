package ratelimit_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"
)

// Goroutines with keys of their own: go test -bench Allow -cpu 8.
func BenchmarkAllow(b *testing.B) {
	l := newLimiter[string](b, 60, 10*time.Microsecond)
	var goroutines atomic.Int64
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		keys := make([]string, 16)
		g := goroutines.Add(1)
		for i := range keys {
			keys[i] = fmt.Sprintf("user-%d-%d", g, i)
		}
		for i := 0; pb.Next(); i++ {
			l.Allow(keys[i%len(keys)])
		}
	})
}

// All goroutines want the same key, which is refused most of the time.
func BenchmarkAllowOneKey(b *testing.B) {
	l := newLimiter[string](b, 60, time.Minute)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			l.Allow("alice")
		}
	})
}

// Every event is a new key's, up to the number that a limiter holds, and then at the cost of an old one.
func BenchmarkAllowNewKeys(b *testing.B) {
	l := newLimiter[int64](b, 60, time.Minute)
	var next atomic.Int64
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			l.Allow(next.Add(1))
		}
	})
}
