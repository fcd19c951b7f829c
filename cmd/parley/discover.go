package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/parley-chat/parley/config"
)

// keyed are the services that a key in the environment opens, each with the model that it is tried with.
var keyed = []struct {
	provider config.Provider
	model    config.Model
}{
	{
		config.Provider{
			ID: "openai", Type: config.ProviderOpenAI, BaseURL: "https://api.openai.com/v1", APIKeyEnv: "OPENAI_API_KEY",
		},
		config.Model{ID: "gpt-5.1", Name: "GPT-5.1", Targets: []string{"openai/gpt-5.1"}},
	},
	{
		config.Provider{
			ID: "anthropic", Type: config.ProviderAnthropic, BaseURL: "https://api.anthropic.com/v1",
			APIKeyEnv: "ANTHROPIC_API_KEY",
		},
		config.Model{ID: "claude-sonnet-4-5", Name: "Claude Sonnet 4.5", Targets: []string{"anthropic/claude-sonnet-4-5"}},
	},
}

// ollamaID is the ID of the provider for an Ollama on this machine.
const ollamaID = "ollama"

// The bounds of asking an Ollama what it has.
const (
	ollamaTimeout  = 300 * time.Millisecond
	ollamaMaxBytes = 1 << 20
	ollamaMost     = 20 // models
)

// discover adds the models to l that can be had without a configuration: of the services that environ (as of
// [os.Environ]) has a key for, and of an Ollama on this machine.
func discover(ctx context.Context, environ []string, l *config.LLM) {
	for _, k := range keyed {
		if lookup(environ, k.provider.APIKeyEnv) != "" {
			l.Providers = append(l.Providers, k.provider)
			l.Models = append(l.Models, k.model)
		}
	}
	base := ollamaURL(lookup(environ, "OLLAMA_HOST"))
	names := ollamaModels(ctx, base)
	if len(names) == 0 {
		return
	}
	l.Providers = append(l.Providers, config.Provider{ID: ollamaID, Type: config.ProviderOpenAI, BaseURL: base + "/v1"})
	taken := make(map[string]bool)
	for _, m := range l.Models {
		taken[m.ID] = true
	}
	for _, name := range names[:min(len(names), ollamaMost)] {
		id := freeID(name, taken)
		taken[id] = true
		l.Models = append(l.Models, config.Model{ID: id, Name: name, Targets: []string{ollamaID + "/" + name}})
	}
}

// ollamaURL gives where to look for an Ollama: where OLLAMA_HOST says, if that is on this machine, else at the usual
// address. The variable may also be what a server listens on, such as 0.0.0.0, or name another machine, to which
// nobody has asked Parley to connect.
func ollamaURL(host string) string {
	const usual = "http://127.0.0.1:11434"
	if !strings.Contains(host, "://") {
		host = "http://" + host
	}
	u, err := url.Parse(host)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" {
		return usual
	}
	if addr := net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), "11434")); isLoopback(addr) {
		return u.Scheme + "://" + addr
	}
	return usual
}

// ollamaModels gives the names of the models that are installed, none where no Ollama answers in time. It asks without
// a proxy, and follows no redirect off this machine.
func ollamaModels(ctx context.Context, base string) []string {
	ctx, cancel := context.WithTimeout(ctx, ollamaTimeout)
	defer cancel()
	client := http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/api/tags", nil)
	if err != nil {
		return nil
	}
	response, err := client.Do(request)
	if err != nil {
		return nil
	}
	defer func() { _ = response.Body.Close() }() // it was only read
	var tags struct {
		Models []struct {
			Name string `json:"name"`
		} `json:"models"`
	}
	err = json.NewDecoder(io.LimitReader(response.Body, ollamaMaxBytes)).Decode(&tags)
	if err != nil || response.StatusCode != http.StatusOK {
		return nil
	}
	var names []string
	for _, m := range tags.Models {
		if m.Name != "" {
			names = append(names, m.Name)
		}
	}
	return names
}

// notInID matches what the IDs of the configuration have nowhere.
var notInID = regexp.MustCompile(`[^A-Za-z0-9._:-]+`)

// freeID makes an ID of a model's name that is not taken yet, with a number behind it if need be.
func freeID(name string, taken map[string]bool) string {
	const longest = 64
	id := cmp.Or(strings.TrimLeft(notInID.ReplaceAllString(name, "-"), "-._:"), "model")
	id = id[:min(len(id), longest)]
	for n, first := 2, id; taken[id]; n++ {
		suffix := fmt.Sprint("-", n)
		id = first[:min(len(first), longest-len(suffix))] + suffix
	}
	return id
}

// origin says in brackets where a model of l comes from, if that is worth a word.
func origin(l config.LLM, m config.Model) string {
	id, _, _ := config.SplitTarget(m.Targets[0])
	for _, p := range l.Providers {
		switch {
		case p.ID != id:
		case p.APIKeyEnv != "":
			return " (" + p.APIKeyEnv + ")"
		case p.ID == ollamaID:
			return " (Ollama)"
		}
	}
	return ""
}
