//go:build unix

package acceptance_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/parley-chat/parley/internal/store/sqlite"
)

// These show that a configured value reaches the part that it is for, and that a figure is of what it says.

// metricsText gives what /metrics answers.
func (s *server) metricsText() string {
	s.t.Helper()
	resp, err := http.Get(s.operations + "/metrics")
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	tell(string(body))
	return string(body)
}

// metrics gives the samples of /metrics, by name and labels.
func (s *server) metrics() map[string]string {
	s.t.Helper()
	samples := make(map[string]string)
	for line := range strings.Lines(s.metricsText()) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok && name != "#" {
			samples[name] = value
		}
	}
	return samples
}

// awaitMetrics asks until the samples are as wanted.
func (s *server) awaitMetrics(want map[string]string) {
	s.t.Helper()
	var got map[string]string
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		got = s.metrics()
		same := true
		for name, value := range want {
			same = same && got[name] == value
		}
		if same {
			return
		}
	}
	for name, value := range want {
		if got[name] != value {
			s.t.Errorf("%s is %q, want %s", name, got[name], value)
		}
	}
}

func TestMetricsTellWhatIsThere(t *testing.T) {
	up := startUpstream(t)
	s := startServer(t, up.models("gate-20"), "session: {idle_timeout: 100ms, grace_period: 1h, cleanup_interval: 100ms}\n")
	c := s.dial(token("alice"))
	c.open()
	c.send("message.send", "message_id", "q", "text", "hi")
	up.release(t, 5)
	c.until("message.delta")
	s.awaitMetrics(map[string]string{
		"parley_connections": "1", "parley_responses_in_progress": "1", `parley_sessions{state="active"}`: "1",
		`parley_sessions{state="inactive"}`: "0", "parley_session_messages": "2",
	})
	if got := s.metrics()["parley_session_bytes"]; got == "0" || got == "" {
		t.Errorf("a conversation takes %q bytes", got)
	}
	if got := s.metrics()["parley_journal_bytes"]; got == "0" || got == "" {
		t.Errorf("a response in progress takes %q bytes of the journal", got)
	}
	up.release(t, 15)
	c.until("message.completed")
	s.awaitMetrics(map[string]string{"parley_responses_in_progress": "0"})
	c.conn.Close(websocket.StatusNormalClosure, "")
	s.awaitMetrics(map[string]string{
		"parley_connections": "0", `parley_sessions{state="active"}`: "0", `parley_sessions{state="inactive"}`: "1",
	})
	if s.metrics()["go_goroutines"] == "" {
		t.Error("there are no figures of the Go runtime")
	}
}

func TestSessionsThatNobodyNeedsLeaveMemory(t *testing.T) {
	s := startServer(t, eliza, "session: {idle_timeout: 100ms, grace_period: 100ms, cleanup_interval: 100ms}\n")
	c := s.dial(token("alice"))
	c.open()
	c.ask("q", "hello")
	s.awaitMetrics(map[string]string{`parley_sessions{state="active"}`: "1", "parley_session_messages": "2"})
	c.conn.Close(websocket.StatusNormalClosure, "")
	s.awaitMetrics(map[string]string{
		`parley_sessions{state="active"}`: "0", `parley_sessions{state="inactive"}`: "0", "parley_session_messages": "0",
		"parley_session_bytes": "0",
	})
	d := s.dial(token("alice"))
	d.open("session_id", c.session)
	d.until("message.created")
	if f := d.until("message.created"); f.str("message", "text") != c.text[c.order[1]] {
		t.Errorf("back from storage the answer is %v", f)
	}
}

func TestJournalIsConfigured(t *testing.T) {
	up := startUpstream(t)
	s := startServer(t, up.models("gate-20"))
	if _, err := os.Stat(filepath.Join(s.dir, "parley.db.events", "00000001.segment")); err != nil {
		t.Errorf("the journal does not lie beside the database: %v", err)
	}
	dir := filepath.Join(t.TempDir(), "journal")
	other := startServer(t, up.models("gate-20", "words-30000"), fmt.Sprintf(
		"storage: {sqlite: {path: %s}, journal: {path: %s, max_bytes: 128KiB, sync: true}}\n",
		filepath.Join(t.TempDir(), "parley.db"), dir))
	segments, err := filepath.Glob(filepath.Join(dir, "*.segment"))
	if err != nil || len(segments) != 1 {
		t.Fatalf("in the configured folder are %v (%v)", segments, err)
	}
	if head, err := os.ReadFile(segments[0]); err != nil || !bytes.Contains(head, []byte(`"sync":true`)) {
		t.Errorf("the segment begins with %.200q (%v)", head, err)
	}

	// An answer that the journal has no room for fails, and what there is of it is told under a new epoch.
	c := other.dial(token("alice"))
	c.open("model", "words-30000")
	c.send("message.send", "message_id", "q", "text", "hi")
	c.closedWith(1012)
	again := other.dial(token("alice"))
	again.session, again.last, again.epoch = c.session, c.last, c.epoch
	f := frame{"type": "error"}
	for f.str("type") == "error" { // there may be no room yet
		again.send("session.open", "session_id", c.session, "after", c.last, "epoch", c.epoch)
		if f = again.next(); f.str("type") == "error" && f.at("error", "retryable") != true {
			t.Fatalf("after the journal was full, opening gives %v", f)
		}
	}
	if f["reset"] != true {
		t.Errorf("after the journal was full, opening gives %v", f)
	}
	for len(again.order) < 2 {
		again.next()
	}
	if id := again.order[1]; again.status[id] != "failed" || !strings.HasPrefix(again.text[id], c.text[c.order[1]]) {
		t.Errorf("the answer is %s with %d bytes, shown were %d", again.status[id], len(again.text[id]), len(c.text[c.order[1]]))
	}
	again.send("session.update", "model", "gate-20")
	again.until("session.updated")
	up.release(t, 20)
	if end := again.ask("q2", "and now?"); end.str("status") != "complete" {
		t.Errorf("the next answer ends with %v", end)
	}
}

