package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/parley-chat/parley"
	"github.com/parley-chat/parley/config"
	"github.com/parley-chat/parley/internal/auth"
	"github.com/parley-chat/parley/internal/seal"
)

func TestMain(m *testing.M) {
	if os.Getenv("PARLEY_TEST_CHILD") != "" {
		drainForEver()
	}
	goleak.VerifyTestMain(m)
}

// drainForEver is a process that the first signal does not end.
func drainForEver() {
	ctx, _ := untilSignal(context.Background())
	fmt.Println("ready")
	<-ctx.Done()
	fmt.Println("draining")
	select {}
}

const secret = "MHCBZVZB4XQIBVVRPZSWRFXKPRNQ3XGD7Y2KAEF5LJUWTVCSO6QD"

const models = `
llm:
  providers: [{id: eliza, type: eliza}]
  models: [{id: eliza, targets: [eliza/doctor]}]
`

// execute runs a command to its end in a folder of its own.
func execute(t *testing.T, environ []string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errOut bytes.Buffer
	err := run(t.Context(), args, environ, strings.NewReader(""), &out, &errOut)
	return exitCode(err), out.String(), errOut.String()
}

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "parley.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestWrongUsage(t *testing.T) {
	environ := []string{"PARLEY_AUTH_JWT_SECRET=" + secret}
	for want, args := range map[string][]string{
		"name a command":                 {},
		`unknown command "srve"`:         {"srve"},
		"unknown flag: --nonsense":       {"serve", "--nonsense"},
		`unknown command "now"`:          {"serve", "now"},
		"flag needs an argument: --addr": {"serve", "--addr"},
		"--set needs KEY=VALUE":          {"check", "--set", "server.addr"},
		"--sub is required":              {"token"},
		`invalid argument "soon"`:        {"token", "--sub", "a", "--ttl", "soon"},
		"less than a second":             {"token", "--sub", "a", "--ttl", "0s"},
		"say --encryption, too":          {"keygen", "--extend", "keys.json"},
	} {
		code, stdout, stderr := execute(t, environ, args...)
		if code != 2 || stdout != "" || !strings.Contains(stderr, want) {
			t.Errorf("%q: exit code %d, stdout %q, stderr %q, want %q", args, code, stdout, stderr, want)
		}
	}
}

func TestHelp(t *testing.T) {
	code, stdout, stderr := execute(t, nil, "help")
	if code != 0 || stderr != "" || !strings.Contains(stdout, "keygen") {
		t.Errorf("exit code %d, stdout %q, stderr %q", code, stdout, stderr)
	}
}

func TestVersion(t *testing.T) {
	code, stdout, _ := execute(t, nil, "version")
	if code != 0 || !strings.HasPrefix(stdout, "parley ") || !strings.Contains(stdout, "\ncommit ") ||
		!strings.Contains(stdout, runtime.Version()) {
		t.Errorf("exit code %d, stdout %q", code, stdout)
	}
}

func TestR17_5_KeygenPrintsASecretThatIsAccepted(t *testing.T) {
	_, first, _ := execute(t, nil, "keygen")
	code, second, _ := execute(t, nil, "keygen")
	made := strings.TrimSuffix(second, "\n")
	if code != 0 || first == second || strings.ContainsAny(made, "\n ") {
		t.Fatalf("exit code %d, %q and %q", code, first, second)
	}
	environ := []string{"PARLEY_AUTH_JWT_SECRET=" + made, "PARLEY_STORAGE_SQLITE_PATH=" + filepath.Join(t.TempDir(), "p.db")}
	if code, stdout, stderr := execute(t, environ, "check", "--config", write(t, models)); code != 0 || stdout != "ok\n" {
		t.Errorf("exit code %d, stdout %q, stderr %q", code, stdout, stderr)
	}
}

