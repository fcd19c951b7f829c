package manifests

import (
	"bytes"
	"context"
	"encoding/base32"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// secretKey is one value in a Secret, which somebody else has to make.
type secretKey struct{ secret, key string }

// secretFolder is where the secrets are mounted.
const secretFolder = "/etc/parley/secrets"

// secretFiles gives the secrets that an overlay mounts, by the names of their files.
func secretFiles(t *testing.T, objects []any) map[string]secretKey {
	t.Helper()
	v := volume(t, objects, server(t, objects), secretFolder)
	if v.Projected == nil {
		t.Fatalf("%s is %+v", secretFolder, v)
	}
	files := make(map[string]secretKey)
	for _, source := range v.Projected.Sources {
		if source.Secret == nil {
			t.Fatalf("there is %+v among the secrets", source)
		}
		for _, item := range source.Secret.Items {
			files[item.Path] = secretKey{source.Secret.Name, item.Key}
		}
	}
	return files
}

// allSecrets gives the secrets that any overlay refers to.
func allSecrets(t *testing.T) []secretKey {
	t.Helper()
	all := map[secretKey]bool{}
	for _, overlay := range overlays {
		objects, _ := build(t, overlay)
		for _, s := range secretFiles(t, objects) {
			all[s] = true
		}
	}
	return slices.SortedFunc(maps.Keys(all), func(a, b secretKey) int { return strings.Compare(a.secret+a.key, b.secret+b.key) })
}

// problemOf is the key that a configuration error names for each secret.
var problemOf = map[secretKey]string{
	{"parley-auth", "jwt-secret"}:          "auth.jwt_secret",
	{"parley-mongodb", "uri"}:              "storage.mongodb.uri",
	{"parley-encryption", "keyset.json"}:   "storage.encryption.keyset_file",
	{"parley-providers", "openai-api-key"}: "llm.providers[0].api_key",
}

func TestR06_1_NothingThatIsAppliedHoldsASecret(t *testing.T) {
	eachOverlay(t, func(t *testing.T, _ string, objects []any) {
		if secrets := of[*corev1.Secret](objects); len(secrets) > 0 {
			t.Errorf("there are secrets: %+v", secrets)
		}
		text, cfg := configurationOf(t, objects)
		for _, key := range []string{"jwt_secret", "api_key:", "uri:"} {
			if strings.Contains(text, key) {
				t.Errorf("parley.yaml has %s in it", key)
			}
		}
		for _, p := range cfg.LLM.Providers {
			if p.APIKey != "" {
				t.Error("parley.yaml has a provider's key in it")
			}
		}
		for _, c := range containers(one[*appsv1.Deployment](t, objects)) {
			for _, v := range c.Env {
				if isSecretName(v.Name) && v.Value != "" {
					t.Errorf("%s: %s has a value", c.Name, v.Name)
				}
			}
		}
	})
}

// isSecretName reports whether a variable holds a secret, rather than the name of its file.
func isSecretName(name string) bool {
	return regexp.MustCompile(`SECRET|PASSWORD|TOKEN|_KEY|_URI`).MatchString(name) && !strings.HasSuffix(name, "_FILE")
}

func TestR06_1_NoFileHoldsASecret(t *testing.T) {
	looked := 0
	err := filepath.WalkDir(filepath.Join(repository, "deploy"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		looked++
		if d.Name() != "go.mod" && d.Name() != "go.sum" { // which have digests of what is public
			for _, found := range secretsIn(string(text)) {
				t.Errorf("%s: %.8s… looks like a secret", path, found)
			}
		}
		if filepath.Ext(path) == ".yaml" {
			for document := range bytes.SplitSeq(text, []byte("\n---\n")) {
				wantNoValues(t, path, document)
			}
		}
		return nil
	})
	if err != nil || looked < 20 {
		t.Errorf("%d files were looked at: %v", looked, err)
	}
}

// wantNoValues fails for a Secret with values, unless it is an example whose values are placeholders, for a generator of
// secrets, and for variables of compose that hold one.
func wantNoValues(t *testing.T, path string, document []byte) {
	t.Helper()
	var it struct {
		Kind            string            `json:"kind"`
		Data            map[string]any    `json:"data"`
		StringData      map[string]string `json:"stringData"`
		SecretGenerator []any             `json:"secretGenerator"`
		Services        map[string]struct {
			Environment map[string]string `json:"environment"`
		} `json:"services"`
	}
	if err := yaml.Unmarshal(document, &it); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	if len(it.SecretGenerator) > 0 {
		t.Errorf("%s generates secrets", path)
	}
	for name, service := range it.Services {
		for variable, value := range service.Environment {
			if isSecretName(variable) {
				t.Errorf("%s: %s of %s is %.4s…", path, variable, name, value)
			}
		}
	}
	if it.Kind != "Secret" {
		return
	}
	if len(it.Data) > 0 || !strings.HasSuffix(path, ".example.yaml") {
		t.Errorf("%s is a secret with data", path)
	}
	for key, value := range it.StringData {
		if !strings.HasPrefix(value, "<") || !strings.HasSuffix(value, ">") {
			t.Errorf("%s: the value of %s is no placeholder", path, key)
		}
	}
}

var (
	secretForms = regexp.MustCompile(`eyJ[\w-]{8,}\.[\w-]{8,}|-----BEGIN [A-Z ]*PRIVATE KEY-----|\b[sprx][ko]x?[bp]?[-_][A-Za-z0-9_-]{16,}|` +
		`\bAKIA[0-9A-Z]{16}|\bgh[pousr]_[A-Za-z0-9]{30,}`)
	passwordOfURI = regexp.MustCompile(`\w+://[^\s/:@]+:([^\s/:@]+)@`)
	word          = regexp.MustCompile(`[A-Za-z0-9+/=_-]{20,}`)
	capitals      = regexp.MustCompile(`^[A-Z0-9]{32,}$`)
	odd           = regexp.MustCompile(`[A-Za-z][0-9]|[0-9][A-Za-z]|[^a-z][a-z][^a-z]`)
)

// secretsIn gives what in a text has the form of a secret, or looks random: long, of many different characters, and either
// all capitals, or with letters and digits that take turns and small letters that stand alone, as they do not in names.
func secretsIn(text string) (found []string) {
	found = secretForms.FindAllString(text, -1)
	for _, m := range passwordOfURI.FindAllStringSubmatch(text, -1) {
		if m[1] != "PASSWORD" && m[1] != "%s" {
			found = append(found, m[1])
		}
	}
	for _, w := range word.FindAllString(text, -1) {
		if entropy(w) >= 3 && (capitals.MatchString(w) || len(odd.FindAllString(w, -1)) >= 4) {
			found = append(found, w)
		}
	}
	return found
}

// entropy is that of a text's characters, in bits each.
func entropy(text string) (bits float64) {
	counts := make(map[rune]float64)
	for _, r := range text {
		counts[r]++
	}
	for _, n := range counts {
		p := n / float64(len(text))
		bits -= p * math.Log2(p)
	}
	return bits
}

func TestTheScanFindsSecrets(t *testing.T) {
	random := rand.NewChaCha8([32]byte{6})
	bytes := make([]byte, 32)
	missed := make(map[string]int)
	const each = 1000
	for range each {
		random.Read(bytes)
		base64url := base64.RawURLEncoding.EncodeToString(bytes)
		for form, secret := range map[string]string{
			"of keygen":     base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(bytes),
			"in hex digits": hex.EncodeToString(bytes[:16]),
			"in base64":     base64.StdEncoding.EncodeToString(bytes),
			"a JWT":         "eyJ" + base64url + "." + base64url,
			"in a URI":      "mongodb://parley:" + base64url[:8] + "@mongo",
			"an API key":    "sk-" + base64url[:20],
			"a private key": "-----BEGIN " + "PRIVATE KEY-----",
		} {
			if len(secretsIn("key: "+secret+"\n")) == 0 {
				missed[form]++
			}
		}
	}
	for form, n := range missed { // what looks random is a matter of chance
		if n > each/100 {
			t.Errorf("of %d secrets %s it does not find %d", each, form, n)
		}
	}
}

func TestR06_2_SecretsComeFromOutside(t *testing.T) {
	eachOverlay(t, func(t *testing.T, overlay string, objects []any) {
		files := secretFiles(t, objects)
		if files["jwt-secret"] != (secretKey{"parley-auth", "jwt-secret"}) {
			t.Errorf("tokens are verified with %v", files["jwt-secret"])
		}
		_, cfg := configurationOf(t, objects)
		named := []string{environment(server(t, objects))["PARLEY_AUTH_JWT_SECRET_FILE"]}
		if overlay == "production" {
			named = append(named, environment(server(t, objects))["PARLEY_STORAGE_MONGODB_URI_FILE"], cfg.Storage.Encryption.KeysetFile)
			for _, p := range cfg.LLM.Providers {
				named = append(named, p.APIKeyFile)
			}
		}
		for _, file := range named {
			if _, ok := files[path.Base(file)]; !ok || path.Dir(file) != secretFolder {
				t.Errorf("the file %q is that of no secret", file)
			}
		}
		if len(named) != len(files) {
			t.Errorf("%v are mounted, %q are named", files, named)
		}
	})
}

func TestR06_2_AVaultCanHaveEachSecret(t *testing.T) {
	there := map[secretKey]bool{}
	for _, s := range of[*externalSecret](documents(t, "../secrets/external-secrets.example.yaml")) {
		for _, d := range s.Spec.Data {
			there[secretKey{s.Spec.Target.Name, d.SecretKey}] = true
			if d.RemoteRef.Key == "" || s.Spec.SecretStoreRef.Name == "" {
				t.Errorf("%s does not say where %s lies", s.Metadata.Name, d.SecretKey)
			}
		}
	}
	for _, s := range allSecrets(t) {
		if !there[s] {
			t.Errorf("the example has no %v", s)
		}
		delete(there, s)
	}
	if len(there) > 0 {
		t.Errorf("the example has %v, which nothing refers to", there)
	}
}

func TestR06_3_TheDocumentationMakesEachSecret(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(repository, "docs/DEPLOY.md"))
	if err != nil {
		t.Fatal(err)
	}
	commands := strings.ReplaceAll(string(page), "\\\n", " ")
	for _, s := range allSecrets(t) {
		command := regexp.MustCompile(`(?m)kubectl[^\n|]* create secret generic ` + regexp.QuoteMeta(s.secret) + `\b[^\n]*--from-file=` +
			regexp.QuoteMeta(s.key) + `(=|\s|$)`)
		if !command.MatchString(commands) {
			t.Errorf("docs/DEPLOY.md has no command that makes %s with %s", s.secret, s.key)
		}
	}
}

