package sealed_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/seal"
	"github.com/parley-chat/parley/internal/store/sealed"
	"github.com/parley-chat/parley/internal/store/storetest"
)

func generate(t testing.TB) []byte {
	t.Helper()
	data, err := seal.Generate()
	must(t, err)
	return data
}

func rotate(t testing.TB, old []byte) []byte {
	t.Helper()
	data, err := seal.Extend(old)
	must(t, err)
	return data
}

func parse(t testing.TB, data []byte) *seal.Keyset {
	t.Helper()
	k, err := seal.Parse(data)
	must(t, err)
	return k
}

func open(t testing.TB, raw chat.Store, keys *seal.Keyset) *sealed.Store {
	t.Helper()
	s, err := sealed.New(t.Context(), raw, keys)
	must(t, err)
	return s
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantError(t testing.TB, err, want error, texts ...string) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("got error %v, want %v", err, want)
		return
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("no %q in the error %v", text, err)
		}
	}
}

// marker is what the tests' conversations are full of.
const marker = "marker"

// populate stores sessions and messages that are full of the marker, and gives what callers see of them.
func populate(t testing.TB, store chat.Store, sessions, messages int) (all []chat.Session, of map[string][]chat.Message) {
	t.Helper()
	now := time.Date(2026, time.March, 4, 5, 6, 7, 0, time.UTC)
	of = make(map[string][]chat.Message)
	for i := range sessions {
		s := chat.Session{
			ID: fmt.Sprintf("s%03d", i), UserID: "user", Title: marker + " title", HelpReason: marker + " reason",
			Status: chat.SessionStatusActive, CreatedAt: now, LastActiveAt: now,
		}
		must(t, store.CreateSession(t.Context(), &s))
		all = append(all, s)
		for n := range messages {
			m := chat.Message{
				ID: fmt.Sprint("m", n), N: int64(n + 1), Role: chat.RoleAssistant, Status: chat.StatusStreaming,
				Text: marker + " so far", Reasoning: marker + " because", CreatedAt: now,
			}
			must(t, store.InsertMessage(t.Context(), s.ID, chat.Claim{}, m))
			if n%2 == 0 {
				m.Status, m.Text = chat.StatusComplete, marker+" in full"
				must(t, store.UpdateMessage(t.Context(), s.ID, chat.Claim{}, m))
			}
			of[s.ID] = append(of[s.ID], m)
		}
	}
	return all, of
}

// dump gives all that a store holds, as text.
func dump(t testing.TB, store chat.Store) string {
	t.Helper()
	sessions, err := store.SessionsAfter(t.Context(), "", 10_000)
	must(t, err)
	all := []any{sessions}
	for _, s := range sessions {
		messages, err := store.Messages(t.Context(), s.ID, 0, 10_000)
		must(t, err)
		all = append(all, messages)
	}
	check, err := store.SealCheck(t.Context())
	must(t, err)
	text, err := json.Marshal(append(all, check))
	must(t, err)
	return string(text)
}

func TestNothingIsReadableInTheStore(t *testing.T) {
	raw := storetest.NewMemory()
	store := open(t, raw, parse(t, generate(t)))
	sessions, _ := populate(t, store, 2, 3)
	changed := sessions[0]
	changed.Title, changed.Revision = marker+" changed", 1
	must(t, store.UpdateSession(t.Context(), &changed))
	if text := dump(t, raw); strings.Contains(text, marker) || !strings.Contains(text, `"Sealed":true`) ||
		strings.Contains(text, `"Sealed":false`) {
		t.Errorf("the store holds %s", text)
	}
	if text := dump(t, store); strings.Count(text, marker) != 2*2+2*3*2 || strings.Contains(text, `"Sealed":true`) {
		t.Errorf("callers see %s", text)
	}
}

