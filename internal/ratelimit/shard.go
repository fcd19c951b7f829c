package ratelimit

import "sync"

// maxShardKeys is how many keys a shard holds. As keys are hashed, shards fill evenly.
const maxShardKeys = MaxKeys / shardCount

// shard holds a part of the keys.
type shard[K comparable] struct {
	mu             sync.Mutex // guards the fields below
	keys           map[K]*entry[K]
	most           int       // how many keys there were at once since the map was made
	oldest, newest *entry[K] // by their last events
	allowed        uint64
	refused        uint64
	evicted        uint64
	evictedBefore  uint64 // the last cleanup

	_ [64]byte // what is written in one shard is on no cache line of the next
}

// entry is a key with its events.
type entry[K comparable] struct {
	key          K
	events       ring
	last         int64 // the time of the last event, also where that has left the window
	older, newer *entry[K]
}

// within gives the events that a key has within the window; of a nil entry there are none.
func (e *entry[K]) within(cutoff int64) *ring {
	if e == nil {
		return nil
	}
	e.events.prune(cutoff)
	return &e.events
}

// add counts an event of a key; e is its entry, if it has one.
func (s *shard[K]) add(e *entry[K], key K, now int64, limit int) *ring {
	if e == nil {
		if len(s.keys) >= maxShardKeys {
			s.remove(s.oldest)
			s.evicted++
		}
		if s.keys == nil {
			s.keys = make(map[K]*entry[K])
		}
		e = &entry[K]{key: key}
		s.keys[key] = e
		s.most = max(s.most, len(s.keys))
	} else if e != s.newest {
		s.unlink(e)
	}
	if e != s.newest {
		s.link(e)
	}
	e.events.push(now, limit)
	e.last = now
	s.allowed++
	return &e.events
}

// link puts an entry at the list's new end.
func (s *shard[K]) link(e *entry[K]) {
	e.older, e.newer = s.newest, nil
	if s.newest != nil {
		s.newest.newer = e
	} else {
		s.oldest = e
	}
	s.newest = e
}

func (s *shard[K]) unlink(e *entry[K]) {
	if e.older != nil {
		e.older.newer = e.newer
	} else {
		s.oldest = e.newer
	}
	if e.newer != nil {
		e.newer.older = e.older
	} else {
		s.newest = e.older
	}
}

func (s *shard[K]) remove(e *entry[K]) {
	s.unlink(e)
	delete(s.keys, e.key)
}

// cleanUp removes what has left the window, and adds what that was to c. The keys that stay have all had an event within
// the window; to look at them costs no more than those events did.
func (s *shard[K]) cleanUp(cutoff int64, c *CleanupStats) {
	for e := s.oldest; e != nil && e.last <= cutoff; e = s.oldest {
		c.RemovedEvents += e.events.count()
		c.RemovedKeys++
		s.remove(e)
	}
	for e := s.oldest; e != nil; e = e.newer {
		c.RemovedEvents += e.events.prune(cutoff)
		e.events.shrink()
	}
	s.shrink()
	c.Keys += len(s.keys)
	c.EvictedKeys += int(s.evicted - s.evictedBefore)
	s.evictedBefore = s.evicted
}

// shrink makes the map anew where most of it is unused: a map of Go's never gives memory back.
func (s *shard[K]) shrink() {
	switch n := len(s.keys); {
	case n == 0:
		s.keys = nil
	case s.most > slack && n <= s.most/4:
		keys := make(map[K]*entry[K], n)
		for e := s.oldest; e != nil; e = e.newer {
			keys[e.key] = e
		}
		s.keys = keys
	default:
		return
	}
	s.most = len(s.keys)
}

func (s *shard[K]) addTo(sum *Stats) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sum.Keys += len(s.keys)
	sum.Allowed += s.allowed
	sum.Refused += s.refused
	sum.Evicted += s.evicted
}
