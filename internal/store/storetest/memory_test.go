package storetest_test

import (
	"testing"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/store/storetest"
)

func TestMemoryPassesTheSuite(t *testing.T) {
	storetest.Run(t, func(*testing.T) (chat.Store, func() chat.Store) {
		store := storetest.NewMemory()
		return store, func() chat.Store { return store }
	})
}
