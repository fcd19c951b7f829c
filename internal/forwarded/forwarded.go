// Package forwarded tells where a request comes from and where it was sent, also where it came through proxies.
//
// A proxy's word counts only where the proxy is known: anybody can send X-Forwarded headers.
package forwarded

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// Proxies are the addresses of those whose X-Forwarded headers are believed.
type Proxies []netip.Prefix

// Client gives the address of who made a request: the last one in X-Forwarded-For that no trusted proxy has, where the
// request comes from a trusted proxy; else the peer's. It is the zero address where the peer has none.
//
// Each proxy appends who it was asked by, so the list is believed from its end on, and only as far as it was trusted
// proxies that appended.
func (p Proxies) Client(r *http.Request) netip.Addr {
	client := parseAddr(r.RemoteAddr)
	if !p.trust(client) {
		return client
	}
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for _, hop := range slices.Backward(hops) {
		addr := parseAddr(strings.TrimSpace(hop))
		if !addr.IsValid() {
			break
		}
		if client = addr; !p.trust(client) {
			break
		}
	}
	return client
}

// Unbelieved reports whether a request seems to come through a proxy that is not among these: a peer of a private network
// says for whom it asks. Then all the proxy's clients are one.
func (p Proxies) Unbelieved(r *http.Request) bool {
	peer := parseAddr(r.RemoteAddr)
	return r.Header.Get("X-Forwarded-For") != "" && (peer.IsPrivate() || peer.IsLoopback()) && !p.trust(peer)
}

// URL gives the scheme and the host that a request was made to: those that a trusted proxy tells, else its own.
func (p Proxies) URL(r *http.Request) (scheme, host string) {
	scheme, host = "http", r.Host
	if r.TLS != nil {
		scheme = "https"
	}
	if p.trust(parseAddr(r.RemoteAddr)) {
		scheme = httpScheme(first(r, "X-Forwarded-Proto", scheme))
		host = first(r, "X-Forwarded-Host", host)
	}
	return scheme, host
}

func (p Proxies) trust(addr netip.Addr) bool {
	return slices.ContainsFunc(p, func(proxies netip.Prefix) bool { return proxies.Contains(addr) })
}

// httpScheme is the scheme that pages have where a proxy tells the WebSocket's (RFC 6455 §3), as Traefik does.
func httpScheme(scheme string) string {
	switch strings.ToLower(scheme) {
	case "ws":
		return "http"
	case "wss":
		return "https"
	}
	return scheme
}

// first reads a header that each proxy appends to: the first value is what the browser's request had.
func first(r *http.Request, header, otherwise string) string {
	value, _, _ := strings.Cut(r.Header.Get(header), ",")
	if value = strings.TrimSpace(value); value != "" {
		return value
	}
	return otherwise
}

// parseAddr reads an address with or without a port. What is none is the zero address.
func parseAddr(s string) netip.Addr {
	if host, _, err := net.SplitHostPort(s); err == nil {
		s = host
	}
	addr, err := netip.ParseAddr(strings.Trim(s, "[]"))
	if err != nil {
		return netip.Addr{}
	}
	return addr.Unmap().WithZone("")
}

// translated is where IPv4 addresses stand within IPv6 ones behind a translator (RFC 6052 §2.1).
var translated = netip.MustParsePrefix("64:ff9b::/96")

// Network is the part of an address that one subscriber has: an IPv4 address, or the first 64 bits of an IPv6 address,
// within which anybody may choose another one (RFC 4291 §2.5.4, RFC 8981).
func Network(addr netip.Addr) netip.Prefix {
	bits := 64
	switch {
	case addr.Is4():
		bits = 32
	case translated.Contains(addr):
		bits = 128
	}
	network, err := addr.Prefix(bits)
	if err != nil {
		return netip.Prefix{} // of the zero address: all who have none are one
	}
	return network
}
