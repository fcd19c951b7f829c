//go:build unix

package acceptance_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/parley-chat/parley/internal/llm/llmtest"
)

// patience bounds every wait for something that has to come. It is long, so that a slow machine fails no test.
const patience = 30 * time.Second

// secret signs the tokens of the tests. It is random enough for the server to take it.
const secret = "q7ZJ3vT9mXc2RkW8yLhN4sDgB6fPeUaV"

// upstream is a language model in a process of its own.
type upstream struct{ url string }

func startUpstream(t testing.TB) *upstream {
	t.Helper()
	cmd := exec.Command(upstreamBinary)
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=50")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close() // which ends it
		if err := cmd.Wait(); err != nil {
			t.Errorf("the upstream: %v", err)
		}
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatalf("the upstream says nothing: %v", err)
	}
	return &upstream{url: strings.TrimSuffix(strings.TrimSpace(line), "/v1")}
}

func (u *upstream) requests(t testing.TB) []llmtest.Request {
	t.Helper()
	var all []llmtest.Request
	getJSON(t, u.url+"/requests", &all)
	return all
}

// await waits until the upstream has seen so much.
func (u *upstream) await(t testing.TB, what string, n int) {
	t.Helper()
	var counts llmtest.Counts
	getJSON(t, fmt.Sprintf("%s/await?%s=%d", u.url, what, n), &counts)
}

func (u *upstream) release(t testing.TB, words int) {
	t.Helper()
	resp, err := http.Post(fmt.Sprintf("%s/release?n=%d", u.url, words), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
}

func getJSON(t testing.TB, url string, v any) {
	t.Helper()
	client := http.Client{Timeout: patience}
	resp, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(v); err != nil {
		t.Fatalf("%s: %v", url, err)
	}
}

// models gives the llm section of a configuration with models by the names of the upstream's scripts.
func (u *upstream) models(names ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "llm:\n  providers:\n    - {id: up, type: openai, base_url: %q, api_key: %s}\n  models:\n", u.url+"/v1", keepSecret("a provider's API key", "upstream-key-9f2c"))
	for _, n := range names {
		fmt.Fprintf(&b, "    - {id: %s, name: %s, targets: [up/%s]}\n", n, n, n)
	}
	return b.String()
}

// eliza is the llm section of a configuration that needs no upstream.
const eliza = "llm:\n  providers: [{id: eliza, type: eliza}]\n  models: [{id: eliza, name: Eliza, targets: [eliza/doctor]}]\n"

// server is a running parley.
type server struct {
	t          testing.TB
	cmd        *exec.Cmd
	dir        string // its working directory
	config     string
	addr       string
	operations string
	exited     chan struct{}
	exitCode   int // once exited

	mu   sync.Mutex // guards the fields below
	logs []string
	more chan struct{} // closed, and made anew, with every line
}

