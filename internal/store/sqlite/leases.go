package sqlite

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/gofrs/flock"
)

// leases are locked files, one for each owner, in a folder beside the database. Who shares a SQLite file is on the same
// machine: so the kernel knows who is alive, at once and without a clock, and gives up a lock with the process.
type leases struct {
	folder string

	mu   sync.Mutex // guards the field below; held across the system calls on these files, which do not wait
	held map[string]*flock.Flock
}

const leaseSuffix = ".lease"

// RenewLease implements [chat.Store]. The beat of one who is alive is the present.
func (s *Store) RenewLease(ctx context.Context, owner string) (map[string]int64, error) {
	if err := ctx.Err(); err != nil {
		return nil, failure(err, "renew lease")
	}
	others, err := s.leases.renew(owner)
	return others, failure(err, "renew lease")
}

// EndLease implements [chat.Store].
func (s *Store) EndLease(ctx context.Context, owner string) error {
	if err := ctx.Err(); err != nil {
		return failure(err, "end lease")
	}
	return failure(s.leases.end(owner), "end lease")
}

func (l *leases) path(owner string) string { return filepath.Join(l.folder, owner+leaseSuffix) }

func (l *leases) renew(owner string) (others map[string]int64, err error) {
	if owner == "" || owner != filepath.Base(owner) {
		return nil, fmt.Errorf("%q cannot be an owner", owner)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.take(owner); err != nil {
		return nil, err
	}
	files, err := os.ReadDir(l.folder)
	if err != nil {
		return nil, err
	}
	others = make(map[string]int64)
	for _, f := range files {
		other, isLease := strings.CutSuffix(f.Name(), leaseSuffix)
		if !isLease || other == owner {
			continue
		}
		alive, err := l.isAlive(other)
		if err != nil {
			return nil, err
		}
		if alive {
			others[other] = time.Now().UnixNano()
		}
	}
	return others, nil
}

// take locks the owner's file, unless that is done.
func (l *leases) take(owner string) error {
	if l.held[owner] != nil {
		return nil
	}
	if err := os.MkdirAll(l.folder, 0o700); err != nil {
		return err
	}
	lock, err := l.lock(owner)
	if err != nil {
		return err
	}
	if l.held == nil {
		l.held = make(map[string]*flock.Flock)
	}
	l.held[owner] = lock
	return nil
}

// lockAttempts is how often a lease's file is locked until it is held by another process for sure: others lock it for a
// moment to see whether its owner is alive, and remove it.
const lockAttempts = 100

// lock locks the owner's file, and makes sure that it is the one that others will find under its name.
func (l *leases) lock(owner string) (*flock.Flock, error) {
	for range lockAttempts {
		lock := flock.New(l.path(owner), flock.SetPermissions(0o600))
		locked, err := lock.TryLock()
		if err != nil {
			return nil, err
		}
		if locked && isFileAt(lock) {
			return lock, nil
		}
		if err := lock.Close(); err != nil {
			return nil, err
		}
		runtime.Gosched()
	}
	return nil, fmt.Errorf("the lease of %s is held by another process", owner)
}

// isFileAt reports whether a locked file is the one that has its name.
func isFileAt(lock *flock.Flock) bool {
	held, err := lock.Stat()
	if err != nil {
		return false
	}
	named, err := os.Stat(lock.Path())
	return err == nil && os.SameFile(held, named)
}

// isAlive reports whether an owner's file is locked. It removes the file of one who is gone.
func (l *leases) isAlive(owner string) (bool, error) {
	if l.held[owner] != nil {
		return true, nil
	}
	lock := flock.New(l.path(owner), flock.SetPermissions(0o600))
	locked, err := lock.TryLock()
	if err != nil || !locked {
		return true, err
	}
	return false, l.release(owner, lock)
}

func (l *leases) end(owner string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	lock := l.held[owner]
	if lock == nil {
		return nil
	}
	delete(l.held, owner)
	return l.release(owner, lock)
}

func (l *leases) release(owner string, lock *flock.Flock) error {
	err := os.Remove(l.path(owner))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, lock.Unlock())
}

// close lets go of the files, as the end of the process would.
func (l *leases) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var err error
	for _, lock := range l.held {
		err = errors.Join(err, lock.Unlock())
	}
	l.held = nil
	return err
}