func TestKeygenPrintsAKeyset(t *testing.T) {
	code, first, stderr := execute(t, nil, "keygen", "--encryption")
	if code != 0 || stderr != "" {
		t.Fatalf("exit code %d, stderr %q", code, stderr)
	}
	old, err := seal.Parse([]byte(first))
	if err != nil {
		t.Fatal(err)
	}
	code, second, _ := execute(t, nil, "keygen", "--encryption", "--extend", write(t, first))
	rotated, err := seal.Parse([]byte(second))
	if code != 0 || err != nil {
		t.Fatalf("exit code %d, %v", code, err)
	}
	sealed, err := old.Seal("text")
	if err != nil {
		t.Fatal(err)
	}
	if text, err := rotated.Open(sealed); err != nil || text != "text" || rotated.Primary() == old.Primary() {
		t.Errorf("the new keyset opens it as %q, %v; its key is %d, was %d", text, err, rotated.Primary(), old.Primary())
	}
}

func TestKeygenExtendsKeysetsOnly(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "none")
	empty := write(t, "") // as the shell leaves it where the output is to go to the same file
	for path, want := range map[string]string{
		missing: missing, empty: empty + ": the keyset is empty", write(t, secret): "this is no keyset",
	} {
		code, stdout, stderr := execute(t, nil, "keygen", "--encryption", "--extend", path)
		if code != 1 || stdout != "" || !strings.Contains(stderr, want) || strings.Contains(stderr, secret) {
			t.Errorf("%s: exit code %d, stdout %q, stderr %q", want, code, stdout, stderr)
		}
	}
}

func TestToken(t *testing.T) {
	file := write(t, "auth: {jwt_secret: "+secret+", issuer: us, audience: chat}\n") // no providers: they may be elsewhere
	code, stdout, stderr := execute(t, []string{"PARLEY_CONFIG=" + file},
		"token", "--sub", "alice", "--name", "Alice", "--roles", "admin, agent,", "--ttl", "5m")
	if code != 0 || stderr != "" {
		t.Fatalf("exit code %d, stderr %q", code, stderr)
	}
	verifier, err := auth.New(config.Auth{JWTSecret: secret, Issuer: "us", Audience: "chat"}, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	user, err := verifier.Verify(strings.TrimSuffix(stdout, "\n"))
	if err != nil {
		t.Fatal(err)
	}
	left := time.Until(user.ExpiresAt)
	if user.ID != "alice" || user.Name != "Alice" || strings.Join(user.Roles, " ") != "admin agent" ||
		user.TokenID == "" || left <= 0 || left > 5*time.Minute {
		t.Errorf("got %+v", user)
	}
}

func TestTokenNeedsASecretThatIsStrong(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "none")
	publicKey := write(t, "-----BEGIN PUBLIC KEY-----\n")
	for want, environ := range map[string][]string{
		"auth.jwt_secret: is required":          nil,
		"auth.jwt_secret: has 6 characters":     {"PARLEY_AUTH_JWT_SECRET=hunter"},
		"--config: cannot read":                 {"PARLEY_CONFIG=" + missing, "PARLEY_AUTH_JWT_SECRET=" + secret},
		"only tokens of auth.jwt_secret can be": {"PARLEY_AUTH_JWT_PUBLIC_KEY_FILE=" + publicKey},
	} {
		code, stdout, stderr := execute(t, environ, "token", "--sub", "a")
		if code != 2 || stdout != "" || !strings.Contains(stderr, want) || strings.Contains(stderr, "hunter") {
			t.Errorf("%q: exit code %d, stdout %q, stderr %q", want, code, stdout, stderr)
		}
	}
}

