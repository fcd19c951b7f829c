package retry_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/store/retry"
	"github.com/parley-chat/parley/internal/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	errNetwork = errors.New("connection reset")
	errForGood = errors.New("no room left")
)

func transient(err error) bool { return errors.Is(err, errNetwork) }

var policy = retry.Policy{
	MaxAttempts: 5, InitialBackoff: 100 * time.Millisecond, MaxBackoff: 2 * time.Second,
	AttemptTimeout: retry.AttemptTimeout, Deadline: retry.Deadline,
}

// entries is a log that can be read while it is written.
type entries struct {
	mu  sync.Mutex // guards the field below
	all []slog.Record
}

func (e *entries) Enabled(context.Context, slog.Level) bool { return true }
func (e *entries) WithAttrs([]slog.Attr) slog.Handler       { return e }
func (e *entries) WithGroup(string) slog.Handler            { return e }
func (e *entries) Handle(_ context.Context, r slog.Record) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, r)
	return nil
}

// of gives the attributes of the entries with a message.
func (e *entries) of(message string) (found []map[string]any) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, r := range e.all {
		if r.Message != message {
			continue
		}
		attrs := make(map[string]any)
		r.Attrs(func(a slog.Attr) bool {
			attrs[a.Key] = a.Value.Any()
			return true
		})
		found = append(found, attrs)
	}
	return found
}

const (
	triedAgain = "an operation of the storage is tried again"
	isDown     = "the storage cannot be reached"
	isBack     = "the storage can be reached again"
)

func TestContract(t *testing.T) {
	storetest.Run(t, func(*testing.T) (chat.Store, func() chat.Store) {
		below := storetest.NewMemory()
		open := func() chat.Store { return retry.New(below, policy, transient, slog.New(slog.DiscardHandler)) }
		return open(), func() chat.Store {
			below = below.Clone()
			return open()
		}
	})
}

// owner has the session of [storetest.Populate].
var owner = chat.Claim{Owner: "owner", Epoch: "epoch"}

// world is what the operations are done to.
func world(t *testing.T) *storetest.Memory {
	t.Helper()
	store := storetest.NewMemory()
	storetest.Populate(t, store)
	return store
}

// contents gives all that a store holds, whatever is done to its operations.
func contents(t *testing.T, store *storetest.Memory) string {
	t.Helper()
	return storetest.Contents(t, store.Clone())
}

func TestOperationsAreAllThere(t *testing.T) {
	store := reflect.TypeFor[chat.Store]()
	apart := []string{"RenewLease", "EndLease", "ID", "Ping", "Close"} // tested on their own, or not repeated
	for m := range store.Methods() {
		if _, ok := storetest.Operations[m.Name]; !ok && !slices.Contains(apart, m.Name) {
			t.Errorf("%s is not tested", m.Name)
		}
	}
}

// Every operation, with the connection lost before or after it is executed, as often as it is tried and once more.
func TestR09_1_TransientFailuresAreRetried(t *testing.T) {
	for _, name := range slices.Sorted(maps.Keys(storetest.Operations)) {
		for _, when := range []string{"before", "after"} {
			for failures := 1; failures <= policy.MaxAttempts+1; failures++ {
				t.Run(fmt.Sprintf("%s, %d lost %s", name, failures, when), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { loses(t, name, when, failures) })
				})
			}
		}
	}
}

