//go:build unix

package acceptance_test

import (
	"net/http"
	"strings"
	"testing"
)

// fromOrigin tries to connect from a page, and says how it went: "open", or the status and the code.
func (s *server) fromOrigin(origin string) string {
	s.t.Helper()
	header := http.Header{}
	if origin != "" {
		header.Set("Origin", origin)
	}
	_, resp, err := s.tryDial(token("alice"), header)
	if err == nil {
		return "open"
	}
	return problem(s.t, resp)
}

func (s *server) expectOrigins(want map[string]string) {
	s.t.Helper()
	for origin, expected := range want {
		if got := s.fromOrigin(origin); got != expected {
			s.t.Errorf("from %q: %s, want %s", origin, got, expected)
		}
	}
}

const foreign = "403 origin_forbidden"

func TestR16_1_WithoutOriginsEveryCrossOriginRequestIsRefused(t *testing.T) {
	s := startServer(t, eliza, "websocket: {max_connections_per_user: 100}\n")
	s.expectOrigins(map[string]string{
		"": "open", "http://" + s.addr: "open", "https://evil.example": foreign, "null": foreign,
		"http://127.0.0.1:1": foreign, "http://" + s.addr + ".evil.example": foreign,
	})
}

func TestR16_2_OriginsAreAllowedByNameOnly(t *testing.T) {
	s := startServer(t, eliza, "websocket: {allowed_origins: [\"https://app.example.com\", \"https://*.example.org\"]}\n")
	s.expectOrigins(map[string]string{
		"https://app.example.com": "open", "https://a.example.org": "open", "http://" + s.addr: "open",
		"http://app.example.com": foreign, "https://example.org": foreign, "https://app.example.com.evil.example": foreign,
	})
	_, stderr := refusedConfig(t, eliza, "websocket: {allowed_origins: [\"*\"]}\n")
	if !strings.Contains(stderr, "websocket.allowed_origins") || !strings.Contains(stderr, "allow_any_origin") {
		t.Errorf("an origin of * is answered with %s", stderr)
	}
}

func TestR16_3_TurningTheCheckOffIsWarnedOf(t *testing.T) {
	s := startServer(t, eliza, "websocket: {allow_any_origin: true}\n")
	var warned bool
	for _, line := range s.log() {
		warned = warned || strings.Contains(line, "security") && strings.Contains(line, "allow_any_origin") && strings.Contains(line, "WARN")
	}
	if got := s.fromOrigin("https://evil.example"); got != "open" || !warned {
		t.Errorf("with the check off a foreign page gets %s; warned: %v", got, warned)
	}
}
