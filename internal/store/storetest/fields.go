package storetest

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/parley-chat/parley/chat"
)

var fieldTests = []contractTest{
	{"every field of a session comes back", onStore(func(t *testing.T, store chat.Store) {
		session := filledSession("s1", 1)
		mustCreate(t, store, session)
		wantSession(t, store, session)
	})},
	{"every field of a message comes back", onStore(func(t *testing.T, store chat.Store) {
		mustCreate(t, store, newSession("s1"))
		m := filledMessage(7, "m1", 1)
		mustInsert(t, store, "s1", m)
		wantMessages(t, store, "s1", m)
	})},
	{"every field of a usage record is summed", onStore(sumsEveryField)},
	{"every field of a usage record makes a difference", tellsEveryFieldApart},
	{"empty fields come back empty", onStore(func(t *testing.T, store chat.Store) {
		session, m := chat.Session{ID: "s1"}, chat.Message{ID: "m1", N: 1}
		mustCreate(t, store, session)
		mustInsert(t, store, "s1", m)
		wantSession(t, store, session)
		wantMessages(t, store, "s1", m)
		mustAddUsage(t, store, chat.UsageRecord{SessionID: "s1", MessageID: "m1"})
		wantSums(t, store, chat.UsageFilter{}, chat.UsageSum{Responses: 1})
	})},
	{"times come back in UTC to the millisecond", onStore(truncatesTimes)},
	{"the cause of an error is not stored", onStore(func(t *testing.T, store chat.Store) {
		mustCreate(t, store, newSession("s1"))
		m := newMessage(1, "m1")
		m.Status, m.Error = chat.StatusFailed, chat.NewError(chat.CodeLLMTimeout, "too slow")
		secret := m
		secret.Error = m.Error.WithCause(fmt.Errorf("dial 10.0.0.1"))
		mustInsert(t, store, "s1", secret)
		wantMessages(t, store, "s1", m)
	})},
	{"text of every kind comes back as it was", onStore(keepsText)},
	{"a text of 1 MB comes back", onStore(func(t *testing.T, store chat.Store) {
		mustCreate(t, store, newSession("s1"))
		m := newStreamingMessage(1, "m1")
		mustInsert(t, store, "s1", m)
		m.Text = strings.Repeat("0123456789abcdeé", 1<<20/17) + "end"
		m.Reasoning, m.Status = m.Text, chat.StatusComplete
		must(t, store.UpdateMessage(t.Context(), "s1", chat.Claim{}, m))
		wantMessages(t, store, "s1", m)
	})},
}

func truncatesTimes(t *testing.T, store chat.Store) {
	west := time.FixedZone("west", -8*60*60)
	for i, test := range []struct{ stored, want time.Time }{
		{time.Date(2026, 1, 2, 23, 4, 5, 678_999_999, west), time.Date(2026, 1, 3, 7, 4, 5, 678_000_000, time.UTC)},
		{time.Date(1969, 12, 31, 23, 59, 59, 1_000_001, time.UTC),
			time.Date(1969, 12, 31, 23, 59, 59, 1_000_000, time.UTC)},
		{time.Date(9999, 12, 31, 23, 59, 59, 999_000_000, time.UTC),
			time.Date(9999, 12, 31, 23, 59, 59, 999_000_000, time.UTC)},
	} {
		session, m := newSession(fmt.Sprint("s", i)), newMessage(1, "m1")
		session.CreatedAt, session.LastActiveAt, m.CreatedAt = test.stored, test.stored, test.stored
		mustCreate(t, store, session)
		mustInsert(t, store, session.ID, m)
		session.CreatedAt, session.LastActiveAt, m.CreatedAt = test.want, test.want, test.want
		wantSession(t, store, session)
		wantMessages(t, store, session.ID, m)
	}
}

func keepsText(t *testing.T, store chat.Store) {
	for i, text := range []string{
		"'; DROP TABLE messages; --", `"double" \back\slash %percent% _under_ ?1 :name @at $dollar {brace} [bracket]`,
		"007", "1e5", "-0", "0x1F", "true", "null", "NULL", "{}", `{"$set":{"a.b":1}}`, "$field.path", // not text to some
		" leading and trailing \n\t ", "\r\n", "<script>&amp;</script>",
		"é e\u0301 \u1e9b\u0323", "مرحبا שלום \u2067isolate\u2069", "👩‍👩‍👧‍👦 🏳️‍🌈 ก็็็็", "日本語\u3000漢字",
		"\u2028\u2029\u200b\ufeff\u00a0", "\ufffd\ufffe\uffff\U0010ffff", "\x01\x1b\x7f\u0085",
	} {
		var session chat.Session
		var m chat.Message
		var usage chat.UsageRecord
		fillWith(func(string) string { return text }, 0, &session, &m, &usage)
		session.ID, m.ID = fmt.Sprint("s", i), "m1"
		mustCreate(t, store, session)
		mustInsert(t, store, session.ID, m)
		mustAddUsage(t, store, usage)
		wantSession(t, store, session)
		wantMessages(t, store, session.ID, m)
		wantSums(t, store, chat.UsageFilter{UserID: text}, sumOf(usage))
	}
}

func sumsEveryField(t *testing.T, store chat.Store) {
	one, other := filledUsage(1), filledUsage(2)
	other.Usage.Estimated = false
	mustAddUsage(t, store, one, other)
	wantSums(t, store, chat.UsageFilter{UserID: one.UserID}, sumOf(one))
	wantSums(t, store, chat.UsageFilter{UserID: other.UserID}, sumOf(other))
	for field, value := range reflect.ValueOf(sumOf(one)).Fields() {
		if value.IsZero() {
			t.Errorf("the suite does not know what UsageSum.%s is to be", field.Name)
		}
	}
}

// tellsEveryFieldApart changes one field of a record at a time: either the record then counts differently, or it is
// another response's. Neither means that the store forgets the field.
func tellsEveryFieldApart(t *testing.T, open Opener) {
	one, other := filledUsage(1), filledUsage(2)
	atOnce := chat.UsageFilter{From: one.At, To: one.At.Add(time.Millisecond)}
	sums := func(records ...chat.UsageRecord) []chat.UsageSum {
		store, _ := open(t)
		mustAddUsage(t, store, records...)
		sums, err := store.SumUsage(t.Context(), atOnce)
		must(t, err)
		return sums
	}
	want := sums(one)
	for i := range reflect.TypeFor[chat.UsageRecord]().NumField() {
		changed := one
		reflect.ValueOf(&changed).Elem().Field(i).Set(reflect.ValueOf(other).Field(i))
		if reflect.DeepEqual(sums(changed), want) && reflect.DeepEqual(sums(one, changed), want) {
			t.Errorf("UsageRecord.%s makes no difference", reflect.TypeOf(one).Field(i).Name)
		}
	}
}
