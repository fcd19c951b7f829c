// Package origin decides which web pages may use Parley: one list for WebSocket upgrades and for CORS.
//
// A browser tells with every such request which origin its page has. Without the check any page could connect with
// what the browser holds for Parley. Where nothing is configured only pages of Parley's own origin may.
package origin

import (
	"net/http"
	"strings"
	"sync"

	"github.com/parley-chat/parley/config"
	"github.com/parley-chat/parley/internal/forwarded"
)

// Policy is the list of origins that are allowed. It is safe for concurrent use.
type Policy struct {
	proxies forwarded.Proxies

	mu             sync.RWMutex // guards the fields below
	allowedOrigins []config.Origin
	allowAny       bool
}

// New makes a policy that allows a request's own origin and the given ones, in the forms of [config.ParseOrigin], or
// with allowAny every one. The X-Forwarded-Host and -Proto of proxies are believed.
func New(origins []string, allowAny bool, proxies forwarded.Proxies) *Policy {
	p := &Policy{proxies: proxies}
	p.Set(origins, allowAny)
	return p
}

// Set replaces the list. What is not in a form of [config.ParseOrigin] allows nothing.
func (p *Policy) Set(origins []string, allowAny bool) {
	var parsed []config.Origin
	for _, s := range origins {
		if o, err := config.ParseOrigin(s); err == nil {
			parsed = append(parsed, o)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.allowedOrigins, p.allowAny = parsed, allowAny
}

// AnyAllowed reports whether the check is off.
func (p *Policy) AnyAllowed() bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.allowAny
}

// Allowed reports whether the page that a request comes from may make it. A request without an Origin does not come
// from a browser's page and passes, unless the browser says that another site's page made it, as with an image
// (Sec-Fetch-Site, https://www.w3.org/TR/fetch-metadata/): no such page has a token to send. "null", of sandboxed and
// local pages, is foreign.
func (p *Policy) Allowed(r *http.Request) bool {
	origins := r.Header.Values("Origin")
	switch {
	case p.AnyAllowed():
		return true
	case len(origins) == 0:
		return r.Header.Get("Sec-Fetch-Site") != "cross-site"
	case len(origins) > 1:
		return false
	}
	return p.isOwn(r, origins[0]) || p.checkOrigin(origins[0])
}

// checkOrigin reports whether the list allows an origin.
func (p *Policy) checkOrigin(origin string) bool {
	asked, err := config.ParseOrigin(origin)
	if err != nil || asked.Subdomains {
		return false
	}
	p.mu.RLock()
	defer p.mu.RUnlock()
	for _, allowed := range p.allowedOrigins {
		if matches(allowed, asked) {
			return true
		}
	}
	return false
}

func matches(allowed, asked config.Origin) bool {
	if !allowed.Subdomains {
		return asked == allowed
	}
	return asked.Scheme == allowed.Scheme && asked.Port == allowed.Port && strings.HasSuffix(asked.Host, "."+allowed.Host)
}

// isOwn reports whether an origin has the host and the port that the request was made to.
func (p *Policy) isOwn(r *http.Request, origin string) bool {
	asked, err := config.ParseOrigin(origin)
	if err != nil || asked.Subdomains {
		return false
	}
	scheme, host := p.proxies.URL(r)
	own, err := config.ParseOrigin(scheme + "://" + host)
	return err == nil && !own.Subdomains && own.Host == asked.Host && own.Port == asked.Port
}
