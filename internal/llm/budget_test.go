package llm_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/llm"
)

// ledger knows what users have spent, and when.
type ledger struct {
	before func(ctx context.Context) error // each reading; may be nil

	mu      sync.Mutex // guards the fields below
	records []chat.UsageRecord
	read    int
}

func (l *ledger) SumUsage(ctx context.Context, f chat.UsageFilter) ([]chat.UsageSum, error) {
	l.mu.Lock()
	l.read++
	l.mu.Unlock()
	if l.before != nil {
		if err := l.before(ctx); err != nil {
			return nil, err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	days := make(map[time.Time]chat.UsageSum)
	for _, r := range l.records {
		if r.UserID == f.UserID && !r.At.Before(f.From) {
			day := r.At.Truncate(24 * time.Hour)
			sum := days[day]
			sum.InputTokens += int64(r.Usage.InputTokens)
			sum.OutputTokens += int64(r.Usage.OutputTokens)
			days[day] = sum
		}
	}
	var sums []chat.UsageSum
	for _, sum := range days {
		sums = append(sums, sum)
	}
	return sums, nil
}

func (l *ledger) add(user string, tokens int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.records = append(l.records, chat.UsageRecord{
		UserID: user, At: time.Now(), Usage: chat.Usage{InputTokens: tokens / 2, OutputTokens: tokens - tokens/2},
	})
}

func (l *ledger) reads() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.read
}

func reserve(t *testing.T, b *llm.Budget, input, output int) *llm.Grant {
	t.Helper()
	g, err := b.Reserve(t.Context(), "alice", input, output)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// refused checks that nothing is granted, and what is told of when there will be more.
func refused(t *testing.T, b *llm.Budget, input, output int, retryAfter time.Duration) {
	t.Helper()
	g, err := b.Reserve(t.Context(), "alice", input, output)
	shown, ok := errors.AsType[*chat.Error](err)
	if !ok || shown.Code != chat.CodeBudgetExceeded || g != nil {
		t.Fatalf("%d and %d tokens give %+v, %v", input, output, g, err)
	}
	if shown.RetryAfter != retryAfter {
		t.Errorf("it is to be tried again after %v, want %v", shown.RetryAfter, retryAfter)
	}
}

func spent(tokens int) chat.Usage { return chat.Usage{InputTokens: tokens} }

func TestBudgetIsReservedAndSettled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // at midnight
		b := llm.NewBudget(1000, 24*time.Hour, &ledger{})
		time.Sleep(6 * time.Hour)
		first := reserve(t, b, 100, 500)
		if first.MaxOutputTokens != 500 {
			t.Errorf("granted are %d tokens", first.MaxOutputTokens)
		}
		second := reserve(t, b, 100, 500) // 400 are left
		if second.MaxOutputTokens != 300 {
			t.Errorf("of 400 tokens granted are %d after a prompt of 100", second.MaxOutputTokens)
		}
		refused(t, b, 0, 1, 0)
		second.Settle(spent(150)) // less
		third := reserve(t, b, 249, 500)
		if third.MaxOutputTokens != 1 {
			t.Errorf("of 250 tokens granted are %d after a prompt of 249", third.MaxOutputTokens)
		}
		third.Settle(chat.Usage{}) // nobody was asked
		refused(t, b, 250, 500, 0)
		first.Settle(chat.Usage{InputTokens: 100, OutputTokens: 900}) // more
		refused(t, b, 0, 1, 18*time.Hour)
		if g, err := b.Reserve(t.Context(), "bob", 0, 1000); err != nil || g.MaxOutputTokens != 1000 {
			t.Errorf("another user gets %+v, %v", g, err)
		}
	})
}

func TestBudgetWindows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // Saturday, 1 January 2000
		for window, length := range map[time.Duration]time.Duration{ // to the next one's beginning
			time.Hour: time.Hour, 24 * time.Hour: 24 * time.Hour, 7 * 24 * time.Hour: 48 * time.Hour,
		} {
			b := llm.NewBudget(100, window, &ledger{})
			reserve(t, b, 50, 50).Settle(spent(100))
			refused(t, b, 1, 1, length)
		}
	})
}

