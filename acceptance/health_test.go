//go:build unix

package acceptance_test

import (
	"strings"
	"syscall"
	"testing"
)

// As a container's health check does: with the address, and none of the server's secrets.
func TestCheckHealthOfARunningServer(t *testing.T) {
	up := startUpstream(t)
	s := startServer(t, up.models("gate-20"))
	health := func() (code int, said string) {
		code, stdout, stderr := runParley(t, "check", "--health", "--operations-addr", strings.TrimPrefix(s.operations, "http://"))
		return code, stdout + stderr
	}
	if code, said := health(); code != 0 || said != "ready\n" {
		t.Errorf("of a server that is ready: %d, %s", code, said)
	}
	busy := s.dial(token("bob"))
	busy.open()
	busy.send("message.send", "message_id", "q", "text", "hi")
	up.release(t, 5)
	busy.until("message.delta")
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	busy.until("server.draining")
	if code, said := health(); code != 1 || !strings.HasSuffix(said, "not ready: draining: yes\n") {
		t.Errorf("of a server that drains: %d, %s", code, said)
	}
	up.release(t, 15)
	busy.until("message.completed")
	if code := s.wait(); code != 0 {
		t.Errorf("the server exits with %d", code)
	}
	if code, said := health(); code != 1 || !strings.Contains(said, "the server cannot be asked") {
		t.Errorf("of a server that has gone: %d, %s", code, said)
	}
}
