package llm_test

import (
	"context"
	"iter"
	"log/slog"
	"testing"
	"time"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/llm"
)

// endless answers with a word, again and again.
type endless struct{}

func (endless) Stream(context.Context, chat.Request) iter.Seq2[chat.Chunk, error] {
	return func(yield func(chat.Chunk, error) bool) {
		for yield(chat.Chunk{Text: "word "}, nil) {
		}
	}
}

// BenchmarkChunk is what a chunk costs on its way through the pool, beside what it costs without; one op is one chunk.
func BenchmarkChunk(b *testing.B) {
	target := llm.Target{ProviderID: "p", Provider: endless{}, Model: "m", Timeouts: llm.Timeouts{
		FirstToken: time.Minute, Idle: time.Minute, Stream: time.Hour,
	}}
	pool, err := llm.NewPool(llm.Config{Models: []llm.Model{{ID: "m", Targets: []llm.Target{target}}}},
		slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	for name, provider := range map[string]chat.Provider{"pool": pool, "provider": endless{}} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			left := b.N
			for _, err := range provider.Stream(b.Context(), chat.Request{Model: "m"}) {
				if err != nil {
					b.Fatal(err)
				}
				if left--; left <= 0 {
					break
				}
			}
		})
	}
}