// A new window begins with the whole budget; what was reserved in the old one is settled there.
func TestGrantsSettleInTheirOwnWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := llm.NewBudget(1000, time.Hour, &ledger{})
		time.Sleep(time.Hour - time.Second)
		old := reserve(t, b, 500, 500)
		refused(t, b, 1, 1, 0)
		time.Sleep(time.Second)
		fresh := reserve(t, b, 400, 400)
		if fresh.MaxOutputTokens != 400 {
			t.Errorf("granted are %d tokens", fresh.MaxOutputTokens)
		}
		old.Settle(spent(5000))
		if g := reserve(t, b, 100, 500); g.MaxOutputTokens != 100 {
			t.Errorf("after the old grant's settlement granted are %d tokens, want 100", g.MaxOutputTokens)
		}
	})
}

// A new budget over the same ledger goes on where the old one was; what the ledger has of the window before is over.
func TestBudgetOutlivesTheServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		book := &ledger{}
		book.add("alice", 10_000)
		time.Sleep(24 * time.Hour)
		book.add("alice", 600)
		book.add("bob", 900)
		time.Sleep(23 * time.Hour)
		book.add("alice", 101)
		b := llm.NewBudget(1000, 24*time.Hour, book)
		if g := reserve(t, b, 0, 1000); g.MaxOutputTokens != 299 {
			t.Errorf("granted are %d tokens, want 299", g.MaxOutputTokens)
		}
		refused(t, b, 0, 1, 0)
	})
}

// At the beginning of a window the ledger is asked for it, and just once for each user however many ask.
func TestLedgerIsReadOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		book := &ledger{before: func(context.Context) error { time.Sleep(time.Second); return nil }}
		book.add("alice", 100)
		b := llm.NewBudget(1000, time.Hour, book)
		for window := range 3 {
			var all sync.WaitGroup
			var mu sync.Mutex
			granted := 0
			for range 50 {
				all.Go(func() {
					g, err := b.Reserve(t.Context(), "alice", 10, 90)
					if err != nil && !errors.Is(err, chat.NewError(chat.CodeBudgetExceeded, "")) {
						t.Error(err)
					}
					if g != nil {
						mu.Lock()
						granted++
						mu.Unlock()
					}
				})
			}
			all.Wait()
			if want := min(9+window, 10); granted != want || book.reads() != window+1 {
				t.Errorf("in window %d the ledger was read %d times, and %d of %d grants were given", window, book.reads(), granted, want)
			}
			time.Sleep(time.Hour)
		}
	})
}

func TestLedgerThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("no disk")
		down := true
		book := &ledger{before: func(context.Context) error {
			time.Sleep(time.Second)
			if down {
				return broken
			}
			return nil
		}}
		book.add("alice", 100)
		b := llm.NewBudget(1000, time.Hour, book)
		var all sync.WaitGroup
		for range 10 {
			all.Go(func() {
				if g, err := b.Reserve(t.Context(), "alice", 10, 90); !errors.Is(err, broken) || g != nil {
					t.Errorf("without a ledger the budget gives %v, %v", g, err)
				}
			})
		}
		all.Wait()
		down = false
		if g := reserve(t, b, 0, 1000); g.MaxOutputTokens != 900 {
			t.Errorf("with the ledger again granted are %d tokens", g.MaxOutputTokens)
		}
	})
}

