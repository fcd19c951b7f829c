package sqlite

import (
	"context"
	"database/sql"
	"slices"
	"time"
)

// maxGroup bounds how many writes share a transaction, and so how long the first of them waits for the last.
const maxGroup = 256

// write is a change on its way to the write loop.
type write struct {
	apply  func(*sql.Tx) error
	result chan error // holds one, so that the loop waits for nobody
	erases bool       // what it overwrites is to be nowhere any more
}

// submit has the write loop apply a change, and returns once it is durable or has failed. If ctx ends before the
// loop has taken the change, it is not done. Once taken it is done, whatever becomes of ctx; but a caller whose ctx ends
// is not kept waiting for a disk that hangs, and does not learn how it went.
//
// apply runs inside a transaction that it shares with others: an error undoes its own change alone.
func (s *Store) submit(ctx context.Context, apply func(*sql.Tx) error) error {
	return s.send(ctx, write{apply: apply})
}

// submitErasure is submit for a change that overwrites what is to be nowhere any more: soon after it, the write-ahead log
// is emptied, too.
func (s *Store) submitErasure(ctx context.Context, apply func(*sql.Tx) error) error {
	return s.send(ctx, write{apply: apply, erases: true})
}

func (s *Store) send(ctx context.Context, w write) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	w.result = make(chan error, 1)
	select {
	case s.writes <- w:
		select {
		case err := <-w.result:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	case <-ctx.Done():
		return ctx.Err()
	case <-s.closing:
		return errClosed
	}
}

// submitFor is submit for a change that gives a value.
func submitFor[T any](ctx context.Context, s *Store, apply func(*sql.Tx) (T, error)) (T, error) {
	given := make(chan T, 1) // as the write may outlast this call
	err := s.submit(ctx, func(tx *sql.Tx) error {
		v, err := apply(tx)
		given <- v
		return err
	})
	if err != nil {
		var none T
		return none, err
	}
	return <-given, nil
}

// writeLoop commits what waits, as one group, again and again: while one group is on its way to the disk the next
// one gathers, so that the cost of reaching the disk is shared by as many as there are, and nobody waits for a timer.
func (s *Store) writeLoop() {
	defer close(s.stopped)
	var emptyLog <-chan time.Time // comes while the write-ahead log may have what was erased
	for {
		select {
		case first := <-s.writes:
			group := s.gather(first)
			s.commit(group)
			if emptyLog == nil && slices.ContainsFunc(group, func(w write) bool { return w.erases }) {
				emptyLog = time.After(emptyLogAfter)
			}
		case <-emptyLog:
			emptyLog = nil
			if !s.emptyLog() {
				emptyLog = time.After(emptyLogAfter)
			}
		case <-s.closing:
			if emptyLog != nil {
				s.emptyLog()
			}
			return
		}
	}
}

// emptyLogAfter is how long after an erasure the write-ahead log is emptied, so that many are worth one.
const emptyLogAfter = 200 * time.Millisecond

// emptyLog moves the write-ahead log into the file, and leaves nothing in it. It does not wait for readers: where one is
// in the way it reports false (https://www.sqlite.org/pragma.html#pragma_wal_checkpoint).
func (s *Store) emptyLog() bool {
	var busy, pages, moved int
	if _, err := s.writer.Exec("PRAGMA busy_timeout = 0"); err != nil {
		return false
	}
	err := s.writer.QueryRow("PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, &pages, &moved)
	_, failed := s.writer.Exec("PRAGMA busy_timeout = 5000")
	return err == nil && failed == nil && busy == 0
}

func (s *Store) gather(first write) []write {
	group := []write{first}
	for len(group) < maxGroup {
		select {
		case w := <-s.writes:
			group = append(group, w)
		default:
			return group
		}
	}
	return group
}

// commit applies the group and answers each of its callers.
func (s *Store) commit(group []write) {
	results := make([]error, len(group))
	err := s.transact(group, results)
	for i, w := range group {
		if err != nil {
			w.result <- err
		} else {
			w.result <- results[i]
		}
	}
}

// transact applies the group in one transaction. An error is everybody's; else results has each one's own.
//
// No context reaches the driver here: nobody's impatience may undo what others wait for.
func (s *Store) transact(group []write, results []error) error {
	tx, err := s.writer.Begin()
	if err != nil {
		return err
	}
	defer tx.Rollback() // does nothing after a commit

	savepoint, rollbackTo, release := tx.Stmt(s.savepoint), tx.Stmt(s.rollbackTo), tx.Stmt(s.release)
	for i, w := range group {
		if _, err := savepoint.Exec(); err != nil {
			return err
		}
		if results[i] = w.apply(tx); results[i] != nil {
			if _, err := rollbackTo.Exec(); err != nil {
				// The savepoint is gone because this failure made SQLite roll back the whole transaction
				// (https://www.sqlite.org/lang_transaction.html, section 3).
				return results[i]
			}
		}
		if _, err := release.Exec(); err != nil {
			return err
		}
	}
	return tx.Commit()
}
