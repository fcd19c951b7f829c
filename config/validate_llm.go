package config

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
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
	if l.DefaultModel != "" && len(models) > 0 && !slices.Contains(models, l.DefaultModel) {
		ps.add("llm.default_model", strconv.Quote(l.DefaultModel)+" is no model's id",
			"use one of "+strings.Join(models, ", ")+", or remove the key to use the first")
	}
}

// checkProviders returns the providers' IDs.
func (l LLM) checkProviders(ps *problems) []string {
	var ids []string
	for i, p := range l.Providers {
		key := at("llm.providers", i)
		ids = checkID(ps, key+".id", p.ID, ids)
		oneOf(ps, key+".type", p.Type, ProviderOpenAI, ProviderAnthropic, ProviderDify, ProviderEliza)
		if p.Type == ProviderOpenAI && p.BaseURL == "" {
			ps.add(key+".base_url", "is required", "write https://api.openai.com/v1, or where else the API is served")
		}
		if p.BaseURL != "" && !isWebURL(p.BaseURL) {
			ps.add(key+".base_url", "is not an http or https URL", "write it like https://api.openai.com/v1")
		}
	}
	return ids
}

// checkModels returns the models' IDs.
func (l LLM) checkModels(ps *problems, providers []string) []string {
	var ids []string
	for i, m := range l.Models {
		key := at("llm.models", i)
		ids = checkID(ps, key+".id", m.ID, ids)
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
