package journal_test

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/parley-chat/parley/internal/journal"
)

// disk is the real one with hooks around what is done to it.
type disk struct {
	boot string

	mu     sync.Mutex                  // guards the fields below
	before func(op, path string) error // may fail an operation, or make it wait; nil: nothing
	step   func()                      // called after everything that a kill could leave behind; nil: nothing
	counts map[string]int              // of operations
}

func newDisk() *disk { return &disk{boot: "first boot", counts: make(map[string]int)} }

func (d *disk) hook(before func(op, path string) error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.before = before
}

func (d *disk) watch(step func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.step = step
}

func (d *disk) count(op string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.counts[op]
}

// do runs an operation: it may fail, and a kill may follow it.
func (d *disk) do(op, path string, run func() error) error {
	d.mu.Lock()
	d.counts[op]++
	before, step := d.before, d.step
	d.mu.Unlock()
	if before != nil {
		if err := before(op, path); err != nil {
			return err
		}
	}
	err := run()
	if step != nil {
		step()
	}
	return err
}

func (d *disk) open(path string) (opened journal.File, err error) {
	err = d.do("open", path, func() error {
		opened, err = journal.OpenFile(path)
		return err
	})
	return diskFile{opened, d, path}, err
}

func (d *disk) remove(path string) error {
	return d.do("remove", path, func() error { return os.Remove(path) })
}

func (d *disk) killable() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.step != nil
}

type diskFile struct {
	journal.File
	disk *disk
	path string
}

// Write writes in pieces where a kill may come in between, and half of it where it fails.
func (f diskFile) Write(p []byte) (n int, err error) {
	pieces := [][]byte{p}
	if f.disk.killable() {
		pieces = [][]byte{p[:len(p)/3], p[len(p)/3 : len(p)-1], p[len(p)-1:]}
	}
	for i, piece := range pieces {
		op := "write"
		if i > 0 {
			op = "write on"
		}
		err := f.disk.do(op, f.path, func() error {
			_, err := f.File.Write(piece)
			return err
		})
		if err != nil {
			torn, _ := f.File.Write(piece[:len(piece)/2])
			return n + torn, err
		}
		n += len(piece)
	}
	return n, nil
}

func (f diskFile) WriteAt(p []byte, off int64) (n int, err error) {
	err = f.disk.do("mark", f.path, func() error {
		n, err = f.File.WriteAt(p, off)
		return err
	})
	return n, err
}

func (f diskFile) Sync() error {
	return f.disk.do("sync", f.path, f.File.Sync)
}

func (f diskFile) Truncate(size int64) error {
	return f.disk.do("truncate", f.path, func() error { return f.File.Truncate(size) })
}

// opened is a journal under test, with its log.
type opened struct {
	*journal.Journal
	logged *logBuffer
}

type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// open opens a journal and closes it at the test's end. The log has no time.
func (d *disk) openJournal(t testing.TB, cfg journal.Config) opened {
	t.Helper()
	logged := &logBuffer{}
	j, err := journal.OpenOn(cfg, slog.New(slog.NewTextHandler(logged, nil)), d.open, d.remove, d.boot)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return opened{j, logged}
}

func config(t testing.TB) journal.Config {
	return journal.Config{Path: filepath.Join(t.TempDir(), "events"), MaxBytes: 1 << 20, StoreID: "a store"}
}

// copyFolder gives a copy of a folder's files as a kill would leave them.
func copyFolder(t testing.TB, from string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	return to
}