func loses(t *testing.T, name, when string, failures int) {
	do := storetest.Operations[name]
	operation, _, _ := strings.Cut(name, ",")
	undisturbed, below := world(t), world(t)
	initial := contents(t, below)
	want, err := do(t.Context(), undisturbed)
	if err != nil {
		t.Fatal(err)
	}
	open, log := failures, &entries{}
	lose := func(op string, err error) error {
		if op != operation || open == 0 {
			return err
		}
		open--
		return errNetwork
	}
	if when == "before" {
		below.Before = func(_ context.Context, op string) error { return lose(op, nil) }
	} else {
		below.After = func(_ context.Context, op string, err error) error { return lose(op, err) }
	}
	s := retry.New(below, policy, transient, slog.New(log))
	got, err := do(t.Context(), s)
	after := contents(t, below)
	below.Before, below.After = nil, nil

	exhausted := failures >= policy.MaxAttempts
	retries := min(failures, policy.MaxAttempts-1)
	if exhausted != errors.Is(err, errNetwork) || !exhausted && err != nil {
		t.Errorf("after %d failures the error is %v", failures, err)
	}
	if !exhausted && !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	left := contents(t, undisturbed)
	if exhausted && when == "before" {
		left = initial // nothing was executed
	}
	if after != left {
		t.Errorf("the store holds\n%s\nwant\n%s", after, left)
	}
	if logged := log.of(triedAgain); len(logged) != retries {
		t.Errorf("%d attempts are logged, want %d", len(logged), retries)
	}
	if sum, n := metric(t, s, "parley_storage_retries_total"); int(sum) != retries || n != 1 {
		t.Errorf("%v retries are counted for %d operations, want %d for 1", sum, n, retries)
	}
	// And then all goes on.
	if _, err := do(t.Context(), s); err != nil && !errors.Is(err, chat.ErrExists) && !errors.Is(err, chat.ErrStale) &&
		!errors.Is(err, chat.ErrNotFound) {
		t.Errorf("once the store is back: %v", err)
	}
}

func TestR09_2_BackoffIsExponentialAndJittered(t *testing.T) {
	longest := make([]time.Duration, 9)
	shortest := slices.Repeat([]time.Duration{time.Hour}, 9)
	for range 300 {
		synctest.Test(t, func(t *testing.T) {
			below := world(t)
			var times []time.Time
			below.Before = func(context.Context, string) error {
				times = append(times, time.Now())
				return errNetwork
			}
			p := policy
			p.MaxAttempts, p.Deadline = 10, time.Hour
			s := retry.New(below, p, transient, slog.New(slog.DiscardHandler))
			if _, err := s.Session(t.Context(), "s"); !errors.Is(err, errNetwork) {
				t.Errorf("got error %v", err)
			}
			for i := range len(times) - 1 {
				waited := times[i+1].Sub(times[i])
				longest[i], shortest[i] = max(longest[i], waited), min(shortest[i], waited)
			}
		})
	}
	for i, most := 0, policy.InitialBackoff; i < 9; i, most = i+1, min(2*most, policy.MaxBackoff) {
		if longest[i] > most || longest[i] < most*9/10 || shortest[i] > most/10 {
			t.Errorf("before attempt %d it waits from %v to %v, want from 0 to %v", i+2, shortest[i], longest[i], most)
		}
	}
}

func TestR09_3_AttemptsAreLimited(t *testing.T) {
	for _, most := range []int{1, 2, 7} {
		synctest.Test(t, func(t *testing.T) {
			below, attempts := world(t), 0
			below.Before = func(context.Context, string) error {
				attempts++
				return errNetwork
			}
			p := policy
			p.MaxAttempts = most
			s := retry.New(below, p, transient, slog.New(slog.DiscardHandler))
			if _, err := s.Session(t.Context(), "s"); !errors.Is(err, errNetwork) || attempts != most {
				t.Errorf("of %d attempts %d are made, error %v", most, attempts, err)
			}
		})
	}
}

func TestR09_4_ExhaustedRetriesAreAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		below, log := world(t), &entries{}
		below.Before = func(context.Context, string) error { return errNetwork }
		s := retry.New(below, policy, transient, slog.New(log))
		m := chat.Message{ID: "n", N: 3}
		err := s.InsertMessage(t.Context(), "s", owner, m)
		if !errors.Is(err, errNetwork) || !strings.Contains(err.Error(), "5 attempts") {
			t.Errorf("got error %v", err)
		}
		if n := len(log.of(isDown)); n != 1 {
			t.Errorf("it is logged %d times that the storage is down", n)
		}
		if v, _ := metric(t, s, "parley_storage_failures_total"); v != 1 {
			t.Errorf("%v failures are counted", v)
		}
	})
}

