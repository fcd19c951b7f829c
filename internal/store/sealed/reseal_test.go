package sealed_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/seal"
	"github.com/parley-chat/parley/internal/store/sealed"
	"github.com/parley-chat/parley/internal/store/storetest"
)

// failing makes a store of which one operation fails.
func failing(operation string, err error) *storetest.Memory {
	raw := storetest.NewMemory()
	raw.Before = func(_ context.Context, op string) error {
		if op == operation {
			return err
		}
		return nil
	}
	return raw
}

func reseal(t testing.TB, raw chat.Store, keys *seal.Keyset) chat.Counts {
	t.Helper()
	changed, err := sealed.Reseal(t.Context(), raw, keys, nil)
	must(t, err)
	return changed
}

func TestResealEncryptsAStore(t *testing.T) {
	raw := storetest.NewMemory()
	sessions, of := populate(t, raw, 60, 5)
	_, many := populate(t, prefixed{raw, "long "}, 1, 120)
	keys := parse(t, generate(t))
	var done []chat.Counts
	var total chat.Counts
	changed, err := sealed.Reseal(t.Context(), raw, keys, func(d, all chat.Counts) { done, total = append(done, d), all })
	must(t, err)
	want := chat.Counts{Sessions: 61, Messages: 60*5 + 120}
	if changed != want || total != want || done[len(done)-1] != want || len(done) != 61+60*5+120 {
		t.Errorf("changed are %+v, done %+v of %+v in %d steps, want %+v", changed, done[len(done)-1], total, len(done), want)
	}
	if text := dump(t, raw); strings.Contains(text, marker) || strings.Contains(text, `"Sealed":false`) {
		t.Errorf("the store holds %s", text)
	}
	store := open(t, raw, keys)
	if errs := readAll(t, store, sessions, of); errs != nil {
		t.Error(errs)
	}
	if got, err := store.Messages(t.Context(), "long s000", 0, 200); err != nil || len(got) != len(many["s000"]) {
		t.Errorf("of a long session there are %d messages, %v", len(got), err)
	}
	before := dump(t, raw)
	if changed := reseal(t, raw, keys); changed != (chat.Counts{}) {
		t.Errorf("again it changes %+v", changed)
	}
	check, err := raw.SealCheck(t.Context())
	must(t, err)
	if after := dump(t, raw); strings.Count(check, " ") != 0 || before[:len(before)/2] != after[:len(after)/2] {
		t.Errorf("again it writes; the check is %s", check)
	}
}

// prefixed gives the sessions that are made other IDs.
type prefixed struct {
	chat.Store
	prefix string
}

func (p prefixed) CreateSession(ctx context.Context, view chat.SessionView) error {
	var c chat.Session
	view.View(func(s *chat.Session) { c = *s })
	c.ID = p.prefix + c.ID
	return p.Store.CreateSession(ctx, &c)
}

func (p prefixed) InsertMessage(ctx context.Context, id string, by chat.Claim, m chat.Message) error {
	return p.Store.InsertMessage(ctx, p.prefix+id, by, m)
}

func (p prefixed) UpdateMessage(ctx context.Context, id string, by chat.Claim, m chat.Message) error {
	return p.Store.UpdateMessage(ctx, p.prefix+id, by, m)
}

func TestRotationOfAStore(t *testing.T) {
	raw := storetest.NewMemory()
	first := generate(t)
	sessions, of := populate(t, open(t, raw, parse(t, first)), 5, 4)
	both := parse(t, rotate(t, first))
	if changed, want := reseal(t, raw, both), (chat.Counts{Sessions: 5, Messages: 20}); changed != want {
		t.Errorf("changed are %+v, want %+v", changed, want)
	}
	if errs := readAll(t, open(t, raw, both), sessions, of); errs != nil {
		t.Error(errs)
	}
	check, err := raw.SealCheck(t.Context())
	must(t, err)
	for _, s := range sessions {
		stored, err := raw.Session(t.Context(), s.ID)
		must(t, err)
		messages, err := raw.Messages(t.Context(), s.ID, 0, 10)
		must(t, err)
		texts := []string{check, stored.Title, stored.HelpReason}
		for _, m := range messages {
			texts = append(texts, m.Text, m.Reasoning)
		}
		for _, text := range texts {
			if !both.ByPrimary(text) {
				t.Errorf("%s is not sealed under the new key", text)
			}
		}
	}
	_, err = sealed.New(t.Context(), raw, parse(t, first))
	wantError(t, err, sealed.ErrWrongKeyset)
}

func TestResealNeedsTheStoresKeys(t *testing.T) {
	raw := storetest.NewMemory()
	populate(t, open(t, raw, parse(t, generate(t))), 1, 1)
	before := dump(t, raw)
	_, err := sealed.Reseal(t.Context(), raw, nil, nil)
	wantError(t, err, sealed.ErrNoKeyset)
	_, err = sealed.Reseal(t.Context(), raw, parse(t, generate(t)), nil)
	wantError(t, err, sealed.ErrWrongKeyset)
	if after := dump(t, raw); after != before {
		t.Errorf("the store held %s and holds %s", before, after)
	}
}

