package llm

import (
	"context"
	"sync"
	"time"

	"github.com/parley-chat/parley/chat"
)

// Ledger knows what users have spent before.
type Ledger interface {
	SumUsage(ctx context.Context, filter chat.UsageFilter) ([]chat.UsageSum, error)
}

// Budget is how many tokens each user may spend in each window of time. Windows begin at multiples of their length, as
// time.Time.Truncate has it: those of 24 hours at midnight UTC, those of a week on Mondays. What a response may cost is
// reserved before it begins and settled once it is known, so that responses at the same time cannot overspend together.
// It is safe for concurrent use.
type Budget struct {
	tokens int
	window time.Duration
	ledger Ledger

	mu       sync.Mutex // guards the fields below
	begun    time.Time  // the present window
	accounts map[string]*account
}

// account is one user in one window.
type account struct {
	loaded   chan struct{} // closed once spent holds what the ledger knows, or err is set
	err      error
	spent    int // guarded by the budget's lock, as is the next
	reserved int
}

// NewBudget returns the budget of every user: tokens in each window, both above 0.
func NewBudget(tokens int, window time.Duration, ledger Ledger) *Budget {
	return &Budget{tokens: tokens, window: window, ledger: ledger, accounts: make(map[string]*account)}
}

// Grant is what was reserved for one response. The nil Grant is that of a server without budgets.
type Grant struct {
	// MaxOutputTokens is how long the response may be within the reservation.
	MaxOutputTokens int

	budget   *Budget
	account  *account
	reserved int
}

// Reserve reserves what a response to the user may cost: input tokens for its prompt and up to output tokens for
// itself, fewer where the budget has no more. Where it has none for even one, the error is budget_exceeded until the
// next window; where the ledger cannot be read it is the ledger's.
func (b *Budget) Reserve(ctx context.Context, userID string, input, output int) (*Grant, error) {
	for {
		a, begun, load := b.account(userID)
		if load {
			b.load(ctx, userID, begun, a)
		}
		select {
		case <-a.loaded:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		switch {
		case a.err == nil:
			return b.take(a, input, output, begun)
		case load:
			return nil, a.err
		}
		// Whoever read the ledger failed, perhaps for want of time: one's own attempt may do better.
	}
}

// account finds the user's account in the present window, or makes it for the caller to load.
func (b *Budget) account(userID string) (a *account, begun time.Time, load bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	// The time is that under the lock: whoever had to wait for it must not bring the window before back.
	if begun = time.Now().Truncate(b.window); !begun.Equal(b.begun) {
		// Reservations that are not settled yet belong to their own window.
		b.begun, b.accounts = begun, make(map[string]*account)
	}
	if a, ok := b.accounts[userID]; ok {
		return a, begun, false
	}
	a = &account{loaded: make(chan struct{})}
	b.accounts[userID] = a
	return a, begun, true
}

// load reads from the ledger what the user has spent in a window so far.
func (b *Budget) load(ctx context.Context, userID string, begun time.Time, a *account) {
	sums, err := b.ledger.SumUsage(ctx, chat.UsageFilter{UserID: userID, From: begun})
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, sum := range sums {
		a.spent += int(sum.InputTokens + sum.OutputTokens)
	}
	if a.err = err; err != nil && b.accounts[userID] == a {
		delete(b.accounts, userID)
	}
	close(a.loaded)
}

// take reserves on an account of the window that began then.
func (b *Budget) take(a *account, input, output int, begun time.Time) (*Grant, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	left := b.tokens - a.spent - a.reserved
	output = min(output, left-input)
	if output < 1 {
		err := chat.NewError(chat.CodeBudgetExceeded, "the budget for the model is used up for now")
		if a.reserved == 0 { // else it may be settled for less at any moment
			err.RetryAfter = max(time.Until(begun.Add(b.window)), 0)
		}
		return nil, err
	}
	a.reserved += input + output
	return &Grant{MaxOutputTokens: output, budget: b, account: a, reserved: input + output}, nil
}

// Settle replaces the reservation by what the response has cost. It is called once; a nil Grant has nothing to settle.
func (g *Grant) Settle(u chat.Usage) {
	if g == nil {
		return
	}
	g.budget.mu.Lock()
	defer g.budget.mu.Unlock()
	g.account.reserved -= g.reserved
	g.account.spent += u.InputTokens + u.OutputTokens
}
