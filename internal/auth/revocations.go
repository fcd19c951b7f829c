package auth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/parley-chat/parley/chat"
)

const (
	rereadInterval = 5 * time.Second // so late does what another server has revoked take effect here
	deleteInterval = time.Hour
	storeTimeout   = 10 * time.Second
)

// RevocationStore is where revocations are kept, for all servers that use it.
type RevocationStore interface {
	AddRevocation(ctx context.Context, r chat.Revocation) error
	// Revocations returns all that there are.
	Revocations(ctx context.Context) ([]chat.Revocation, error)
	// DeleteRevocations deletes those with an Until before a time.
	DeleteRevocations(ctx context.Context, before time.Time) error
}

// Revocations knows which tokens have been revoked. It holds them in memory and reads the store again every 5 seconds, so
// that what another server has revoked is revoked here too. It is safe for concurrent use.
type Revocations struct {
	store RevocationStore
	log   *slog.Logger
	stop  context.CancelFunc
	done  sync.WaitGroup

	failed bool // the last reading has; owned by run

	mu       sync.RWMutex // guards the fields below
	known    revoked
	added    []chat.Revocation // here, since the reading under way began, which may not have seen them
	onChange func()
}

// revoked finds what is revoked, by token and by user. Of several of a user's the latest counts: it covers the others.
type revoked struct {
	tokens map[tokenID]chat.Revocation
	users  map[string]chat.Revocation
}

type tokenID struct{ user, token string }

// NewRevocations reads what is revoked. Close ends it.
func NewRevocations(ctx context.Context, store RevocationStore, log *slog.Logger) (*Revocations, error) {
	r := &Revocations{store: store, log: log, onChange: func() {}}
	if err := r.read(ctx); err != nil {
		return nil, fmt.Errorf("read what is revoked: %w", err)
	}
	running, stop := context.WithCancel(context.Background())
	r.stop = stop
	r.done.Go(func() { r.run(running) })
	return r, nil
}

// Close ends the reading and waits for it, and for a call of what OnChange was given.
func (r *Revocations) Close() {
	r.stop()
	r.done.Wait()
}

// OnChange has f called each time that something new was revoked, here or elsewhere; [Revocations.Revoked] knows it
// already. It replaces what was given before. f must not call Close.
func (r *Revocations) OnChange(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.onChange = f
}

// Revoke revokes one token, or all of a user's that were issued by a time. Without an error it is stored, in force on
// this server, and told to who asked for that by OnChange.
func (r *Revocations) Revoke(ctx context.Context, revocation chat.Revocation) error {
	if revocation.UserID == "" || revocation.At.IsZero() {
		return errors.New("revoke: it is not said whose tokens, or when")
	}
	if err := r.store.AddRevocation(ctx, revocation); err != nil {
		return fmt.Errorf("revoke: %w", err)
	}
	r.mu.Lock()
	isNew := r.known.add(revocation)
	r.added = append(r.added, revocation)
	onChange := r.onChange
	r.mu.Unlock()
	if isNew {
		onChange()
	}
	return nil
}

// Revoked reports whether the token that a user comes with has been revoked.
func (r *Revocations) Revoked(user chat.User) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.known.covers(user)
}

func (k revoked) covers(user chat.User) bool {
	if _, ok := k.tokens[tokenID{user.ID, user.TokenID}]; ok && user.TokenID != "" {
		return true
	}
	all, ok := k.users[user.ID]
	// A token's iat has whole seconds, so one of the very second counts as issued before; one without an iat may have been.
	return ok && !user.IssuedAt.After(all.At)
}

// add adds a revocation, and reports whether that revokes what was not revoked before.
func (k revoked) add(r chat.Revocation) bool {
	if r.TokenID != "" {
		id := tokenID{r.UserID, r.TokenID}
		before, known := k.tokens[id]
		if known {
			r.Until = later(r.Until, before.Until)
		}
		k.tokens[id] = r
		return !known
	}
	before, known := k.users[r.UserID]
	isNew := !known || r.At.After(before.At)
	if known {
		r.Until = later(r.Until, before.Until)
		if !isNew {
			r.At = before.At
		}
	}
	k.users[r.UserID] = r
	return isNew
}

// later gives the later of two ends; zero is none.
func later(a, b time.Time) time.Time {
	if a.IsZero() || b.IsZero() {
		return time.Time{}
	}
	if a.After(b) {
		return a
	}
	return b
}

// run reads the store again and again until ctx ends.
func (r *Revocations) run(ctx context.Context) {
	reread, tidy := time.NewTicker(rereadInterval), time.NewTicker(deleteInterval)
	defer reread.Stop()
	defer tidy.Stop()
	for {
		select {
		case <-reread.C:
			r.note(ctx, r.read(ctx))
		case <-tidy.C:
			r.tidy(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// note logs that what is revoked cannot be read, and that it can again, once.
func (r *Revocations) note(ctx context.Context, err error) {
	changed := r.failed != (err != nil)
	r.failed = err != nil
	switch {
	case !changed || ctx.Err() != nil:
	case err != nil:
		r.log.Warn("what is revoked cannot be read: what another server revokes now has no effect on this one", "error", err)
	default:
		r.log.Info("what is revoked is read again")
	}
}

// read takes over what the store has.
func (r *Revocations) read(ctx context.Context) error {
	r.mu.Lock()
	r.added = nil
	r.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	stored, err := r.store.Revocations(ctx)
	if err != nil {
		return err
	}
	if onChange := r.replace(stored); onChange != nil {
		onChange()
	}
	return nil
}

// replace makes what is stored what is known. It returns what is to be called if there is something new in it.
func (r *Revocations) replace(stored []chat.Revocation) (onChange func()) {
	next := revoked{tokens: make(map[tokenID]chat.Revocation), users: make(map[string]chat.Revocation)}
	now := time.Now()
	for _, s := range stored {
		if s.Until.IsZero() || now.Before(s.Until.Add(Leeway)) {
			next.add(s)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, a := range r.added {
		next.add(a)
	}
	before := r.known
	r.known = next
	if next.isMoreThan(before) {
		return r.onChange
	}
	return nil
}

// isMoreThan reports whether something is revoked here that is not in before.
func (k revoked) isMoreThan(before revoked) bool {
	for id := range k.tokens {
		if _, known := before.tokens[id]; !known {
			return true
		}
	}
	for id, all := range k.users {
		if b, known := before.users[id]; !known || all.At.After(b.At) {
			return true
		}
	}
	return false
}

// tidy deletes what is revoked of tokens that have all expired. What remains for now does no harm.
func (r *Revocations) tidy(ctx context.Context) {
	deleting, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	if err := r.store.DeleteRevocations(deleting, time.Now().Add(-Leeway)); err != nil && ctx.Err() == nil {
		r.log.Warn("revocations of expired tokens could not be deleted: that is tried again in an hour", "error", err)
	}
}
