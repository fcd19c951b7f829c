package config_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/parley-chat/parley/config"
)

// readByLoad are the keys that Load itself acts on.
var readByLoad = []string{"llm.providers[].api_key_file", "llm.providers[].api_key_env"}

const (
	modulePath = "github.com/parley-chat/parley"
	moduleRoot = ".."
)

func TestEveryKeyIsRead(t *testing.T) {
	read := readFields(t)
	if len(read) == 0 {
		t.Fatal("no code reads any key: does this test still find the code?")
	}
	for _, k := range keyFields() {
		if slices.Contains(readByLoad, k.key) {
			continue
		}
		isRead := true
		for _, f := range k.fields {
			isRead = isRead && read[f]
		}
		if !isRead {
			t.Errorf("%s is read nowhere: a setting that does nothing", k.key)
		}
	}
}

// field is a field of one of the package's types.
type field struct{ typ, name string }

// keyFields gives for each key the fields that lead to it: server.addr is Config.Server, then Server.Addr.
func keyFields() []struct {
	key    string
	fields []field
} {
	var all []struct {
		key    string
		fields []field
	}
	var walk func(section reflect.Type, path string, fields []field)
	walk = func(section reflect.Type, path string, fields []field) {
		for f := range section.Fields() {
			path := strings.TrimPrefix(path+"."+f.Tag.Get("koanf"), ".")
			fields := append(slices.Clone(fields), field{section.Name(), f.Name})
			t := f.Type
			if t.Kind() == reflect.Slice && t.Elem().PkgPath() == section.PkgPath() {
				path, t = path+"[]", t.Elem()
			}
			if t.Kind() == reflect.Struct && t.PkgPath() == section.PkgPath() {
				walk(t, path, fields)
				continue
			}
			all = append(all, struct {
				key    string
				fields []field
			}{path, fields})
		}
	}
	walk(reflect.TypeFor[config.Config](), "", nil)
	return all
}

func TestTheFieldsAreThoseOfTheKeys(t *testing.T) {
	var keys []string
	for _, k := range keyFields() {
		keys = append(keys, k.key)
	}
	if !slices.Equal(keys, config.Keys()) {
		t.Errorf("got %q, want %q", keys, config.Keys())
	}
}

// readFields finds the fields of the configuration that the module's code outside of this package reads. Tests and
// assignments do not count.
func readFields(t *testing.T) map[field]bool {
	c := checker{t: t, files: token.NewFileSet(), packages: map[string]*types.Package{}, read: map[field]bool{}}
	err := filepath.WalkDir(moduleRoot, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		if _, err := os.Stat(filepath.Join(path, "go.mod")); path != moduleRoot &&
			(err == nil || d.Name() == "testdata" || d.Name()[0] == '.' && d.Name() != "..") {
			return fs.SkipDir
		}
		relative, err := filepath.Rel(moduleRoot, path)
		if err != nil {
			return err
		}
		_, err = c.Import(strings.TrimSuffix(modulePath+"/"+filepath.ToSlash(relative), "/."))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return c.read
}

// checker type-checks the module's packages, as far as that goes without any other package's source: enough to know
// which expressions are of the configuration's types. It is its own importer.
type checker struct {
	t        *testing.T
	files    *token.FileSet
	packages map[string]*types.Package
	read     map[field]bool
}

func (c *checker) Import(path string) (*types.Package, error) {
	if p := c.packages[path]; p != nil {
		return p, nil
	}
	folder, ours := strings.CutPrefix(path, modulePath)
	if !ours {
		p := types.NewPackage(path, path[strings.LastIndexByte(path, '/')+1:])
		p.MarkComplete()
		return p, nil
	}
	files := c.parse(filepath.Join(moduleRoot, filepath.FromSlash(folder)))
	info := &types.Info{Selections: map[*ast.SelectorExpr]*types.Selection{}}
	conf := types.Config{Importer: c, Error: func(error) {}} // there are many, for want of the other packages
	p, _ := conf.Check(path, c.files, files, info)
	c.packages[path] = p
	if path != modulePath+"/config" {
		c.note(files, info)
	}
	return p, nil
}

func (c *checker) parse(folder string) []*ast.File {
	entries, err := os.ReadDir(folder)
	if err != nil {
		c.t.Fatal(err)
	}
	var files []*ast.File
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".go") || strings.HasSuffix(e.Name(), "_test.go") {
			continue
		}
		file, err := parser.ParseFile(c.files, filepath.Join(folder, e.Name()), nil, parser.SkipObjectResolution)
		if err != nil {
			c.t.Fatal(err)
		}
		files = append(files, file)
	}
	return files
}

// note records the fields that are read in files.
func (c *checker) note(files []*ast.File, info *types.Info) {
	assigned := map[ast.Expr]bool{}
	for _, file := range files {
		ast.Inspect(file, func(n ast.Node) bool {
			if a, ok := n.(*ast.AssignStmt); ok && a.Tok == token.ASSIGN {
				for _, left := range a.Lhs {
					for s, ok := left.(*ast.SelectorExpr); ok; s, ok = s.X.(*ast.SelectorExpr) {
						assigned[s] = true
					}
				}
			}
			return true
		})
	}
	for expression, selection := range info.Selections {
		receiver := selection.Recv()
		if pointer, ok := receiver.Underlying().(*types.Pointer); ok {
			receiver = pointer.Elem()
		}
		named, ok := receiver.(*types.Named)
		if ok && !assigned[expression] && named.Obj().Pkg() != nil && named.Obj().Pkg().Path() == modulePath+"/config" {
			c.read[field{named.Obj().Name(), selection.Obj().Name()}] = true
		}
	}
}
