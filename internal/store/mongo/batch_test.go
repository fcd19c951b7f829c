package mongo

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.mongodb.org/mongo-driver/v2/mongo"
)

// recorder is a server for a batcher's numbers. It does not answer until it is told to.
type recorder struct {
	answer chan struct{} // lets one group go on
	refuse func(group []int) error

	mu     sync.Mutex // guards the field below
	groups [][]int
}

func (r *recorder) apply(ctx context.Context, group []int, results []error) error {
	r.mu.Lock()
	r.groups = append(r.groups, slices.Clone(group))
	r.mu.Unlock()
	select {
	case <-r.answer:
	case <-ctx.Done():
		return ctx.Err()
	}
	if r.refuse != nil {
		return r.refuse(group)
	}
	return nil
}

func (r *recorder) seen() [][]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.groups)
}

// sizes gives the sizes of the groups that came, in order.
func (r *recorder) sizes() (sizes []int) {
	for _, group := range r.seen() {
		sizes = append(sizes, len(group))
	}
	return sizes
}

// A number is as large as it says, but for the sign.
func sizeOf(n int) int { return max(n, -n) }

// submitAll submits each number from a goroutine of its own, one after the other, and gives what each was answered, once
// all are.
func submitAll(ctx context.Context, b *batcher[int], numbers ...int) (answers func() []error) {
	results := make([]error, len(numbers))
	var wg sync.WaitGroup
	for i, n := range numbers {
		wg.Go(func() { results[i] = b.submit(ctx, n) })
		synctest.Wait()
	}
	return func() []error {
		wg.Wait()
		return results
	}
}

// occupy sends as many groups on their way as may be.
func occupy(t *testing.T, b *batcher[int]) (answers func() []error) {
	return submitAll(t.Context(), b, make([]int, maxInFlight)...)
}

func wantSizes(t *testing.T, r *recorder, want ...int) {
	t.Helper()
	for range maxInFlight {
		want = append([]int{1}, want...)
	}
	if got := r.sizes(); !slices.Equal(got, want) {
		t.Errorf("the groups have sizes %v, want %v", got, want)
	}
}

func wantNil(t *testing.T, errs []error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Error(err)
	}
}

func TestWaitingWritesShareAGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{answer: make(chan struct{})}
		b := newBatcher(sizeOf, r.apply)
		defer b.close()
		first := occupy(t, b)
		rest := submitAll(t.Context(), b, make([]int, maxGroup)...)
		close(r.answer)
		wantNil(t, first())
		wantNil(t, rest())
		wantSizes(t, r, maxGroup)
	})
}

func TestGroupsAreBounded(t *testing.T) {
	for name, test := range map[string]struct {
		waiting []int
		want    []int
	}{
		"in number":                     {make([]int, maxGroup+3), []int{maxGroup, 3}},
		"in bytes":                      {[]int{maxGroupBytes / 2, maxGroupBytes / 2, 1}, []int{2, 1}},
		"and one that exceeds it waits": {[]int{1, maxGroupBytes, 1}, []int{1, 1, 1}},
		"one too large goes alone":      {[]int{2 * maxGroupBytes, 1}, []int{1, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := &recorder{answer: make(chan struct{})}
				b := newBatcher(sizeOf, r.apply)
				defer b.close()
				first := occupy(t, b)
				rest := submitAll(t.Context(), b, test.waiting...)
				for range maxInFlight + len(test.want) {
					r.answer <- struct{}{} // one at a time, so that the groups come in order
					synctest.Wait()
				}
				wantNil(t, first())
				wantNil(t, rest())
				wantSizes(t, r, test.want...)
			})
		})
	}
}

func TestCallerWhoseContextEndsIsNotKeptWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{answer: make(chan struct{})}
		b := newBatcher(sizeOf, r.apply)
		ctx, cancel := context.WithCancel(t.Context())
		taken := submitAll(ctx, b, make([]int, maxInFlight)...)
		waiting := submitAll(ctx, b, 7)
		cancel()
		for _, err := range append(taken(), waiting()...) {
			if !errors.Is(err, context.Canceled) {
				t.Errorf("got error %v, want %v", err, context.Canceled)
			}
		}
		close(r.answer)
		b.close()
		wantSizes(t, r) // the one that was not taken is not done
	})
}

func TestGroupThatHangsEndsAndHoldsNobodyElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{answer: make(chan struct{})}
		b := newBatcher(sizeOf, r.apply)
		defer b.close()
		hanging := submitAll(t.Context(), b, 1)
		others := submitAll(t.Context(), b, 2)
		r.answer <- struct{}{}
		synctest.Wait()
		start := time.Now()
		all := append(hanging(), others()...)
		slices.SortFunc(all, func(a, b error) int { return len(errorText(a)) - len(errorText(b)) })
		if all[0] != nil || !errors.Is(all[1], context.DeadlineExceeded) {
			t.Errorf("got the errors %v, want one %v", all, context.DeadlineExceeded)
		}
		if got := time.Since(start); got != groupTimeout {
			t.Errorf("it hung for %v, want %v", got, groupTimeout)
		}
	})
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// One write that the server does not take is its caller's loss alone.
func TestRefusedGroupIsDivided(t *testing.T) {
	refused := errors.New("refused")
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{answer: make(chan struct{}), refuse: func(group []int) error {
			if slices.Contains(group, 7) {
				return refused
			}
			return nil
		}}
		b := newBatcher(sizeOf, r.apply)
		defer b.close()
		occupy(t, b)
		rest := submitAll(t.Context(), b, 5, 6, 7, 8)
		close(r.answer)
		if got := rest(); !slices.Equal(got, []error{nil, nil, refused, nil}) {
			t.Errorf("got the errors %v, want the third %v", got, refused)
		}
		wantSizes(t, r, 4, 1, 1, 1, 1)
	})
}

func TestTransientErrorIsEverybodys(t *testing.T) {
	gone := mongo.CommandError{Code: 11600, Name: "InterruptedAtShutdown"}
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{answer: make(chan struct{}), refuse: func([]int) error { return gone }}
		b := newBatcher(sizeOf, r.apply)
		defer b.close()
		occupy(t, b)
		rest := submitAll(t.Context(), b, 5, 6)
		close(r.answer)
		for _, err := range rest() {
			if !Transient(err) {
				t.Errorf("got error %v, want %v", err, gone)
			}
		}
		wantSizes(t, r, 2)
	})
}

func TestCloseWaitsForWhatWasTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{answer: make(chan struct{})}
		b := newBatcher(sizeOf, r.apply)
		taken := occupy(t, b)
		waiting := submitAll(t.Context(), b, 7)
		closed := make(chan struct{})
		go func() {
			b.close()
			close(closed)
		}()
		if err := waiting()[0]; !errors.Is(err, errClosed) {
			t.Errorf("got error %v, want %v", err, errClosed)
		}
		select {
		case <-closed:
			t.Error("closed before the writes were done")
		default:
		}
		close(r.answer)
		wantNil(t, taken())
		<-closed
	})
}
