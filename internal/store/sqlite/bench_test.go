package sqlite

import (
	"database/sql"
	"path/filepath"
	"testing"
	"time"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/store/storetest"
)

// BenchmarkSumUsageOfUser sums the last day of one user, of whom there is a year, in a store of 100 users with 3,650
// responses each: what a budget asks before a turn.
func BenchmarkSumUsageOfUser(b *testing.B) {
	s := openWithSession(b)
	const hour = 60 * 60 * 1000
	if err := s.submit(b.Context(), func(tx *sql.Tx) error {
		_, err := tx.Exec(`
			WITH RECURSIVE numbers (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM numbers WHERE i < 364999)
			INSERT INTO usage SELECT 'u' || (i % 100), i / 100 * ?, 's' || (i % 100), 'm' || i, 'eliza', 300, 200, 0, 40
				FROM numbers`, 24*hour/10)
		return err
	}); err != nil {
		b.Fatal(err)
	}
	lastDay := chat.UsageFilter{UserID: "u50", From: time.UnixMilli(364 * 24 * hour)}
	for b.Loop() {
		sums, err := s.SumUsage(b.Context(), lastDay)
		if err != nil || len(sums) != 1 || sums[0].Responses != 10 {
			b.Fatalf("got %+v, error %v", sums, err)
		}
	}
}

// BenchmarkStore fills files with up to a million messages first, which takes a minute.
func BenchmarkStore(b *testing.B) {
	storetest.Benchmark(b, 1_000_000, func(b *testing.B) chat.Store {
		s, err := Open(b.Context(), filepath.Join(b.TempDir(), "parley.db"))
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { s.Close() })
		return s
	})
}
