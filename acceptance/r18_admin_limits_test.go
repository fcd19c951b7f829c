//go:build unix

package acceptance_test

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"testing"
)

// fewRequests are limits that are met soon, in windows that no test outlasts.
const fewRequests = "rate_limit: {requests: {limit: 8, window: 1h}, admin: {limit: 3, window: 1h}, messages: {limit: 5, window: 1h}}\n"

// codesOf asks n times, and gives how it went.
func (s *server) codesOf(n int, path, token string) (codes []string, last reply) {
	s.t.Helper()
	for range n {
		last = s.api("GET", path, token, nil)
		codes = append(codes, last.code())
	}
	return codes, last
}

const (
	adminStats = "/api/v1/admin/stats"
	tooMany    = "429 rate_limited"
)

func TestR18_1_AdminEndpointsAreLimited(t *testing.T) {
	s := startServer(t, eliza, fewRequests)
	codes, _ := s.codesOf(4, adminStats, token("ann", "admin"))
	if got := strings.Join(codes, ", "); got != "200, 200, 200, "+tooMany {
		t.Errorf("four requests where three are allowed: %s", got)
	}
	if codes, _ := s.codesOf(1, "/api/v1/admin/audit", token("ann", "admin")); codes[0] != tooMany {
		t.Errorf("another endpoint: %s", codes[0])
	}
	if codes, _ := s.codesOf(1, adminStats, token("eve", "admin")); codes[0] != "200" {
		t.Errorf("another admin: %s", codes[0])
	}
}

func TestR18_2_AdminsAreLimitedMoreStrictlyByValidation(t *testing.T) {
	_, stderr := refusedConfig(t, eliza, "rate_limit: {requests: {limit: 60, window: 1m}, admin: {limit: 60, window: 1m}}\n")
	if !strings.Contains(stderr, "rate_limit.admin") || !strings.Contains(stderr, "stricter") {
		t.Errorf("limits that are no stricter for admins are answered with %s", stderr)
	}
}