func TestR09_5_AttemptsAreLoggedWithTheirError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		below, log, left := world(t), &entries{}, 2
		below.Before = func(context.Context, string) error {
			if left--; left >= 0 {
				return fmt.Errorf("try %d: %w", left, errNetwork)
			}
			return nil
		}
		s := retry.New(below, policy, transient, slog.New(log))
		if _, err := s.Session(t.Context(), "s"); err != nil {
			t.Fatal(err)
		}
		logged := log.of(triedAgain)
		if len(logged) != 2 {
			t.Fatalf("logged are %v", logged)
		}
		for i, entry := range logged {
			_, err := time.ParseDuration(fmt.Sprint(entry["delay"]))
			if entry["operation"] != "Session" || entry["attempt"] != int64(i+1) || err != nil ||
				!strings.Contains(fmt.Sprint(entry["error"]), fmt.Sprintf("try %d: connection reset", 1-i)) {
				t.Errorf("attempt %d is logged as %v", i+1, entry)
			}
		}
	})
}

func TestWhatIsNotTransientIsNotRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		below, attempts := world(t), 0
		below.Before = func(context.Context, string) error {
			attempts++
			return errForGood
		}
		s := retry.New(below, policy, transient, slog.New(slog.DiscardHandler))
		if _, err := s.Session(t.Context(), "s"); !errors.Is(err, errForGood) || attempts != 1 {
			t.Errorf("%d attempts were made, error %v", attempts, err)
		}
	})
}

// A conflict with somebody else is none with oneself: whatever was lost on the way.
func TestConflictsStayConflicts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		below := world(t)
		other := chat.Session{ID: "new", UserID: "somebody else"}
		final := chat.Message{ID: "a", Text: "another text", Status: chat.StatusComplete}
		message := chat.Message{ID: "n", N: 9, Text: "another text"}
		if err := errors.Join(below.CreateSession(t.Context(), &other), below.UpdateMessage(t.Context(), "s", owner, final),
			below.InsertMessage(t.Context(), "s", owner, message)); err != nil {
			t.Fatal(err)
		}
		if _, err := below.ClaimSession(t.Context(), "s", owner, chat.Claim{Owner: "another"}); err != nil {
			t.Fatal(err)
		}
		before := contents(t, below)
		for name, want := range map[string]error{
			"CreateSession": chat.ErrExists, "InsertMessage": chat.ErrStale, "UpdateMessage, which ends it": chat.ErrStale,
			"UpdateSession": chat.ErrStale, "UpdateSession, which ends it": chat.ErrStale, "ClaimSession": chat.ErrStale,
		} {
			left := 2
			below.Before = func(context.Context, string) error {
				if left--; left >= 0 {
					return errNetwork
				}
				return nil
			}
			s := retry.New(below, policy, transient, slog.New(slog.DiscardHandler))
			if _, err := storetest.Operations[name](t.Context(), s); !errors.Is(err, want) {
				t.Errorf("%s: got error %v, want %v", name, err, want)
			}
			below.Before = nil
		}
		if after := contents(t, below); after != before {
			t.Errorf("the store holds\n%s\nwant\n%s", after, before)
		}
	})
}

// An attempt that hangs is given up, and what hangs for long takes no longer than the deadline. Then nobody waits for
// as long again, until the store is back.
func TestStoreThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		below, log := world(t), &entries{}
		hangs := func(ctx context.Context, _ string) error {
			<-ctx.Done()
			return ctx.Err()
		}
		below.Before = hangs
		s := retry.New(below, policy, transient, slog.New(log))
		took := func() time.Duration {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second) // as sessions do
			defer cancel()
			start := time.Now()
			if _, err := s.Session(ctx, "s"); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got error %v", err)
			}
			return time.Since(start)
		}
		if d := took(); d < 9*time.Second || d > retry.Deadline {
			t.Errorf("the first one waits for %v", d)
		}
		if n := len(log.of(isDown)); n != 1 {
			t.Fatalf("it is logged %d times that the storage is down", n)
		}
		if v, _ := metric(t, s, "parley_storage_down"); v != 1 {
			t.Errorf("the metric says %v", v)
		}
		if d := took(); d > retry.AttemptTimeout {
			t.Errorf("the next one waits for %v", d)
		}
		below.Before = nil
		if _, err := s.Session(t.Context(), "s"); err != nil {
			t.Error(err)
		}
		if n := len(log.of(isBack)); n != 1 {
			t.Errorf("it is logged %d times that the storage is back", n)
		}
		below.Before = hangs
		if d := took(); d < 9*time.Second {
			t.Errorf("once it was back somebody waits for %v only", d)
		}
	})
}

