package session

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/parley-chat/parley/chat"
)

const (
	renewals = 3           // of a lease within its time
	fresh    = time.Second // for so long it is not asked again who is alive
)

// leases keeps this server's lease on the sessions that it has claimed, and watches those of others: whoever's lease
// has not been renewed for its time has gone, and its sessions may be taken over. It compares no clocks: a lease is
// renewed when its beat changes, and time is measured from when that was seen here.
//
// It is for not disturbing each other. What keeps a server that was taken for gone from doing harm is the claim, which
// each of its writes needs.
type leases struct {
	store   chat.Store
	owner   string
	timeout time.Duration
	log     *slog.Logger

	gate chan struct{} // admits one who asks the store

	mu     sync.Mutex // guards the fields below
	seen   map[string]beat
	asked  time.Time // when the store last answered; zero: never
	failed bool      // the last renewal has
}

// beat is the last sign of life of another server.
type beat struct {
	value int64
	since time.Time
}

func newLeases(store chat.Store, owner string, timeout time.Duration, log *slog.Logger) *leases {
	return &leases{
		store: store, owner: owner, timeout: timeout, log: log,
		gate: make(chan struct{}, 1), seen: make(map[string]beat),
	}
}

// run renews the lease until ctx ends.
func (l *leases) run(ctx context.Context) {
	ticker := time.NewTicker(l.timeout / renewals)
	defer ticker.Stop()
	for {
		l.note(ctx, l.renew(ctx, 0))
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// note logs that the lease cannot be renewed, and that it can again, once.
func (l *leases) note(ctx context.Context, err error) {
	l.mu.Lock()
	changed := l.failed != (err != nil)
	l.failed = err != nil
	l.mu.Unlock()
	switch {
	case !changed || ctx.Err() != nil:
	case err != nil:
		l.log.Warn("the lease on this server's sessions cannot be renewed: others may take them over",
			"after", l.timeout.String(), "error", err)
	default:
		l.log.Info("the lease on this server's sessions is renewed again")
	}
}

// renew renews the lease and learns who else is alive, unless that was done within a time.
func (l *leases) renew(ctx context.Context, within time.Duration) error {
	select {
	case l.gate <- struct{}{}:
		defer func() { <-l.gate }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if l.isFresh(within) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	others, err := l.store.RenewLease(ctx, l.owner)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	// Nobody could be seen while the store could not be reached: that says nothing of the others.
	blind := time.Since(l.asked) > 2*l.timeout/renewals
	l.asked = time.Now()
	seen := make(map[string]beat, len(others))
	for owner, value := range others {
		if before, ok := l.seen[owner]; ok && before.value == value && !blind {
			seen[owner] = before
		} else {
			seen[owner] = beat{value, l.asked}
		}
	}
	l.seen = seen
	return nil
}

func (l *leases) isFresh(within time.Duration) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return within > 0 && !l.asked.IsZero() && time.Since(l.asked) < within
}

// hold makes sure that others can see this server is alive, before it claims anything.
func (l *leases) hold(ctx context.Context) error { return l.renew(ctx, l.timeout) }

// isAlive reports whether another server, of which a claim is, may still be writing.
func (l *leases) isAlive(ctx context.Context, claim chat.Claim) (bool, error) {
	owner := serverOf(claim)
	// One that has just started is not known yet: it is asked for at once.
	for _, within := range []time.Duration{fresh, 0} {
		if err := l.renew(ctx, within); err != nil {
			return false, err
		}
		if b, ok := l.lastBeat(owner); ok {
			return time.Since(b.since) < l.timeout, nil
		}
	}
	return false, nil
}

func (l *leases) lastBeat(owner string) (b beat, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b, ok = l.seen[owner]
	return b, ok
}

// isShared reports whether other servers use the store, too.
func (l *leases) isShared() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, b := range l.seen {
		if time.Since(b.since) < l.timeout {
			return true
		}
	}
	return false
}

// serverOf gives the server, which is to say the life of a journal, of which a claim is.
func serverOf(claim chat.Claim) string {
	server, _, _ := strings.Cut(claim.Owner, ".")
	return server
}

// newClaim makes a claim of this server's. No other is like it: so what is still on its way under an earlier one, of this
// server too, is known by that.
func (m *Manager) newClaim(epoch string) chat.Claim {
	return chat.Claim{Owner: m.journal.ID() + "." + chat.NewID()[:8], Epoch: epoch}
}

// isMine reports whether a claim is of this server's, or of an earlier life of it with the same journal.
func (m *Manager) isMine(claim chat.Claim) bool { return serverOf(claim) == m.journal.ID() }

// isElsewhere reports whether another server, which may be alive, has the session.
func (m *Manager) isElsewhere(ctx context.Context, claim chat.Claim) (bool, error) {
	if claim.Owner == "" || m.isMine(claim) {
		return false, nil
	}
	return m.leases.isAlive(ctx, claim)
}

// end gives the lease up.
func (l *leases) end(ctx context.Context) {
	if err := l.store.EndLease(ctx, l.owner); err != nil {
		l.log.Warn("the lease on this server's sessions could not be given up: it runs out", "error", err)
	}
}
