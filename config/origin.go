package config

import (
	"errors"
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"strings"
)

// Origin is a web origin (RFC 6454 §4), or a pattern for the origins of all hosts below one.
type Origin struct {
	Scheme     string // lower case
	Host       string // lower case; an IPv6 address without its brackets
	Port       string // the scheme's default where the origin names none; empty for schemes without one
	Subdomains bool   // a pattern: one or more labels stand before Host
}

var (
	errOriginForm = errors.New("is not an origin")

	originScheme = regexp.MustCompile(`^[a-z][a-z0-9+.-]*$`)
	originHost   = regexp.MustCompile(`^[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*$`)
)

// ParseOrigin reads an exact origin, scheme://host[:port], or the pattern https://*.host[:port]. Neither has a path,
// not even a slash. Hosts outside of ASCII stand in their xn-- form, as browsers send them.
func ParseOrigin(s string) (Origin, error) {
	scheme, rest, found := strings.Cut(strings.ToLower(s), "://")
	if !found || !originScheme.MatchString(scheme) {
		return Origin{}, errOriginForm
	}
	rest, subdomains := strings.CutPrefix(rest, "*.")
	if subdomains && scheme != "https" {
		return Origin{}, errOriginForm
	}
	host, port, ok := splitHost(rest)
	if !ok || subdomains && !strings.Contains(host, ".") {
		return Origin{}, errOriginForm
	}
	if port == "" {
		port = DefaultPort(scheme)
	}
	return Origin{Scheme: scheme, Host: host, Port: port, Subdomains: subdomains}, nil
}

// splitHost takes host[:port] apart; a port is a decimal number without leading zeros.
func splitHost(s string) (host, port string, ok bool) {
	host = s
	if i := strings.LastIndexByte(s, ':'); i >= 0 && !strings.HasSuffix(s, "]") {
		host, port = s[:i], s[i+1:]
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || port[0] == '0' {
			return "", "", false
		}
	}
	if inner, bracketed := strings.CutPrefix(host, "["); bracketed {
		addr, err := netip.ParseAddr(strings.TrimSuffix(inner, "]"))
		return addr.String(), port, err == nil && strings.HasSuffix(inner, "]") && addr.Is6() && addr.Zone() == ""
	}
	return host, port, originHost.MatchString(host)
}

// DefaultPort is the port of a scheme's URLs that name none. It is empty for schemes other than http and https.
func DefaultPort(scheme string) string {
	switch scheme {
	case "http":
		return "80"
	case "https":
		return "443"
	}
	return ""
}

// isWebURL reports whether s is an absolute http or https URL.
func isWebURL(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Hostname() != ""
}
