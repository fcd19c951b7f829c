// Package llm is what the server knows of language models: the [Pool] that finds the provider of a configured model,
// and the [Prompt] that is made of a conversation. The packages under it each speak to one kind of provider; they are
// wired to the pool from above, and the pool knows them as [chat.Provider] only.
package llm

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/parley-chat/parley/chat"
)

// Model is a model as people choose it.
type Model struct {
	ID      string
	Name    string   // for people
	Targets []Target // where it runs, in order of preference
}

// Target is a model at a provider.
type Target struct {
	ProviderID string
	Provider   chat.Provider
	Model      string // the provider's name for it
}

// Pool is all configured models as one [chat.Provider]: the model of a request is a configured ID. It never changes
// and is safe for concurrent use.
type Pool struct {
	models []Model
}

var _ chat.Provider = (*Pool)(nil)

// NewPool returns a pool of models, the default first. The error names every model that lacks its ID or a target, or
// has an ID twice; there must be at least one.
func NewPool(models []Model) (*Pool, error) {
	var problems []error
	if len(models) == 0 {
		problems = append(problems, errors.New("no models"))
	}
	seen := make(map[string]bool, len(models))
	for i, m := range models {
		if m.ID == "" {
			problems = append(problems, fmt.Errorf("model %d has no ID", i+1))
		}
		if seen[m.ID] {
			problems = append(problems, fmt.Errorf("model %q is there twice", m.ID))
		}
		seen[m.ID] = true
		if len(m.Targets) == 0 {
			problems = append(problems, fmt.Errorf("model %q has no targets", m.ID))
		}
		for _, target := range m.Targets {
			if target.Provider == nil {
				problems = append(problems, fmt.Errorf("model %q: no provider %q", m.ID, target.ProviderID))
			}
		}
	}
	if err := errors.Join(problems...); err != nil {
		return nil, fmt.Errorf("pool of models: %w", err)
	}
	return &Pool{models: slices.Clone(models)}, nil
}

// Models returns all models in their order.
func (p *Pool) Models() []Model { return slices.Clone(p.models) }

// Has reports whether there is a model of this ID.
func (p *Pool) Has(id string) bool { return p.index(id) >= 0 }

// Default returns the ID of the model that is used where nobody chose one.
func (p *Pool) Default() string { return p.models[0].ID }

func (p *Pool) index(id string) int {
	return slices.IndexFunc(p.models, func(m Model) bool { return m.ID == id })
}

// Stream implements [chat.Provider]. The first pair says which provider answers, also where it is an error. A model
// that is not configured is model_not_found.
func (p *Pool) Stream(ctx context.Context, request chat.Request) iter.Seq2[chat.Chunk, error] {
	return func(yield func(chat.Chunk, error) bool) {
		i := p.index(request.Model)
		if i < 0 {
			yield(chat.Chunk{}, chat.NewError(chat.CodeModelNotFound, "there is no such model"))
			return
		}
		target := p.models[i].Targets[0]
		request.Model = target.Model
		provider := target.ProviderID
		for chunk, err := range target.Provider.Stream(ctx, request) {
			chunk.Provider, provider = provider, ""
			if !yield(chunk, err) {
				return
			}
		}
	}
}
