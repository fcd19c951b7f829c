package parley_test

import (
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/parley-chat/parley/chat"
)

const (
	dashboardFile = "deploy/observability/grafana/parley.json"
	alertsFile    = "deploy/observability/prometheus/alerts.yaml"
	recordsFile   = "deploy/observability/prometheus/records.yaml"
	runbookURL    = "https://github.com/parley-chat/parley/blob/main/docs/RUNBOOK.md#"
)

// rule is an alert, or what is recorded.
type rule struct {
	Alert, Record, Expr string
	Labels, Annotations map[string]string
}

func rulesOf(t *testing.T, path string) (rules []rule) {
	t.Helper()
	var file struct {
		Groups []struct {
			Name  string
			Rules []rule
		}
	}
	if err := yaml.Unmarshal([]byte(read(t, path)), &file); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	for _, group := range file.Groups {
		rules = append(rules, group.Rules...)
	}
	if len(rules) == 0 {
		t.Fatalf("%s has no rules", path)
	}
	return rules
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// panel is one of the dashboard's.
type panel struct {
	ID                       int
	Type, Title, Description string
	GridPos                  struct{ H, W, X, Y int }
	FieldConfig              struct{ Defaults struct{ Unit string } }
	Targets                  []struct{ Expr string }
}

// dashboard gives the panels, but for the rows between them, and everything that asks for metrics.
func dashboard(t *testing.T) (panels []panel, exprs []string) {
	t.Helper()
	var file struct {
		UID, Title  string
		Panels      []panel
		Annotations struct{ List []struct{ Expr string } }
		Templating  struct {
			List []struct{ Definition string }
		}
	}
	if err := json.Unmarshal([]byte(read(t, dashboardFile)), &file); err != nil {
		t.Fatalf("%s: %v", dashboardFile, err)
	}
	for _, a := range file.Annotations.List {
		exprs = append(exprs, a.Expr)
	}
	for _, v := range file.Templating.List {
		exprs = append(exprs, v.Definition)
	}
	for _, p := range file.Panels {
		if p.Type == "row" {
			continue
		}
		panels = append(panels, p)
		for _, target := range p.Targets {
			exprs = append(exprs, target.Expr)
		}
	}
	return panels, exprs
}

// documentedMetrics gives the types of the metrics in docs/METRICS.md, by their names.
func documentedMetrics(t *testing.T) map[string]string {
	t.Helper()
	metrics := make(map[string]string)
	for _, row := range regexp.MustCompile("(?m)^\\| `(parley_\\w+)` \\| (\\w+) \\|").FindAllStringSubmatch(read(t, "docs/METRICS.md"), -1) {
		metrics[row[1]] = row[2]
	}
	return metrics
}

// otherMetrics are those of the libraries, and Prometheus' own, that are asked for.
var otherMetrics = []string{
	"up", "process_start_time_seconds", "process_open_fds", "process_max_fds", "process_resident_memory_bytes",
	"process_cpu_seconds_total", "go_goroutines", "go_memstats_heap_inuse_bytes", "go_gc_gomemlimit_bytes",
}

var (
	metricName = regexp.MustCompile(`\b(?:parley_\w+|parley:[\w:]+|(?:process|go)_\w+|up)\b`)
	quotedText = regexp.MustCompile(`"[^"]*"`)
	histograms = regexp.MustCompile(`_(?:bucket|sum|count)$`)
)

func TestDashboardAndAlertsAskForWhatThereIs(t *testing.T) {
	metrics := documentedMetrics(t)
	recorded := make(map[string]bool)
	_, exprs := dashboard(t)
	for _, r := range rulesOf(t, recordsFile) {
		recorded[r.Record] = true
		exprs = append(exprs, r.Expr)
	}
	for _, r := range rulesOf(t, alertsFile) {
		exprs = append(exprs, r.Expr)
	}
	asked := make(map[string]bool)
	for _, expr := range exprs {
		for _, name := range metricName.FindAllString(quotedText.ReplaceAllString(expr, `""`), -1) {
			base := histograms.ReplaceAllString(name, "")
			switch {
			case recorded[name], slices.Contains(otherMetrics, name):
			case metrics[name] != "" && metrics[name] != "histogram":
			case metrics[base] == "histogram" && name != base:
				name = base
			default:
				t.Errorf("%s is neither documented nor recorded, in %s", name, expr)
			}
			asked[name] = true
		}
	}
	for name := range metrics {
		if !asked[name] {
			t.Errorf("neither the dashboard nor an alert shows %s", name)
		}
	}
	for name := range recorded {
		if !asked[name] {
			t.Errorf("nobody asks for %s", name)
		}
	}
}

func TestEveryPanelSaysWhatItShows(t *testing.T) {
	panels, _ := dashboard(t)
	seen := make(map[int]bool)
	alerts := make(map[string]bool)
	for _, r := range rulesOf(t, alertsFile) {
		alerts[r.Alert] = true
	}
	for _, p := range panels {
		if p.Title == "" || p.Description == "" || p.FieldConfig.Defaults.Unit == "" || len(p.Targets) == 0 {
			t.Errorf("panel %d, %q, lacks a title, a description, a unit or a query", p.ID, p.Title)
		}
		if seen[p.ID] || p.GridPos.W == 0 || p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("panel %d, %q, has no place of its own", p.ID, p.Title)
		}
		seen[p.ID] = true
		for _, name := range regexp.MustCompile(`\bParley[A-Z]\w+`).FindAllString(p.Description, -1) {
			if !alerts[name] {
				t.Errorf("panel %q names the alert %s, which there is not", p.Title, name)
			}
		}
	}
	if len(panels) < 20 {
		t.Errorf("the dashboard has %d panels only: does this test still read it?", len(panels))
	}
}

