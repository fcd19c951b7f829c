package gate_test

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/forwarded"
	"github.com/parley-chat/parley/internal/gate"
	"github.com/parley-chat/parley/internal/origin"
	"github.com/parley-chat/parley/internal/ratelimit"
)

// users are known by their tokens, which are their names; ann is an admin.
type users struct{ verified int }

func (u *users) Verify(token string) (chat.User, error) {
	u.verified++
	switch token {
	case "ann":
		return chat.User{ID: "ann", Roles: []string{"admin"}}, nil
	case "alice", "bob":
		return chat.User{ID: token}, nil
	}
	return chat.User{}, chat.NewError(chat.CodeUnauthenticated, "the token is not valid here")
}

// door is a gate whose limits are low, behind the proxy 10.0.0.1.
type door struct {
	*gate.Gate
	users users
	log   bytes.Buffer
}

// withDoor runs a test in a bubble, where time stands still unless it is slept away.
func withDoor(t *testing.T, test func(t *testing.T, d *door)) {
	synctest.Test(t, func(t *testing.T) {
		d := &door{}
		log := slog.New(slog.NewJSONHandler(&d.log, nil))
		bucket := func(name string, limit int) ratelimit.Config {
			return ratelimit.Config{Name: name, Limit: limit, Window: time.Minute, CleanupInterval: time.Hour, Log: log}
		}
		limits := gate.Limits{
			Requests:        ratelimit.New[string](bucket("requests", 5)),
			Admin:           ratelimit.New[string](bucket("admin", 3)),
			Unauthenticated: ratelimit.New[netip.Prefix](bucket("unauthenticated", 2)),
		}
		defer limits.Requests.Stop()
		defer limits.Admin.Stop()
		defer limits.Unauthenticated.Stop()
		proxies := forwarded.Proxies{netip.MustParsePrefix("10.0.0.1/32")}
		d.Gate = gate.New(proxies, origin.New(nil, false, proxies), &d.users, limits, log)
		test(t, d)
	})
}

func request(token string, header ...string) *http.Request {
	r := httptest.NewRequest("GET", "/api/v1/admin/stats", nil)
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	return r
}

func from(r *http.Request, address string) *http.Request {
	r.RemoteAddr = address
	return r
}

func wantCode(t *testing.T, what string, err error, want chat.Code) {
	t.Helper()
	if got := chat.AsError(err); err == nil && want != "" || err != nil && got.Code != want {
		t.Errorf("%s: got %v, want %q", what, err, want)
	}
}

func TestChecksComeInTheProtocolsOrder(t *testing.T) {
	withDoor(t, func(t *testing.T, d *door) {
		enter := func(r *http.Request) error { _, err := d.Enter(r); return err }
		query := request("alice")
		query.URL.RawQuery = "access_token=alice"
		wantCode(t, "a token in the query", enter(query), chat.CodeInvalidRequest)
		wantCode(t, "a foreign page, with a bad token", enter(request("x", "Origin", "https://evil.example")), chat.CodeOriginForbidden)
		wantCode(t, "no token", enter(request("")), chat.CodeUnauthenticated)
		wantCode(t, "a bad token", enter(request("x")), chat.CodeUnauthenticated)
		before := d.users.verified
		wantCode(t, "a good one, of an address that has used up its attempts", enter(request("alice")), chat.CodeRateLimited)
		wantCode(t, "a foreign page, of that address", enter(request("x", "Origin", "https://evil.example")), chat.CodeRateLimited)
		if d.users.verified != before {
			t.Error("tokens are looked at of an address that has used up its attempts")
		}
		wantCode(t, "another address", enter(from(request("alice"), "192.0.2.2:1")), "")
		time.Sleep(time.Minute)
		wantCode(t, "after the window", enter(request("alice")), "")
		if n := strings.Count(d.log.String(), "too many failed attempts from an address"); n != 2 {
			t.Errorf("two refusals are told by %d lines:\n%s", n, d.log.String())
		}
	})
}