func TestConfigPrintsTheEffectiveConfiguration(t *testing.T) {
	file := write(t, models+"log: {level: warn}\nsession: {idle_timeout: 1m}\n")
	code, stdout, stderr := execute(t, []string{"PARLEY_AUTH_JWT_SECRET=" + secret, "PARLEY_LOG_LEVEL=debug"},
		"config", "--config", file, "--set", "session.warn_threshold=7")
	if code != 0 || stderr != "" || strings.Contains(stdout, secret) {
		t.Errorf("exit code %d, stdout %q, stderr %q", code, stdout, stderr)
	}
	for _, want := range []string{"jwt_secret: REDACTED", "level: debug", "idle_timeout: 1m0s", "warn_threshold: 7"} {
		if !strings.Contains(stdout, want+"\n") {
			t.Errorf("no %q in %s", want, stdout)
		}
	}
	code, stdout, stderr = execute(t, nil, "config")
	if code != 2 || !strings.Contains(stdout, "addr: 127.0.0.1:8080") || !strings.Contains(stderr, "llm.providers: ") {
		t.Errorf("exit code %d, stdout %q, stderr %q", code, stdout, stderr)
	}
}

func TestConfigPrintsAnExample(t *testing.T) {
	code, stdout, _ := execute(t, nil, "config", "--example")
	if code != 0 || stdout != config.Example() {
		t.Errorf("exit code %d, stdout %q", code, stdout)
	}
}

func TestR19_2_ServeAndCheckRefuseABadConfigurationWithAllItsProblems(t *testing.T) {
	file := write(t, "auth: {jwt_secret: hunter2hunter2}\nserver: {adr: x}\nlog: {level: loud}\n")
	for _, command := range []string{"serve", "check", "dev"} {
		code, stdout, stderr := execute(t, nil, command, "--config", file, "--addr", "nowhere")
		if code != 2 || stdout != "" || strings.Contains(stderr, "listening") || strings.Contains(stderr, "hunter2") {
			t.Errorf("%s: exit code %d, stdout %q, stderr %q", command, code, stdout, stderr)
		}
		for _, want := range []string{"\n  auth.jwt_secret: ", "\n  server.adr: ", "server.addr?\n", "\n  log.level: ",
			"\n  server.addr: ", "parley keygen"} {
			if !strings.Contains(stderr, want) {
				t.Errorf("%s: no %q in %s", command, want, stderr)
			}
		}
	}
}

func TestR17_4_ServeRefusesAWeakSecret(t *testing.T) {
	code, _, stderr := execute(t, []string{"PARLEY_AUTH_JWT_SECRET=" + strings.Repeat("changeme", 5)},
		"serve", "--config", write(t, models))
	if code != 2 || !strings.Contains(stderr, "auth.jwt_secret: is a placeholder") || strings.Contains(stderr, "changeme") {
		t.Errorf("exit code %d, stderr %q", code, stderr)
	}
}

func TestCheckFailsWithoutStorage(t *testing.T) {
	environ := []string{"PARLEY_AUTH_JWT_SECRET=" + secret, "PARLEY_STORAGE_SQLITE_PATH=" + filepath.Join(os.DevNull, "p.db")}
	code, stdout, stderr := execute(t, environ, "check", "--config", write(t, models))
	if code != 1 || stdout != "" || !strings.Contains(stderr, "storage") {
		t.Errorf("exit code %d, stdout %q, stderr %q", code, stdout, stderr)
	}
}

func TestExitCodeOfAForcedShutdown(t *testing.T) {
	if code := exitCode(fmt.Errorf("run: %w", parley.ErrForced)); code != 3 {
		t.Errorf("got %d", code)
	}
}

// startDev runs parley dev, and gives the page's address and all that is printed with it. The test has to stop it.
func startDev(t *testing.T, environ ...string) (page *url.URL, printed string, stop func() (stderr string)) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	stdout, writer := io.Pipe()
	var stderr bytes.Buffer
	done := make(chan error, 1)
	go func() {
		done <- run(ctx, []string{"dev", "--addr", "127.0.0.1:0", "--operations-addr", ""}, environ, nil, writer, &stderr)
		writer.Close()
	}()
	lines := bufio.NewScanner(stdout)
	for lines.Scan() && !strings.HasPrefix(lines.Text(), "Press Ctrl-C") {
		printed += lines.Text() + "\n"
		if u, err := url.Parse(strings.TrimSpace(lines.Text())); err == nil && u.Scheme == "http" {
			page = u
		}
	}
	go io.Copy(io.Discard, stdout)
	if page == nil {
		t.Fatalf("no address is printed: %v, %s", <-done, stderr.String())
	}
	return page, printed, func() string {
		cancel()
		if err := <-done; exitCode(err) != 0 {
			t.Errorf("dev ends with %v", err)
		}
		return stderr.String()
	}
}