func TestR18_3_WhatIsTooMuchIsStatus429(t *testing.T) {
	s := startServer(t, eliza, fewRequests)
	_, last := s.codesOf(4, adminStats, token("ann", "admin"))
	if last.status != http.StatusTooManyRequests {
		t.Errorf("the status is %d", last.status)
	}
	wait, err := strconv.Atoi(last.header.Get("Retry-After"))
	if err != nil || wait < 3000 || wait > 3600 {
		t.Errorf("Retry-After is %q", last.header.Get("Retry-After"))
	}
	for name, want := range map[string]string{"RateLimit-Limit": "3", "RateLimit-Remaining": "0"} {
		if got := last.header.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if reset, err := strconv.Atoi(last.header.Get("RateLimit-Reset")); err != nil || reset < wait {
		t.Errorf("RateLimit-Reset is %q, Retry-After %d", last.header.Get("RateLimit-Reset"), wait)
	}
}

func TestR18_4_ViolationsOfAdminLimitsAreLogged(t *testing.T) {
	s := startServer(t, eliza, fewRequests)
	s.codesOf(3+5, adminStats, token("ann", "admin"))
	entry := s.awaitLog("security: admin rate limit exceeded")
	if entry["user"] != "ann" || entry["address"] != "127.0.0.1" || entry["path"] != adminStats || entry["refused"] != 1.0 || entry["level"] != "WARN" {
		t.Errorf("the log says %v", entry)
	}
	var said []any
	for _, line := range s.log() {
		var f frame
		if err := json.Unmarshal([]byte(line), &f); err == nil && f["msg"] == "security: admin rate limit exceeded" {
			said = append(said, f["refused"])
		}
	}
	if len(said) != 3 || said[2] != 4.0 {
		t.Errorf("of five violations in a row the log tells of the numbers %v, want 1, 2 and 4", said)
	}
}

func TestR18_5_BucketsAreSeparate(t *testing.T) {
	s := startServer(t, eliza, fewRequests)
	ann := token("ann", "admin")
	s.codesOf(4, adminStats, ann)
	if codes, _ := s.codesOf(1, "/api/v1/models", ann); codes[0] != "200" {
		t.Errorf("an admin whose admin requests are used up asks as a user: %s", codes[0])
	}
	// A 403 is the user's own request.
	codes, last := s.codesOf(9, adminStats, token("bob"))
	if codes[7] != "403 forbidden" || codes[8] != tooMany || last.header.Get("RateLimit-Limit") != "8" {
		t.Errorf("nine forbidden requests: %v", codes)
	}
	// Upgrades are requests too; frames are not.
	if _, resp, err := s.tryDial(token("bob"), nil); err == nil || problem(t, resp) != tooMany || resp.Header.Get("Retry-After") == "" {
		t.Error("who has used up the requests may connect")
	}
	c := s.dial(token("carol"))
	c.open()
	for range 4 {
		c.send("session.update", "title", "x")
	}
	if f := c.sendRefused("help.request"); f.str("error", "code") != "rate_limited" || f.num("error", "retry_after_ms") <= 0 || f["error"].(map[string]any)["retryable"] != true {
		t.Errorf("the sixth frame that costs something is answered with %v", f)
	}
	for _, kind := range []string{"session.open", "message.send", "response.retry", "session.update"} {
		if f := c.sendRefused(kind, "message_id", "m", "text", "x"); f.str("error", "code") != "rate_limited" {
			t.Errorf("%s is answered with %v", kind, f)
		}
	}
	c.quiet() // pings cost nothing
	c.send("typing", "active", true)
	c.quiet()
	if codes, _ := s.codesOf(1, "/api/v1/models", token("carol")); codes[0] != "200" {
		t.Errorf("who has used up the frames asks over HTTP: %s", codes[0])
	}
	other := s.dial(token("dave"))
	other.open()
}

func TestFailedAttemptsAreLimitedByAddress(t *testing.T) {
	s := startServer(t, eliza, "rate_limit: {unauthenticated: {limit: 3, window: 1h}}\n")
	open := s.dial(token("alice"))
	open.open()
	for range 5 {
		if r := s.api("GET", "/api/v1/models", token("alice"), nil); r.status != 200 {
			t.Errorf("a good token: %s", r.raw)
		}
	}
	for i, bad := range []string{"", "nonsense", tokenFor("alice", -1e12)} {
		if r := s.api("GET", "/api/v1/models", bad, nil); r.code() != "401 unauthenticated" {
			t.Errorf("attempt %d: %s", i, r.raw)
		}
	}
	for who, bearer := range map[string]string{"a bad token": "nonsense", "a good one": token("alice"), "an admin's": token("ann", "admin")} {
		if r := s.api("GET", adminStats, bearer, nil); r.code() != tooMany || r.header.Get("Retry-After") == "" {
			t.Errorf("%s, of an address that has used up its attempts: %s", who, r.raw)
		}
		if _, resp, err := s.tryDial(bearer, nil); err == nil || problem(t, resp) != tooMany {
			t.Errorf("%s, of that address, may connect", who)
		}
	}
	open.quiet()
	open.ask("m1", "hello") // connections that are open are not touched
	resp, err := http.Get(s.operations + "/healthz")
	if err != nil || resp.StatusCode != 200 {
		t.Errorf("health: %v %v", resp, err)
	}
	if err == nil {
		resp.Body.Close()
	}
}

func TestConnectionsAreLimitedByAddress(t *testing.T) {
	s := startServer(t, eliza, "websocket: {max_connections_per_address: 2}\nserver: {addr: 127.0.0.1:0, operations_addr: 127.0.0.1:0, trusted_proxies: [127.0.0.1/32]}\n")
	from := func(address string) http.Header { return http.Header{"X-Forwarded-For": {address}} }
	for i, address := range []string{"2001:db8::1", "2001:db8::2"} {
		if _, resp, err := s.tryDial(token("user"+strconv.Itoa(i)), from(address)); err != nil {
			t.Fatalf("%v %v", resp, err)
		}
	}
	if _, resp, err := s.tryDial(token("user3"), from("2001:db8::3")); err == nil || problem(t, resp) != "429 connection_limit" {
		t.Error("a third connection from a /64 is let in where two are allowed")
	}
	if _, resp, err := s.tryDial(token("user3"), from("2001:db8:0:1::3")); err != nil {
		t.Errorf("from another /64: %v %v", resp, err)
	}
}
