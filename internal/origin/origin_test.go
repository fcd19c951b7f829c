package origin_test

import (
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync"
	"testing"

	"github.com/parley-chat/parley/internal/origin"
)

// from makes a request to http://chat.example:8080 by a page of the given origins.
func from(origins ...string) *http.Request {
	r := httptest.NewRequest("GET", "/ws", nil)
	r.Host = "chat.example:8080"
	for _, o := range origins {
		r.Header.Add("Origin", o)
	}
	return r
}

func TestR16_1_WithoutConfigurationOnlyTheOwnOriginPasses(t *testing.T) {
	policy := origin.New(nil, false, nil)
	for name, c := range map[string]struct {
		request *http.Request
		want    bool
	}{
		"no browser":      {from(), true},
		"own":             {from("http://chat.example:8080"), true},
		"own, other case": {from("HTTP://Chat.Example:8080"), true},
		"another port":    {from("http://chat.example"), false},
		"another host":    {from("http://evil.example:8080"), false},
		"a host below":    {from("http://a.chat.example:8080"), false},
		"a longer host":   {from("http://chat.example.evil:8080"), false},
		"a suffix":        {from("http://evilchat.example:8080"), false},
		"null":            {from("null"), false},
		"empty":           {from(""), false},
		"two":             {from("http://chat.example:8080", "http://chat.example:8080"), false},
		"a list":          {from("http://chat.example:8080 http://evil.example"), false},
		"a path":          {from("http://chat.example:8080/"), false},
		"a user":          {from("http://x@chat.example:8080"), false},
		"a pattern":       {from("https://*.example.com"), false},
		"no origin":       {from("chat.example:8080"), false},
	} {
		if got := policy.Allowed(c.request); got != c.want {
			t.Errorf("%s: allowed is %v", name, got)
		}
	}
}

func TestR16_4_TheCheckIsOnByDefault(t *testing.T) {
	if policy := origin.New(nil, false, nil); policy.AnyAllowed() || policy.Allowed(from("https://evil.example")) {
		t.Error("the check is off")
	}
	open := origin.New(nil, true, nil)
	if !open.AnyAllowed() || !open.Allowed(from("https://evil.example")) || !open.Allowed(from("null")) {
		t.Error("allowAny does not turn the check off")
	}
}

func TestSameOriginBehindTLSAndProxies(t *testing.T) {
	trusted := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	for name, c := range map[string]struct {
		origin string
		change func(*http.Request)
		want   bool
	}{
		"default port of TLS": {"https://chat.example",
			func(r *http.Request) { r.Host, r.TLS = "chat.example", &tls.ConnectionState{} }, true},
		"written out": {"https://chat.example",
			func(r *http.Request) { r.Host, r.TLS = "chat.example:443", &tls.ConnectionState{} }, true},
		"plain page of a TLS server": {"http://chat.example",
			func(r *http.Request) { r.Host, r.TLS = "chat.example", &tls.ConnectionState{} }, false},
		"IPv6": {"http://[::1]:8080", func(r *http.Request) { r.Host = "[::1]:8080" }, true},
		"trusted proxy": {"https://chat.example", func(r *http.Request) {
			r.RemoteAddr, r.Host = "10.1.2.3:999", "backend:8080"
			r.Header.Set("X-Forwarded-Proto", "https")
			r.Header.Set("X-Forwarded-Host", "chat.example, inner.example")
		}, true},
		"trusted proxy that says wss": {"https://chat.example", func(r *http.Request) {
			r.RemoteAddr, r.Host = "[::ffff:10.1.2.3]:999", "chat.example"
			r.Header.Set("X-Forwarded-Proto", "wss")
		}, true},
		"somebody else": {"https://chat.example", func(r *http.Request) {
			r.RemoteAddr, r.Host = "192.0.2.1:999", "backend:8080"
			r.Header.Set("X-Forwarded-Proto", "https")
			r.Header.Set("X-Forwarded-Host", "chat.example")
		}, false},
		"no host": {"http://chat.example", func(r *http.Request) { r.Host = "" }, false},
	} {
		r := from(c.origin)
		c.change(r)
		if got := origin.New(nil, false, trusted).Allowed(r); got != c.want {
			t.Errorf("%s: allowed is %v", name, got)
		}
	}
}

func TestR13_5_EveryOriginOfTheListIsLookedAt(t *testing.T) {
	policy := origin.New([]string{"https://a.example", "not an origin", "http://localhost:3000", "https://*.b.example",
		"https://*.c.example:8443"}, false, nil)
	for asked, want := range map[string]bool{
		"https://a.example":               true,
		"https://A.EXAMPLE:443":           true,
		"http://a.example":                false,
		"https://a.example:8443":          false,
		"https://x.a.example":             false,
		"http://localhost:3000":           true,
		"http://localhost":                false,
		"https://x.b.example":             true,
		"https://X.y.B.example":           true,
		"https://b.example":               false,
		"https://xb.example":              false,
		"https://.b.example":              false,
		"http://x.b.example":              false,
		"https://x.b.example.evil":        false,
		"https://x.c.example:8443":        true,
		"https://x.c.example":             false,
		"https://evil.example#.b.example": false,
		"not an origin":                   false,
		"null":                            false,
	} {
		if got := policy.Allowed(from(asked)); got != want {
			t.Errorf("%s: allowed is %v", asked, got)
		}
	}
}

func TestSetReplacesTheList(t *testing.T) {
	policy := origin.New([]string{"https://a.example"}, true, nil)
	policy.Set([]string{"https://b.example"}, false)
	if policy.AnyAllowed() || policy.Allowed(from("https://a.example")) || !policy.Allowed(from("https://b.example")) {
		t.Error("the old list is in force")
	}
}

// The race detector watches the lock that R13.1 to R13.3 ask for; each answer must be that of one of the two lists.
func TestR13_4_ReadersAndWritersAtOnce(t *testing.T) {
	lists := [][]string{{"https://a.example", "https://*.b.example"}, {"https://*.b.example", "https://c.example"}}
	policy := origin.New(lists[0], false, nil)
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			for range 500 {
				policy.Set(lists[i%2], false)
			}
		})
		all.Go(func() {
			for range 500 {
				if !policy.Allowed(from("https://x.b.example")) || policy.Allowed(from("https://evil.example")) {
					t.Error("an answer of neither list")
				}
				policy.AnyAllowed()
			}
		})
	}
	all.Wait()
}
