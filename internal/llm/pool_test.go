package llm_test

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/llm"
)

// scripted gives its chunks and then its error. It keeps the request.
type scripted struct {
	chunks  []chat.Chunk
	err     error
	request chat.Request
	given   int
}

func (s *scripted) Stream(_ context.Context, request chat.Request) iter.Seq2[chat.Chunk, error] {
	return func(yield func(chat.Chunk, error) bool) {
		s.request = request
		for _, chunk := range s.chunks {
			s.given++
			if !yield(chunk, nil) {
				return
			}
		}
		if s.err != nil {
			yield(chat.Chunk{}, s.err)
		}
	}
}

func newPool(t *testing.T, targets ...llm.Target) *llm.Pool {
	t.Helper()
	pool, err := llm.NewPool(llm.Config{Models: []llm.Model{
		{ID: "default", Name: "Default", Targets: []llm.Target{{ProviderID: "p0", Provider: &scripted{}, Model: "m0"}}},
		{ID: "chosen", Name: "Chosen", Targets: targets},
	}}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return pool
}

func TestThePoolAsksTheFirstTarget(t *testing.T) {
	provider := &scripted{chunks: []chat.Chunk{{Text: "a"}, {Text: "b"}, {FinishReason: chat.FinishStop}}}
	pool := newPool(t,
		llm.Target{ProviderID: "p1", Provider: provider, Model: "m1"},
		llm.Target{ProviderID: "p2", Provider: &scripted{}, Model: "m2"})
	request := chat.Request{
		SessionID: "s", Model: "chosen", Messages: []chat.PromptMessage{{Role: chat.RoleUser, Text: "Hi"}},
	}
	var got []chat.Chunk
	for chunk, err := range pool.Stream(t.Context(), request) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, chunk)
	}
	want := []chat.Chunk{{Text: "a", Provider: "p1"}, {Text: "b"}, {FinishReason: chat.FinishStop}}
	if !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if r := provider.request; r.Model != "m1" || r.SessionID != "s" || !slices.Equal(r.Messages, request.Messages) {
		t.Errorf("the provider was asked %+v", r)
	}
}

func TestThePoolPassesErrorsOn(t *testing.T) {
	broken := chat.NewError(chat.CodeLLMUnavailable, "down")
	pool := newPool(t, llm.Target{ProviderID: "p1", Provider: &scripted{err: broken}, Model: "m1"})
	pairs := 0
	for chunk, err := range pool.Stream(t.Context(), chat.Request{Model: "chosen"}) {
		pairs++
		if !errors.Is(err, broken) || chunk.Provider != "p1" {
			t.Errorf("got %+v, %v", chunk, err)
		}
	}
	if pairs != 1 {
		t.Errorf("%d pairs", pairs)
	}
}

func TestLeavingThePoolLeavesTheProvider(t *testing.T) {
	provider := &scripted{chunks: []chat.Chunk{{Text: "a"}, {Text: "b"}}}
	pool := newPool(t, llm.Target{ProviderID: "p1", Provider: provider})
	for range pool.Stream(t.Context(), chat.Request{Model: "chosen"}) {
		break
	}
	if provider.given != 1 {
		t.Errorf("%d chunks were asked for", provider.given)
	}
}

func TestUnknownModel(t *testing.T) {
	pool := newPool(t, llm.Target{Provider: &scripted{}})
	var last error
	for _, err := range pool.Stream(t.Context(), chat.Request{Model: "m0"}) {
		last = err
	}
	if shown, ok := errors.AsType[*chat.Error](last); !ok || shown.Code != chat.CodeModelNotFound {
		t.Errorf("got %v", last)
	}
}

func TestThePoolsModels(t *testing.T) {
	pool := newPool(t, llm.Target{Provider: &scripted{}})
	if !pool.Has("chosen") || pool.Has("") || pool.Has("m0") {
		t.Error("Has is wrong")
	}
	if pool.Default() != "default" {
		t.Errorf("the default is %q", pool.Default())
	}
	models := pool.Models()
	if len(models) != 2 || models[0].ID != "default" || models[1].Name != "Chosen" {
		t.Errorf("got %+v", models)
	}
	models[0].ID = "changed"
	if pool.Has("changed") {
		t.Error("a caller can change the pool")
	}
}

func TestNewPoolNamesAllProblems(t *testing.T) {
	target := []llm.Target{{ProviderID: "p", Provider: &scripted{}}}
	log := slog.New(slog.DiscardHandler)
	_, err := llm.NewPool(llm.Config{Models: []llm.Model{
		{ID: "a", Targets: target},
		{ID: "a", Targets: target},
		{Targets: target},
		{ID: "b"},
		{ID: "c", Targets: []llm.Target{{ProviderID: "gone"}}},
	}}, log)
	if err == nil {
		t.Fatal("no error")
	}
	for _, problem := range []string{
		`"a" is there twice`, "model 3 has no ID", `"b" has no targets`, `no provider "gone"`,
	} {
		if !strings.Contains(err.Error(), problem) {
			t.Errorf("%q does not say %q", err, problem)
		}
	}
	if _, err := llm.NewPool(llm.Config{}, log); err == nil {
		t.Error("a pool without models")
	}
}
