package parley_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/knadh/koanf/parsers/yaml"

	"github.com/parley-chat/parley"
	"github.com/parley-chat/parley/config"
)

const goodSecret = "wX9vT2mQc7RkJ8yLhN4sDgB6fPeUaVzE"

// The manifests themselves are tested in deploy/kubernetes/manifests, a module of its own.
func TestR06_5_PlaceholdersOfTheTemplatesAreNoConfiguration(t *testing.T) {
	for file, c := range map[string]struct{ key, variable, problem string }{
		"auth":      {"jwt-secret", "PARLEY_AUTH_JWT_SECRET", "auth.jwt_secret"},
		"mongodb":   {"uri", "PARLEY_STORAGE_MONGODB_URI", "storage.mongodb.uri"},
		"providers": {"openai-api-key", "OPENAI_API_KEY", "llm.providers[0].api_key"},
	} {
		placeholder := placeholderOf(t, file, c.key)
		values := map[string]string{
			"PARLEY_AUTH_JWT_SECRET": goodSecret, "PARLEY_STORAGE_MONGODB_URI": "mongodb://mongo", "OPENAI_API_KEY": "any",
		}
		values[c.variable] = placeholder
		var environ []string
		for name, value := range values {
			environ = append(environ, name+"="+value)
		}
		_, err := config.Load(writeTemp(t, `
storage: {driver: mongodb}
llm:
  providers: [{id: openai, type: openai, base_url: "https://api.openai.com/v1", api_key_env: OPENAI_API_KEY}]
  models: [{id: gpt, targets: [openai/gpt-5.1]}]
`), environ, nil)
		problems := config.Problems(err)
		if len(problems) != 1 || problems[0].Key != c.problem || strings.Contains(err.Error(), placeholder) {
			t.Errorf("with the placeholder of %s: %v", file, err)
		}
	}
	cfg := config.Default()
	cfg.Auth.JWTSecret = goodSecret
	cfg.Storage.SQLite.Path = filepath.Join(t.TempDir(), "parley.db")
	cfg.Storage.Encryption.KeysetFile = writeTemp(t, placeholderOf(t, "encryption", "keyset.json"))
	problems := config.Problems(parley.Check(t.Context(), cfg))
	if len(problems) != 1 || problems[0].Key != "storage.encryption.keyset_file" {
		t.Errorf("with the placeholder of the keyset: %v", problems)
	}
}

// placeholderOf gives the value of a key in a secret's template.
func placeholderOf(t *testing.T, file, key string) string {
	t.Helper()
	text, err := os.ReadFile("deploy/kubernetes/secrets/" + file + ".example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	secret, err := yaml.Parser().Unmarshal(text)
	if err != nil {
		t.Fatal(err)
	}
	values, _ := secret["stringData"].(map[string]any)
	value, _ := values[key].(string)
	if value == "" {
		t.Fatalf("the template of %s has no %s", file, key)
	}
	return value
}

func writeTemp(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// matched gives what a pattern's group finds in a file.
func matched(t *testing.T, path, pattern string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile("(?m)" + pattern).FindSubmatch(text)
	if m == nil {
		t.Fatalf("%s has no %s", path, pattern)
	}
	return string(m[1])
}

func TestReleasesAreBuiltWithTheGoThatIsChecked(t *testing.T) {
	checked := matched(t, ".ci/vulncheck", `GOTOOLCHAIN=go([\d.]+)`)
	for path, pattern := range map[string]string{
		"deploy/docker/Dockerfile": `golang:([\d.]+) `, ".goreleaser.yaml": `GOTOOLCHAIN=go([\d.]+)`,
	} {
		if built := matched(t, path, pattern); built != checked {
			t.Errorf("%s builds with Go %s, .ci/vulncheck looks at %s", path, built, checked)
		}
	}
}

func TestWhoStopsTheServerWaitsForIt(t *testing.T) {
	defaults := config.Default()
	for path, pattern := range map[string]string{
		"deploy/systemd/parley.service": `^TimeoutStopSec=(\S+)`, "deploy/docker/compose.yaml": `^    stop_grace_period: (\S+)`,
	} {
		patience, err := time.ParseDuration(matched(t, path, pattern))
		if err != nil || patience < defaults.Server.ShutdownTimeout+5*time.Second {
			t.Errorf("%s waits for %v (%v), the server may take %v", path, patience, err, defaults.Server.ShutdownTimeout)
		}
	}
	for path, pattern := range map[string]string{
		"deploy/systemd/parley.service": `^LimitNOFILE=(\d+)`, "deploy/docker/compose.yaml": `nofile: (\d+)`,
	} {
		files, err := strconv.Atoi(matched(t, path, pattern))
		if err != nil || files < 2*defaults.WebSocket.MaxConnections {
			t.Errorf("%s gives %d files (%v) for %d connections", path, files, err, defaults.WebSocket.MaxConnections)
		}
	}
}

func TestTheConfigurationOfComposeIsValid(t *testing.T) {
	_, err := config.Load("deploy/docker/parley.yaml", nil, nil)
	var missing []string
	for _, p := range config.Problems(err) {
		missing = append(missing, p.Key)
	}
	if strings.Join(missing, " ") != "auth.jwt_secret storage.mongodb.uri" { // what compose.yaml gives it as files
		t.Errorf("without secrets: %v", err)
	}
	secret, uri := writeTemp(t, goodSecret), writeTemp(t, "mongodb://parley:x@mongodb:27017/?authSource=admin")
	environ := []string{"PARLEY_AUTH_JWT_SECRET_FILE=" + secret, "PARLEY_STORAGE_MONGODB_URI_FILE=" + uri}
	if _, err := config.Load("deploy/docker/parley.yaml", environ, nil); err != nil {
		t.Error(err)
	}
}

func TestSystemdKnowsTheUnit(t *testing.T) {
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		if slices.Contains(strings.Split(os.Getenv("PARLEY_TEST_REQUIRE"), ","), "systemd") {
			t.Fatal("PARLEY_TEST_REQUIRE asks for systemd, and there is no systemd-analyze")
		}
		t.Skip("there is no systemd-analyze")
	}
	unit, err := os.ReadFile("deploy/systemd/parley.service")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "parley.service")
	// It looks for the binary, which is not installed here.
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(string(unit), "/usr/bin/parley", "/bin/true")), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("systemd-analyze", "verify", "--man=no", path).CombinedOutput(); err != nil || strings.Contains(string(out), "parley.service") {
		t.Errorf("verify: %v\n%s", err, out)
	}
	// In tenths: 15 is "OK", a service without any of it has 96.
	if out, err := exec.Command("systemd-analyze", "security", "--offline=true", "--threshold=15", "--no-pager", path).CombinedOutput(); err != nil {
		t.Errorf("security: %v\n%s", err, out)
	}
}
