package parley_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/parley-chat/parley"
)

func TestVersionIsNeverEmpty(t *testing.T) {
	if release, commit := parley.Version(); release == "" || commit == "" {
		t.Errorf("the version is %q, the commit %q", release, commit)
	}
}

// The linker says nothing where there is no such variable.
func TestReleaseBuildsSetTheVersionThatThereIs(t *testing.T) {
	set := regexp.MustCompile(`-X[ =]["']?(\S+?)\.version=`)
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && d.Name() == ".git":
			return fs.SkipDir
		case !d.Type().IsRegular() || filepath.Ext(path) == ".go":
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range set.FindAllSubmatch(text, -1) {
			if string(m[1]) != module {
				t.Errorf("%s sets %s.version: it is %s.version", path, m[1], module)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
