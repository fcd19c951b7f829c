package ratelimit

import "testing"

// The keys that a limiter can hold are too many for a test; those of a shard are not.
func TestTheLongestIdleKeyMakesRoom(t *testing.T) {
	var s shard[int]
	now := int64(0)
	for ; now < maxShardKeys; now++ {
		s.add(nil, int(now), now, 3)
	}
	s.add(s.keys[0], 0, now, 3) // 0 is no longer the longest idle, 1 is
	s.add(nil, -1, now+1, 3)
	s.add(nil, -2, now+2, 3)
	for key, held := range map[int]bool{0: true, 1: false, 2: false, 3: true, -1: true, -2: true} {
		if (s.keys[key] != nil) != held {
			t.Errorf("key %d is held: %v", key, !held)
		}
	}
	if s.evicted != 2 || len(s.keys) != maxShardKeys {
		t.Errorf("of %d keys %d were evicted", len(s.keys), s.evicted)
	}
	var c CleanupStats
	s.cleanUp(-1, &c)
	s.cleanUp(now, &c)
	if want := (CleanupStats{Keys: maxShardKeys + 2, RemovedKeys: maxShardKeys - 2, RemovedEvents: maxShardKeys - 1, EvictedKeys: 2}); c != want {
		t.Errorf("two cleanups give %+v, want %+v", c, want)
	}
}

func TestRingGrowsWithUseAndShrinks(t *testing.T) {
	const limit = 1000
	var r ring
	for i := range int64(5) {
		r.push(i, limit)
	}
	if len(r.times) > 8 {
		t.Errorf("5 times take the room of %d", len(r.times))
	}
	for i := int64(5); i < 3*limit; i++ {
		r.push(i, limit)
	}
	if len(r.times) != limit || r.n != limit || r.at(0) != 2*limit || r.at(limit-1) != 3*limit-1 {
		t.Errorf("it has %d of %d times, from %d to %d", r.n, len(r.times), r.at(0), r.at(r.n-1))
	}
	r.prune(3*limit - 11)
	r.shrink()
	if len(r.times) > 20 || r.n != 10 || r.at(0) != 3*limit-10 || r.at(9) != 3*limit-1 {
		t.Errorf("of 10 times it has %d with the room of %d, from %d", r.n, len(r.times), r.at(0))
	}
}
