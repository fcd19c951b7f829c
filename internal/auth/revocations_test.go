package auth_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/config"
	"github.com/parley-chat/parley/internal/auth"
)

// revocationStore keeps revocations in memory, and fails as it is told.
type revocationStore struct {
	mu      sync.Mutex // guards the fields below
	stored  []chat.Revocation
	err     error
	deleted time.Time     // the last time that all before were deleted
	reading chan struct{} // unless nil, a reading that has its result sends here, and then waits for one more
}

func (s *revocationStore) AddRevocation(_ context.Context, r chat.Revocation) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.stored = append(s.stored, r)
	}
	return s.err
}

func (s *revocationStore) Revocations(context.Context) ([]chat.Revocation, error) {
	s.mu.Lock()
	stored, err, reading := slices.Clone(s.stored), s.err, s.reading
	s.mu.Unlock()
	if reading != nil {
		reading <- struct{}{}
		reading <- struct{}{}
	}
	return stored, err
}

func (s *revocationStore) DeleteRevocations(_ context.Context, before time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deleted = before
	s.stored = slices.DeleteFunc(s.stored, func(r chat.Revocation) bool {
		return !r.Until.IsZero() && r.Until.Before(before)
	})
	return s.err
}

// has gives how many revocations are stored, and what was deleted last.
func (s *revocationStore) has() (stored int, deleted time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.stored), s.deleted
}

// set changes the store as another server, or its failure, does.
func (s *revocationStore) set(change func(*revocationStore)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s)
}

