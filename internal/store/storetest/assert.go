package storetest

import (
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/parley-chat/parley/chat"
)

var someTime = time.Date(2026, time.March, 4, 5, 6, 7, 89_000_000, time.UTC)

func newSession(id string) chat.Session {
	return chat.Session{
		ID:           id,
		UserID:       "user",
		Title:        "title of " + id,
		Model:        "model",
		Status:       chat.SessionStatusActive,
		CreatedAt:    someTime,
		LastActiveAt: someTime,
	}
}

func newMessage(n int64, id string) chat.Message {
	return chat.Message{
		ID:        id,
		N:         n,
		Role:      chat.RoleUser,
		Text:      "text of " + id,
		Status:    chat.StatusComplete,
		CreatedAt: someTime,
		Author:    &chat.Author{ID: "user", Name: "User"},
	}
}

func newStreamingMessage(n int64, id string) chat.Message {
	return chat.Message{ID: id, N: n, Role: chat.RoleAssistant, Status: chat.StatusStreaming, CreatedAt: someTime}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func mustCreate(t *testing.T, store chat.Store, sessions ...chat.Session) {
	t.Helper()
	for _, session := range sessions {
		must(t, store.CreateSession(t.Context(), &session))
	}
}

func mustInsert(t *testing.T, store chat.Store, sessionID string, messages ...chat.Message) {
	t.Helper()
	session, err := store.Session(t.Context(), sessionID)
	must(t, err)
	for _, m := range messages {
		must(t, store.InsertMessage(t.Context(), sessionID, session.Claim, m))
	}
}

func wantError(t *testing.T, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("got error %v, want %v", got, want)
	}
}

// wantSession fails if the stored session is not want in every field.
func wantSession(t *testing.T, store chat.Store, want chat.Session) {
	t.Helper()
	got, err := store.Session(t.Context(), want.ID)
	must(t, err)
	wantEqual(t, got, want)
}

func wantNoSession(t *testing.T, store chat.Store, id string) {
	t.Helper()
	_, err := store.Session(t.Context(), id)
	wantError(t, err, chat.ErrNotFound)
}

// wantMessages fails if the session's messages are not the wanted ones, in this order and in every field, read
// together, one by one and by their place.
func wantMessages(t *testing.T, store chat.Store, sessionID string, want ...chat.Message) {
	t.Helper()
	got, err := store.Messages(t.Context(), sessionID, 0, len(want)+1)
	must(t, err)
	if len(got) != len(want) {
		t.Fatalf("session %s has %d messages, want %d", sessionID, len(got), len(want))
	}
	for i, m := range want {
		wantEqual(t, got[i], m)
		single, err := store.Message(t.Context(), sessionID, m.ID)
		must(t, err)
		wantEqual(t, single, m)
		if m.Seq == 0 {
			continue
		}
		after, err := store.MessagesAfter(t.Context(), sessionID, m.Seq-1, 1)
		must(t, err)
		if len(after) != 1 {
			t.Fatalf("session %s has no message after seq %d", sessionID, m.Seq-1)
		}
		wantEqual(t, after[0], m)
	}
}

// wantEqual compares two structs and names the fields that differ.
func wantEqual[T any](t *testing.T, got, want T) {
	t.Helper()
	gotValue, wantValue := reflect.ValueOf(got), reflect.ValueOf(want)
	for i := range gotValue.NumField() {
		g, w := gotValue.Field(i).Interface(), wantValue.Field(i).Interface()
		if !reflect.DeepEqual(g, w) {
			t.Errorf("%T.%s: got %s, want %s", got, gotValue.Type().Field(i).Name, show(g), show(w))
		}
	}
}

// show prints a value, and what it points to, without filling the screen.
func show(value any) string {
	if v := reflect.ValueOf(value); v.Kind() == reflect.Pointer && !v.IsNil() {
		value = v.Elem().Interface()
	}
	text := fmt.Sprintf("%#v", value)
	if len(text) > 300 {
		return fmt.Sprintf("%s… (%d bytes)", text[:300], len(text))
	}
	return text
}

// updateSession stores a change of a session: under the next revision.
func updateSession(t *testing.T, store chat.Store, session *chat.Session, places ...chat.Place) error {
	t.Helper()
	session.Revision++
	return store.UpdateSession(t.Context(), session, places...)
}

// claimSession claims a session, and fails if what it is told is not what is stored then.
func claimSession(t *testing.T, store chat.Store, id string, from, to chat.Claim) error {
	t.Helper()
	claimed, err := store.ClaimSession(t.Context(), id, from, to)
	if err == nil && claimed.Claim != to {
		t.Errorf("the claim of session %s is %v, and is told to be %v", id, to, claimed.Claim)
	}
	return err
}
