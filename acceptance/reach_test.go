//go:build unix

package acceptance_test

import (
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/parley-chat/parley/internal/llm/llmtest"
)

// The authority of a provider's certificate is trusted where the operator says so.
func TestProviderWithItsOwnAuthority(t *testing.T) {
	handler := llmtest.NewHandler()
	private := httptest.NewTLSServer(handler)
	t.Cleanup(private.Close)
	t.Cleanup(handler.Close)
	file := filepath.Join(t.TempDir(), "ca.pem")
	authority := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: private.Certificate().Raw})
	if err := os.WriteFile(file, authority, 0o600); err != nil {
		t.Fatal(err)
	}
	reach := fmt.Sprintf("type: openai, base_url: %q, api_key: %s", private.URL+"/v1", key)
	s := startServer(t, section("retry: {max_attempts: 1}\n", []string{"id: trusted, ca_file: " + file + ", " + reach, "id: foreign, " + reach},
		model("trusted", "trusted/words-3"), model("foreign", "foreign/words-3")))
	c := s.dial(token("alice"))
	c.open("model", "trusted")
	if end := c.ask("q1", "hi"); end.str("status") != "complete" || c.text[end.str("message_id")] != llmtest.Text(3) {
		t.Errorf("with the authority's file the response ends as %v", end)
	}
	c.send("session.update", "model", "foreign")
	c.until("session.updated")
	end := c.ask("q2", "hi")
	if end.str("status") != "failed" || end.str("error", "code") != unavailable {
		t.Errorf("without it the response ends as %v", end)
	}
	entry := s.awaitEntry("a response failed", "message", end.str("message_id"))
	if !strings.Contains(fmt.Sprint(entry["error"]), "x509") {
		t.Errorf("the log says %v", entry)
	}
}

// A provider is asked through its proxy, and the proxy's password is nobody else's business.
func TestProviderBehindAProxy(t *testing.T) {
	handler := llmtest.NewHandler()
	asked := make(chan *http.Request, 1)
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.Clone(r.Context())
		handler.ServeHTTP(w, r)
	}))
	t.Cleanup(proxy.Close)
	t.Cleanup(handler.Close)
	const password = "hunter2-of-the-proxy"
	through := strings.Replace(proxy.URL, "://", "://bob:"+password+"@", 1)
	dead := "http://bob:" + password + "@" + deadAddr(t)
	reach := "type: openai, base_url: 'http://models.invalid/v1'"
	s := startServer(t, section("retry: {max_attempts: 1}\n", []string{
		fmt.Sprintf("id: there, proxy: %q, %s", through, reach), fmt.Sprintf("id: away, proxy: %q, %s", dead, reach),
		"id: none, proxy: none, " + reach,
	}, model("there", "there/words-3"), model("away", "away/words-3"), model("none", "none/words-3")))
	c := s.dial(token("alice"))
	c.open("model", "there")
	if end := c.ask("q1", "hi"); end.str("status") != "complete" || c.text[end.str("message_id")] != llmtest.Text(3) {
		t.Errorf("through the proxy the response ends as %v", end)
	}
	r := <-asked
	user, got, ok := (&http.Request{Header: http.Header{"Authorization": r.Header["Proxy-Authorization"]}}).BasicAuth()
	if r.Host != "models.invalid" || !ok || user != "bob" || got != password {
		t.Errorf("the proxy is asked for %s by %q", r.Host, user)
	}
	for _, id := range []string{"away", "none"} {
		c.send("session.update", "model", id)
		c.until("session.updated")
		if end := c.ask("q"+id, "hi"); end.str("status") != "failed" || end.str("error", "code") != unavailable {
			t.Errorf("%s: the response ends as %v", id, end)
		}
	}
	code, stdout, stderr := runParley(t, "config", "--config", s.config)
	if code != 0 || strings.Contains(stdout+stderr, password) {
		t.Errorf("parley config exits with %d and prints %s%s", code, stdout, stderr)
	}
	for _, line := range s.log() {
		if strings.Contains(line, password) {
			t.Errorf("the log says %s", line)
		}
	}
}

// What stands in the query of an address may be a secret: parley config takes it for one, and the log has to as well.
func TestSecretsInAddressesAreNotLogged(t *testing.T) {
	const inAddress = "sk-in-the-address"
	dead := deadAddr(t)
	provider := fmt.Sprintf("id: p, type: openai, base_url: 'http://%s/v1?key=%s'", dead, inAddress)
	moderation := fmt.Sprintf("moderation: {url: 'http://%s/check?token=%s', allow_on_error: true}\n", dead, inAddress)
	s := startServer(t, section("retry: {max_attempts: 1}\n"+moderation, []string{provider}, model("m", "p/m")))
	c := s.dial(token("alice"))
	c.open()
	if end := c.ask("q", "hi"); end.str("error", "code") != unavailable {
		t.Errorf("the response ends as %v", end)
	}
	for _, line := range s.log() {
		if strings.Contains(line, inAddress) {
			t.Errorf("the log says %s", line)
		}
	}
}

// A file that the server could not start with is found by parley check.
func TestCheckReadsTheAuthorities(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"/nowhere.pem", empty} {
		_, path := configuration(t, section("", []string{"id: p, type: openai, base_url: 'https://models.invalid/v1', ca_file: " + file},
			model("m", "p/m")))
		for _, command := range []string{"check", "serve"} {
			code, _, stderr := runParley(t, command, "--config", path)
			if code != 2 || !strings.Contains(stderr, "llm.providers[0].ca_file") {
				t.Errorf("%s exits with %d: %s", command, code, stderr)
			}
		}
	}
}