func newRevocations(t *testing.T, store *revocationStore, log *slog.Logger) *auth.Revocations {
	t.Helper()
	r, err := auth.NewRevocations(t.Context(), store, log)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

var discard = slog.New(slog.DiscardHandler)

func TestWhatARevocationCovers(t *testing.T) {
	at := time.Date(2026, 3, 14, 10, 0, 0, 500e6, time.UTC)
	second := at.Truncate(time.Second)
	for name, c := range map[string]struct {
		revocation chat.Revocation
		user       chat.User
		want       bool
	}{
		"the token":           {chat.Revocation{UserID: "a", TokenID: "7", At: at}, chat.User{ID: "a", TokenID: "7", IssuedAt: second}, true},
		"one issued later":    {chat.Revocation{UserID: "a", TokenID: "7", At: at}, chat.User{ID: "a", TokenID: "7", IssuedAt: second.Add(time.Hour)}, true},
		"another token":       {chat.Revocation{UserID: "a", TokenID: "7", At: at}, chat.User{ID: "a", TokenID: "8", IssuedAt: second}, false},
		"another's token":     {chat.Revocation{UserID: "a", TokenID: "7", At: at}, chat.User{ID: "b", TokenID: "7", IssuedAt: second}, false},
		"a token without ID":  {chat.Revocation{UserID: "a", TokenID: "7", At: at}, chat.User{ID: "a", IssuedAt: second}, false},
		"all: before":         {chat.Revocation{UserID: "a", At: at}, chat.User{ID: "a", TokenID: "7", IssuedAt: second.Add(-time.Second)}, true},
		"all: in the second":  {chat.Revocation{UserID: "a", At: at}, chat.User{ID: "a", IssuedAt: second}, true},
		"all: at the instant": {chat.Revocation{UserID: "a", At: second}, chat.User{ID: "a", IssuedAt: second}, true},
		"all: after":          {chat.Revocation{UserID: "a", At: at}, chat.User{ID: "a", IssuedAt: second.Add(time.Second)}, false},
		"all: without iat":    {chat.Revocation{UserID: "a", At: at}, chat.User{ID: "a"}, true},
		"all: another's":      {chat.Revocation{UserID: "a", At: at}, chat.User{ID: "b"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRevocations(t, &revocationStore{stored: []chat.Revocation{c.revocation}}, discard)
			defer r.Close()
			if got := r.Revoked(c.user); got != c.want {
				t.Errorf("got %v", got)
			}
			fresh := newRevocations(t, &revocationStore{}, discard)
			defer fresh.Close()
			if err := fresh.Revoke(t.Context(), c.revocation); err != nil || fresh.Revoked(c.user) != c.want {
				t.Errorf("revoked here: got %v, %v", fresh.Revoked(c.user), err)
			}
		})
	}
}

func TestOfSeveralRevocationsTheLatestCounts(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	early, late := chat.Revocation{UserID: "a", At: now}, chat.Revocation{UserID: "a", At: now.Add(time.Minute), Until: now.Add(time.Hour)}
	for _, order := range [][]chat.Revocation{{early, late}, {late, early}} {
		r := newRevocations(t, &revocationStore{stored: order}, discard)
		if !r.Revoked(chat.User{ID: "a", IssuedAt: now.Add(time.Minute)}) || r.Revoked(chat.User{ID: "a", IssuedAt: now.Add(61 * time.Second)}) {
			t.Errorf("%v", order)
		}
		r.Close()
	}
}

func TestRevokingIsStoredFirstThenInForceThenTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &revocationStore{}
		r := newRevocations(t, store, discard)
		defer r.Close()
		alice := chat.User{ID: "alice", TokenID: "1"}
		told := 0
		r.OnChange(func() {
			told++
			if !r.Revoked(alice) {
				t.Error("it is told before it is in force")
			}
		})
		revocation := chat.Revocation{UserID: "alice", TokenID: "1", At: time.Now()}
		store.set(func(s *revocationStore) { s.err = errors.New("disk full") })
		if err := r.Revoke(t.Context(), revocation); err == nil || r.Revoked(alice) || told > 0 {
			t.Errorf("what could not be stored: %v, in force %v", err, r.Revoked(alice))
		}
		store.set(func(s *revocationStore) { s.err = nil })
		if err := r.Revoke(t.Context(), revocation); err != nil || told != 1 {
			t.Errorf("%v, told %d times", err, told)
		}
		if stored, _ := store.has(); stored != 1 {
			t.Errorf("%d are stored", stored)
		}
		if err := r.Revoke(t.Context(), revocation); err != nil || told != 1 {
			t.Errorf("the same again: %v, told %d times", err, told)
		}
		time.Sleep(time.Minute) // which reads it back
		synctest.Wait()
		if told != 1 || !r.Revoked(alice) {
			t.Errorf("after reading: told %d times", told)
		}
		for _, incomplete := range []chat.Revocation{{TokenID: "1", At: time.Now()}, {UserID: "alice"}} {
			if err := r.Revoke(t.Context(), incomplete); err == nil {
				t.Errorf("%+v is taken", incomplete)
			}
		}
	})
}

func TestWhatAnotherServerRevokesIsFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &revocationStore{}
		r := newRevocations(t, store, discard)
		defer r.Close()
		told := make(chan struct{}, 9)
		r.OnChange(func() { told <- struct{}{} })
		store.set(func(s *revocationStore) { s.stored = []chat.Revocation{{UserID: "alice", At: time.Now()}} })
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if !r.Revoked(chat.User{ID: "alice"}) || len(told) != 1 {
			t.Errorf("after 5 s: revoked %v, told %d times", r.Revoked(chat.User{ID: "alice"}), len(told))
		}
		store.set(func(s *revocationStore) {
			s.stored = append(s.stored, chat.Revocation{UserID: "bob", TokenID: "1", At: time.Now()})
		})
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if !r.Revoked(chat.User{ID: "bob", TokenID: "1"}) || len(told) != 2 {
			t.Errorf("after 5 s more: told %d times", len(told))
		}
		store.set(func(s *revocationStore) { s.stored = nil })
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if r.Revoked(chat.User{ID: "alice"}) || len(told) != 2 {
			t.Errorf("withdrawn: revoked %v, told %d times", r.Revoked(chat.User{ID: "alice"}), len(told))
		}
	})
}

func TestWhatIsRevokedDuringAReadingStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &revocationStore{}
		r := newRevocations(t, store, discard)
		defer r.Close()
		reading := make(chan struct{})
		store.set(func(s *revocationStore) { s.reading = reading })
		<-reading // it has read that there is nothing
		if err := r.Revoke(t.Context(), chat.Revocation{UserID: "alice", At: time.Now()}); err != nil {
			t.Fatal(err)
		}
		store.set(func(s *revocationStore) { s.reading = nil })
		<-reading
		synctest.Wait()
		if !r.Revoked(chat.User{ID: "alice"}) {
			t.Error("it is forgotten")
		}
	})
}

func TestRevocationsOfExpiredTokensGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		store := &revocationStore{stored: []chat.Revocation{
			{UserID: "alice", At: now, Until: now.Add(time.Minute)}, {UserID: "bob", At: now},
		}}
		r := newRevocations(t, store, discard)
		defer r.Close()
		isRevoked := func(user string) bool { return r.Revoked(chat.User{ID: user}) }
		time.Sleep(89 * time.Second) // as long as a token can be let in, with the leeway
		if !isRevoked("alice") {
			t.Error("it is forgotten too early")
		}
		time.Sleep(6 * time.Second)
		synctest.Wait()
		if isRevoked("alice") || !isRevoked("bob") {
			t.Errorf("alice %v, bob %v", isRevoked("alice"), isRevoked("bob"))
		}
		if stored, _ := store.has(); stored != 2 {
			t.Errorf("%d are stored", stored)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if stored, deleted := store.has(); stored != 1 || !deleted.Equal(now.Add(time.Hour-auth.Leeway)) {
			t.Errorf("after an hour %d are stored, deleted is what is before %v", stored, deleted)
		}
	})
}

func TestAReadingThatFailsKeepsWhatIsKnownAndIsLoggedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logs bytes.Buffer
		store := &revocationStore{stored: []chat.Revocation{{UserID: "alice", At: time.Now()}}}
		r := newRevocations(t, store, slog.New(slog.NewTextHandler(&logs, nil)))
		store.set(func(s *revocationStore) { s.err = errors.New("away") })
		time.Sleep(time.Minute)
		synctest.Wait()
		if !r.Revoked(chat.User{ID: "alice"}) {
			t.Error("what was known is gone")
		}
		store.set(func(s *revocationStore) { s.err = nil })
		time.Sleep(time.Minute)
		r.Close()
		if strings.Count(logs.String(), "cannot be read") != 1 || strings.Count(logs.String(), "is read again") != 1 {
			t.Errorf("the log: %s", logs.String())
		}
	})
	_, err := auth.NewRevocations(t.Context(), &revocationStore{err: errors.New("away")}, discard)
	if err == nil {
		t.Error("without a first reading there is no error")
	}
}

func TestARevokedTokenIsRefused(t *testing.T) {
	r := newRevocations(t, &revocationStore{}, discard)
	defer r.Close()
	v, err := auth.New(config.Auth{JWTSecret: secret}, r, discard)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	tokenOf := func(id string, iat time.Time) string {
		return sign(t, jwt.SigningMethodHS256, []byte(secret),
			jwt.MapClaims{"sub": "alice", "jti": id, "iat": iat.Unix(), "exp": now.Add(time.Hour).Unix()})
	}
	first, second := tokenOf("first-token", now.Add(-5*time.Second)), tokenOf("second-token", now.Add(-5*time.Second))
	for _, token := range []string{first, second} {
		if _, err := v.Verify(token); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Revoke(t.Context(), chat.Revocation{UserID: "alice", TokenID: "first-token", At: now.Add(-3 * time.Second)}); err != nil {
		t.Fatal(err)
	}
	_, err = v.Verify(first)
	wantRefused(t, err, first, "the token was revoked")
	if _, err := v.Verify(second); err != nil {
		t.Error(err)
	}
	if err := r.Revoke(t.Context(), chat.Revocation{UserID: "alice", At: now.Add(-3 * time.Second)}); err != nil {
		t.Fatal(err)
	}
	_, err = v.Verify(second)
	wantRefused(t, err, second, "the token was revoked")
	if _, err := v.Verify(tokenOf("third-token", now)); err != nil {
		t.Error(err)
	}
}
