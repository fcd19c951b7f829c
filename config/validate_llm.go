package config

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/template"
	"time"
	"unicode"
)

// modelID is what a provider's or a model's ID looks like: it appears in targets, URLs and metrics.
var modelID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:-]{0,63}$`)

const fixID = "use up to 64 letters, digits and . _ : -, with a letter or digit first"

// SplitTarget takes a model's target, PROVIDER/MODEL, apart. The provider's own name for the model may have slashes.
func SplitTarget(target string) (provider, model string, ok bool) {
	provider, model, ok = strings.Cut(target, "/")
	return provider, model, ok && provider != "" && model != ""
}

func (l LLM) check(ps *problems) {
	if len(l.Providers) == 0 {
		ps.add("llm.providers", "is required: there is nobody to ask", "add a provider in the configuration file; "+
			"`parley config --example` shows one")
	}
	if len(l.Models) == 0 {
		ps.add("llm.models", "is required: there is nothing to choose", "add a model in the configuration file; "+
			"`parley config --example` shows one")
	}
	providers := l.checkProviders(ps)
	models := l.checkModels(ps, providers)
	for _, m := range []struct{ key, id, without string }{
		{"llm.default_model", l.DefaultModel, "use the first"},
		{"llm.title_model", l.TitleModel, "have titles made of a conversation's first words"},
	} {
		if m.id != "" && len(models) > 0 && !slices.Contains(models, m.id) {
			ps.add(m.key, strconv.Quote(m.id)+" is no model's id",
				"use one of "+strings.Join(models, ", ")+", or remove the key to "+m.without)
		}
	}
	checkTemplate(ps, "llm.system_prompt", l.SystemPrompt)
	l.checkLimits(ps)
}

// checkTemplate checks what of a system prompt can be known without a session.
func checkTemplate(ps *problems, key, text string) {
	t, err := template.New("it").Parse(text)
	if err == nil {
		err = t.Execute(io.Discard, struct{ Metadata map[string]string }{})
	}
	if err != nil {
		ps.add(key, "is not a template: "+strings.TrimPrefix(err.Error(), "template: "),
			`write {{.Metadata.NAME}} for what a session's metadata has, and {{"{{"}} for braces that stand for themselves`)
	}
}

// checkLimits checks how often providers are asked, how much users may spend, and the moderation.
func (l LLM) checkLimits(ps *problems) {
	within(ps, "llm.retry.max_attempts", l.Retry.MaxAttempts, 1, 20)
	within(ps, "llm.retry.initial_backoff", l.Retry.InitialBackoff, time.Millisecond, time.Hour)
	within(ps, "llm.retry.max_backoff", l.Retry.MaxBackoff, time.Millisecond, time.Hour)
	within(ps, "llm.hedge_after", l.HedgeAfter, 0, time.Hour)
	within(ps, "llm.breaker.failures", l.Breaker.Failures, 1, 10_000)
	within(ps, "llm.breaker.delay", l.Breaker.Delay, time.Millisecond, 24*time.Hour)
	within(ps, "llm.budget.tokens", l.Budget.Tokens, 0, math.MaxInt32)
	within(ps, "llm.budget.window", l.Budget.Window, time.Second, 366*24*time.Hour)
	within(ps, "llm.moderation.timeout", l.Moderation.Timeout, time.Millisecond, time.Hour)
	if l.Moderation.URL != "" && !isWebURL(l.Moderation.URL) {
		ps.add("llm.moderation.url", "is not an http or https URL", "write it like https://moderation.example.com/check")
	}
	if isPlaceholder(l.Moderation.APIKey) {
		ps.add("llm.moderation.api_key", "is a placeholder", "put the endpoint's key into its place, or remove this one")
	}
}

// checkProviders returns the providers' IDs.
func (l LLM) checkProviders(ps *problems) []string {
	var ids []string
	for i, p := range l.Providers {
		key := at("llm.providers", i)
		ids = checkID(ps, key+".id", p.ID, ids)
		oneOf(ps, key+".type", p.Type, ProviderOpenAI, ProviderAnthropic, ProviderDify, ProviderEliza)
		if home := homes[p.Type]; home != "" && p.BaseURL == "" {
			ps.add(key+".base_url", "is required", "write "+home+", or where else the API is served")
		}
		if p.BaseURL != "" && !isWebURL(p.BaseURL) {
			ps.add(key+".base_url", "is not an http or https URL", "write it like https://api.openai.com/v1")
		}
		if added := added[p.Type]; added != "" && strings.HasSuffix(strings.TrimRight(p.BaseURL, "/"), added) {
			ps.add(key+".base_url", "ends with "+added, "leave that out: Parley adds it")
		}
		l.checkConnection(ps, key, p)
	}
	return ids
}

