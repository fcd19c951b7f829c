//go:build unix

package acceptance_test

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// readmeCommands gives the two commands that the README begins with.
func readmeCommands(t *testing.T) (dev, test string) {
	t.Helper()
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, block, _ := strings.Cut(string(readme), "```sh\n")
	block, _, _ = strings.Cut(block, "```")
	lines := strings.Split(strings.TrimSpace(block), "\n")
	if len(lines) != 2 {
		t.Fatalf("the README begins with %q", lines)
	}
	for i, line := range lines {
		line, _, _ = strings.Cut(line, "#")
		lines[i] = strings.TrimSpace(line)
	}
	return lines[0], lines[1]
}

// startDev runs a command that is to start parley dev, on ports and in a folder that are free, and gives the address
// of the chat page.
func startDev(t *testing.T, dir, command string) (url string) {
	t.Helper()
	cmd := exec.Command("sh", "-c", command)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(),
		"PARLEY_SERVER_ADDR=127.0.0.1:0", "PARLEY_SERVER_OPERATIONS_ADDR=127.0.0.1:0",
		"PARLEY_STORAGE_SQLITE_PATH="+filepath.Join(t.TempDir(), "parley.db"),
	)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // so that the shell's children end with it
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	found := make(chan string, 1)
	read := make(chan struct{})
	go func() {
		defer close(read)
		lines := bufio.NewScanner(stdout)
		address := regexp.MustCompile(`http://127\.0\.0\.1:\d+/#token=\S+`)
		for lines.Scan() {
			if u := address.FindString(lines.Text()); u != "" {
				found <- u
			}
		}
	}()
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGINT)
		<-read
		_ = cmd.Wait() // go run gives its own exit code for an interrupted program
	})
	select {
	case url = <-found:
	case <-read:
		t.Fatalf("%s ends without an address", command)
	case <-time.After(5 * time.Minute): // it may have to be compiled first
		t.Fatalf("%s prints no address", command)
	}
	return url
}

func TestReadmeFirstCommandIsAChat(t *testing.T) {
	dev, _ := readmeCommands(t)
	url := startDev(t, "..", dev)
	address, token, _ := strings.Cut(url, "/#token=")
	s := &server{t: t, addr: strings.TrimPrefix(address, "http://")}
	conn, _, err := websocket.Dial(t.Context(), "ws://"+s.addr+"/ws", &websocket.DialOptions{
		Subprotocols: []string{"parley.v1", "parley.bearer." + token},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseNow()
	c := newClient(t, conn)
	c.open()
	end := c.ask("q", "Men are all alike.")
	if end.str("status") != "complete" || c.text[end.str("message_id")] == "" {
		t.Errorf("the doctor's answer ends as %v", end)
	}
}

func TestReadmeConfigurationIsValid(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, block, _ := strings.Cut(string(readme), "```yaml\n")
	block, _, _ = strings.Cut(block, "```")
	path := filepath.Join(t.TempDir(), "parley.yaml")
	if err := os.WriteFile(path, []byte(block), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PARLEY_AUTH_JWT_SECRET", secret)
	t.Setenv("OPENAI_API_KEY", "sk-1")
	if code, _, stderr := runParley(t, "check", "--config", path); code != 0 {
		t.Errorf("the README's configuration is checked with %d: %s", code, stderr)
	}
}

func TestReadmeSecondCommandIsWhatCIRuns(t *testing.T) {
	_, test := readmeCommands(t)
	ci, err := os.ReadFile("../.ci/run")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(ci), "\n"+test+"\n") {
		t.Errorf(".ci/run does not call %q", test)
	}
}
