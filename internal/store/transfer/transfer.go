// Package transfer copies one [chat.Store] into another: from the file that a product began with to the database that
// it has grown into.
package transfer

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"slices"
	"sync"

	"github.com/parley-chat/parley/chat"
)

const (
	workers  = 8   // sessions that are copied at the same time
	pageSize = 200 // records that are read in one go
)

// Report is what a copy came to. Both stores have the same then, unless the source has Changed.
type Report struct {
	Counts  chat.Counts // of what the target has
	Copied  int64       // sessions that were copied, the others having been there already
	Claimed int64       // sessions that a server has, or had when it went down: it may have written since
	Changed bool        // the source has changed meanwhile: what was copied is right, and not all
	Digest  string      // SHA-256 over all records that were read, of every kind, hexadecimal
}

// Copy copies all that a store holds into another one, as it is: what is sealed stays sealed. Begun again after it was
// cut short, or after the source has changed, it copies what differs. Each session is read back and compared before it
// counts as copied, and in the end the numbers of all records are. What staff did comes last, and with it what they do
// meanwhile: a token that they revoke is not to be valid in the target. Where the target holds other sessions nothing is
// copied, and the error is an [OthersError]; with prune they are removed: they may have been erased since an earlier copy.
//
// progress, unless it is nil, is called with what was compared or copied so far of all that there is.
func Copy(ctx context.Context, from, to chat.Store, prune bool, progress func(done, all chat.Counts)) (Report, error) {
	all, err := from.Count(ctx)
	if err != nil {
		return Report{}, err
	}
	if err := checkOthers(ctx, from, to, prune); err != nil {
		return Report{}, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	c := &copying{from: from, to: to, all: all, progress: progress, digest: sha256.New()}
	if err := c.sessions(ctx, cancel); err != nil {
		return Report{}, err
	}
	for _, step := range []func(context.Context) error{c.usage, c.revocations, c.audit} {
		if err := step(ctx); err != nil {
			return Report{}, err
		}
	}
	c.report.Digest = hex.EncodeToString(c.digest.Sum(nil))
	return c.verify(ctx)
}

type copying struct {
	from, to chat.Store
	all      chat.Counts
	progress func(done, all chat.Counts)
	digest   hash.Hash // owned by the goroutine that copies: over the sessions' digests in the order of their IDs

	mu     sync.Mutex // guards the fields below
	done   chat.Counts
	report Report
}

// add notes progress.
func (c *copying) add(done chat.Counts) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done.Sessions += done.Sessions
	c.done.Messages += done.Messages
	c.done.Usage += done.Usage
	if c.progress != nil {
		c.progress(c.done, c.all)
	}
}

// sessions copies page by page, the sessions of a page at the same time.
func (c *copying) sessions(ctx context.Context, cancel context.CancelCauseFunc) error {
	for last := ""; ; {
		page, err := c.from.SessionsAfter(ctx, last, pageSize)
		if err != nil {
			return err
		}
		if len(page) == 0 {
			return nil
		}
		last = page[len(page)-1].ID
		digests := make([]string, len(page))
		next := make(chan int)
		var copiers sync.WaitGroup
		for range min(workers, len(page)) {
			copiers.Go(func() {
				for i := range next {
					digest, err := c.session(ctx, page[i])
					if err != nil {
						cancel(fmt.Errorf("session %s: %w", page[i].ID, err))
					}
					digests[i] = digest
				}
			})
		}
		for i := range page {
			next <- i
		}
		close(next)
		copiers.Wait()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		for _, d := range digests {
			fmt.Fprintln(c.digest, d)
		}
	}
}

// session sees to it that the target has a session with its messages as the source has it, and gives its digest.
func (c *copying) session(ctx context.Context, session chat.Session) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	if session.EndReason == chat.EndedByErasure {
		c.note(chat.Session{}, 0, false)
		return "", c.from.DeleteSession(ctx, session.ID, zero)
	}
	want, n, err := digestOf(ctx, c.from, session)
	if err != nil {
		return "", err
	}
	there, err := c.to.Session(ctx, session.ID)
	switch {
	case err == nil:
		got, _, err := digestOf(ctx, c.to, there)
		if err != nil {
			return "", err
		}
		if got == want {
			c.note(session, n, false)
			return want, nil
		}
		if err := c.mayReplace(ctx, session, there); err != nil {
			return "", err
		}
	case !errors.Is(err, chat.ErrNotFound):
		return "", err
	}
	if want, err = c.replace(ctx, session); err != nil {
		return "", err
	}
	if there, err = c.to.Session(ctx, session.ID); err != nil {
		return "", err
	}
	got, _, err := digestOf(ctx, c.to, there)
	if err != nil {
		return "", err
	}
	if got != want {
		return "", errors.New("what was copied is not what was read")
	}
	c.note(session, 0, true) // its messages are counted already
	return want, nil
}

// note counts a session with n messages in.
func (c *copying) note(session chat.Session, n int64, copied bool) {
	c.add(chat.Counts{Sessions: 1, Messages: n})
	c.mu.Lock()
	defer c.mu.Unlock()
	if copied {
		c.report.Copied++
	}
	if session.Claim.Owner != "" && session.Status != chat.SessionStatusEnded {
		c.report.Claimed++
	}
}

