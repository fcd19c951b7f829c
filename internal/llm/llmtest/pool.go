package llmtest

import (
	"log/slog"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/llm"
)

// ProviderID is the ID of the provider in a pool of [NewPool].
const ProviderID = "fake"

// NewPool returns a pool of models, the default first, which all run at the provider under their own names: for tests of
// what asks models. A target is asked once, and edit, unless nil, may change the rest.
func NewPool(provider chat.Provider, edit func(*llm.Config), models ...string) *llm.Pool {
	config := llm.Config{HistoryTokens: 1000, Breaker: llm.Breaker{Failures: 1 << 10}}
	for _, id := range models {
		config.Models = append(config.Models, llm.Model{
			ID: id, Targets: []llm.Target{{ProviderID: ProviderID, Provider: provider, Model: id}},
		})
	}
	if edit != nil {
		edit(&config)
	}
	pool, err := llm.NewPool(config, slog.New(slog.DiscardHandler))
	if err != nil {
		panic(err)
	}
	return pool
}
