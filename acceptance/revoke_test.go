//go:build unix

package acceptance_test

import (
	"syscall"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// issued makes a token of a user's with an ID, that was issued so long ago.
func issued(user, id string, ago time.Duration) string {
	signed, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
		"sub": user, "jti": id, "iat": time.Now().Add(-ago).Unix(), "exp": time.Now().Add(time.Hour).Unix(),
	}).SignedString([]byte(secret))
	if err != nil {
		panic(err)
	}
	return keepSecret("a token", signed)
}

func TestAUsersTokensAreRevoked(t *testing.T) {
	s := startServer(t, eliza)
	ann := token("ann", "admin")
	old, undated := issued("alice", "1", time.Minute), token("alice")
	first, second, bob := s.dial(old), s.dial(undated), s.dial(token("bob"))
	first.open()
	bob.open()
	if r := s.api("POST", "/api/v1/admin/users/alice/revoke", ann, nil); r.status != 200 || r.body.str("revoked_at") == "" {
		t.Fatalf("revoking: %d %s", r.status, r.raw)
	}
	first.closedWith(4403)
	second.closedWith(4403)
	bob.quiet()
	var later string // of a second after that of the revocation
	for deadline := time.Now().Add(patience); ; {
		later = issued("alice", "2", 0)
		if r := s.api("GET", "/api/v1/models", later, nil); r.status == 200 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("no token of alice's is good any more")
		}
	}
	check := func(when string) {
		t.Helper()
		for _, c := range []struct{ what, token, want string }{
			{"a token from before", old, "401 unauthenticated"}, {"one that does not say from when", undated, "401 unauthenticated"},
			{"one from afterwards", later, "200"}, {"another user's", token("bob"), "200"},
		} {
			if r := s.api("GET", "/api/v1/models", c.token, nil); r.code() != c.want {
				t.Errorf("%s, %s: %s, want %s", when, c.what, r.raw, c.want)
			}
		}
	}
	check("at once")
	bob.send("auth.refresh", "ref", "r", "token", token("bob"))
	bob.until("auth.refreshed")
	fresh := s.dial(later)
	fresh.open()
	if f := fresh.sendRefused("auth.refresh", "token", old); f.str("error", "code") != "unauthenticated" {
		t.Errorf("a refresh with a revoked token is answered with %v", f)
	}
	if code := s.stop(syscall.SIGTERM); code != 0 {
		t.Errorf("the server ends with %d", code)
	}
	s.start()
	check("after a restart")
}

func TestOneTokenIsRevoked(t *testing.T) {
	s := startServer(t, eliza)
	lost, kept := issued("alice", "phone", time.Minute), issued("alice", "laptop", time.Minute)
	phone, laptop := s.dial(lost), s.dial(kept)
	until := time.Now().Add(2 * time.Hour).UTC().Truncate(time.Second).Format(time.RFC3339)
	r := s.api("POST", "/api/v1/admin/users/alice/revoke", token("ann", "admin"), map[string]any{"jti": "phone", "expires_at": until})
	if r.status != 200 || r.body.str("jti") != "phone" || r.body.str("expires_at") == "" {
		t.Fatalf("revoking: %d %s", r.status, r.raw)
	}
	phone.closedWith(4403)
	laptop.quiet()
	for bearer, want := range map[string]string{lost: "401 unauthenticated", kept: "200", issued("bob", "phone", 0): "200"} {
		if r := s.api("GET", "/api/v1/models", bearer, nil); r.code() != want {
			t.Errorf("%s, want %s", r.raw, want)
		}
	}
}