func TestNumberOfResponseTimesIsConfigured(t *testing.T) {
	s := startServer(t, eliza, "session: {max_response_times: 2}\n")
	c := s.dial(token("alice"))
	c.open()
	for i := range 4 {
		c.ask(fmt.Sprint("q", i), "hello")
	}
	s.stop(syscall.SIGTERM)
	var told []float64
	for _, line := range s.log() {
		var entry map[string]any
		if json.Unmarshal([]byte(line), &entry) == nil && entry["msg"] == "a response has ended" {
			told = append(told, entry["responses"].(float64))
		}
	}
	if fmt.Sprint(told) != "[1 2 2 2]" {
		t.Errorf("after each of four answers there are %v response times", told)
	}
}

func TestSessionThresholdIsConfigured(t *testing.T) {
	s := startServer(t, eliza, "session: {warn_threshold: 1}\n")
	s.dial(token("alice")).open()
	s.dial(token("alice")).open()
	if entry := s.awaitLog("there are many sessions in memory"); entry["threshold"] != 1.0 || entry["sessions"] != 2.0 {
		t.Errorf("the log says %v", entry)
	}
}

func TestPromptIsConfigured(t *testing.T) {
	up := startUpstream(t)
	llm := strings.Replace(up.models("echo", "words-3"), "llm:\n", "llm:\n  default_model: words-3\n  system_prompt: Be brief.\n  history_tokens: 40\n", 1)
	s := startServer(t, llm)
	c := s.dial(token("alice"))
	if model := c.open().str("session", "model"); model != "words-3" {
		t.Errorf("the default model is %q", model)
	}
	c.ask("q1", strings.Repeat("long ", 20))
	c.ask("q2", "short")
	last := up.requests(t)[1].Messages
	if len(last) != 2 || last[0].Role != "system" || last[0].Content != "Be brief." || last[1].Content != "short" {
		t.Errorf("with 40 tokens of history the model is asked %v", last)
	}
}

func TestCheckpointSurvivesAKill(t *testing.T) {
	up := startUpstream(t)
	s := startServer(t, up.models("gate-20"))
	c := s.dial(token("alice"))
	c.open()
	c.send("message.send", "message_id", "q", "text", "hi")
	up.release(t, 5)
	c.untilWords(1)
	answer, seen := c.order[1], c.text[c.order[1]]
	s.awaitStored(c.session, answer, seen)
	s.stop(syscall.SIGKILL)
	s.start()
	d := s.dial(token("alice"))
	d.open("session_id", c.session)
	d.until("message.created")
	d.until("message.created")
	if d.status[answer] != "interrupted" || !strings.HasPrefix(d.text[answer], seen) {
		t.Errorf("after a kill the response is %s %q, the client had seen %q", d.status[answer], d.text[answer], seen)
	}
}

// awaitStored looks into the server's database until a message's text begins with what is given.
func (s *server) awaitStored(session, message, text string) {
	s.t.Helper()
	store, err := sqlite.Open(s.t.Context(), filepath.Join(s.dir, "parley.db"))
	if err != nil {
		s.t.Fatal(err)
	}
	defer store.Close()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if m, err := store.Message(s.t.Context(), session, message); err == nil && strings.HasPrefix(m.Text, text) {
			return
		}
	}
	s.t.Fatalf("message %s is not stored", message)
}

// quietly pings, and takes what comes until the answer.
func (c *client) quietly() {
	c.t.Helper()
	c.send("ping")
	c.until("pong")
}

func TestLimitsOfConnectionsAreConfigured(t *testing.T) {
	s := startServer(t, eliza, "websocket: {max_connections: 2, max_message_bytes: 1KiB, ping_interval: 1s, pong_timeout: 1s}\n")
	c := s.dial(token("alice"))
	// coder/websocket answers pings only while somebody reads: this one does not read.
	deaf := s.dial(token("bob"))
	if _, resp, err := s.tryDial(token("carol"), nil); err == nil || problem(t, resp) != "429 connection_limit" {
		t.Errorf("a connection too many gets %v", resp)
	}
	for pace := time.Tick(20 * time.Millisecond); s.metrics()["parley_connections"] != "1"; <-pace {
		c.quietly()
	}
	deaf.closedWith(4408)
	c.sendRaw(`{"type":"ping","x":"` + strings.Repeat("x", 1024) + `"}`)
	if f := c.next(); f.str("error", "code") != "message_too_large" {
		t.Errorf("a frame too big is answered with %v", f)
	}
	c.closedWith(1009)
}