// Who has no patience, or goes away, says nothing about the store.
func TestImpatienceIsNoOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		below, log := world(t), &entries{}
		below.Before = func(ctx context.Context, _ string) error {
			<-ctx.Done()
			return ctx.Err()
		}
		s := retry.New(below, policy, transient, slog.New(log))
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := s.Session(short, "s"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got error %v", err)
		}
		cancelled, leave := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, leave)
		if _, err := s.Session(cancelled, "s"); !errors.Is(err, context.Canceled) {
			t.Errorf("got error %v", err)
		}
		if len(log.of(isDown))+len(log.of(triedAgain)) > 0 {
			t.Errorf("logged is %v", log.all)
		}
	})
}

// A storage that takes a second and a half for everything is well within the time of an attempt. After a moment's trouble
// it is not down for ever.
func TestSlowStorageComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		below := storetest.NewMemory()
		var broken atomic.Bool
		below.Before = func(ctx context.Context, _ string) error {
			if broken.Load() {
				return errNetwork
			}
			select {
			case <-time.After(1500 * time.Millisecond):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		s := retry.New(below, policy, transient, slog.New(slog.DiscardHandler))
		if _, err := s.Count(t.Context()); err != nil {
			t.Fatalf("at first: %v", err)
		}
		broken.Store(true)
		if _, err := s.Count(t.Context()); err == nil {
			t.Fatal("it works")
		}
		broken.Store(false)
		var err error
		for range 600 {
			if _, err = s.Count(t.Context()); err == nil {
				return
			}
			time.Sleep(time.Second)
		}
		t.Errorf("ten minutes later, with a storage as it was at first: %v", err)
	})
}

// A disk that is full takes nothing, although it can be read: whoever asks whether the storage is well is told so, until
// it is.
func TestStoreThatTakesNothingIsNotWell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		below := world(t)
		var full atomic.Bool
		below.Before = func(_ context.Context, op string) error {
			if full.Load() && op != "Session" && op != "SealCheck" && op != "Ping" {
				return errForGood
			}
			return nil
		}
		s := retry.New(below, policy, transient, slog.New(slog.DiscardHandler))
		down := func() float64 {
			v, _ := metric(t, s, "parley_storage_down")
			return v
		}
		full.Store(true)
		if err := s.Ping(t.Context()); err != nil {
			t.Errorf("before anybody knows: %v", err)
		}
		m := chat.Message{ID: "n", N: 3}
		if err := s.InsertMessage(t.Context(), "s", owner, m); !errors.Is(err, errForGood) {
			t.Errorf("got error %v", err)
		}
		if _, err := s.Session(t.Context(), "s"); err != nil {
			t.Error(err)
		}
		if err := s.Ping(t.Context()); !errors.Is(err, errForGood) || down() != 1 {
			t.Errorf("while it is full: %v, the metric says %v", err, down())
		}
		full.Store(false)
		if err := s.Ping(t.Context()); err != nil || down() != 0 {
			t.Errorf("when there is room again: %v, the metric says %v", err, down())
		}
	})
}

// metric sums a metric of a store's, and counts its values that are not zero.
func metric(t *testing.T, s *retry.Store, name string) (sum float64, n int) {
	t.Helper()
	registry := prometheus.NewRegistry()
	registry.MustRegister(s)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			if v := m.GetCounter().GetValue() + m.GetGauge().GetValue(); v != 0 {
				sum += v
				n++
			}
		}
	}
	return sum, n
}
