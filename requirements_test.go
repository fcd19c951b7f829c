package parley_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// There are 19 requirements with 5 criteria each; docs/REQUIREMENTS.md has their words.
const requirements, criteriaEach = 19, 5

var criterion = regexp.MustCompile(`^TestR(\d\d)_(\d)_\w+$`)

// testedCriteria gives the tests named after each criterion.
func testedCriteria(t *testing.T) map[string][]string {
	t.Helper()
	tested := make(map[string][]string)
	for path := range imports(t) {
		if !strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range file.Decls {
			f, ok := decl.(*ast.FuncDecl)
			if !ok || f.Recv != nil {
				continue
			}
			if m := criterion.FindStringSubmatch(f.Name.Name); m != nil {
				key := fmt.Sprintf("R%s.%s", strings.TrimLeft(m[1], "0"), m[2])
				tested[key] = append(tested[key], f.Name.Name)
			} else if strings.HasPrefix(f.Name.Name, "TestR0") || strings.HasPrefix(f.Name.Name, "TestR1") {
				t.Errorf("%s: %s names no criterion: TestR03_1_Words is the form", path, f.Name.Name)
			}
		}
	}
	return tested
}

func TestEveryCriterionIsTested(t *testing.T) {
	tested := testedCriteria(t)
	known := make(map[string]bool)
	for r := 1; r <= requirements; r++ {
		for c := 1; c <= criteriaEach; c++ {
			key := fmt.Sprintf("R%d.%d", r, c)
			known[key] = true
			if len(tested[key]) == 0 {
				t.Errorf("%s is tested by nothing", key)
			}
		}
	}
	for key := range maps.Keys(tested) {
		if !known[key] {
			t.Errorf("%s is no criterion: %v", key, tested[key])
		}
	}
}

func TestRequirementsPageNamesTheTests(t *testing.T) {
	page, err := os.ReadFile("docs/REQUIREMENTS.md")
	if err != nil {
		t.Fatal(err)
	}
	tested := testedCriteria(t)
	rows := 0
	for line := range strings.Lines(string(page)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		key := strings.TrimSpace(cells[0])
		if len(cells) != 3 || !regexp.MustCompile(`^R\d+\.\d$`).MatchString(key) {
			continue
		}
		rows++
		named := regexp.MustCompile(`TestR\w+`).FindAllString(cells[2], -1)
		there := slices.Clone(tested[key])
		slices.Sort(there)
		slices.Sort(named)
		if !slices.Equal(slices.Compact(there), slices.Compact(named)) {
			t.Errorf("%s: docs/REQUIREMENTS.md names %v, there are %v", key, named, there)
		}
	}
	if rows != requirements*criteriaEach {
		t.Errorf("docs/REQUIREMENTS.md has %d criteria", rows)
	}
}
