package storetest

import (
	"testing"

	"github.com/parley-chat/parley/chat"
)

var messageTests = []contractTest{
	{"InsertMessage of a taken N is ErrExists and changes nothing", onStore(func(t *testing.T, store chat.Store) {
		first := newMessage(1, "m1")
		mustCreate(t, store, newSession("s1"))
		mustInsert(t, store, "s1", first)
		wantError(t, store.InsertMessage(t.Context(), "s1", chat.Claim{}, newMessage(1, "m2")), chat.ErrExists)
		wantMessages(t, store, "s1", first)
		wantNoMessage(t, store, "s1", "m2")
	})},
	{"InsertMessage of a taken ID is ErrExists and changes nothing", onStore(func(t *testing.T, store chat.Store) {
		first, second := newMessage(1, "m1"), newMessage(2, "m1")
		second.Text = "another text"
		mustCreate(t, store, newSession("s1"))
		mustInsert(t, store, "s1", first)
		wantError(t, store.InsertMessage(t.Context(), "s1", chat.Claim{}, second), chat.ErrExists)
		wantError(t, store.InsertMessage(t.Context(), "s1", chat.Claim{}, first), chat.ErrExists)
		wantMessages(t, store, "s1", first)
	})},
	{"sessions share neither N nor IDs", onStore(func(t *testing.T, store chat.Store) {
		one, other := newMessage(1, "m1"), newMessage(1, "m1")
		other.Text = "another text"
		mustCreate(t, store, newSession("s1"), newSession("s2"))
		mustInsert(t, store, "s1", one)
		mustInsert(t, store, "s2", other)
		wantMessages(t, store, "s1", one)
		wantMessages(t, store, "s2", other)
	})},
	{"IDs that differ in case are different messages", onStore(func(t *testing.T, store chat.Store) {
		mustCreate(t, store, newSession("s1"))
		mustInsert(t, store, "s1", newMessage(1, "abc"), newMessage(2, "ABC"))
		wantMessages(t, store, "s1", newMessage(1, "abc"), newMessage(2, "ABC"))
	})},
	{"Message of an unknown ID is ErrNotFound", onStore(func(t *testing.T, store chat.Store) {
		mustCreate(t, store, newSession("s1"), newSession("s2"))
		mustInsert(t, store, "s1", newMessage(1, "m1"))
		wantNoMessage(t, store, "s1", "m2")
		wantNoMessage(t, store, "s2", "m1")
		wantNoMessage(t, store, "s3", "m1")
	})},
	{"UpdateMessage replaces what can change and nothing else", onStore(updatesMessage)},
	{"UpdateMessage may come again while the message is streaming", onStore(func(t *testing.T, store chat.Store) {
		m := newStreamingMessage(1, "m1")
		mustCreate(t, store, newSession("s1"))
		mustInsert(t, store, "s1", m)
		for _, text := range []string{"It", "It was", "It was late."} {
			m.Text = text
			must(t, store.UpdateMessage(t.Context(), "s1", chat.Claim{}, m))
			wantMessages(t, store, "s1", m)
		}
	})},
	{"UpdateMessage never inserts", onStore(func(t *testing.T, store chat.Store) {
		mustCreate(t, store, newSession("s1"))
		wantError(t, store.UpdateMessage(t.Context(), "s1", chat.Claim{}, newStreamingMessage(1, "m1")), chat.ErrStale)
		wantError(t, store.UpdateMessage(t.Context(), "s2", chat.Claim{}, newStreamingMessage(1, "m1")), chat.ErrStale)
		wantMessages(t, store, "s1")
		wantMessages(t, store, "s2")
	})},
	{"UpdateMessage leaves other messages alone", onStore(func(t *testing.T, store chat.Store) {
		one, sibling, other := newStreamingMessage(1, "m1"), newStreamingMessage(2, "m2"), newStreamingMessage(1, "m1")
		mustCreate(t, store, newSession("s1"), newSession("s2"))
		mustInsert(t, store, "s1", one, sibling)
		mustInsert(t, store, "s2", other)
		one.Text = "text"
		must(t, store.UpdateMessage(t.Context(), "s1", chat.Claim{}, one))
		wantMessages(t, store, "s1", one, sibling)
		wantMessages(t, store, "s2", other)
	})},
	{"UpdateMessage of a final message is ErrStale and changes nothing", onStore(keepsMessageFinal)},
}

func wantNoMessage(t *testing.T, store chat.Store, sessionID, messageID string) {
	t.Helper()
	_, err := store.Message(t.Context(), sessionID, messageID)
	wantError(t, err, chat.ErrNotFound)
}

func updatesMessage(t *testing.T, store chat.Store) {
	mustCreate(t, store, newSession("s1"))
	original, update := filledMessage(1, "m1", 1), filledMessage(1, "m1", 2)
	original.Status, update.Status = chat.StatusStreaming, chat.StatusStreaming
	update.N = 99 // the ID tells which message is meant
	mustInsert(t, store, "s1", original)
	for _, update := range []chat.Message{update, {ID: "m1", Status: chat.StatusComplete}} {
		must(t, store.UpdateMessage(t.Context(), "s1", chat.Claim{}, update))
		want := original
		want.Text, want.Reasoning, want.Sealed = update.Text, update.Reasoning, update.Sealed
		want.Status, want.FinishReason, want.Error = update.Status, update.FinishReason, update.Error
		want.Provider, want.Usage = update.Provider, update.Usage
		want.FirstTokenMS, want.DurationMS = update.FirstTokenMS, update.DurationMS
		wantMessages(t, store, "s1", want)
	}
}

func keepsMessageFinal(t *testing.T, store chat.Store) {
	mustCreate(t, store, newSession("s1"))
	for i, final := range []chat.Status{
		chat.StatusComplete, chat.StatusCancelled, chat.StatusFailed, chat.StatusInterrupted,
	} {
		m := newStreamingMessage(int64(i+1), string(final))
		mustInsert(t, store, "s1", m)
		m.Text, m.Status = "the text so far", final
		must(t, store.UpdateMessage(t.Context(), "s1", chat.Claim{}, m))
		for _, status := range []chat.Status{chat.StatusStreaming, chat.StatusComplete, chat.StatusInterrupted} {
			late := m
			late.Text, late.Status = "another text", status
			wantError(t, store.UpdateMessage(t.Context(), "s1", chat.Claim{}, late), chat.ErrStale)
		}
		got, err := store.Message(t.Context(), "s1", m.ID)
		must(t, err)
		wantEqual(t, got, m)
	}
}
