package sqlite

import (
	"context"
	"database/sql"
)

// maxGroup bounds how many writes share a transaction, and so how long the first of them waits for the last.
const maxGroup = 256

// write is a change on its way to the write loop.
type write struct {
	apply  func(*sql.Tx) error
	result chan error // holds one, so that the loop waits for nobody
}

// submit has the write loop apply a change, and returns once it is durable or has failed. If ctx ends before the
// loop has taken the change, it is not done. Once taken it is done, whatever becomes of ctx; but a caller whose ctx ends
// is not kept waiting for a disk that hangs, and does not learn how it went.
//
// apply runs inside a transaction that it shares with others: an error undoes its own change alone.
func (s *Store) submit(ctx context.Context, apply func(*sql.Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	w := write{apply: apply, result: make(chan error, 1)}
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

// writeLoop commits what waits, as one group, again and again: while one group is on its way to the disk the next
// one gathers, so that the cost of reaching the disk is shared by as many as there are, and nobody waits for a timer.
func (s *Store) writeLoop() {
	defer close(s.stopped)
	for {
		select {
		case first := <-s.writes:
			s.commit(s.gather(first))
		case <-s.closing:
			return
		}
	}
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
