package config

import (
	"cmp"
	"fmt"
	"math"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/publicsuffix"
)

// Validate checks that everything required is there and that every value is in its range. The error joins a [Problem]
// for each thing that is wrong; none holds a secret.
func (c Config) Validate() error { return c.check().join() }

func (c Config) check() problems {
	var ps problems
	c.Server.check(&ps)
	c.Auth.check(&ps)
	c.checkOrigins(&ps)
	c.LLM.check(&ps)
	c.Storage.check(&ps)
	c.RateLimit.check(&ps)
	oneOf(&ps, "log.level", c.Log.Level, "debug", "info", "warn", "error")
	oneOf(&ps, "log.format", c.Log.Format, "json", "text")
	c.Telemetry.check(&ps)
	c.checkRanges(&ps)
	c.checkBounds(&ps)
	return ps
}

var pathPrefix = regexp.MustCompile(`^(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*$`)

func (s Server) check(ps *problems) {
	checkAddr(ps, "server.addr", s.Addr)
	if s.OperationsAddr != "" {
		checkAddr(ps, "server.operations_addr", s.OperationsAddr)
		if sameAddr(s.Addr, s.OperationsAddr) {
			ps.add("server.operations_addr", "is the address of the public listener",
				`choose another port, or "" to turn the operations listener off`)
		}
	}
	if !pathPrefix.MatchString(s.PathPrefix) {
		ps.add("server.path_prefix", strconv.Quote(s.PathPrefix)+" is not a path prefix",
			`write it like /chat, without a slash at its end, or "" for none`)
	}
	for i, p := range s.TrustedProxies {
		if !p.IsValid() {
			ps.add(at("server.trusted_proxies", i), "is no address range", "use netip.ParsePrefix")
		} else if p.Addr().Is4In6() {
			ps.add(at("server.trusted_proxies", i), p.String()+" is an IPv4 range written as IPv6, and matches nothing",
				"write it like 10.0.0.0/8")
		}
	}
	if (s.TLS.CertFile == "") != (s.TLS.KeyFile == "") {
		ps.add("server.tls", "has only one of cert_file and key_file", "set both, or none to serve without TLS")
	}
}

func checkAddr(ps *problems, key, addr string) {
	if _, port, err := net.SplitHostPort(addr); err == nil {
		if _, err := strconv.ParseUint(port, 10, 16); err == nil {
			return
		}
	}
	ps.add(key, strconv.Quote(addr)+" is not an address to listen on",
		"write host:port with a port of 0 to 65535, such as 127.0.0.1:8080 or :8080")
}

// sameAddr reports whether two listeners would be in each other's way.
func sameAddr(a, b string) bool {
	hostA, portA, errA := net.SplitHostPort(a)
	hostB, portB, errB := net.SplitHostPort(b)
	if errA != nil || errB != nil || portA != portB || portA == "0" {
		return false
	}
	return hostA == hostB || isWildcard(hostA) || isWildcard(hostB)
}

func isWildcard(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "" || err == nil && addr.IsUnspecified()
}

func (a Auth) check(ps *problems) {
	var set []string
	for _, k := range []struct{ key, value string }{
		{"jwt_secret", a.JWTSecret}, {"jwt_public_key_file", a.JWTPublicKeyFile}, {"jwks_url", a.JWKSURL},
	} {
		if k.value != "" {
			set = append(set, k.key)
		}
	}
	switch {
	case len(set) == 0:
		ps.add("auth.jwt_secret", "is required: there is no way to verify tokens",
			"set it to what `parley keygen` prints (or set auth.jwt_public_key_file or auth.jwks_url)")
	case len(set) > 1:
		ps.add("auth", "has "+strings.Join(set, " and "), "keep the one that your tokens are signed for")
	}
	checkSecret(ps, "auth.jwt_secret", a.JWTSecret)
	switch {
	case a.PreviousJWTSecret == "":
	case a.JWTSecret == "":
		ps.add("auth.previous_jwt_secret", "has no auth.jwt_secret that comes after it", "set that, or remove this one")
	case a.PreviousJWTSecret == a.JWTSecret:
		ps.add("auth.previous_jwt_secret", "is the same as auth.jwt_secret",
			"set auth.jwt_secret to what `parley keygen` prints, and keep the old one here until its tokens have expired")
	default:
		checkSecret(ps, "auth.previous_jwt_secret", a.PreviousJWTSecret)
	}
	if a.JWKSURL != "" && !isWebURL(a.JWKSURL) {
		ps.add("auth.jwks_url", "is not an http or https URL", "write it like https://id.example.com/jwks.json")
	}
}

