package main

import (
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
)

// answering gives the address of an operations listener that says so of its server.
func answering(t *testing.T, status int, body string) (addr string) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/readyz" {
			t.Errorf("it is asked for %s", r.URL)
		}
		w.WriteHeader(status)
		w.Write([]byte(body))
	}))
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

func TestCheckHealthAsksTheRunningServer(t *testing.T) {
	const ready = `{"status":"ready","storage":"ok","journal":"ok","draining":"no"}`
	for name, c := range map[string]struct {
		status int
		body   string
		code   int
		stderr string
	}{
		"ready":        {200, ready, 0, ""},
		"not ready":    {503, `{"status":"not ready","storage":"unavailable","journal":"ok","draining":"yes"}`, 1, "not ready: draining: yes, storage: unavailable\n"},
		"nothing said": {503, `{"status":"not ready"}`, 1, "not ready: 503 Service Unavailable\n"},
		"not JSON":     {404, "page not found", 1, "not ready: 404 Not Found\n"},
	} {
		t.Run(name, func(t *testing.T) {
			addr := answering(t, c.status, c.body)
			code, stdout, stderr := execute(t, nil, "check", "--health", "--operations-addr", addr)
			if code != c.code || !strings.HasSuffix(stderr, c.stderr) || (stdout == "ready\n") != (code == 0) {
				t.Errorf("exit code %d, stdout %q, stderr %q", code, stdout, stderr)
			}
		})
	}
}

// In a container's health check the configuration is what the image and the mounts give, and a secret may not be there.
func TestCheckHealthNeedsNothingButTheAddress(t *testing.T) {
	_, port, err := net.SplitHostPort(answering(t, 200, "{}"))
	if err != nil {
		t.Fatal(err)
	}
	environ := []string{"PARLEY_AUTH_JWT_SECRET_FILE=/no/such/file", "HTTP_PROXY=http://127.0.0.1:1"}
	for _, host := range []string{"", "0.0.0.0", "[::]", "127.0.0.1", "localhost"} {
		file := write(t, models+"server: {operations_addr: '"+host+":"+port+"'}\nstorage: {driver: mongodb}\n")
		if code, _, stderr := execute(t, environ, "check", "--health", "--config", file); code != 0 || stderr != "" {
			t.Errorf("%q: exit code %d, stderr %q", host, code, stderr)
		}
	}
}

func TestCheckHealthOfWhatCannotBeAsked(t *testing.T) {
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	for want, args := range map[string][]string{
		"no operations listener":                 {"--operations-addr", ""},
		"server.operations_addr: \"nowhere\" is": {"--operations-addr", "nowhere"},
		"has port 0":                             {"--operations-addr", "127.0.0.1:0"},
		"--config: cannot read":                  {"--config", filepath.Join(t.TempDir(), "none.yaml")},
		"the server cannot be asked":             {"--operations-addr", gone.Listener.Addr().String()},
	} {
		code, stdout, stderr := execute(t, nil, append([]string{"check", "--health"}, args...)...)
		if code != 1 || stdout != "" || !strings.Contains(stderr, want) { // Docker knows 0 and 1 only
			t.Errorf("%q: exit code %d, stdout %q, stderr %q, want %q", args, code, stdout, stderr, want)
		}
	}
}

func TestCheckHealthDoesNotWaitForEver(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0") // takes the connection, and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	code, _, stderr := execute(t, nil, "check", "--health", "--operations-addr", silent.Addr().String())
	if code != 1 || !strings.Contains(stderr, "deadline exceeded") {
		t.Errorf("exit code %d, stderr %q", code, stderr)
	}
}

func TestCompletionOfEveryShell(t *testing.T) {
	for shell, want := range map[string]string{
		"bash": "complete -o", "zsh": "#compdef parley", "fish": "complete -c parley", "powershell": "Register-ArgumentCompleter",
	} {
		code, stdout, stderr := execute(t, nil, "completion", shell)
		if code != 0 || stderr != "" || !strings.Contains(stdout, want) {
			t.Errorf("%s: exit code %d, stderr %q, no %q in %d bytes", shell, code, stderr, want, len(stdout))
		}
	}
	code, stdout, _ := execute(t, nil, "__complete", "check", "--he")
	if code != 0 || !strings.Contains(stdout, "--health\t") {
		t.Errorf("exit code %d, --he is completed as %q", code, stdout)
	}
}
