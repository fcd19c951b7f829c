package parley_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/parley-chat/parley"
	"github.com/parley-chat/parley/config"
)

// loosening are the keys by which an operator can make a server less safe than it is by default.
var loosening = []string{
	"server.addr", "server.operations_addr", "server.trusted_proxies", "server.tls.cert_file",
	"auth.jwt_secret", "auth.previous_jwt_secret", "auth.jwks_url", "auth.issuer", "auth.audience",
	"websocket.allowed_origins", "websocket.allow_any_origin", "websocket.max_message_bytes", "websocket.max_connections",
	"websocket.max_connections_per_user", "websocket.max_connections_per_address", "websocket.ping_interval",
	"websocket.pong_timeout", "websocket.write_timeout",
	"llm.budget.tokens", "llm.moderation.url", "llm.moderation.allow_on_error", "llm.providers[].base_url",
	"llm.providers[].proxy", "llm.providers[].ca_file",
	"storage.encryption.keyset_file", "storage.journal.sync", "storage.journal.max_bytes", "storage.retention",
	"ui.enabled", "ui.frame_ancestors", "telemetry.otlp_endpoint", "log.level",
}

// looseningSections are those of which every key is one.
var looseningSections = []string{"rate_limit."}

func TestR16_5_TheMeaningOfOriginsIsDocumented(t *testing.T) {
	origins := section(t, "docs/SECURITY-MODEL.md", "5. Origins")
	for _, what := range []string{"websocket.allowed_origins", "websocket.allow_any_origin", "Origin: null"} {
		if !strings.Contains(origins, what) {
			t.Errorf("the section on origins does not name %s", what)
		}
	}
	table := section(t, "docs/SECURITY-MODEL.md", "15. Defaults, and what loosening them costs")
	documented := keysOfRows(table)
	known := config.Keys()
	wanted := slices.Clone(loosening)
	for _, key := range known {
		if slices.ContainsFunc(looseningSections, func(s string) bool { return strings.HasPrefix(key, s) }) {
			wanted = append(wanted, key)
		}
	}
	for _, key := range wanted {
		if !slices.Contains(known, key) {
			t.Errorf("this test has the key %s, the configuration does not", key)
		}
		if !slices.Contains(documented, key) {
			t.Errorf("what it costs to loosen %s stands in no row of the table", key)
		}
	}
	for _, key := range documented {
		if !slices.Contains(wanted, key) {
			t.Errorf("the table has a row for %s, this test does not", key)
		}
	}
}

func TestEveryRequestOfTheHTTPAPIIsDocumented(t *testing.T) {
	page := section(t, "docs/PROTOCOL.md", "14. HTTP beside it")
	documented := make(map[string]bool)
	for _, m := range regexp.MustCompile("(?m)^\\| `((?:GET|POST|PATCH|DELETE) /api/\\S+)` \\|").FindAllStringSubmatch(page, -1) {
		documented[m[1]] = true
	}
	served := requestsOfTheAPI(t)
	if len(served) < 20 {
		t.Errorf("the API has %d requests only: does this test still read its document?", len(served))
	}
	for request, parameters := range served {
		if !documented[request] {
			t.Errorf("%s stands in no table of docs/PROTOCOL.md", request)
		}
		for _, name := range parameters {
			if !strings.Contains(page, "`"+name) { // `order=desc` too
				t.Errorf("docs/PROTOCOL.md does not tell of %s of %s", name, request)
			}
		}
	}
	for request := range documented {
		if _, ok := served[request]; !ok {
			t.Errorf("docs/PROTOCOL.md tells of %s, which is not served", request)
		}
	}
}

// section gives what stands under a heading of a page, up to the next one of its kind.
func section(t *testing.T, path, heading string) string {
	t.Helper()
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(page), "\n## "+heading+"\n")
	if !ok {
		t.Fatalf("%s has no section %q", path, heading)
	}
	text, _, _ := strings.Cut(rest, "\n## ")
	return text
}

// keysOfRows gives what stands in backquotes in the first cells of a table whose third says something.
func keysOfRows(table string) (keys []string) {
	for line := range strings.Lines(table) {
		cells := strings.Split(strings.TrimSpace(line), "|")
		if len(cells) != 5 || strings.TrimSpace(cells[2]) == "" || strings.TrimSpace(cells[3]) == "" {
			continue
		}
		for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cells[1], -1) {
			keys = append(keys, m[1])
		}
	}
	return keys
}

// requestsOfTheAPI gives what a server says that it answers, such as "GET /api/v1/models", with the names of the parameters
// that may stand in the query.
func requestsOfTheAPI(t *testing.T) map[string][]string {
	t.Helper()
	cfg := config.Default()
	cfg.Auth.JWTSecret = "wX9vT2mQc7RkJ8yLhN4sDgB6fPeUaVzE"
	cfg.LLM.Providers = []config.Provider{{ID: "eliza", Type: config.ProviderEliza}}
	cfg.LLM.Models = []config.Model{{ID: "eliza", Targets: []string{"eliza/doctor"}}}
	cfg.Storage.SQLite.Path = filepath.Join(t.TempDir(), "parley.db")
	server, err := parley.New(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := server.Shutdown(ctx); err != nil {
			t.Error(err)
		}
	}()
	mux := http.NewServeMux()
	server.Register(mux)
	answer := httptest.NewRecorder()
	mux.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/openapi.json", nil))
	var document struct {
		Paths map[string]map[string]struct {
			Parameters []struct{ Name, In string }
		}
	}
	if err := json.Unmarshal(answer.Body.Bytes(), &document); err != nil {
		t.Fatalf("the OpenAPI document: %d %v", answer.Code, err)
	}
	requests := make(map[string][]string)
	for path, methods := range document.Paths {
		for method, operation := range methods {
			request := strings.ToUpper(method) + " " + path
			requests[request] = nil
			for _, p := range operation.Parameters {
				if p.In == "query" {
					requests[request] = append(requests[request], p.Name)
				}
			}
		}
	}
	return requests
}
