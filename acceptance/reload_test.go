//go:build unix

package acceptance_test

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// rewrite replaces a part of the server's configuration, and has the server read it again.
func (s *server) rewrite(old, new string) {
	s.t.Helper()
	data, err := os.ReadFile(s.config)
	if err != nil {
		s.t.Fatal(err)
	}
	if !strings.Contains(string(data), old) {
		s.t.Fatalf("%q is not in the configuration", old)
	}
	if err := os.WriteFile(s.config, []byte(strings.ReplaceAll(string(data), old, new)), 0o600); err != nil {
		s.t.Fatal(err)
	}
	if err := s.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		s.t.Fatal(err)
	}
}

func TestSIGHUPTakesOverOriginsLimitsAndTheLogLevel(t *testing.T) {
	s := startServer(t, eliza, "websocket: {allowed_origins: [\"https://old.example\"]}\nlog: {level: info}\n"+
		"rate_limit: {requests: {limit: 1000, window: 1h}, admin: {limit: 2, window: 1h}}\n")
	ann := token("ann", "admin")
	if codes, _ := s.codesOf(3, adminStats, ann); codes[2] != tooMany {
		t.Errorf("three requests where two are allowed: %v", codes)
	}
	s.expectOrigins(map[string]string{"https://old.example": "open", "https://new.example": foreign})
	if _, ok := s.findLog("connected"); ok {
		t.Error("at level info there is a line of level debug")
	}

	s.rewrite("limit: 2,", "limit: 0,") // nothing of a configuration that is not valid
	if f := s.awaitLog("the configuration was not taken over: it is not valid"); !strings.Contains(fmt.Sprint(f["error"]), "rate_limit.admin.limit") {
		t.Errorf("the log says %v", f)
	}
	s.expectOrigins(map[string]string{"https://old.example": "open"})

	s.rewrite("limit: 0,", "limit: 3,")
	s.awaitLog("configuration taken over")
	if codes, _ := s.codesOf(2, adminStats, ann); codes[0] != "200" || codes[1] != tooMany {
		t.Errorf("after the limit was raised by one: %v", codes)
	}
	data, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.NewReplacer("old.example", "new.example", "level: info", "level: debug").Replace(string(data)) +
		"\nsession: {idle_timeout: 7m}\n"
	s.rewrite(string(data), changed)
	warned := s.awaitLog("some keys have changed that take a restart")
	if got := fmt.Sprint(warned["keys"]); got != "[session.idle_timeout]" {
		t.Errorf("a restart is needed for %s", got)
	}
	s.expectOrigins(map[string]string{"https://old.example": foreign, "https://new.example": "open"})
	s.awaitLog("connected")
}

func TestSIGHUPWarnsOfTheCheckThatIsTurnedOff(t *testing.T) {
	s := startServer(t, eliza, "websocket: {allow_any_origin: false}\n")
	s.rewrite("allow_any_origin: false", "allow_any_origin: true")
	s.awaitLog("security: websocket.allow_any_origin is on: any page in the world may connect with its user's token")
	s.expectOrigins(map[string]string{"https://evil.example": "open"})
}

// The list of origins may be changed while pages connect.
func TestR13_4_OriginsChangeUnderLoad(t *testing.T) {
	s := startServer(t, eliza, "websocket: {allowed_origins: [\"https://old.example\"], max_connections_per_user: 1000}\n")
	c := s.dial(token("alice"))
	c.open()
	var asking sync.WaitGroup
	done := make(chan struct{})
	for range 4 {
		asking.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				for _, origin := range []string{"https://old.example", "https://new.example"} {
					if r := s.api("GET", "/api/v1/models", token("alice"), nil, "Origin", origin); r.code() != "200" && r.code() != foreign {
						t.Errorf("from %s: %s", origin, r.raw)
					}
				}
			}
		})
	}
	old, new := "https://old.example", "https://new.example"
	for range 5 {
		s.rewrite(old, new)
		for s.fromOrigin(old) != foreign || s.fromOrigin(new) != "open" {
		}
		old, new = new, old
	}
	close(done)
	asking.Wait()
	c.quiet()
}