// anchors gives the headings of a page as GitHub links to them.
func anchors(page string) map[string]bool {
	found := make(map[string]bool)
	for _, m := range regexp.MustCompile(`(?m)^#+ (.+)$`).FindAllStringSubmatch(page, -1) {
		text := regexp.MustCompile(`[^\w\- ]`).ReplaceAllString(strings.ToLower(m[1]), "")
		found[strings.ReplaceAll(text, " ", "-")] = true
	}
	return found
}

func TestEveryAlertHasItsPlaceInTheRunbook(t *testing.T) {
	page := read(t, "docs/RUNBOOK.md")
	there := anchors(page)
	alerts := make(map[string]bool)
	for _, r := range rulesOf(t, alertsFile) {
		alerts[r.Alert] = true
		if r.Annotations["summary"] == "" || r.Annotations["description"] == "" {
			t.Errorf("%s lacks a summary or a description", r.Alert)
		}
		if severity := r.Labels["severity"]; severity != "page" && severity != "ticket" {
			t.Errorf("%s has the severity %q", r.Alert, severity)
		}
		if want := runbookURL + strings.ToLower(r.Alert); r.Annotations["runbook_url"] != want || !there[strings.ToLower(r.Alert)] {
			t.Errorf("%s leads to %q, which is no section", r.Alert, r.Annotations["runbook_url"])
		}
		_, section, _ := strings.Cut(page, "\n### "+r.Alert+"\n")
		section, _, _ = strings.Cut(section, "\n#")
		for _, part := range []string{"**For people:**", "**See it:**", "**Do:**", "**Over when:**"} {
			if strings.Count(section, part) != 1 {
				t.Errorf("the section of %s has not one part %s", r.Alert, part)
			}
		}
	}
	for _, m := range regexp.MustCompile(`(?m)^### (.+)$`).FindAllStringSubmatch(page, -1) {
		if !alerts[m[1]] {
			t.Errorf("there is a section of %s, and no such alert", m[1])
		}
	}
	for _, m := range regexp.MustCompile(`\]\(#([^)]+)\)`).FindAllStringSubmatch(page, -1) {
		if !there[m[1]] {
			t.Errorf("the runbook leads to #%s, which there is not", m[1])
		}
	}
}

// What the runbook tells to look for is what the server says.
func TestTheRunbookNamesWhatThereIs(t *testing.T) {
	page := read(t, "docs/RUNBOOK.md")
	var source strings.Builder
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		source.WriteString(read(t, path))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	said := regexp.MustCompile(`msg="([^"…]+)"`).FindAllStringSubmatch(page, -1)
	if len(said) < 20 {
		t.Errorf("the runbook has %d lines of the log only: does this test still find them?", len(said))
	}
	for _, m := range said {
		if !strings.Contains(source.String(), `"`+strings.ReplaceAll(m[1], "\n", " ")+`"`) {
			t.Errorf("nobody says %q", m[1])
		}
	}
	metrics := documentedMetrics(t)
	for _, name := range regexp.MustCompile(`\bparley_\w+`).FindAllString(page, -1) {
		if metrics[name] == "" {
			t.Errorf("%s stands in no table of docs/METRICS.md", name)
		}
	}
}

func TestTheSetsOfLabelsAreWhole(t *testing.T) {
	sets := section(t, "docs/METRICS.md", "Sets of values")
	set := func(name string) (values []string) {
		_, list, _ := strings.Cut(sets, "- **"+name+"**:")
		list, _, _ = strings.Cut(list, "\n- ")
		for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(list, -1) {
			values = append(values, m[1])
		}
		slices.Sort(values)
		return values
	}
	var operations, codes []string
	for m := range reflect.TypeFor[chat.Store]().Methods() {
		if m.Name != "ID" && m.Name != "Close" {
			operations = append(operations, m.Name)
		}
	}
	for _, m := range regexp.MustCompile(`(?m)^\tCode\w+ +Code = "(\w+)"`).FindAllStringSubmatch(read(t, "chat/error.go"), -1) {
		codes = append(codes, m[1])
	}
	slices.Sort(operations)
	slices.Sort(codes)
	if got := set("an operation of the storage"); !slices.Equal(got, operations) {
		t.Errorf("the operations of the storage are %v, documented are %v", operations, got)
	}
	if got := set("an error's code"); !slices.Equal(got, codes) {
		t.Errorf("the codes of errors are %v, documented are %v", codes, got)
	}
}
