package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/parley-chat/parley/config"
)

// noOllama is an OLLAMA_HOST of this machine where nobody answers.
const noOllama = "OLLAMA_HOST=127.0.0.1:1"

// fakeOllama serves the list of installed models, and gives the OLLAMA_HOST to find it at.
func fakeOllama(t *testing.T, names ...string) string {
	t.Helper()
	return serveTags(t, func(w http.ResponseWriter, _ *http.Request) {
		var models []map[string]string
		for _, name := range names {
			models = append(models, map[string]string{"name": name, "model": name})
		}
		json.NewEncoder(w).Encode(map[string]any{"models": models})
	})
}

func serveTags(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/tags", h)
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return "OLLAMA_HOST=" + s.URL
}

// found gives the configuration of parley dev, and the IDs of its models with where they come from.
func found(t *testing.T, environ ...string) (cfg config.Config, models []string) {
	t.Helper()
	cfg, err := config.LoadOver(devDefaults(t.Context(), environ), "", environ, nil)
	if err != nil {
		t.Errorf("with %q the configuration is not valid: %v", environ, err)
	}
	for _, m := range cfg.LLM.Models {
		models = append(models, m.ID+origin(cfg.LLM, m))
	}
	return cfg, models
}

func TestDevOffersWhatItFinds(t *testing.T) {
	for _, c := range []struct {
		name    string
		environ []string
		want    []string
	}{
		{"nothing", []string{noOllama}, []string{"eliza"}},
		{"empty keys", []string{noOllama, "OPENAI_API_KEY=", "ANTHROPIC_API_KEY="}, []string{"eliza"}},
		{"all", []string{fakeOllama(t, "llama3.2:3b", "hf.co/some/model:Q4_K_M"), "OPENAI_API_KEY=sk-1", "ANTHROPIC_API_KEY=sk-2"}, []string{
			"eliza", "gpt-5.1 (OPENAI_API_KEY)", "claude-sonnet-4-5 (ANTHROPIC_API_KEY)",
			"llama3.2:3b (Ollama)", "hf.co-some-model:Q4_K_M (Ollama)",
		}},
		{"an Ollama without models", []string{fakeOllama(t)}, []string{"eliza"}},
	} {
		if _, models := found(t, c.environ...); !slices.Equal(models, c.want) {
			t.Errorf("%s: dev offers %q, want %q", c.name, models, c.want)
		}
	}
}

func TestDevConfiguresWhatItFinds(t *testing.T) {
	host := fakeOllama(t, "library/llama:latest")
	cfg, _ := found(t, host, "OPENAI_API_KEY=sk-1", "ANTHROPIC_API_KEY=sk-2")
	providers := []config.Provider{
		{ID: "eliza", Type: "eliza"},
		{ID: "openai", Type: "openai", BaseURL: "https://api.openai.com/v1", APIKeyEnv: "OPENAI_API_KEY", APIKey: "sk-1"},
		{ID: "anthropic", Type: "anthropic", BaseURL: "https://api.anthropic.com/v1", APIKeyEnv: "ANTHROPIC_API_KEY", APIKey: "sk-2"},
		{ID: "ollama", Type: "openai", BaseURL: strings.TrimPrefix(host, "OLLAMA_HOST=") + "/v1"},
	}
	if !slices.Equal(cfg.LLM.Providers, providers) {
		t.Errorf("got %+v, want %+v", cfg.LLM.Providers, providers)
	}
	last := cfg.LLM.Models[len(cfg.LLM.Models)-1]
	if last.ID != "library-llama:latest" || last.Name != "library/llama:latest" || last.Targets[0] != "ollama/library/llama:latest" {
		t.Errorf("the model of the Ollama is %+v", last)
	}
	if cfg.LLM.DefaultModel != "" || cfg.LLM.Models[0].ID != "eliza" {
		t.Errorf("the default is %q, the first is %q", cfg.LLM.DefaultModel, cfg.LLM.Models[0].ID)
	}
}

func TestDevMakesIDsOfOllamasNames(t *testing.T) {
	long := strings.Repeat("long", 20)
	_, models := found(t, fakeOllama(t, "eliza", "a/b", "a b", "a//b", "模型", "_x", long, long+"er"))
	want := []string{"eliza", "eliza-2", "a-b", "a-b-2", "a-b-3", "model", "x", long[:64], long[:62] + "-2"}
	for i := range models {
		models[i] = strings.TrimSuffix(models[i], " (Ollama)")
	}
	if !slices.Equal(models, want) {
		t.Errorf("got %q, want %q", models, want)
	}

	var names []string
	for i := range 25 {
		names = append(names, fmt.Sprint("model", i))
	}
	if _, models := found(t, fakeOllama(t, names...)); len(models) != 21 || models[20] != "model19 (Ollama)" {
		t.Errorf("of 25 models dev offers %q", models)
	}
}

func TestDevGoesOnWhereAnOllamaIsNotWell(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		t.Error("the redirect was followed")
	}))
	defer elsewhere.Close()
	const list = `{"models":[{"name":"m"}]}`
	for name, h := range map[string]http.HandlerFunc{
		"hangs":       func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"fails":       func(w http.ResponseWriter, _ *http.Request) { http.Error(w, list, http.StatusInternalServerError) },
		"no Ollama":   func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") },
		"no names":    func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"models":[{},{"name":""}]}`) },
		"endless":     func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, strings.Repeat(" ", 2<<20), list) },
		"redirecting": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere.URL, http.StatusFound) },
	} {
		if _, models := found(t, serveTags(t, h)); !slices.Equal(models, []string{"eliza"}) {
			t.Errorf("%s: dev offers %q", name, models)
		}
	}
}

func TestDevLooksForAnOllamaOnThisMachineOnly(t *testing.T) {
	const usual = "http://127.0.0.1:11434"
	for host, want := range map[string]string{
		"":                              usual,
		"127.0.0.1":                     usual,
		"127.0.0.1:4000":                "http://127.0.0.1:4000",
		"localhost:4000":                "http://localhost:4000",
		"http://localhost":              "http://localhost:11434",
		"https://[::1]:4000/ollama":     "https://[::1]:4000",
		"0.0.0.0:4000":                  usual,
		":4000":                         usual,
		"192.0.2.1:4000":                usual,
		"http://ollama.example":         usual,
		"http://localhost.example":      usual,
		"http://127.0.0.1@evil.example": usual,
		"ftp://127.0.0.1":               usual,
		"not an address":                usual,
	} {
		if got := ollamaURL(host); got != want {
			t.Errorf("OLLAMA_HOST=%s: got %s, want %s", host, got, want)
		}
	}
}
