package mongo

import (
	"fmt"
	"testing"

	"go.uber.org/goleak"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/store/mongo/mongotest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(mongotest.Main(m)) }

// start gives a server and a store in it that is closed when the test ends.
func start(t *testing.T) (*mongotest.Server, *Store) {
	t.Helper()
	server := mongotest.Start(t)
	return server, openStore(t, Config{URI: server.URI(), Database: server.Database()})
}

func openStore(t *testing.T, config Config) *Store {
	t.Helper()
	s, err := Open(t.Context(), config)
	must(t, err)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Two owners of a session, one after the other.
var (
	former = chat.Claim{Owner: "former", Epoch: "1"}
	owner  = chat.Claim{Owner: "owner", Epoch: "2"}
)

// createSessions makes sessions that have the claim by.
func createSessions(t *testing.T, s *Store, by chat.Claim, ids ...string) {
	t.Helper()
	for _, id := range ids {
		must(t, s.CreateSession(t.Context(), &chat.Session{ID: id, Status: chat.SessionStatusActive, Claim: by}))
	}
}

func numbered(n int64) chat.Message {
	return chat.Message{N: n, ID: fmt.Sprint("m", n), Status: chat.StatusStreaming, Text: fmt.Sprint("text ", n)}
}

// storedTexts gives the text of each message of a session.
func storedTexts(t *testing.T, s *Store, sessionID string) (texts []string) {
	t.Helper()
	messages, err := s.Messages(t.Context(), sessionID, 0, 1000)
	must(t, err)
	for _, m := range messages {
		texts = append(texts, m.Text)
	}
	return texts
}