func TestR06_4_ThePodChecksItsSecretsFirst(t *testing.T) {
	eachOverlay(t, func(t *testing.T, _ string, objects []any) {
		pod := one[*appsv1.Deployment](t, objects).Spec.Template.Spec
		if len(pod.InitContainers) != 1 {
			t.Fatalf("there are %d init containers", len(pod.InitContainers))
		}
		check, serve := pod.InitContainers[0], server(t, objects)
		if !slices.Equal(check.Args, []string{"check"}) || check.Image != serve.Image || check.RestartPolicy != nil {
			t.Errorf("the init container is %+v", check)
		}
		if !reflect.DeepEqual(check.VolumeMounts, serve.VolumeMounts) {
			t.Errorf("the check has mounted %+v, the server %+v", check.VolumeMounts, serve.VolumeMounts)
		}
		ours := func(c corev1.Container) map[string]string {
			env := environment(c)
			maps.DeleteFunc(env, func(name, _ string) bool { return !strings.HasPrefix(name, "PARLEY_") })
			return env
		}
		if !maps.Equal(ours(check), ours(serve)) {
			t.Errorf("the check has %v, the server %v", ours(check), ours(serve))
		}
		if check.TerminationMessagePolicy != corev1.TerminationMessageFallbackToLogsOnError {
			t.Error("kubectl describe pod does not show what the check says")
		}
		for _, source := range volume(t, objects, check, secretFolder).Projected.Sources {
			if !isTrue(source.Secret.Optional) { // else the pod waits for its volume, and the check says nothing
				t.Errorf("without %s the check does not begin", source.Secret.Name)
			}
		}
	})
}