// configuration gives a file for serve: the harness's part, and sections of the test's own.
func configuration(t testing.TB, sections ...string) (dir, path string) {
	t.Helper()
	dir = t.TempDir()
	path = filepath.Join(dir, "parley.yaml")
	own := strings.Join(sections, "\n")
	text := own
	for name, section := range map[string]string{
		"server:":  "server: {addr: 127.0.0.1:0, operations_addr: 127.0.0.1:0}\n",
		"auth:":    "auth: {jwt_secret: " + secret + "}\n",
		"storage:": "storage: {sqlite: {path: " + filepath.Join(dir, "parley.db") + "}}\n",
		"log:":     "log: {level: debug}\n",
		// Tests are faster than people. Those of the limits set their own.
		"rate_limit:": "rate_limit: {messages: {limit: 1000000, window: 1m}, requests: {limit: 1000000, window: 1m}, " +
			"admin: {limit: 900000, window: 1m}, unauthenticated: {limit: 1000000, window: 1m}}\n",
	} {
		if !strings.Contains("\n"+own, "\n"+name) {
			text += "\n" + section
		}
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir, path
}

// startServer starts parley serve with the sections of a configuration, and waits until it listens.
func startServer(t testing.TB, sections ...string) *server {
	t.Helper()
	dir, path := configuration(t, sections...)
	s := &server{t: t, dir: dir, config: path}
	s.start()
	return s
}

// start runs the server, for the first time or once more.
func (s *server) start() {
	s.t.Helper()
	s.launch("serve", "--config", s.config)
	s.addr = s.awaitLog("listening")["addr"].(string)
	if op, ok := s.awaitLog("operations listening")["addr"].(string); ok {
		s.operations = "http://" + op
	}
}

func (s *server) launch(args ...string) {
	s.t.Helper()
	s.cmd = exec.Command(parleyBinary, args...)
	s.cmd.Dir = s.dir
	s.cmd.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "PARLEY_")
	}), "GORACE=halt_on_error=1 exitcode=66 atexit_sleep_ms=50")
	stderr, err := s.cmd.StderrPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.mu.Lock()
	s.logs, s.more = nil, make(chan struct{})
	s.mu.Unlock()
	s.exited = make(chan struct{})
	go s.watch(s.cmd, stderr, s.exited)
	cmd, exited := s.cmd, s.exited
	s.t.Cleanup(func() {
		select {
		case <-exited:
		default:
			_ = cmd.Process.Signal(syscall.SIGTERM)
			select {
			case <-exited:
			case <-time.After(patience):
				_ = cmd.Process.Kill()
				<-exited
				s.t.Error("the server did not end on SIGTERM")
			}
		}
		if s.t.Failed() {
			s.t.Logf("the server's log:\n%s", strings.Join(s.log(), "\n"))
		}
		if s.exitCode == 66 {
			s.t.Error("the race detector has found a race in the server")
		}
	})
}

func (s *server) watch(cmd *exec.Cmd, stderr io.Reader, exited chan struct{}) {
	lines := bufio.NewScanner(stderr)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		tell(lines.Text())
		s.mu.Lock()
		s.logs = append(s.logs, lines.Text())
		close(s.more)
		s.more = make(chan struct{})
		s.mu.Unlock()
	}
	_ = cmd.Wait()
	s.exitCode = cmd.ProcessState.ExitCode()
	close(exited)
}

func (s *server) log() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.logs)
}

// findLog gives the first log entry with a message, if there is one.
func (s *server) findLog(msg string) (map[string]any, bool) {
	for _, line := range s.log() {
		var entry map[string]any
		if json.Unmarshal([]byte(line), &entry) == nil && entry["msg"] == msg {
			return entry, true
		}
	}
	return nil, false
}

// awaitLog waits for a log entry with a message.
func (s *server) awaitLog(msg string) map[string]any {
	s.t.Helper()
	timeout := time.After(patience)
	for {
		s.mu.Lock()
		more := s.more
		s.mu.Unlock()
		if entry, ok := s.findLog(msg); ok {
			return entry
		}
		select {
		case <-more:
		case <-s.exited:
			if entry, ok := s.findLog(msg); ok {
				return entry
			}
			s.t.Fatalf("the server ended with %d and never said %q:\n%s", s.exitCode, msg, strings.Join(s.log(), "\n"))
		case <-timeout:
			s.t.Fatalf("the server never said %q:\n%s", msg, strings.Join(s.log(), "\n"))
		}
	}
}

// stop sends a signal, waits for the end and gives the exit code.
func (s *server) stop(sig syscall.Signal) int {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
	return s.wait()
}

func (s *server) wait() int {
	s.t.Helper()
	select {
	case <-s.exited:
	case <-time.After(patience):
		s.t.Fatal("the server does not end")
	}
	return s.exitCode
}

// runParley runs a command to its end.
func runParley(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, parleyBinary, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = t.TempDir(), &out, &errs
	_ = cmd.Run()
	if ctx.Err() != nil {
		t.Fatalf("parley %q does not end", args)
	}
	tell(errs.String())
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// token makes a token of a user's, good for an hour.
func token(user string, roles ...string) string { return tokenFor(user, time.Hour, roles...) }

func tokenFor(user string, ttl time.Duration, roles ...string) string {
	signed, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
		"sub": user, "name": "Name of " + user, "roles": roles, "exp": jwt.NewNumericDate(time.Now().Add(ttl)),
	}).SignedString([]byte(secret))
	if err != nil {
		panic(err)
	}
	return keepSecret("a token", signed)
}