// TestEverythingThatIsReadIsOpened asks in each of the ways that there are.
func TestEverythingThatIsReadIsOpened(t *testing.T) {
	store := open(t, storetest.NewMemory(), parse(t, generate(t)))
	populate(t, store, 1, 1)
	must(t, store.UpdateSession(t.Context(),
		&chat.Session{ID: "s000", UserID: "user", Title: marker, HelpReason: marker, Revision: 1}, chat.Place{MessageID: "m0", Seq: 1}))
	session, err := store.Session(t.Context(), "s000")
	must(t, err)
	claimed, err := store.ClaimSession(t.Context(), "s000", chat.Claim{}, chat.Claim{Owner: "o"})
	must(t, err)
	all, err := store.SessionsAfter(t.Context(), "", 1)
	must(t, err)
	of, err := store.FindSessions(t.Context(), chat.SessionFilter{}, chat.SessionOrder{}, chat.SessionPlace{}, 1)
	must(t, err)
	for i, s := range slices.Concat(all, of, []chat.Session{session, claimed}) {
		if s.Title != marker || s.HelpReason != marker || s.Sealed {
			t.Errorf("%d: got %+v", i, s)
		}
	}
	m, err := store.Message(t.Context(), "s000", "m0")
	must(t, err)
	newest, err := store.Messages(t.Context(), "s000", 0, 1)
	must(t, err)
	placed, err := store.MessagesAfter(t.Context(), "s000", 0, 1)
	must(t, err)
	first, err := store.MessagesFrom(t.Context(), "s000", 0, 1)
	must(t, err)
	for i, m := range slices.Concat(newest, placed, first, []chat.Message{m}) {
		if m.Text != marker+" in full" || m.Reasoning != marker+" because" || m.Sealed {
			t.Errorf("%d: got %+v", i, m)
		}
	}
}

// readAll reads all records one by one and gives the errors.
func readAll(t testing.TB, store chat.Store, sessions []chat.Session, of map[string][]chat.Message) (errs []error) {
	t.Helper()
	for _, s := range sessions {
		if got, err := store.Session(t.Context(), s.ID); err != nil {
			if got.Title+got.HelpReason != "" {
				t.Errorf("with the error %v comes %+v", err, got)
			}
			errs = append(errs, err)
		} else if got.Title != s.Title || got.HelpReason != s.HelpReason {
			t.Errorf("got %+v, want %+v", got, s)
		}
		for _, m := range of[s.ID] {
			if got, err := store.Message(t.Context(), s.ID, m.ID); err != nil {
				if got.Text+got.Reasoning != "" {
					t.Errorf("with the error %v comes %+v", err, got)
				}
				errs = append(errs, err)
			} else if got.Text != m.Text || got.Reasoning != m.Reasoning {
				t.Errorf("got %+v, want %+v", got, m)
			}
		}
	}
	return errs
}

// TestASealedTextOpensInItsPlaceOnly has somebody who can write the store, but has no keys, move sealed texts about.
func TestASealedTextOpensInItsPlaceOnly(t *testing.T) {
	for what, move := range map[string]func(a, b *chat.Session, m, other, elsewhere *chat.Message){
		"between messages":        func(_, _ *chat.Session, m, other, _ *chat.Message) { m.Text = other.Text },
		"between sessions":        func(_, _ *chat.Session, m, _, elsewhere *chat.Message) { m.Text = elsewhere.Text },
		"between fields":          func(_, _ *chat.Session, m, _, _ *chat.Message) { m.Text = m.Reasoning },
		"between sessions' title": func(a, b *chat.Session, _, _, _ *chat.Message) { a.Title = b.Title },
		"title and reason":        func(a, _ *chat.Session, _, _, _ *chat.Message) { a.Title, a.HelpReason = a.HelpReason, a.Title },
		"session and message":     func(a, _ *chat.Session, m, _, _ *chat.Message) { m.Reasoning = a.Title },
		"in the clear":            func(_, _ *chat.Session, m, _, _ *chat.Message) { m.Text = "written by hand" },
	} {
		raw := storetest.NewMemory()
		store := open(t, raw, parse(t, generate(t)))
		sessions, of := populate(t, store, 2, 2)
		a, err := raw.Session(t.Context(), "s000")
		must(t, err)
		b, err := raw.Session(t.Context(), "s001")
		must(t, err)
		mine, err := raw.Messages(t.Context(), "s000", 0, 2)
		must(t, err)
		elsewhere, err := raw.Messages(t.Context(), "s001", 0, 1)
		must(t, err)
		session, m := a, mine[0]
		move(&a, &b, &mine[0], &mine[1], &elsewhere[0])
		must(t, raw.ResealSession(t.Context(), session, a))
		must(t, raw.ResealMessage(t.Context(), "s000", m, mine[0]))

		errs := readAll(t, store, sessions, of)
		if len(errs) != 1 {
			t.Errorf("%s: the errors are %v", what, errs)
			continue
		}
		wantError(t, errs[0], seal.ErrUndecryptable, "session s000")
		if strings.Contains(errs[0].Error(), marker) || strings.Contains(errs[0].Error(), "by hand") {
			t.Errorf("%s: the error shows a text: %v", what, errs[0])
		}
		_, err = store.Messages(t.Context(), "s000", 0, 10)
		_, listErr := store.SessionsAfter(t.Context(), "", 10)
		if (err == nil) == (listErr == nil) {
			t.Errorf("%s: the lists give the errors %v and %v", what, err, listErr)
		}
	}
}

