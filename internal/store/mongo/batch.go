package mongo

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.mongodb.org/mongo-driver/v2/mongo"
)

const (
	// A group is one command to the server, which takes 100,000 writes and 48 MB at most. That it is smaller lets others in
	// between. FerretDB, which tests run on, takes less than 100 updates.
	maxGroup      = 50
	maxGroupBytes = 8 << 20

	// maxInFlight is how many groups of a kind may be on their way at the same time.
	maxInFlight = 4

	// groupTimeout bounds a group's time, so that a server that hangs does not hold for good those that come after it, and
	// may find another.
	groupTimeout = 5 * time.Second
)

// batcher does writes of one kind in groups: while some groups are on their way to the server the next one gathers, so
// that the cost of reaching a majority's disks is shared by as many as there are, and nobody waits for a timer.
//
// Two groups may overtake each other. Whoever waits for a write before it submits the next sees nothing of that.
type batcher[W any] struct {
	size  func(W) int
	apply applyFunc[W]

	writes  chan pending[W] // unbuffered: a write is either taken by the loop or still its caller's
	closing chan struct{}
	slots   chan struct{} // holds one for each group that is on its way
	wg      sync.WaitGroup
}

// applyFunc does a group of writes. An error is everybody's; else results has each one's own.
type applyFunc[W any] func(ctx context.Context, group []W, results []error) error

type pending[W any] struct {
	write  W
	result chan error // holds one, so that the loop waits for nobody
}

func newBatcher[W any](size func(W) int, apply applyFunc[W]) *batcher[W] {
	b := &batcher[W]{
		size:    size,
		apply:   apply,
		writes:  make(chan pending[W]),
		closing: make(chan struct{}),
		slots:   make(chan struct{}, maxInFlight),
	}
	b.wg.Go(b.loop)
	return b
}

// submit has a write done, and returns when it is durable or has failed. If ctx ends before the loop has taken it, it is
// not done. Once taken it is done, whatever becomes of ctx; but a caller whose ctx ends is not kept waiting, and does not
// learn how it went.
func (b *batcher[W]) submit(ctx context.Context, write W) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	p := pending[W]{write, make(chan error, 1)}
	select {
	case b.writes <- p:
		select {
		case err := <-p.result:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	case <-ctx.Done():
		return ctx.Err()
	case <-b.closing:
		return errClosed
	}
}

// close waits for the writes that have been taken. Those that wait fail.
func (b *batcher[W]) close() {
	close(b.closing)
	b.wg.Wait()
}

func (b *batcher[W]) loop() {
	var left *pending[W] // taken, and too large for the last group
	for {
		b.slots <- struct{}{} // each group has a time limit: so has this
		var first pending[W]
		if left != nil {
			first = *left
		} else {
			select {
			case first = <-b.writes:
			case <-b.closing:
				return
			}
		}
		var group []pending[W]
		group, left = b.gather(first)
		b.wg.Go(func() {
			defer func() { <-b.slots }()
			b.commit(group)
		})
	}
}

// gather takes what waits. What exceeds the group's size is left for the next.
func (b *batcher[W]) gather(first pending[W]) (group []pending[W], left *pending[W]) {
	group = []pending[W]{first}
	bytes := b.size(first.write)
	for len(group) < maxGroup && bytes < maxGroupBytes {
		select {
		case p := <-b.writes:
			if bytes += b.size(p.write); bytes > maxGroupBytes {
				return group, &p
			}
			group = append(group, p)
		default:
			return group, nil
		}
	}
	return group, nil
}

// commit does the group and answers each of its callers.
//
// None of their contexts reaches the driver: nobody's impatience may undo what others wait for.
func (b *batcher[W]) commit(group []pending[W]) {
	ctx, cancel := context.WithTimeout(context.Background(), groupTimeout)
	defer cancel()
	writes := make([]W, len(group))
	for i, p := range group {
		writes[i] = p.write
	}
	for i, err := range b.do(ctx, writes) {
		group[i].result <- err
	}
}

// do gives each write's own error. A command that the server does not take, because of what is in it, is divided: the
// others are not to fail with the one that is to blame.
func (b *batcher[W]) do(ctx context.Context, writes []W) []error {
	results := make([]error, len(writes))
	err := b.apply(ctx, writes, results)
	if err == nil {
		return results
	}
	for i := range writes {
		results[i] = err
		if len(writes) > 1 && !Transient(err) {
			results[i] = b.do(ctx, writes[i:i+1])[0]
		}
	}
	return results
}

// divide gives each write of an unordered command the error that is its own, and returns the one that is everybody's:
// among these is that the writes may not be durable.
func divide(err error, own []error) error {
	bulk, ok := errors.AsType[mongo.BulkWriteException](err)
	if !ok || bulk.WriteConcernError != nil || len(bulk.WriteErrors) == 0 {
		return err
	}
	for _, e := range bulk.WriteErrors {
		own[e.Index] = e.WriteError
	}
	return nil
}
