package storetest

import (
	"testing"

	"github.com/parley-chat/parley/chat"
)

var leaseTests = []contractTest{
	{"an owner sees those who are alive, and not itself", onStore(func(t *testing.T, store chat.Store) {
		wantAlive(t, store, "A")
		wantAlive(t, store, "B", "A")
		wantAlive(t, store, "C", "A", "B")
		wantAlive(t, store, "A", "B", "C")
	})},
	{"a renewed lease has another beat", onStore(func(t *testing.T, store chat.Store) {
		wantAlive(t, store, "A")
		before := wantAlive(t, store, "B", "A")
		wantAlive(t, store, "A", "B")
		if after := wantAlive(t, store, "B", "A"); after["A"] == before["A"] {
			t.Errorf("A is alive, and its beat is still %d", after["A"])
		}
	})},
	{"an ended lease is gone, and may be taken again", onStore(func(t *testing.T, store chat.Store) {
		wantAlive(t, store, "A")
		wantAlive(t, store, "B", "A")
		must(t, store.EndLease(t.Context(), "A"))
		must(t, store.EndLease(t.Context(), "A"))
		must(t, store.EndLease(t.Context(), "unknown"))
		wantAlive(t, store, "B")
		wantAlive(t, store, "A", "B")
		wantAlive(t, store, "B", "A")
	})},
	{"an owner has its lease again after a restart", func(t *testing.T, open Opener) {
		store, reopen := open(t)
		wantAlive(t, store, "A")
		wantAlive(t, reopen(), "A")
	}},
}

// wantAlive renews an owner's lease, and fails if it is not told of exactly the wanted others.
func wantAlive(t *testing.T, store chat.Store, owner string, others ...string) map[string]int64 {
	t.Helper()
	got, err := store.RenewLease(t.Context(), owner)
	must(t, err)
	if len(got) != len(others) {
		t.Errorf("%s sees %v, want %q", owner, got, others)
	}
	for _, other := range others {
		if _, ok := got[other]; !ok {
			t.Errorf("%s sees %v, and %s is missing", owner, got, other)
		}
	}
	return got
}
