package sqlite

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if path := os.Getenv(inserterEnv); path != "" {
		os.Exit(insertUntilKilled(path))
	}
	goleak.VerifyTestMain(m)
}

// insertEmptySessions begins a statement that a SELECT completes; it gives only what no column has a default for.
const insertEmptySessions = `INSERT INTO sessions (id, user_id, title, model, status, created_at, last_active_at,
	help_requested, help_reason, end_reason) `

// openStore opens a store that is closed when the test ends.
func openStore(tb testing.TB, path string) *Store {
	tb.Helper()
	s, err := Open(tb.Context(), path)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Error(err)
		}
	})
	return s
}
