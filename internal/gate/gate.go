// Package gate is the front door: the checks that every request passes before anything is done for it, in the
// protocol's order, and what each caller may ask for.
package gate

import (
	"log/slog"
	"math/bits"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/auth"
	"github.com/parley-chat/parley/internal/forwarded"
	"github.com/parley-chat/parley/internal/ratelimit"
)

// Verifier checks a token and tells whose it is.
type Verifier interface {
	Verify(token string) (chat.User, error)
}

// Origins says which pages' requests are let in.
type Origins interface {
	Allowed(r *http.Request) bool
}

// Limits are the buckets that requests are counted in.
type Limits struct {
	Requests        *ratelimit.Limiter[string]       // HTTP requests and upgrades, by user
	Admin           *ratelimit.Limiter[string]       // requests to admin endpoints, by user
	Unauthenticated *ratelimit.Limiter[netip.Prefix] // missing and bad tokens, by network
}

// Gate lets requests in, or says why not. It is safe for concurrent use.
type Gate struct {
	proxies  forwarded.Proxies
	origins  Origins
	verifier Verifier
	limits   Limits
	log      *slog.Logger

	warned   atomic.Bool // of a proxy that is not known
	noted    atomic.Bool // there are refusals: without them nobody needs the lock
	mu       sync.Mutex  // guards the field below
	refusals map[string]int
}

// New makes a Gate. The X-Forwarded headers of proxies are believed.
func New(proxies forwarded.Proxies, origins Origins, v Verifier, limits Limits, log *slog.Logger) *Gate {
	return &Gate{proxies: proxies, origins: origins, verifier: v, limits: limits, log: log, refusals: make(map[string]int)}
}

// Caller is who makes a request, and from where.
type Caller struct {
	User    chat.User
	Address netip.Addr
}

// Address gives the client's address. A proxy that is not known as one is warned of, once.
func (g *Gate) Address(r *http.Request) netip.Addr {
	client := g.proxies.Client(r)
	if !g.warned.Load() && g.proxies.Unbelieved(r) && g.warned.CompareAndSwap(false, true) {
		g.log.Warn("security: a proxy seems to stand before this server that is not in server.trusted_proxies: "+
			"all its clients share one address, and one bucket of failed attempts", "proxy", client.String())
	}
	return client
}

// Enter checks where a request comes from and whose token it has, in the protocol's order: no token in the query
// (invalid_request), the address's failed attempts (rate_limited), the page's origin (origin_forbidden), the token
// (unauthenticated). Only missing and bad tokens are counted against the address. With an error the Caller has the
// address alone.
func (g *Gate) Enter(r *http.Request) (Caller, error) {
	c := Caller{Address: g.Address(r)}
	if err := auth.RefuseQueryToken(r); err != nil {
		return c, err
	}
	network := forwarded.Network(c.Address)
	d := g.limits.Unauthenticated.Check(network)
	g.noteRefusals(network.String(), d.Allowed, func(n int) {
		g.log.Warn("security: too many failed attempts from an address", "address", c.Address.String(), "path", r.URL.Path,
			"limit", d.Limit, "window", d.Window.String(), "refused", n)
	})
	if !d.Allowed {
		return c, refused(d, "too many failed attempts from your address: wait a moment")
	}
	if !g.origins.Allowed(r) {
		return c, chat.NewError(chat.CodeOriginForbidden, "pages of this origin may not connect")
	}
	token, err := auth.FromRequest(r)
	if err == nil {
		c.User, err = g.verifier.Verify(token)
	}
	if err != nil {
		g.limits.Unauthenticated.Charge(network)
		return c, err
	}
	return c, nil
}

// Charge counts a user's request, and tells in header what is left. Beyond the limit it is rate_limited.
func (g *Gate) Charge(c Caller, header http.Header) error {
	d := g.limits.Requests.Allow(c.User.ID)
	tell(header, d)
	if !d.Allowed {
		return refused(d, "you make too many requests: wait a moment")
	}
	return nil
}

// ChargeAdmin is Charge for a request to an admin endpoint, which only users with one of the roles may make: the others
// are forbidden, and that is counted as any request of theirs. Violations of the limit are logged.
func (g *Gate) ChargeAdmin(c Caller, r *http.Request, header http.Header, roles ...string) error {
	if !slices.ContainsFunc(c.User.Roles, func(role string) bool { return slices.Contains(roles, role) }) {
		if err := g.Charge(c, header); err != nil {
			return err
		}
		return chat.NewError(chat.CodeForbidden, "your token has none of the roles that this takes")
	}
	d := g.limits.Admin.Allow(c.User.ID)
	tell(header, d)
	g.noteRefusals("admin "+c.User.ID, d.Allowed, func(n int) {
		g.log.Warn("security: admin rate limit exceeded", "user", c.User.ID, "address", c.Address.String(), "method", r.Method,
			"path", r.URL.Path, "limit", d.Limit, "window", d.Window.String(), "refused", n)
	})
	if !d.Allowed {
		return refused(d, "too many requests to admin endpoints: wait a moment")
	}
	return nil
}

// maxNoted is of how many whose requests are refused it is known how many they were.
const maxNoted = 10_000

// noteRefusals counts how many requests of somebody's were refused one after another, and has the 1st, 2nd, 4th, 8th …
// told: a flood of requests is none of lines.
func (g *Gate) noteRefusals(whose string, allowed bool, tell func(n int)) {
	if n := g.countRefusals(whose, allowed); bits.OnesCount(uint(n)) == 1 {
		tell(n)
	}
}

func (g *Gate) countRefusals(whose string, allowed bool) int {
	if allowed && !g.noted.Load() {
		return 0
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if allowed {
		delete(g.refusals, whose)
		g.noted.Store(len(g.refusals) > 0)
		return 0
	}
	g.noted.Store(true)
	if len(g.refusals) >= maxNoted {
		clear(g.refusals)
	}
	g.refusals[whose]++
	return g.refusals[whose]
}

func refused(d ratelimit.Decision, message string) error {
	err := chat.NewError(chat.CodeRateLimited, message)
	err.RetryAfter = d.RetryAfter
	return err
}

// tell sets the RateLimit headers (draft-ietf-httpapi-ratelimit-headers-06): how many requests the window takes, how many
// are left of them, and after how many seconds all are there again.
func tell(header http.Header, d ratelimit.Decision) {
	header.Set("RateLimit-Limit", strconv.Itoa(d.Limit))
	header.Set("RateLimit-Remaining", strconv.Itoa(d.Remaining))
	header.Set("RateLimit-Reset", strconv.Itoa(int((d.Reset+time.Second-1)/time.Second)))
	header.Set("RateLimit-Policy", strconv.Itoa(d.Limit)+";w="+strconv.Itoa(max(1, int(d.Window/time.Second))))
}
