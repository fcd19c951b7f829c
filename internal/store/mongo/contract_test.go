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
		return storetest.Persistent(t, func() (chat.Store, error) { return mongo.Open(t.Context(), config) })
	})
}
