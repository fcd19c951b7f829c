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
		open := func() chat.Store {
			store, err := sqlite.Open(t.Context(), path)
			if err != nil {
				t.Fatal(err)
			}
			return store
		}
		closeStore := func(store chat.Store) {
			if err := store.Close(); err != nil {
				t.Error(err)
			}
		}
		store := open()
		t.Cleanup(func() { closeStore(store) })
		return store, func() chat.Store {
			closeStore(store)
			store = open()
			return store
		}
	})
}