// TestResealGoesOnWhereItWas ends it after each number of writes, with an error of the store and with its context.
func TestResealGoesOnWhereItWas(t *testing.T) {
	broken := errors.New("no connection")
	for stop := range 14 {
		for _, cancels := range []bool{false, true} {
			raw := storetest.NewMemory()
			sessions, of := populate(t, raw, 3, 3)
			ctx, cancel := context.WithCancel(t.Context())
			var mu sync.Mutex
			writes := 0
			raw.Before = func(_ context.Context, op string) error {
				mu.Lock()
				defer mu.Unlock()
				if !strings.HasPrefix(op, "Reseal") && !strings.HasPrefix(op, "Set") {
					return nil
				}
				if writes++; writes > stop && cancels {
					cancel()
				} else if writes > stop {
					return broken
				}
				return nil
			}
			keys := parse(t, generate(t))
			first, err := sealed.Reseal(ctx, raw, keys, nil)
			want := broken
			if cancels {
				want = context.Canceled
			}
			wantError(t, err, want)
			if n := first.Sessions + first.Messages; n > int64(stop) {
				t.Errorf("%d records are told to be changed by %d writes", n, stop)
			}
			raw.Before = nil
			rest := reseal(t, raw, keys)
			if n := first.Sessions + rest.Sessions + first.Messages + rest.Messages; n != 12 {
				t.Errorf("stopped after %d writes: changed are %+v, then %+v", stop, first, rest)
			}
			if text := dump(t, raw); strings.Contains(text, marker) {
				t.Errorf("stopped after %d writes the store holds %s", stop, text)
			}
			if errs := readAll(t, open(t, raw, keys), sessions, of); errs != nil {
				t.Error(errs)
			}
			cancel()
		}
	}
}

func TestResealLeavesAloneWhatDoesNotOpen(t *testing.T) {
	raw := storetest.NewMemory()
	first := generate(t)
	sessions, of := populate(t, open(t, raw, parse(t, first)), 3, 3)
	for _, id := range []string{"m0", "m2"} {
		m, err := raw.Message(t.Context(), "s001", id)
		must(t, err)
		damaged := m
		damaged.Text = "damaged"
		must(t, raw.ResealMessage(t.Context(), "s001", m, damaged))
	}
	both := parse(t, rotate(t, first))
	changed, err := sealed.Reseal(t.Context(), raw, both, nil)
	wantError(t, err, seal.ErrUndecryptable, "2 records", "message m0 of session s001", "message m2 of session s001")
	if want := (chat.Counts{Sessions: 3, Messages: 7}); changed != want {
		t.Errorf("changed are %+v, want %+v", changed, want)
	}
	if errs := readAll(t, open(t, raw, both), sessions, of); len(errs) != 2 {
		t.Errorf("the errors are %v", errs)
	}
	// The old key may be needed still.
	_, err = sealed.New(t.Context(), raw, parse(t, first))
	wantError(t, err, sealed.ErrWrongKeyset)
	check, err := raw.SealCheck(t.Context())
	must(t, err)
	if strings.Count(check, " ") != 1 {
		t.Errorf("the check is %q, want it under both keys", check)
	}
}

// TestResealWhileAServerWrites has a server with the same keys change what is being sealed anew.
func TestResealWhileAServerWrites(t *testing.T) {
	raw := storetest.NewMemory()
	first := generate(t)
	populate(t, open(t, raw, nil), 10, 2)
	populate(t, prefixed{open(t, raw, parse(t, first)), "sealed "}, 10, 2)
	keys := parse(t, rotate(t, first))
	server := open(t, raw, keys)

	var group sync.WaitGroup
	stop := make(chan struct{})
	for i := range 10 {
		for _, prefix := range []string{"", "sealed "} {
			id := fmt.Sprintf("%ss%03d", prefix, i)
			group.Go(func() {
				for n := int64(1); ; n++ {
					select {
					case <-stop:
						return
					default:
					}
					text := fmt.Sprintf("%s %d", marker, n)
					session := chat.Session{ID: id, UserID: "user", Title: text, HelpReason: text, Revision: n}
					m := chat.Message{ID: "m1", N: 2, Text: text, Reasoning: text, Status: chat.StatusStreaming}
					late := chat.Message{ID: fmt.Sprint("late", n), N: n + 10, Text: text}
					if err := errors.Join(
						server.UpdateSession(t.Context(), &session),
						server.UpdateMessage(t.Context(), id, chat.Claim{}, m),
						server.InsertMessage(t.Context(), id, chat.Claim{}, late),
					); err != nil {
						t.Error(err)
						return
					}
					got, err := server.Session(t.Context(), id)
					message, messageErr := server.Message(t.Context(), id, "m1")
					if err != nil || messageErr != nil || got.Title != text || message.Text != text || message.Reasoning != text {
						t.Errorf("got %+v and %+v, want %q: %v, %v", got, message, text, err, messageErr)
						return
					}
				}
			})
		}
	}
	reseal(t, raw, keys)
	close(stop)
	group.Wait()
	if text := dump(t, raw); strings.Contains(text, marker) {
		t.Error("the store holds texts in the clear")
	}
	if changed := reseal(t, raw, keys); changed != (chat.Counts{}) {
		t.Errorf("afterwards there are %+v to change", changed)
	}
}

