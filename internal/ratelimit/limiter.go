// Package ratelimit says whether something may happen once more: at most so many times within any window of time, for
// each key (a user, an address) on its own.
//
// The window slides and is exact: there is no moment at which a limit comes back as a whole, and none at which twice as
// much passes. That costs eight bytes for each event within the window, twice that where a key's are becoming more; what
// is older is cleaned up.
package ratelimit

import (
	"hash/maphash"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// MaxKeys is how many keys a [Limiter] holds, in all its shards together. Where there would be more, the key whose last
// event is the longest ago makes room, and is a new one when it comes next. An idle key costs about 200 bytes, so this
// is some 800 MB at the worst: far more users and addresses than one server meets within a window, unless it is being
// flooded from everywhere.
const MaxKeys = 4 << 20

// shardCount is a power of two. A shard is locked while it is cleaned up, so there are enough of them for that to take
// a moment only, even where all are full.
const shardCount = 256

// Config is how a [Limiter] begins.
type Config struct {
	Name            string        // the bucket's, for the log
	Limit           int           // events within a window; where it is not positive nothing is allowed
	Window          time.Duration // positive
	CleanupInterval time.Duration // positive
	Log             *slog.Logger
}

// Limiter limits events by key. All methods are safe for concurrent use; there is no lock that all keys share.
type Limiter[K comparable] struct {
	name   string
	log    *slog.Logger
	start  time.Time
	seed   maphash.Seed
	ticker *time.Ticker
	end    chan struct{} // closed by the first Stop
	once   sync.Once
	cleans sync.WaitGroup

	setting sync.Mutex // orders changes of the rate
	rate    atomic.Pointer[rate]

	shards [shardCount]shard[K]
}

// Decision is whether an event is within the limit, and what a client may be told about it.
type Decision struct {
	Allowed    bool
	Limit      int
	Remaining  int           // how many more would be allowed at once
	RetryAfter time.Duration // until the next one would be allowed; 0 where this one was
	Reset      time.Duration // until the key has no event within the window
	Window     time.Duration
}

// New makes a limiter, which cleans up on its own until [Limiter.Stop].
func New[K comparable](cfg Config) *Limiter[K] {
	l := &Limiter[K]{
		name: cfg.Name, log: cfg.Log, start: time.Now(), seed: maphash.MakeSeed(),
		ticker: time.NewTicker(cfg.CleanupInterval), end: make(chan struct{}),
	}
	l.rate.Store(&rate{limit: cfg.Limit, window: int64(cfg.Window), floor: never})
	l.cleans.Go(l.cleanUpPeriodically)
	return l
}

// Stop ends the cleaning up, and returns when it has ended. What else the limiter does goes on.
func (l *Limiter[K]) Stop() {
	l.once.Do(func() { close(l.end) })
	l.cleans.Wait()
}

// Allow counts an event if fewer than the limit were counted within the window that ends now. An event that is exactly
// as old as the window has left it. What is refused does not count.
func (l *Limiter[K]) Allow(key K) Decision {
	s := l.shardOf(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	now, r := l.now() // under the lock, so that a shard's times are in order
	e := s.keys[key]
	events := e.within(r.cutoff(now))
	allowed := events.count() < r.limit
	if allowed {
		events = s.add(e, key, now, r.limit)
	} else {
		s.refused++
	}
	return r.decision(events, now, allowed)
}

// Check says what [Limiter.Allow] would, and counts nothing.
func (l *Limiter[K]) Check(key K) Decision {
	s := l.shardOf(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	now, r := l.now()
	events := s.keys[key].within(r.cutoff(now))
	allowed := events.count() < r.limit
	if !allowed {
		s.refused++
	}
	return r.decision(events, now, allowed)
}

// Charge counts an event that has happened, whether it is within the limit or not, and says whether it was. Beyond the
// limit it takes the place of the oldest one.
func (l *Limiter[K]) Charge(key K) Decision {
	s := l.shardOf(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	now, r := l.now()
	e := s.keys[key]
	events := e.within(r.cutoff(now))
	allowed := events.count() < r.limit
	if r.limit > 0 {
		events = s.add(e, key, now, r.limit)
	}
	return r.decision(events, now, allowed)
}

// SetRate changes the limit and the window for what comes from now on. Events that are within the window stay counted;
// those that had left the old one do not come back with a longer one.
func (l *Limiter[K]) SetRate(limit int, window time.Duration) {
	l.setting.Lock()
	defer l.setting.Unlock()
	now, old := l.now()
	l.rate.Store(&rate{limit: limit, window: int64(window), floor: old.cutoff(now)})
}

// SetCleanupInterval changes how often the limiter cleans up; the next time comes after one interval, which has to
// be positive.
func (l *Limiter[K]) SetCleanupInterval(d time.Duration) { l.ticker.Reset(d) }

// Stats is what a limiter holds and has done since it was made.
type Stats struct {
	Keys    int    // that are held
	Allowed uint64 // events that were counted, by Allow and by Charge
	Refused uint64 // how often Allow and Check refused
	Evicted uint64 // keys that had to make room, see [MaxKeys]
}

// Stats gives the figures of the moment.
func (l *Limiter[K]) Stats() Stats {
	var sum Stats
	for i := range l.shards {
		l.shards[i].addTo(&sum)
	}
	return sum
}

// now gives the time, in nanoseconds since the limiter was made, and the rate that holds then.
func (l *Limiter[K]) now() (int64, *rate) { return int64(time.Since(l.start)), l.rate.Load() }

func (l *Limiter[K]) shardOf(key K) *shard[K] {
	return &l.shards[maphash.Comparable(l.seed, key)%shardCount]
}