// get asks a server without keeping the connection.
func get(t *testing.T, url, token string) (status int, body string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+token)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(data)
}

func TestDevServesThePageItNames(t *testing.T) {
	t.Chdir(t.TempDir())
	page, printed, stop := startDev(t, noOllama)
	token, ok := strings.CutPrefix(page.Fragment, "token=")
	if !ok || strings.Count(token, ".") != 2 || page.Path != "/" {
		t.Errorf("the address is %s", page)
	}
	if !strings.Contains(printed, "\nModels: eliza.\n") {
		t.Errorf("dev prints %s", printed)
	}
	if status, _ := get(t, page.String(), ""); status != http.StatusOK {
		t.Errorf("the page answers %d", status)
	}
	if log := stop(); !strings.Contains(log, "msg=listening") {
		t.Errorf("the log is %s", log)
	}
	if info, err := os.Stat("parley-data"); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder is %v, %v", info, err)
	}
}

func TestDevServesTheModelsItNames(t *testing.T) {
	t.Chdir(t.TempDir())
	page, printed, stop := startDev(t, "OPENAI_API_KEY=sk-hunter2", fakeOllama(t, "llama3.2:3b"))
	if !strings.Contains(printed, "\nModels: eliza, gpt-5.1 (OPENAI_API_KEY), llama3.2:3b (Ollama).\n") {
		t.Errorf("dev prints %s", printed)
	}
	status, body := get(t, page.JoinPath("api/v1/models").String(), strings.TrimPrefix(page.Fragment, "token="))
	const want = `{"items":[{"id":"eliza","name":"Eliza","default":true},{"id":"gpt-5.1","name":"GPT-5.1"},` +
		`{"id":"llama3.2:3b","name":"llama3.2:3b"}]}`
	if status != http.StatusOK || strings.TrimSpace(body) != want {
		t.Errorf("the models are %d %s, want %s", status, body, want)
	}
	if log := stop(); strings.Contains(log+printed, "hunter2") {
		t.Errorf("the key is shown: %s%s", printed, log)
	}
}

func TestDevStaysOnThisMachine(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, args := range [][]string{
		{"--addr", "0.0.0.0:0"}, {"--addr", ":0"}, {"--addr", "192.0.2.1:80"}, {"--operations-addr", "[::]:0"},
		{"--set", "server.addr=example.com:80"},
	} {
		code, stdout, stderr := execute(t, []string{noOllama}, append([]string{"dev"}, args...)...)
		if code != 2 || stdout != "" || !strings.Contains(stderr, "this machine only") {
			t.Errorf("%q: exit code %d, stdout %q, stderr %q", args, code, stdout, stderr)
		}
	}
}

func TestR05_3_APortInUseFailsAndNamesItsKey(t *testing.T) {
	t.Chdir(t.TempDir())
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for key, args := range map[string][]string{
		"server.addr":            {"dev", "--addr", taken.Addr().String(), "--operations-addr", ""},
		"server.operations_addr": {"dev", "--addr", "127.0.0.1:0", "--operations-addr", taken.Addr().String()},
	} {
		code, stdout, stderr := execute(t, []string{noOllama}, args...)
		if code != 1 || stdout != "" || !strings.Contains(stderr, key+": ") || strings.Contains(stderr, "msg=listening") {
			t.Errorf("%s: exit code %d, stdout %q, stderr %q", key, code, stdout, stderr)
		}
	}
}