// pod is a folder in which a container of an overlay finds what it finds in the cluster.
type pod struct {
	dir     string
	environ []string
	files   map[string]secretKey
}

// newPod lays out an overlay's configuration, with good values of all its secrets.
func newPod(t *testing.T, objects []any) *pod {
	t.Helper()
	p := &pod{dir: t.TempDir(), files: secretFiles(t, objects)}
	here := strings.NewReplacer(secretFolder, p.dir+"/secrets", "/etc/parley/config", p.dir, "/data", p.dir+"/data")
	text, _ := configurationOf(t, objects)
	// The ports may be taken, and no test needs them.
	text = strings.NewReplacer(":8080", "127.0.0.1:0", ":9090", "127.0.0.1:0").Replace(text)
	for name, value := range environment(one[*appsv1.Deployment](t, objects).Spec.Template.Spec.InitContainers[0]) {
		p.environ = append(p.environ, name+"="+here.Replace(value))
	}
	for _, folder := range []string{"data", "secrets"} {
		if err := os.Mkdir(filepath.Join(p.dir, folder), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	p.write(t, "parley.yaml", here.Replace(text))
	for file, s := range p.files {
		p.set(t, file, goodValue(t, s))
	}
	return p
}

func goodValue(t *testing.T, s secretKey) string {
	t.Helper()
	switch s.key {
	case "jwt-secret":
		return keygen(t)
	case "keyset.json":
		return keygen(t, "--encryption")
	case "uri":
		return "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=100" // of a form that is right; nobody is there
	}
	return "any key"
}

func keygen(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command(parleyBinary, append([]string{"keygen"}, args...)...).Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func (p *pod) write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(p.dir, file), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (p *pod) set(t *testing.T, file, value string) { t.Helper(); p.write(t, "secrets/"+file, value) }

func (p *pod) remove(t *testing.T, file string) {
	t.Helper()
	if err := os.Remove(filepath.Join(p.dir, "secrets", file)); err != nil {
		t.Fatal(err)
	}
}

// run runs a command as a container would. It has to end by itself.
func (p *pod) run(t *testing.T, command string) (code int, said string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, parleyBinary, command)
	cmd.Dir, cmd.Env = p.dir, p.environ
	out, _ := cmd.CombinedOutput()
	if ctx.Err() != nil {
		t.Errorf("%s does not end: %s", command, out)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

func TestR06_4_TheCheckPassesWithAllSecrets(t *testing.T) {
	eachOverlay(t, func(t *testing.T, overlay string, objects []any) {
		code, said := newPod(t, objects).run(t, "check")
		switch {
		case overlay == "dev" && (code != 0 || said != "ok\n"):
			t.Errorf("exit code %d: %s", code, said)
		case overlay == "production" && (code != 1 || !strings.Contains(said, "storage: ")): // all is right but that nobody is there
			t.Errorf("exit code %d: %s", code, said)
		}
	})
}

func TestR06_4_ASecretThatIsMissingStopsTheCheck(t *testing.T) {
	eachOverlay(t, func(t *testing.T, _ string, objects []any) {
		for file, s := range secretFiles(t, objects) {
			p := newPod(t, objects)
			p.remove(t, file)
			for _, command := range []string{"check", "serve"} {
				if code, said := p.run(t, command); code != 2 || !strings.Contains(said, "\n  "+problemOf[s]) {
					t.Errorf("%s without %v: exit code %d: %s", command, s, code, said)
				}
			}
			p.set(t, file, "\n")
			if code, said := p.run(t, "check"); code != 2 || !strings.Contains(said, problemOf[s]) {
				t.Errorf("with %v empty: exit code %d: %s", s, code, said)
			}
		}
	})
}

func TestR06_4_ASecretThatIsWeakStopsTheCheck(t *testing.T) {
	eachOverlay(t, func(t *testing.T, _ string, objects []any) {
		p := newPod(t, objects)
		for _, weak := range []string{"hunter2", strings.Repeat("changeme", 5)} {
			p.set(t, "jwt-secret", weak)
			if code, said := p.run(t, "check"); code != 2 || !strings.Contains(said, "auth.jwt_secret: ") ||
				!strings.Contains(said, "parley keygen") || strings.Contains(said, weak) {
				t.Errorf("exit code %d: %s", code, said)
			}
		}
	})
}

// templates gives the placeholders of the templates.
func templates(t *testing.T) map[secretKey]string {
	t.Helper()
	paths, err := filepath.Glob("../secrets/*.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	values := make(map[secretKey]string)
	for _, path := range paths {
		for _, s := range of[*corev1.Secret](documents(t, path)) {
			for key, value := range s.StringData {
				values[secretKey{s.Name, key}] = value
			}
		}
	}
	return values
}

func TestR06_5_EachSecretHasATemplate(t *testing.T) {
	values := templates(t)
	secrets := allSecrets(t)
	for _, s := range secrets {
		if values[s] == "" {
			t.Errorf("there is no template of %v", s)
		}
		if problemOf[s] == "" {
			t.Errorf("this test does not know what a missing %v is called", s)
		}
	}
	if len(values) != len(secrets) {
		t.Errorf("the templates are %v, the manifests refer to %v", values, secrets)
	}
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Name() != "kustomization.yaml" {
			return err
		}
		text, err := os.ReadFile(path)
		if err == nil && bytes.Contains(text, []byte(".example.yaml")) {
			err = fmt.Errorf("%s applies a template", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestR06_5_TemplatesAsTheyAreAreRefused(t *testing.T) {
	values := templates(t)
	eachOverlay(t, func(t *testing.T, _ string, objects []any) {
		for file, s := range secretFiles(t, objects) {
			p := newPod(t, objects)
			p.set(t, file, values[s])
			for _, command := range []string{"check", "serve"} {
				code, said := p.run(t, command)
				if code != 2 || !strings.Contains(said, problemOf[s]) || strings.Contains(said, values[s]) || strings.Contains(said, "listening") {
					t.Errorf("%s with the template of %v: exit code %d: %s", command, s, code, said)
				}
			}
		}
	})
}
