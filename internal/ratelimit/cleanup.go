package ratelimit

import (
	"context"
	"log/slog"
	"time"
)

// CleanupStats is what a cleanup has done.
type CleanupStats struct {
	Keys          int // that are left
	RemovedKeys   int
	RemovedEvents int // those of the removed keys among them
	EvictedKeys   int // that had to make room since the cleanup before, see [MaxKeys]
	Duration      time.Duration
}

func (l *Limiter[K]) cleanUpPeriodically() {
	defer l.ticker.Stop()
	for {
		select {
		case <-l.ticker.C:
			l.Cleanup()
		case <-l.end:
			return
		}
	}
}

// Cleanup removes the events that have left the window and the keys without any, gives their memory back, and logs what
// it has done. It runs by itself in every interval.
func (l *Limiter[K]) Cleanup() CleanupStats {
	started := time.Now()
	var c CleanupStats
	for i := range l.shards {
		l.cleanUpShard(&l.shards[i], &c)
	}
	c.Duration = time.Since(started)
	l.logCleanup(c)
	return c
}

func (l *Limiter[K]) cleanUpShard(s *shard[K], c *CleanupStats) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, r := l.now()
	s.cleanUp(r.cutoff(now), c)
}

// logCleanup logs at a level that leaves a quiet server's log quiet. Keys are not logged: they are people.
func (l *Limiter[K]) logCleanup(c CleanupStats) {
	level, ctx := slog.LevelDebug, context.Background()
	switch {
	case c.EvictedKeys > 0:
		level = slog.LevelWarn // limits are being forgotten
	case c.RemovedKeys > 0 || c.RemovedEvents > 0:
		level = slog.LevelInfo
	}
	l.log.Log(ctx, level, "rate limiter cleaned up", "bucket", l.name, "keys", c.Keys, "removed_keys", c.RemovedKeys,
		"removed_events", c.RemovedEvents, "evicted_keys", c.EvictedKeys, "duration", c.Duration.String())
}