// homes are where the APIs of the types are served by those who made them.
var homes = map[string]string{
	ProviderOpenAI:    "https://api.openai.com/v1",
	ProviderAnthropic: "https://api.anthropic.com/v1",
	ProviderDify:      "https://api.dify.ai/v1",
}

// added is what each type adds to its base URL, as documents show it.
var added = map[string]string{
	ProviderOpenAI:    "/chat/completions",
	ProviderAnthropic: "/messages",
	ProviderDify:      "/chat-messages",
}

// checkConnection checks how a provider is reached, and its timeouts.
func (l LLM) checkConnection(ps *problems, key string, p Provider) {
	if p.Proxy != "" && p.Proxy != NoProxy {
		u, err := url.Parse(p.Proxy)
		if err != nil || u.Host == "" || !slices.Contains([]string{"http", "https", "socks5", "socks5h"}, u.Scheme) {
			ps.add(key+".proxy", "is not the URL of a proxy",
				"write it like http://proxy.example.com:3128 or socks5://127.0.0.1:1080, or "+NoProxy)
		}
	}
	if strings.ContainsFunc(p.APIKey, unicode.IsControl) {
		ps.add(key+".api_key", "holds a line break or another control character", "give just the key, on one line")
	}
	if isPlaceholder(p.APIKey) {
		ps.add(key+".api_key", "is a placeholder", "put the key that the provider gave you into its place")
	}
	for _, d := range []struct {
		name  string
		value time.Duration
	}{
		{".connect_timeout", p.ConnectTimeout},
		{".first_token_timeout", p.FirstTokenTimeout},
		{".idle_timeout", p.IdleTimeout},
		{".stream_timeout", p.StreamTimeout},
	} {
		if d.value != 0 {
			within(ps, key+d.name, d.value, time.Millisecond, 24*time.Hour)
		}
		if stream := cmp.Or(p.StreamTimeout, l.StreamTimeout); d.value > stream {
			ps.add(key+d.name, fmt.Sprintf("%v is longer than a whole response may take, %v", d.value, stream),
				"lower it, or raise "+key+".stream_timeout")
		}
	}
}

// isPlaceholder reports whether a key is one of those of a template, such as <the key of your account>.
func isPlaceholder(key string) bool {
	return strings.HasPrefix(key, "<") && strings.HasSuffix(key, ">")
}

// checkModels returns the models' IDs.
func (l LLM) checkModels(ps *problems, providers []string) []string {
	var ids []string
	for i, m := range l.Models {
		key := at("llm.models", i)
		ids = checkID(ps, key+".id", m.ID, ids)
		checkTemplate(ps, key+".system_prompt", m.SystemPrompt)
		if m.Temperature != nil {
			within(ps, key+".temperature", *m.Temperature, 0, 2)
		}
		within(ps, key+".max_output_tokens", m.MaxOutputTokens, 0, 10_000_000)
		within(ps, key+".price.input", m.Price.Input, 0, 1e6)
		within(ps, key+".price.output", m.Price.Output, 0, 1e6)
		if len(m.Targets) == 0 {
			ps.add(key+".targets", "is required", "list where the model runs, as PROVIDER/MODEL")
		}
		for j, target := range m.Targets {
			key := at(key+".targets", j)
			provider, _, ok := SplitTarget(target)
			switch {
			case !ok:
				ps.add(key, strconv.Quote(target)+" names no model", "write PROVIDER/MODEL, such as openai/gpt-5.1")
			case !slices.Contains(providers, provider):
				ps.add(key, "there is no provider "+strconv.Quote(provider), "add it to llm.providers, or use one of: "+
					strings.Join(providers, ", "))
			}
		}
	}
	return ids
}

// checkID checks an ID and appends it to those before it in its list.
func checkID(ps *problems, key, id string, before []string) []string {
	switch {
	case id == "":
		ps.add(key, "is required", fixID)
		return before
	case !modelID.MatchString(id):
		ps.add(key, strconv.Quote(id)+" is not an ID", fixID)
	case slices.Contains(before, id):
		ps.add(key, strconv.Quote(id)+" is there already", "give each its own")
	}
	return append(before, id)
}
