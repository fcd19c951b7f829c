package config_test

import (
	"strings"
	"testing"

	"github.com/knadh/koanf/parsers/yaml"

	"github.com/parley-chat/parley/config"
)

// fuzzSecret is what the seeds have as a secret. No file that is not YAML may have it in what is said of it.
const fuzzSecret = "hunter2/Zq8vR4tL0xW9"

// Whatever a file holds, loading it ends, what it says of it stays on lines of its own, and none of the secrets that the
// file holds is shown, neither in an error nor in the configuration as it is printed.
func FuzzLoad(f *testing.F) {
	for _, text := range []string{valid, "", "a: [", "- 1", "server: {addr: 1, tls: []}", "llm: {providers: [1, {}, null]}",
		"session: {warn_threshold: 1e9, idle_timeout: 1}", "? {a: b}\n: c", "log: &a {level: *a}", "1: 2", "server.addr: x",
		"auth: {jwt_secret: " + fuzzSecret + ", previous_jwt_secret: [" + fuzzSecret + "]}",
		"auth: {jwt_secret: &a " + fuzzSecret + ", previous_jwt_secret: *a}\nauth: 1",
		"auth:\n  jwt_secret: |\n    " + fuzzSecret + "\n bad",
		"auth: {jwt_secret: *" + fuzzSecret + "}",
		"auth: {jwt_secret: !!int " + fuzzSecret + "}",
		"storage: {driver: mongodb, mongodb: {uri: " + fuzzSecret + "}}",
		"llm: {moderation: {url: x, api_key: " + fuzzSecret + "}, providers: [{id: a, type: openai, api_key: \"" + fuzzSecret + "\\n\"}]}",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		cfg, err := config.Load(write(t, text), nil, nil)
		if err == nil && cfg.Validate() != nil {
			t.Errorf("%q is loaded and not valid", text)
		}
		for _, p := range config.Problems(err) {
			if strings.ContainsAny(p.Error(), "\n\r") {
				t.Errorf("%q: a problem of several lines: %q", text, p.Error())
			}
		}
		shown := cfg.Redacted()
		if err != nil {
			shown += err.Error()
		}
		for _, secret := range secretsOf(text) {
			if strings.Contains(shown, secret) {
				t.Errorf("%q: the secret %q is shown: %s", text, secret, shown)
			}
		}
	})
}

// secretsOf gives the secrets of a file that its problems may not show: not those that stand where no secret belongs, too,
// and not what is too short to be one.
func secretsOf(text string) []string {
	values, err := yaml.Parser().Unmarshal([]byte(text))
	if err != nil {
		return []string{fuzzSecret}
	}
	var secret, other []string
	collect(values, false, &secret, &other)
	var hidden []string
	for _, s := range secret {
		if len(s) >= 16 && !strings.Contains(strings.Join(other, "\n"), s) {
			hidden = append(hidden, s)
		}
	}
	return hidden
}

var secretNames = map[string]bool{"jwt_secret": true, "previous_jwt_secret": true, "api_key": true, "uri": true}

// collect sorts the texts below a value: those under a secret's name, and all others, names included.
func collect(value any, isSecret bool, secret, other *[]string) {
	switch v := value.(type) {
	case string:
		if isSecret {
			*secret = append(*secret, v)
		} else {
			*other = append(*other, v)
		}
	case []any:
		for _, e := range v {
			collect(e, isSecret, secret, other)
		}
	case map[string]any:
		for name, e := range v {
			*other = append(*other, name)
			collect(e, isSecret || secretNames[name], secret, other)
		}
	}
}
