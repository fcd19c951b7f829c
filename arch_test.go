package parley_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/parley-chat/parley"

// floors are those of ARCHITECTURE.md, by folder; a folder counts for those under it. Imports go down only.
var floors = map[string]int{
	"chat":               0,
	"config":             1,
	"internal/seal":      1,
	"internal/forwarded": 1,
	"internal/telemetry": 1,
	"internal/wire":      2,
	"internal/audit":     2,
	"internal/auth":      2,
	"internal/origin":    2,
	"internal/llm":       2,
	"internal/store":     2,
	"internal/journal":   2,
	"internal/ratelimit": 2,
	"internal/gate":      3,
	"internal/session":   3,
	"internal/userdata":  3,
	"internal/router":    4,
	"internal/websocket": 5,
	"internal/httpapi":   5,
	"internal/ui":        5,
	".":                  6,
	"cmd/parley":         7,
}

// withinTree are the folders whose packages are one floor and import each other: what speaks to a model or a database
// stands under what they share.
var withinTree = []string{"internal/llm", "internal/store"}

// forTests are the packages that only tests may import.
var forTests = []string{"internal/llm/llmtest", "internal/store/storetest", "internal/store/mongo/mongotest", "internal/ui/uitest"}

func floorOf(t *testing.T, folder string) int {
	t.Helper()
	for f := folder; ; f = filepath.Dir(f) {
		if n, ok := floors[f]; ok && (f != "." || folder == ".") {
			return n
		}
		if f == "." {
			t.Fatalf("%s stands on no floor: put it into ARCHITECTURE.md and this test", folder)
		}
	}
}

func sameTree(a, b string) bool {
	for _, tree := range withinTree {
		if isUnder(a, tree) && isUnder(b, tree) {
			return true
		}
	}
	return false
}

func isUnder(folder, tree string) bool { return folder == tree || strings.HasPrefix(folder, tree+"/") }

// imports gives what each Go file under the module imports, by the file's path.
func imports(t *testing.T) map[string][]string {
	t.Helper()
	found := make(map[string][]string)
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata"):
			return fs.SkipDir
		case d.IsDir() || !strings.HasSuffix(path, ".go"):
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, spec := range file.Imports {
			name, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			found[path] = append(found[path], name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestImportsGoDownOnly(t *testing.T) {
	checked := 0
	for path, names := range imports(t) {
		if strings.HasSuffix(path, "_test.go") || isUnder(path, "acceptance") {
			continue
		}
		folder := filepath.ToSlash(filepath.Dir(path))
		for _, name := range names {
			if folder == "chat" && strings.Contains(strings.Split(name, "/")[0], ".") {
				t.Errorf("%s imports %s: chat stands on the standard library alone", path, name)
			}
			if name != module && !strings.HasPrefix(name, module+"/") {
				continue
			}
			to := strings.TrimPrefix(strings.TrimPrefix(name, module), "/")
			if to == "" {
				to = "."
			}
			checked++
			if floorOf(t, to) >= floorOf(t, folder) && !sameTree(folder, to) {
				t.Errorf("%s (floor %d) imports %s (floor %d)", path, floorOf(t, folder), to, floorOf(t, to))
			}
		}
	}
	if checked < 20 {
		t.Errorf("only %d imports were checked: does this test still find the code?", checked)
	}
}

func TestTestSupportStaysInTests(t *testing.T) {
	for path, names := range imports(t) {
		for _, support := range forTests {
			for _, name := range names {
				if isUnder(strings.TrimPrefix(name, module+"/"), support) &&
					!strings.HasSuffix(path, "_test.go") && !isUnder(filepath.ToSlash(path), support) {
					t.Errorf("%s imports %s", path, name)
				}
			}
		}
	}
}
