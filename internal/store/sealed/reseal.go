package sealed

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/seal"
)

const (
	resealers = 4  // how many sessions are worked on at the same time
	pageSize  = 50 // sessions, or messages of one, that are in memory at the same time, for each

	// maxAttempts is how often a record is tried that others change meanwhile. As they seal it themselves, one that
	// was found changed needs nothing more, most of the time.
	maxAttempts = 10

	// maxTold is how many records are named that cannot be opened.
	maxTold = 10
)

// Reseal encrypts what a store, which is not a [Store] itself, has from before there were keys, and what is sealed under
// another key than the primary. It gives how many sessions and messages that were. Servers may run on the store
// meanwhile, if they have the same keys, all of them. When it has succeeded the other keys are not needed any more.
//
// It can be cut short, and goes on where it was: what is under the primary already is only read. A record that cannot be
// opened is left as it is, and is an error at the end.
//
// progress, which may be nil, is called by one goroutine at a time, with how much was looked at so far and about how much
// there is.
func Reseal(ctx context.Context, raw chat.Store, keys *seal.Keyset, progress func(done, total chat.Counts)) (
	changed chat.Counts, err error,
) {
	if keys == nil {
		return chat.Counts{}, ErrNoKeyset
	}
	if err := check(ctx, raw, keys); err != nil {
		return chat.Counts{}, err
	}
	total, err := raw.Count(ctx)
	if err != nil {
		return chat.Counts{}, err
	}
	total.Usage = 0
	var done chat.Counts
	var broken brokenRecords
	r := resealer{store: raw, keys: keys}
	err = r.run(ctx, func(p progressed) {
		add(&done, p.done)
		add(&changed, p.changed)
		broken.add(p.broken)
		if progress != nil {
			progress(done, total)
		}
	})
	if err == nil {
		err = broken.error()
	}
	if err == nil {
		err = check(ctx, raw, keys) // whether a server has come with a key that is newer still
	}
	if err == nil {
		err = note(ctx, raw, keys, "") // nothing is sealed under another key any more
	}
	return changed, err
}

func add(sum *chat.Counts, n chat.Counts) {
	sum.Sessions += n.Sessions
	sum.Messages += n.Messages
}

// progressed is what was done of the work.
type progressed struct {
	done, changed chat.Counts
	broken        error // a record that cannot be opened; nil: there is none
}

// brokenRecords are those that cannot be opened.
type brokenRecords struct {
	told []error
	all  int
}

func (b *brokenRecords) add(err error) {
	if err == nil {
		return
	}
	b.all++
	if len(b.told) < maxTold {
		b.told = append(b.told, err)
	}
}

func (b *brokenRecords) error() error {
	if b.all == 0 {
		return nil
	}
	return fmt.Errorf("%d records cannot be opened and are left as they are; among them:\n%w", b.all, errors.Join(b.told...))
}

// resealer goes through a store.
type resealer struct {
	store chat.Store
	keys  *seal.Keyset
}

// run works on all sessions, some at the same time, and reports from one goroutine, its caller's. The first failure of
// the store ends it.
func (r *resealer) run(ctx context.Context, report func(progressed)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	sessions, steps := make(chan chat.Session), make(chan progressed)
	var workers sync.WaitGroup
	for range resealers {
		workers.Go(func() {
			for s := range sessions {
				if err := r.session(ctx, s, steps); err != nil {
					cancel(err)
				}
			}
		})
	}
	workers.Go(func() {
		defer close(sessions)
		if err := r.list(ctx, sessions); err != nil {
			cancel(err)
		}
	})
	go func() {
		workers.Wait()
		close(steps)
	}()
	for step := range steps {
		report(step)
	}
	return context.Cause(ctx)
}

// list gives all sessions, page by page.
func (r *resealer) list(ctx context.Context, sessions chan<- chat.Session) error {
	for after := ""; ; {
		page, err := r.store.SessionsAfter(ctx, after, pageSize)
		if err != nil || len(page) == 0 {
			return err
		}
		for _, s := range page {
			select {
			case sessions <- s:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		after = page[len(page)-1].ID
	}
}

// session works on a session and its messages, the newest first: those that come meanwhile need nothing.
func (r *resealer) session(ctx context.Context, s chat.Session, steps chan<- progressed) error {
	step := progressed{done: chat.Counts{Sessions: 1}}
	err := r.take(&step, &step.changed.Sessions, func() (bool, error) { return r.resealSession(ctx, s) })
	if err != nil {
		return err
	}
	steps <- step
	for before := int64(0); ; {
		page, err := r.store.Messages(ctx, s.ID, before, pageSize)
		if err != nil || len(page) == 0 {
			return err
		}
		for _, m := range page {
			step := progressed{done: chat.Counts{Messages: 1}}
			err := r.take(&step, &step.changed.Messages, func() (bool, error) { return r.resealMessage(ctx, s.ID, m) })
			if err != nil {
				return err
			}
			steps <- step
		}
		before = page[0].N
	}
}

// take does a piece of the work, and notes what came of it.
func (r *resealer) take(step *progressed, changed *int64, reseal func() (bool, error)) error {
	was, err := reseal()
	if errors.Is(err, seal.ErrUndecryptable) {
		step.broken, err = err, nil
	}
	if was {
		*changed++
	}
	return err
}

// resealSession reports whether a session was sealed anew.
func (r *resealer) resealSession(ctx context.Context, s chat.Session) (changed bool, err error) {
	for range maxAttempts {
		if s.Sealed && r.keys.ByPrimary(s.Title) && r.keys.ByPrimary(s.HelpReason) {
			return false, nil
		}
		anew := s
		if err := openSession(r.keys, &anew); err != nil {
			return false, err
		}
		if err := sealSession(r.keys, &anew); err != nil {
			return false, err
		}
		if err = r.store.ResealSession(ctx, s, anew); !errors.Is(err, chat.ErrStale) {
			return err == nil, err
		}
		if s, err = r.store.Session(ctx, s.ID); errors.Is(err, chat.ErrNotFound) {
			return false, nil
		} else if err != nil {
			return false, err
		}
	}
	return false, fmt.Errorf("session %s is changed all the time, by a server without these keys: %w", s.ID, chat.ErrStale)
}

// resealMessage reports whether a message was sealed anew.
func (r *resealer) resealMessage(ctx context.Context, sessionID string, m chat.Message) (changed bool, err error) {
	for range maxAttempts {
		if m.Sealed && r.keys.ByPrimary(m.Text) && r.keys.ByPrimary(m.Reasoning) {
			return false, nil
		}
		anew := m
		if err := openMessage(r.keys, sessionID, &anew); err != nil {
			return false, err
		}
		if err := sealMessage(r.keys, sessionID, &anew); err != nil {
			return false, err
		}
		if err = r.store.ResealMessage(ctx, sessionID, m, anew); !errors.Is(err, chat.ErrStale) {
			return err == nil, err
		}
		if m, err = r.store.Message(ctx, sessionID, m.ID); errors.Is(err, chat.ErrNotFound) {
			return false, nil
		} else if err != nil {
			return false, err
		}
	}
	return false, fmt.Errorf("message %s of session %s is changed all the time, by a server without these keys: %w",
		m.ID, sessionID, chat.ErrStale)
}
