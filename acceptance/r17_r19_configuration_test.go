//go:build unix

package acceptance_test

import (
	"strings"
	"testing"
)

// refusedConfig starts parley serve with a configuration that it has to refuse, and gives what it says.
func refusedConfig(t *testing.T, sections ...string) (code int, stderr string) {
	t.Helper()
	_, path := configuration(t, sections...)
	code, _, stderr = runParley(t, "serve", "--config", path)
	if strings.Contains(stderr, "listening") {
		t.Errorf("a bad configuration listens: %s", stderr)
	}
	return code, stderr
}

func TestR17_4_WeakSecretsDoNotStart(t *testing.T) {
	for name, weak := range map[string]string{
		"short": "short", "31 characters": secret[:31], "repeated": strings.Repeat("a", 40),
		"placeholder": "changeme-changeme-changeme-changeme", "words": "your-secret-key-goes-here-please!",
		"32 hex digits of little entropy": "00000000111111110000000011111111",
	} {
		code, stderr := refusedConfig(t, eliza, "auth: {jwt_secret: \""+weak+"\"}\n")
		if code != 2 || !strings.Contains(stderr, "auth.jwt_secret") {
			t.Errorf("with a secret that is %s the server exits with %d: %s", name, code, stderr)
		}
		if strings.Contains(stderr, weak) {
			t.Errorf("the secret that is %s is printed: %s", name, stderr)
		}
	}
}

func TestR17_5_WeakSecretsAreAnsweredWithGuidance(t *testing.T) {
	_, stderr := refusedConfig(t, eliza, "auth: {jwt_secret: short}\n")
	if !strings.Contains(stderr, "parley keygen") {
		t.Errorf("there is no guidance: %s", stderr)
	}
	code, made, _ := runParley(t, "keygen")
	if code != 0 {
		t.Fatalf("keygen exits with %d", code)
	}
	startServer(t, eliza, "auth: {jwt_secret: \""+strings.TrimSpace(made)+"\"}\n")
}

func TestR19_2_AnInvalidConfigurationDoesNotStart(t *testing.T) {
	code, _ := refusedConfig(t, eliza, "session: {idle_timeout: -1s}\n")
	if code != 2 {
		t.Errorf("the server exits with %d", code)
	}
}

func TestR19_3_AllErrorsAreTold(t *testing.T) {
	code, stderr := refusedConfig(t, `
server: {addr: nowhere, operations_addr: 127.0.0.1:0}
auth: {jwt_secret: short}
websocket: {max_message_bytes: 1, ping_intervall: 3s}
session: {idle_timeout: soon}
llm:
  providers: [{id: p, type: telepathy}]
  models: [{id: m, targets: [q/x]}]
storage: {driver: papyrus}
log: {level: chatty}
`)
	if code != 2 {
		t.Errorf("the server exits with %d", code)
	}
	for _, key := range []string{
		"server.addr", "auth.jwt_secret", "websocket.max_message_bytes", "websocket.ping_intervall", "websocket.ping_interval",
		"session.idle_timeout", "llm.providers", "llm.models", "storage.driver", "log.level",
	} {
		if !strings.Contains(stderr, key) {
			t.Errorf("%s is not told of: %s", key, stderr)
		}
	}
}

func TestR19_4_RequiredKeysAreDemanded(t *testing.T) {
	_, stderr := refusedConfig(t, "auth: {}\n")
	for _, key := range []string{"auth.jwt_secret", "llm.providers", "llm.models"} {
		if !strings.Contains(stderr, key) {
			t.Errorf("%s is not demanded: %s", key, stderr)
		}
	}
}

func TestCheckCommand(t *testing.T) {
	_, path := configuration(t, eliza)
	if code, _, stderr := runParley(t, "check", "--config", path); code != 0 {
		t.Errorf("a good configuration is checked with %d: %s", code, stderr)
	}
	_, path = configuration(t, eliza, "storage: {sqlite: {path: /dev/null/parley.db}}\n")
	if code, _, stderr := runParley(t, "check", "--config", path); code != 1 {
		t.Errorf("an unreachable storage is checked with %d: %s", code, stderr)
	}
	if code, _, _ := runParley(t, "serve", "--nonsense"); code != 2 {
		t.Errorf("wrong usage exits with %d", code)
	}
}

func TestTokenCommand(t *testing.T) {
	s := startServer(t, eliza)
	code, made, stderr := runParley(t, "token", "--config", s.config, "--sub", "alice", "--name", "Alice", "--roles", "agent")
	if code != 0 {
		t.Fatalf("token exits with %d: %s", code, stderr)
	}
	c := s.dial(strings.TrimSpace(made))
	c.open()
	c.send("message.send", "message_id", "q", "text", "hi")
	if f := c.next(); f.str("message", "author", "id") != "alice" || f.str("message", "author", "name") != "Alice" {
		t.Errorf("the message is %v", f)
	}
}