func TestPagesAreConfigured(t *testing.T) {
	csp := func(s *server) (int, string) {
		resp, err := http.Get("http://" + s.addr + "/")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode, resp.Header.Get("Content-Security-Policy")
	}
	if status, policy := csp(startServer(t, eliza)); status != 200 || !strings.Contains(policy, "frame-ancestors 'none'") {
		t.Errorf("the page is answered with %d and the policy %s", status, policy)
	}
	if _, policy := csp(startServer(t, eliza, "ui: {frame_ancestors: [\"https://app.example.com\"]}\n")); !strings.Contains(policy, "frame-ancestors https://app.example.com") {
		t.Errorf("the policy is %s", policy)
	}
	if status, _ := csp(startServer(t, eliza, "ui: {enabled: false}\n")); status != 404 {
		t.Errorf("without pages / is answered with %d", status)
	}
}

func TestTrustedProxiesAreConfigured(t *testing.T) {
	header := func() http.Header {
		return http.Header{
			"Origin": {"https://chat.example.com"}, "X-Forwarded-Host": {"chat.example.com"}, "X-Forwarded-Proto": {"https"},
		}
	}
	s := startServer(t, eliza)
	if _, resp, err := s.tryDial(token("alice"), header()); err == nil || problem(t, resp) != foreign {
		t.Errorf("a proxy that nobody trusts gets %v", resp)
	}
	s = startServer(t, eliza, "server: {addr: 127.0.0.1:0, operations_addr: 127.0.0.1:0, trusted_proxies: [127.0.0.0/8]}\n")
	if _, resp, err := s.tryDial(token("alice"), header()); err != nil {
		t.Errorf("a trusted proxy gets %v: %v", resp, err)
	}
}

// writeCertificate writes a new certificate to cert.pem in a folder, and its key to key.pem.
func writeCertificate(t *testing.T, dir string) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"chat.example.com"},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]*pem.Block{"cert.pem": {Type: "CERTIFICATE", Bytes: der}, "key.pem": {Type: "PRIVATE KEY", Bytes: private}}
	for name, block := range files {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// dialTLS connects to a server that has to have a certificate.
func (s *server) dialTLS(cert *x509.Certificate) *client {
	s.t.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	s.t.Cleanup(transport.CloseIdleConnections)
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	conn, _, err := websocket.Dial(ctx, "wss://"+s.addr+"/ws", &websocket.DialOptions{
		HTTPClient: &http.Client{Transport: transport}, HTTPHeader: http.Header{"Authorization": {"Bearer " + token("alice")}},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { conn.CloseNow() })
	return newClient(s.t, conn)
}

func TestTLSIsConfigured(t *testing.T) {
	dir := t.TempDir()
	cert := writeCertificate(t, dir)
	tlsKeys := "tls: {cert_file: " + dir + "/cert.pem, key_file: " + dir + "/key.pem}"
	s := startServer(t, eliza, "server: {addr: 127.0.0.1:0, operations_addr: 127.0.0.1:0, "+tlsKeys+"}\n")
	c := s.dialTLS(cert)
	c.open()
	c.ask("q", "hello")

	renewed := writeCertificate(t, dir)
	if expires, _ := s.awaitLog("the certificate was renewed")["expires"].(string); !strings.HasPrefix(expires, renewed.NotAfter.Format(time.DateOnly)) {
		t.Errorf("the certificate that is served expires at %s", expires)
	}
	s.dialTLS(renewed).open()
	c.ask("q2", "are you there?") // as it was before

	code, stderr := refusedConfig(t, eliza, "server: {tls: {cert_file: "+dir+"/key.pem, key_file: "+dir+"/cert.pem}}\n")
	if code != 2 || !strings.Contains(stderr, "server.tls") {
		t.Errorf("with the files swapped the server exits with %d: %s", code, stderr)
	}
}

func TestLogIsConfigured(t *testing.T) {
	dir, path := configuration(t, eliza, "server: {addr: nowhere:0, operations_addr: \"\"}\n", "log: {format: text, level: error}\n")
	s := &server{t: t, dir: dir, config: path}
	s.launch("serve", "--config", path, "--addr", "127.0.0.1:0", "--log-level", "info")
	for _, ok := s.findText("level=INFO msg=listening"); !ok; _, ok = s.findText("level=INFO msg=listening") {
		select {
		case <-s.exited:
			t.Fatalf("the server ends: %s", s.log())
		default:
		}
	}
}

func (s *server) findText(text string) (line string, ok bool) {
	for _, line := range s.log() {
		if strings.Contains(line, text) {
			return line, true
		}
	}
	return "", false
}