func checkSecret(ps *problems, key, secret string) {
	if secret == "" {
		return
	}
	if weakness := secretWeakness(secret); weakness != "" {
		ps.add(key, weakness, "run `parley keygen` and use what it prints")
	}
}

const originForms = "write scheme://host or scheme://host:port, or https://*.example.com for all hosts below one"

func (c Config) checkOrigins(ps *problems) {
	for i, o := range c.WebSocket.AllowedOrigins {
		origin, err := ParseOrigin(o)
		if suffix, _ := publicsuffix.PublicSuffix(origin.Host); err == nil && origin.Subdomains && suffix == origin.Host {
			ps.add(at("websocket.allowed_origins", i), strconv.Quote(o)+" is everybody's: anybody can have a name under "+suffix,
				"name the hosts that are yours")
		}
		if err != nil {
			fix := originForms
			if o == "*" {
				fix = "list the origins of your pages, or set websocket.allow_any_origin to give up the check"
			}
			ps.add(at("websocket.allowed_origins", i), strconv.Quote(o)+" "+err.Error(), fix)
		}
	}
	for i, a := range c.UI.FrameAncestors {
		if _, err := ParseOrigin(a); err != nil && a != "'self'" {
			ps.add(at("ui.frame_ancestors", i), strconv.Quote(a)+" "+err.Error(), originForms)
		}
	}
}

func (s Storage) check(ps *problems) {
	oneOf(ps, "storage.driver", s.Driver, DriverSQLite, DriverMongoDB)
	switch s.Driver {
	case DriverSQLite:
		required(ps, "storage.sqlite.path", s.SQLite.Path, "name the database's file")
		if s.SQLite.Path == ":memory:" {
			ps.add("storage.sqlite.path", "a database in memory loses every conversation", "name a file")
		}
	case DriverMongoDB:
		required(ps, "storage.mongodb.uri", s.MongoDB.URI, "write it like mongodb://host:27017")
		required(ps, "storage.mongodb.database", s.MongoDB.Database, "name the database")
		if uri := s.MongoDB.URI; uri != "" && !strings.HasPrefix(uri, "mongodb://") &&
			!strings.HasPrefix(uri, "mongodb+srv://") {
			ps.add("storage.mongodb.uri", "is not a MongoDB URI", "start it with mongodb:// or mongodb+srv://")
		}
	}
	if s.Retention != 0 {
		within(ps, "storage.retention", s.Retention, time.Second, 100*365*24*time.Hour)
	}
}

func (r RateLimit) check(ps *problems) {
	for _, rate := range []struct {
		key string
		Rate
	}{
		{"rate_limit.messages", r.Messages},
		{"rate_limit.requests", r.Requests},
		{"rate_limit.admin", r.Admin},
		{"rate_limit.unauthenticated", r.Unauthenticated},
	} {
		within(ps, rate.key+".limit", rate.Limit, 1, 1_000_000)
		within(ps, rate.key+".window", rate.Window, time.Millisecond, 24*time.Hour)
	}
	if valid := !ps.touch("rate_limit.admin") && !ps.touch("rate_limit.requests"); valid &&
		r.Admin.PerSecond() >= r.Requests.PerSecond() {
		ps.add("rate_limit.admin", fmt.Sprintf("%d in %v is not stricter than rate_limit.requests, %d in %v",
			r.Admin.Limit, r.Admin.Window, r.Requests.Limit, r.Requests.Window), "lower rate_limit.admin.limit")
	}
}

