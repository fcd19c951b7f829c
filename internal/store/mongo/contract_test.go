package mongo_test

import (
	"testing"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/store/mongo"
	"github.com/parley-chat/parley/internal/store/mongo/mongotest"
	"github.com/parley-chat/parley/internal/store/storetest"
)

func TestContract(t *testing.T) {
	server := mongotest.Start(t)
	storetest.Run(t, func(t *testing.T) (chat.Store, func() chat.Store) {
		config := mongo.Config{URI: server.URI(), Database: server.Database()}
		open := func() chat.Store {
			store, err := mongo.Open(t.Context(), config)
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
