package mongo

import (
	"os"
	"testing"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/store/mongo/mongotest"
	"github.com/parley-chat/parley/internal/store/storetest"
)

// BenchmarkStore is for the MongoDB that PARLEY_TEST_MONGO_URI names: FerretDB uses no indexes, so its speed says
// nothing.
func BenchmarkStore(b *testing.B) {
	if os.Getenv("PARLEY_TEST_MONGO_URI") == "" {
		b.Skip("PARLEY_TEST_MONGO_URI names no MongoDB")
	}
	storetest.Benchmark(b, 1_000_000, func(b *testing.B) chat.Store {
		server := mongotest.Start(b)
		s, err := Open(b.Context(), Config{URI: server.URI(), Database: server.Database()})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { s.Close() })
		return s
	})
}