// mayReplace refuses to replace a session that has gone on in the target since it was copied.
func (c *copying) mayReplace(ctx context.Context, session, there chat.Session) error {
	goneOn := there.Revision > session.Revision
	for page, err := range pages(ctx, c.to, session.ID) {
		if err != nil {
			return err
		}
		for _, m := range page {
			if _, err := c.from.Message(ctx, session.ID, m.ID); errors.Is(err, chat.ErrNotFound) {
				goneOn = true
			} else if err != nil {
				return err
			}
		}
	}
	if goneOn {
		return errors.New("it has gone on in the target since it was copied, and is not overwritten: a server uses the target, or has done so")
	}
	return nil
}

// replace copies a session in place of what the target has of it, and gives the digest of what it read.
func (c *copying) replace(ctx context.Context, session chat.Session) (digest string, err error) {
	if err := c.to.DeleteSession(ctx, session.ID, zero); err != nil {
		return "", err
	}
	if err := c.to.CreateSession(ctx, &session); err != nil {
		return "", err
	}
	d := newDigest(session)
	for page, err := range pages(ctx, c.from, session.ID) {
		if err != nil {
			return "", err
		}
		for _, m := range page {
			if err := c.to.InsertMessage(ctx, session.ID, session.Claim, m); err != nil {
				return "", err
			}
			d.add(m)
		}
		c.add(chat.Counts{Messages: int64(len(page))})
	}
	return d.sum(), d.err
}

// usage copies the records of what responses cost, and compares each page with what the target has then.
func (c *copying) usage(ctx context.Context) error {
	d := &digest{hash: sha256.New()}
	var last chat.UsageRecord
	for page, err := range usagePages(ctx, c.from) {
		if err != nil {
			return err
		}
		for _, r := range page {
			if err := c.to.AddUsage(ctx, r); err != nil {
				return err
			}
			d.add(r)
		}
		there, err := c.to.UsageAfter(ctx, chat.UsageFilter{}, last.SessionID, last.MessageID, len(page))
		if err != nil {
			return err
		}
		if !slices.Equal(there, page) {
			return errors.New("the target has other records of what responses cost: choose an empty storage")
		}
		last = page[len(page)-1]
		c.add(chat.Counts{Usage: int64(len(page))})
	}
	fmt.Fprintln(c.digest, d.sum())
	return d.err
}

// OthersError says how many sessions the target of a copy has that the source does not.
type OthersError int

func (e OthersError) Error() string {
	return fmt.Sprintf("the target has %d sessions that the source does not have, and nothing was copied", int(e))
}

// checkOthers finds, or removes, the sessions that only the target has.
func checkOthers(ctx context.Context, from, to chat.Store, prune bool) error {
	others := 0
	for last := ""; ; {
		page, err := to.SessionsAfter(ctx, last, pageSize)
		if err != nil {
			return err
		}
		if len(page) == 0 {
			break
		}
		for _, s := range page {
			last = s.ID
			switch _, err := from.Session(ctx, s.ID); {
			case err == nil:
			case !errors.Is(err, chat.ErrNotFound):
				return err
			case prune:
				if err := to.DeleteSession(ctx, s.ID, zero); err != nil {
					return err
				}
			default:
				others++
			}
		}
	}
	if others > 0 {
		return OthersError(others)
	}
	return nil
}

// verify compares how much there is, and gives the report.
func (c *copying) verify(ctx context.Context) (Report, error) {
	from, err := c.from.Count(ctx)
	if err != nil {
		return Report{}, err
	}
	if c.report.Counts, err = c.to.Count(ctx); err != nil {
		return Report{}, err
	}
	to := c.report.Counts
	switch {
	case to == from:
	case from != c.all:
		c.report.Changed = true
	default:
		return c.report, fmt.Errorf("the source has %d sessions, %d messages and %d usage records, the target %d, %d and %d: "+
			"choose an empty storage", from.Sessions, from.Messages, from.Usage, to.Sessions, to.Messages, to.Usage)
	}
	return c.report, nil
}

// RestartEpochs takes the claims of all sessions away, and with them their epochs, and gives how many those were.
func RestartEpochs(ctx context.Context, store chat.Store) (sessions int, err error) {
	for last := ""; ; {
		page, err := store.SessionsAfter(ctx, last, pageSize)
		if err != nil || len(page) == 0 {
			return sessions, err
		}
		for _, s := range page {
			last = s.ID
			if s.Status == chat.SessionStatusEnded || s.Claim == (chat.Claim{}) {
				continue
			}
			if _, err := store.ClaimSession(ctx, s.ID, s.Claim, chat.Claim{}); err != nil {
				return sessions, fmt.Errorf("session %s: %w", s.ID, err)
			}
			sessions++
		}
	}
}

// digest sums records up.
type digest struct {
	hash hash.Hash
	err  error
}

func newDigest(session chat.Session) *digest {
	d := &digest{hash: sha256.New()}
	d.add(session)
	return d
}

func (d *digest) add(record any) {
	text, err := json.Marshal(record)
	d.err = errors.Join(d.err, err)
	d.hash.Write(append(text, '\n'))
}

func (d *digest) sum() string { return hex.EncodeToString(d.hash.Sum(nil)) }

// digestOf sums a session and its messages up, and counts these.
func digestOf(ctx context.Context, store chat.Store, session chat.Session) (sum string, n int64, err error) {
	d := newDigest(session)
	for page, err := range pages(ctx, store, session.ID) {
		if err != nil {
			return "", 0, err
		}
		for _, m := range page {
			d.add(m)
			n++
		}
	}
	return d.sum(), n, d.err
}
