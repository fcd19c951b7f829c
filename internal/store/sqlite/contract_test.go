package sqlite_test

import (
	"path/filepath"
	"testing"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/store/sqlite"
	"github.com/parley-chat/parley/internal/store/storetest"
)

func TestContract(t *testing.T) {
	storetest.Run(t, func(t *testing.T) (chat.Store, func() chat.Store) {
		path := filepath.Join(t.TempDir(), "parley.db")
		return storetest.Persistent(t, func() (chat.Store, error) { return sqlite.Open(t.Context(), path) })
	})
}
