package config_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/parley-chat/parley/config"
)

// keysIn lists the keys in YAML in the form of [config.Keys].
func keysIn(node *yaml.Node, path string) []string {
	var keys []string
	switch node.Kind {
	case yaml.DocumentNode:
		return keysIn(node.Content[0], "")
	case yaml.MappingNode:
		for i := 0; i < len(node.Content); i += 2 {
			keys = append(keys, keysIn(node.Content[i+1], strings.TrimPrefix(path+"."+node.Content[i].Value, "."))...)
		}
		return keys
	case yaml.SequenceNode:
		if len(node.Content) > 0 && node.Content[0].Kind == yaml.MappingNode {
			return keysIn(node.Content[0], path+"[]")
		}
	}
	return []string{path}
}

func TestTheExampleHasEveryKeyAtItsDefault(t *testing.T) {
	var parsed yaml.Node
	if err := yaml.Unmarshal([]byte(config.Example()), &parsed); err != nil {
		t.Fatal(err)
	}
	got, want := keysIn(&parsed, ""), config.Keys()
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("the example has the keys %q, want %q", got, want)
	}
	cfg, err := config.Load(write(t, config.Example()),
		[]string{"PARLEY_AUTH_JWT_SECRET=" + strongSecret, "OPENAI_API_KEY=k"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(cfg.LLM.Providers) == 0 || len(cfg.LLM.Models) == 0 || cfg.LLM.Providers[0].APIKey != "k" {
		t.Errorf("got %+v", cfg.LLM)
	}
	cfg.Auth.JWTSecret, cfg.LLM.Providers, cfg.LLM.Models = "", nil, nil
	if cfg.Redacted() != config.Default().Redacted() {
		t.Errorf("got %s\nwant %s", cfg.Redacted(), config.Default().Redacted())
	}
}

func TestWithoutItsSecretsTheExampleIsRefused(t *testing.T) {
	_, err := config.Load(write(t, config.Example()), nil, nil)
	wantProblems(t, err, "auth.jwt_secret", "llm.providers[0].api_key_env")
}

func TestRedactedShowsNoSecret(t *testing.T) {
	const hidden = "hunter2"
	cfg := validConfig()
	cfg.Auth.JWTSecret = hidden + strongSecret
	cfg.Auth.JWKSURL = "https://u:" + hidden + "@id.example/k?key=" + hidden + "#" + hidden
	cfg.LLM.Providers[0].APIKey = hidden
	cfg.LLM.Providers[1].BaseURL = "https://x:" + hidden + "@api.example/v1?api-key=" + hidden
	for uri, want := range map[string]string{
		"mongodb://a:hunter2@db1:27017,db2:27017/parley?authSource=admin&x=hunter2": "mongodb://REDACTED@db1:27017,db2:27017/parley?REDACTED",
		"mongodb+srv://hunter2@db.example":                                          "mongodb+srv://REDACTED@db.example",
		"mongodb://localhost:27017/parley":                                          "mongodb://localhost:27017/parley",
		"mongodb://a:hunter2":                                                       "REDACTED",
		"mongodb://a:hunter2@hunter2@db":                                            "REDACTED",
		"mongodb://a:hun/hunter2@db":                                                "REDACTED",
		"mongodb://a:hun?hunter2@db":                                                "REDACTED",
		"mongodb://db?password=x@hunter2":                                           "mongodb://db?REDACTED",
		"hunter2":                                                                   "REDACTED",
		"":                                                                          `""`,
	} {
		cfg.Storage.MongoDB.URI = uri
		shown := cfg.Redacted()
		if strings.Contains(shown, hidden) || strings.Contains(shown, strongSecret) {
			t.Errorf("%s: a secret is in\n%s", uri, shown)
		}
		if !strings.Contains(shown, "uri: "+want+"\n") {
			t.Errorf("%s: not shown as %s", uri, want)
		}
	}
	for _, want := range []string{"jwt_secret: REDACTED", "jwks_url: https://REDACTED@id.example/k?REDACTED",
		"base_url: https://REDACTED@api.example/v1?REDACTED", "api_key: REDACTED", "max_message_bytes: 64KiB", "idle_timeout: 15m0s"} {
		if shown := cfg.Redacted(); !strings.Contains(shown, want+"\n") {
			t.Errorf("no %q in\n%s", want, shown)
		}
	}
}

func TestWhatRedactedPrintsCanBeLoaded(t *testing.T) {
	cfg := validConfig()
	cfg.Auth.JWTSecret = ""
	cfg.WebSocket.AllowedOrigins = []string{"https://*.example.com"}
	cfg.LLM.SystemPrompt = "yes: \"no\"\n# 1"
	again, err := config.Load(write(t, cfg.Redacted()), []string{"PARLEY_AUTH_JWT_SECRET=" + strongSecret}, nil)
	if err != nil {
		t.Fatal(err)
	}
	again.Auth.JWTSecret = ""
	again.LLM.Providers[1].BaseURL = cfg.LLM.Providers[1].BaseURL // its password was redacted
	if got, want := fmt.Sprintf("%#v", again), fmt.Sprintf("%#v", cfg); again.Redacted() != cfg.Redacted() {
		t.Errorf("got %s\nwant %s", got, want)
	}
}

func TestEveryVariableSetsOneKey(t *testing.T) {
	seen := map[string]string{}
	for _, key := range config.Keys() {
		name := strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
		for _, n := range []string{name, name + "_FILE"} {
			if other := seen[n]; other != "" {
				t.Errorf("%s and %s share PARLEY_%s", other, key, n)
			}
		}
		seen[name] = key
	}
}