// A page could otherwise use up the attempts of whoever looks at it, with images.
func TestWhatAnotherSitesPageLoadsIsNoAttempt(t *testing.T) {
	withDoor(t, func(t *testing.T, d *door) {
		for range 20 {
			_, err := d.Enter(request("", "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "no-cors"))
			wantCode(t, "an image", err, chat.CodeOriginForbidden)
		}
		_, err := d.Enter(request("alice", "Sec-Fetch-Site", "same-origin"))
		wantCode(t, "its own page", err, "")
	})
}

func TestOnlyMissingAndBadTokensUseUpAttempts(t *testing.T) {
	withDoor(t, func(t *testing.T, d *door) {
		for range 20 {
			_, err := d.Enter(request("alice"))
			wantCode(t, "a good token", err, "")
			_, err = d.Enter(request("x", "Origin", "https://evil.example"))
			wantCode(t, "a foreign page", err, chat.CodeOriginForbidden)
		}
	})
}

func TestAttemptsAreCountedByNetwork(t *testing.T) {
	withDoor(t, func(t *testing.T, d *door) {
		for _, address := range []string{"[2001:db8:0:1::1]:1", "[2001:db8:0:1::2]:2"} {
			_, err := d.Enter(from(request("x"), address))
			wantCode(t, address, err, chat.CodeUnauthenticated)
		}
		_, err := d.Enter(from(request("alice"), "[2001:db8:0:1:ffff::3]:3"))
		wantCode(t, "a third address of the /64", err, chat.CodeRateLimited)
		_, err = d.Enter(from(request("alice"), "[2001:db8:0:2::1]:1"))
		wantCode(t, "the next /64", err, "")
	})
}

func TestBehindAProxyTheClientsAddressCounts(t *testing.T) {
	withDoor(t, func(t *testing.T, d *door) {
		for range 2 {
			_, err := d.Enter(from(request("x", "X-Forwarded-For", "198.51.100.7"), "10.0.0.1:1"))
			wantCode(t, "a bad token", err, chat.CodeUnauthenticated)
		}
		c, err := d.Enter(from(request("alice", "X-Forwarded-For", "198.51.100.8"), "10.0.0.1:1"))
		wantCode(t, "another client of the proxy's", err, "")
		if got := c.Address.String(); got != "198.51.100.8" {
			t.Errorf("the caller's address is %s", got)
		}
		_, err = d.Enter(from(request("alice", "X-Forwarded-For", "198.51.100.7"), "10.0.0.1:1"))
		wantCode(t, "the same client", err, chat.CodeRateLimited)
		if strings.Contains(d.log.String(), "trusted_proxies") {
			t.Errorf("the proxy is warned of:\n%s", d.log.String())
		}
		for range 2 {
			_, _ = d.Enter(from(request("alice", "X-Forwarded-For", "198.51.100.8"), "10.0.0.2:1"))
		}
		if n := strings.Count(d.log.String(), "trusted_proxies"); n != 1 {
			t.Errorf("another proxy is warned of %d times", n)
		}
		_, err = d.Enter(from(request("alice", "X-Forwarded-For", "198.51.100.8"), "198.51.100.7:9"))
		wantCode(t, "the same client, which claims to be another", err, chat.CodeRateLimited)
	})
}

// charge makes requests of a user to an admin endpoint, and gives the errors' codes.
func (d *door) charge(t *testing.T, token string, n int) (codes []chat.Code, last http.Header) {
	t.Helper()
	for range n {
		r := request(token)
		c, err := d.Enter(r)
		if err != nil {
			t.Fatal(err)
		}
		last = http.Header{}
		code := chat.Code("")
		if err := d.ChargeAdmin(c, r, last, "admin"); err != nil {
			code = chat.AsError(err).Code
		}
		codes = append(codes, code)
	}
	return codes, last
}

func TestR18_1_AdminEndpointsAreLimited(t *testing.T) {
	withDoor(t, func(t *testing.T, d *door) {
		codes, header := d.charge(t, "ann", 4)
		if codes[2] != "" || codes[3] != chat.CodeRateLimited {
			t.Errorf("four requests where three are allowed: %q", codes)
		}
		if header.Get("RateLimit-Limit") != "3" || header.Get("RateLimit-Remaining") != "0" || header.Get("RateLimit-Reset") != "60" {
			t.Errorf("the header says %v", header)
		}
		time.Sleep(time.Minute)
		if codes, _ := d.charge(t, "ann", 1); codes[0] != "" {
			t.Errorf("after the window: %q", codes)
		}
	})
}

func TestR18_4_ViolationsAreLogged(t *testing.T) {
	withDoor(t, func(t *testing.T, d *door) {
		d.charge(t, "ann", 3+9)
		var lines []string
		for line := range strings.Lines(d.log.String()) {
			if strings.Contains(line, "admin rate limit exceeded") {
				lines = append(lines, line)
			}
		}
		if len(lines) != 4 { // the 1st, 2nd, 4th and 8th of 9
			t.Fatalf("%d lines for 9 violations:\n%s", len(lines), d.log.String())
		}
		for _, want := range []string{`"user":"ann"`, `"address":"192.0.2.1"`, `"refused":8`, `"path":"/api/v1/admin/stats"`} {
			if !strings.Contains(lines[3], want) {
				t.Errorf("%s is missing in %s", want, lines[3])
			}
		}
	})
}

func TestR18_5_AdminsHaveABucketOfTheirOwn(t *testing.T) {
	withDoor(t, func(t *testing.T, d *door) {
		c, err := d.Enter(request("ann"))
		if err != nil {
			t.Fatal(err)
		}
		for range 5 {
			wantCode(t, "a request as a user", d.Charge(c, http.Header{}), "")
		}
		wantCode(t, "a sixth one", d.Charge(c, http.Header{}), chat.CodeRateLimited)
		if codes, _ := d.charge(t, "ann", 3); codes[2] != "" {
			t.Errorf("requests as an admin: %q", codes)
		}
	})
}

func TestAForbiddenRequestIsTheUsersOwn(t *testing.T) {
	withDoor(t, func(t *testing.T, d *door) {
		codes, header := d.charge(t, "bob", 6)
		if codes[4] != chat.CodeForbidden || codes[5] != chat.CodeRateLimited {
			t.Errorf("six requests of who is no admin: %q", codes)
		}
		if got := header.Get("RateLimit-Limit"); got != "5" {
			t.Errorf("they are counted in a bucket of %s", got)
		}
		if codes, _ := d.charge(t, "ann", 3); codes[2] != "" {
			t.Errorf("an admin meanwhile: %q", codes)
		}
	})
}
