package mongotest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// child is a FerretDB in a process of its own.
type child struct {
	// Held while the process starts and stops: all others want the same process.
	mu       sync.Mutex
	running  *exec.Cmd // nil: none is
	stdin    io.Closer // of the process, which ends with it
	upstream upstream
	err      error // why it did not start; it is not tried twice
}

// shared serves all tests of this process.
var shared child

func (c *child) start() (upstream, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.running == nil && c.err == nil {
		c.err = c.run()
	}
	return c.upstream, c.err
}

func (c *child) run() error {
	binary, err := build()
	if err != nil {
		return fmt.Errorf("build FerretDB: %w", err)
	}
	cmd := exec.Command(binary)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start FerretDB: %w", err)
	}
	kill := time.AfterFunc(patience, func() { cmd.Process.Kill() })
	defer kill.Stop()
	up, err := readUpstream(stdout)
	if err != nil {
		stdin.Close()
		return fmt.Errorf("start FerretDB: %w", errors.Join(err, cmd.Wait()))
	}
	c.running, c.stdin, c.upstream = cmd, stdin, up
	return nil
}

// readUpstream reads what FerretDB prints when it is ready.
func readUpstream(stdout io.Reader) (upstream, error) {
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		return upstream{}, err
	}
	up, err := parseUpstream(strings.TrimSpace(line))
	// An update reads, and writes what it has made of that: two at a time lose one, and an upsert may happen twice.
	up.turn = make(chan struct{}, 1)
	return up, err
}

// stop ends the process, if there is one, and waits for it.
func (c *child) stop() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.running == nil {
		return nil
	}
	cmd := c.running
	c.running = nil
	kill := time.AfterFunc(patience, func() { cmd.Process.Kill() })
	defer kill.Stop()
	c.stdin.Close()
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("FerretDB ended: %w", err)
	}
	return nil
}