// checkRanges checks the numbers and durations that have nothing to do with others.
func (c Config) checkRanges(ps *problems) {
	const day = 24 * time.Hour
	w, s, l, st := c.WebSocket, c.Session, c.LLM, c.Storage
	for _, d := range []struct {
		key   string
		value time.Duration
		high  time.Duration
	}{
		{"server.shutdown_timeout", c.Server.ShutdownTimeout, day},
		{"websocket.ping_interval", w.PingInterval, time.Hour},
		{"websocket.pong_timeout", w.PongTimeout, time.Hour},
		{"websocket.write_timeout", w.WriteTimeout, time.Hour},
		{"session.idle_timeout", s.IdleTimeout, 30 * day},
		{"session.grace_period", s.GracePeriod, 30 * day},
		{"session.cleanup_interval", s.CleanupInterval, day},
		{"llm.stream_timeout", l.StreamTimeout, day},
		{"llm.connect_timeout", l.ConnectTimeout, day},
		{"llm.first_token_timeout", l.FirstTokenTimeout, day},
		{"llm.idle_timeout", l.IdleTimeout, day},
		{"storage.retry.initial_backoff", st.Retry.InitialBackoff, time.Hour},
		{"storage.retry.max_backoff", st.Retry.MaxBackoff, time.Hour},
		{"storage.checkpoint_interval", st.CheckpointInterval, time.Hour},
		{"rate_limit.cleanup_interval", c.RateLimit.CleanupInterval, day},
	} {
		within(ps, d.key, d.value, time.Millisecond, d.high)
	}
	for _, n := range []struct {
		key       string
		value     int
		low, high int
	}{
		{"websocket.max_connections", w.MaxConnections, 1, 10_000_000},
		{"websocket.max_connections_per_user", w.MaxConnectionsPerUser, 1, 10_000_000},
		{"websocket.max_connections_per_address", w.MaxConnectionsPerAddress, 0, 10_000_000},
		{"session.warn_threshold", s.WarnThreshold, 1, math.MaxInt32},
		{"session.max_response_times", s.MaxResponseTimes, 1, 100_000},
		{"llm.history_tokens", l.HistoryTokens, 1, 10_000_000},
		{"storage.retry.max_attempts", st.Retry.MaxAttempts, 1, 100},
	} {
		within(ps, n.key, n.value, n.low, n.high)
	}
	within(ps, "storage.lease_timeout", st.LeaseTimeout, time.Second, time.Hour)
	within(ps, "websocket.max_message_bytes", w.MaxMessageBytes, 1<<10, 16<<20)
	within(ps, "storage.journal.max_bytes", st.Journal.MaxBytes, 4<<10, 1<<40)
}

// bound says that a duration must not exceed another one.
type bound struct {
	key      string
	value    *time.Duration
	limitKey string
	limit    *time.Duration
}

func (c *Config) bounds() []bound {
	stream, retry, asking := &c.LLM.StreamTimeout, &c.Storage.Retry, &c.LLM.Retry
	return []bound{
		{"llm.connect_timeout", &c.LLM.ConnectTimeout, "llm.stream_timeout", stream},
		{"llm.first_token_timeout", &c.LLM.FirstTokenTimeout, "llm.stream_timeout", stream},
		{"llm.idle_timeout", &c.LLM.IdleTimeout, "llm.stream_timeout", stream},
		{"llm.retry.initial_backoff", &asking.InitialBackoff, "llm.retry.max_backoff", &asking.MaxBackoff},
		{"storage.retry.initial_backoff", &retry.InitialBackoff, "storage.retry.max_backoff", &retry.MaxBackoff},
	}
}

func (c Config) checkBounds(ps *problems) {
	for _, b := range c.bounds() {
		if *b.value > *b.limit && !ps.touch(b.key) && !ps.touch(b.limitKey) {
			ps.add(b.key, fmt.Sprintf("%v is longer than %s, %v", *b.value, b.limitKey, *b.limit),
				"lower it, or raise "+b.limitKey)
		}
	}
}

// within checks a range; both ends belong to it.
func within[T cmp.Ordered](ps *problems, key string, value, low, high T) {
	if value >= low && value <= high { // as NaN is not
		return
	}
	ps.add(key, fmt.Sprintf("%v is out of range", value), fmt.Sprintf("choose a value from %v to %v", low, high))
}

func required(ps *problems, key, value, fix string) {
	if strings.TrimSpace(value) == "" {
		ps.add(key, "is required", fix)
	}
}

func oneOf(ps *problems, key, value string, allowed ...string) {
	if !slices.Contains(allowed, value) {
		ps.add(key, strconv.Quote(value)+" is not known", "use one of "+strings.Join(allowed, ", "))
	}
}