// TestResealTriesAgain has a record change between the reading and the writing.
func TestResealTriesAgain(t *testing.T) {
	for changes, want := range map[int]error{0: nil, 3: nil, 1 << 20: chat.ErrStale} {
		raw := storetest.NewMemory()
		populate(t, raw, 1, 1)
		var mu sync.Mutex
		revision, left := int64(0), changes
		writing := false
		raw.Before = func(ctx context.Context, op string) error {
			mu.Lock()
			defer mu.Unlock()
			if op != "ResealSession" || left == 0 || writing {
				return nil
			}
			left--
			revision++
			writing = true
			mu.Unlock()
			err := raw.UpdateSession(ctx, &chat.Session{ID: "s000", Title: marker, Revision: revision})
			mu.Lock()
			writing = false
			return err
		}
		keys := parse(t, generate(t))
		_, err := sealed.Reseal(t.Context(), raw, keys, nil)
		wantError(t, err, want)
		raw.Before = nil
		if s, err := raw.Session(t.Context(), "s000"); err != nil || s.Sealed != (want == nil) {
			t.Errorf("after %d changes the store holds %+v, %v", changes, s, err)
		}
	}
}

// TestResealOfWhatIsDeletedMeanwhile: it is not there any more, which is no error.
func TestResealOfWhatIsDeletedMeanwhile(t *testing.T) {
	for _, operation := range []string{"ResealSession", "Messages", "ResealMessage"} {
		raw := storetest.NewMemory()
		populate(t, raw, 1, 2)
		var once sync.Once
		raw.Before = func(ctx context.Context, op string) error {
			if op == operation {
				once.Do(func() { raw.DeleteSession(ctx, "s000", time.Time{}) })
			}
			return nil
		}
		if _, err := sealed.Reseal(t.Context(), raw, parse(t, generate(t)), nil); err != nil {
			t.Errorf("deleted before %s: %v", operation, err)
		}
	}
}

// TestResealLooksAtEachText: one is enough for a record to need it.
func TestResealLooksAtEachText(t *testing.T) {
	first := generate(t)
	both := parse(t, rotate(t, first))
	look, err := both.Seal(marker) // what somebody may have written, too
	must(t, err)
	for _, keys := range []*seal.Keyset{nil, parse(t, first)} {
		for i, text := range []string{"", "x", look} {
			raw := storetest.NewMemory()
			before := open(t, raw, keys)
			must(t, before.CreateSession(t.Context(), &chat.Session{ID: "s1", Title: text}))
			must(t, before.CreateSession(t.Context(), &chat.Session{ID: "s2", HelpReason: text}))
			must(t, before.InsertMessage(t.Context(), "s1", chat.Claim{}, chat.Message{ID: "m1", N: 1, Text: text}))
			must(t, before.InsertMessage(t.Context(), "s1", chat.Claim{}, chat.Message{ID: "m2", N: 2, Reasoning: text}))
			want := chat.Counts{Sessions: 2, Messages: 2}
			if i == 0 && keys != nil {
				want = chat.Counts{} // nothing is sealed as nothing
			}
			if changed := reseal(t, raw, both); changed != want {
				t.Errorf("of %q, changed are %+v, want %+v", text, changed, want)
			}
			after := open(t, raw, both)
			title, titleErr := after.Session(t.Context(), "s1")
			reason, reasonErr := after.Session(t.Context(), "s2")
			messages, err := after.Messages(t.Context(), "s1", 0, 2)
			must(t, errors.Join(titleErr, reasonErr, err))
			if title.Title != text || reason.HelpReason != text || messages[0].Text != text || messages[1].Reasoning != text {
				t.Errorf("of %q there are %+v, %+v and %+v", text, title, reason, messages)
			}
		}
	}
}

// TestResealWhileAServerComesWithANewerKey: what that seals is not under the keys there are.
func TestResealWhileAServerComesWithANewerKey(t *testing.T) {
	raw := storetest.NewMemory()
	populate(t, raw, 1, 1)
	first := generate(t)
	newer := parse(t, rotate(t, first))
	_, err := sealed.Reseal(t.Context(), raw, parse(t, first), func(done, _ chat.Counts) {
		if done.Messages == 1 {
			open(t, raw, newer)
		}
	})
	wantError(t, err, sealed.ErrWrongKeyset)
	open(t, raw, newer)
	if changed, want := reseal(t, raw, newer), (chat.Counts{Sessions: 1, Messages: 1}); changed != want {
		t.Errorf("changed are %+v, want %+v", changed, want)
	}
}