func TestWhatWasStoredBeforeThereWereKeys(t *testing.T) {
	raw := storetest.NewMemory()
	sessions, of := populate(t, open(t, raw, nil), 2, 2)
	if text := dump(t, raw); !strings.Contains(text, marker) || strings.Contains(text, `"Sealed":true`) {
		t.Errorf("without keys the store holds %s", text)
	}
	store := open(t, raw, parse(t, generate(t)))
	if errs := readAll(t, store, sessions, of); errs != nil {
		t.Error(errs)
	}
	m := of["s000"][1] // which still streams
	m.Text, m.Status = marker+" at last", chat.StatusComplete
	of["s000"][1] = m
	must(t, store.UpdateMessage(t.Context(), "s000", chat.Claim{}, m))
	if got, err := raw.Message(t.Context(), "s000", m.ID); err != nil || !got.Sealed || strings.Contains(got.Text+got.Reasoning, marker) {
		t.Errorf("when it is written again the store holds %+v, %v", got, err)
	}
	if errs := readAll(t, store, sessions, of); errs != nil {
		t.Error(errs)
	}
}

func TestTheKeysetHasToFitTheStore(t *testing.T) {
	raw := storetest.NewMemory()
	first := generate(t)
	keys := parse(t, first)
	store := open(t, raw, keys)
	sessions, of := populate(t, store, 1, 1)
	check, err := raw.SealCheck(t.Context())
	must(t, err)

	_, err = sealed.New(t.Context(), raw, nil)
	wantError(t, err, sealed.ErrNoKeyset, "storage.encryption.keyset_file")
	other := parse(t, generate(t))
	_, err = sealed.New(t.Context(), raw, other)
	wantError(t, err, sealed.ErrWrongKeyset, "storage.encryption.keyset_file", fmt.Sprint("no key ", keys.Primary()))
	copied := storetest.NewMemory() // a backup, or a copy, has the check with what it is about
	must(t, copied.SetSealCheck(t.Context(), check))
	open(t, copied, keys)
	_, err = sealed.New(t.Context(), copied, nil)
	wantError(t, err, sealed.ErrNoKeyset)

	open(t, raw, keys)
	if again, err := raw.SealCheck(t.Context()); err != nil || again != check {
		t.Errorf("the check was %q and is %q, %v", check, again, err)
	}

	// A server had a key more: without it there may be what cannot be opened.
	second := parse(t, rotate(t, first))
	if errs := readAll(t, open(t, raw, second), sessions, of); errs != nil {
		t.Error(errs)
	}
	_, err = sealed.New(t.Context(), raw, keys)
	wantError(t, err, sealed.ErrWrongKeyset, fmt.Sprint("no key ", second.Primary()))
	open(t, raw, second)

	if errs := readAll(t, readOnly(t, raw, nil), sessions, of); len(errs) != 2 || !errors.Is(errs[0], sealed.ErrNoKeyset) {
		t.Errorf("without keys the errors are %v", errs)
	}
	if errs := readAll(t, readOnly(t, raw, other), sessions, of); len(errs) != 2 || !errors.Is(errs[0], seal.ErrUndecryptable) {
		t.Errorf("with other keys the errors are %v", errs)
	}
}

// readOnly opens a store's data with keys that it was not asked about.
func readOnly(t testing.TB, raw *storetest.Memory, keys *seal.Keyset) *sealed.Store {
	t.Helper()
	c := raw.Clone()
	must(t, c.SetSealCheck(t.Context(), ""))
	return open(t, c, keys)
}

func TestAStoreThatFailsIsNoWrongKeyset(t *testing.T) {
	broken := errors.New("no connection")
	for _, operation := range []string{"SealCheck", "SetSealCheck"} {
		_, err := sealed.New(t.Context(), failing(operation, broken), parse(t, generate(t)))
		wantError(t, err, broken)
		if errors.Is(err, sealed.ErrWrongKeyset) {
			t.Errorf("%s: %v", operation, err)
		}
	}
}