// Who leaves while another one reads the ledger does not wait; who waits for one that leaves reads it for himself.
func TestLeavingWhileTheLedgerIsRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		book := &ledger{before: func(ctx context.Context) error {
			select {
			case <-time.After(10 * time.Second):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}}
		b := llm.NewBudget(1000, time.Hour, book)
		start := time.Now()
		impatient := func(limit time.Duration) {
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			_, err := b.Reserve(ctx, "alice", 1, 1)
			if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != limit {
				t.Errorf("whoever has %v is told %v after %v", limit, err, time.Since(start))
			}
		}
		var all sync.WaitGroup
		all.Go(func() { impatient(5 * time.Second) })
		synctest.Wait() // it reads
		all.Go(func() { impatient(2 * time.Second) })
		all.Go(func() {
			if g, err := b.Reserve(t.Context(), "alice", 100, 100); err != nil || g.MaxOutputTokens != 100 {
				t.Errorf("the patient one gets %v, %v", g, err)
			}
		})
		all.Wait()
		if took := time.Since(start); took != 15*time.Second || book.reads() != 2 {
			t.Errorf("it took %v and %d readings", took, book.reads())
		}
	})
}

func TestNoGrantHasNothingToSettle(*testing.T) {
	var g *llm.Grant
	g.Settle(spent(100))
}

// However many ask and settle at the same time, what is granted and what is spent never exceed the budget together.
func TestBudgetIsNeverOverspent(t *testing.T) {
	const tokens = 10_000
	b := llm.NewBudget(tokens, 1000*time.Hour, &ledger{})
	var mu sync.Mutex
	bound := 0 // granted and not settled, and spent: never more than the budget
	var all sync.WaitGroup
	for worker := range 16 {
		all.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(worker)))
			for range 300 {
				input := random.IntN(300)
				g, err := b.Reserve(t.Context(), "alice", input, 1+random.IntN(300))
				if err != nil {
					continue
				}
				granted := input + g.MaxOutputTokens
				mu.Lock()
				if bound += granted; bound > tokens {
					t.Errorf("%d tokens of %d are promised", bound, tokens)
				}
				mu.Unlock()
				// Given back before it is settled: whoever gets it meanwhile is counted when it is out of the books here.
				cost := random.IntN(1 + granted/10)
				mu.Lock()
				bound -= granted - cost
				mu.Unlock()
				g.Settle(spent(cost))
			}
		})
	}
	all.Wait()
	if bound < tokens/2 {
		t.Errorf("only %d tokens of %d were spent", bound, tokens)
	}
}

// The budget keeps books as a simple model of it does.
func TestBudgetKeepsBooks(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		const tokens = 1000
		b := llm.NewBudget(tokens, 10_000*time.Hour, &ledger{})
		type open struct {
			grant    *llm.Grant
			reserved int
		}
		var grants []open
		reserved, used := 0, 0
		r.Repeat(map[string]func(*rapid.T){
			"reserve": func(r *rapid.T) {
				input, output := rapid.IntRange(0, 400).Draw(r, "input"), rapid.IntRange(1, 400).Draw(r, "output")
				g, err := b.Reserve(context.Background(), "alice", input, output)
				want := min(output, tokens-used-reserved-input)
				switch {
				case want < 1:
					if shown, ok := errors.AsType[*chat.Error](err); !ok || (shown.RetryAfter == 0) != (reserved > 0) {
						r.Fatalf("with %d used and %d reserved the error is %v", used, reserved, err)
					}
				case err != nil || g.MaxOutputTokens != want:
					r.Fatalf("granted are %+v (%v), want %d", g, err, want)
				default:
					reserved += input + want
					grants = append(grants, open{g, input + want})
				}
			},
			"settle": func(r *rapid.T) {
				if len(grants) == 0 {
					r.Skip()
				}
				i := rapid.IntRange(0, len(grants)-1).Draw(r, "which")
				u := chat.Usage{InputTokens: rapid.IntRange(0, 100).Draw(r, "in"), OutputTokens: rapid.IntRange(0, 100).Draw(r, "out")}
				grants[i].grant.Settle(u)
				reserved, used = reserved-grants[i].reserved, used+u.InputTokens+u.OutputTokens
				grants = append(grants[:i], grants[i+1:]...)
			},
		})
	})
}
