package sealed_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/parley-chat/parley/internal/store/sqlite"
)

// inFiles counts how often the marker can be read in the files of a folder.
func inFiles(t *testing.T, folder string) (n int) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(folder, "*"))
	must(t, err)
	for _, path := range paths {
		data, err := os.ReadFile(path)
		must(t, err)
		n += bytes.Count(data, []byte(marker))
	}
	return n
}

func TestNothingIsReadableOnTheDisk(t *testing.T) {
	folder := t.TempDir()
	raw, err := sqlite.Open(t.Context(), filepath.Join(folder, "p.db"))
	must(t, err)
	keys := parse(t, generate(t))
	populate(t, open(t, raw, keys), 3, 5)
	if n := inFiles(t, folder); n != 0 {
		t.Errorf("while the store is open the marker is there %d times", n)
	}
	must(t, raw.Close())
	if n := inFiles(t, folder); n != 0 {
		t.Errorf("the marker is there %d times", n)
	}
}

// TestResealLeavesNothingReadableOnTheDisk, once the store was closed, which empties its log.
func TestResealLeavesNothingReadableOnTheDisk(t *testing.T) {
	folder := t.TempDir()
	raw, err := sqlite.Open(t.Context(), filepath.Join(folder, "p.db"))
	must(t, err)
	sessions, of := populate(t, raw, 10, 20)
	if n := inFiles(t, folder); n < 10*20*2 {
		t.Errorf("before it is encrypted the marker is there %d times", n)
	}
	keys := parse(t, generate(t))
	reseal(t, raw, keys)
	if errs := readAll(t, open(t, raw, keys), sessions, of); errs != nil {
		t.Error(errs)
	}
	must(t, raw.Close())
	if n := inFiles(t, folder); n != 0 {
		t.Errorf("the marker is there %d times", n)
	}
}
