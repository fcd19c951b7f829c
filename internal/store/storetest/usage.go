package storetest

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/parley-chat/parley/chat"
)

var usageTests = []contractTest{
	{"AddUsage of a response that has a record does nothing", onStore(keepsUsage)},
	{"responses of different IDs or sessions have a record each", onStore(func(t *testing.T, store chat.Store) {
		for _, sessionID := range []string{"s1", "S1", "s2"} {
			for _, messageID := range []string{"m1", "M1", "s1"} {
				record := newUsage(messageID)
				record.SessionID = sessionID
				mustAddUsage(t, store, record)
			}
		}
		wantSums(t, store, chat.UsageFilter{}, chat.UsageSum{
			UserID: "user", Model: "model", Day: someDay,
			Responses: 9, InputTokens: 9 * 3, OutputTokens: 9 * 4, CostMicros: 9 * 5,
		})
	})},
	{"usage outlives its session, and changes none", onStore(func(t *testing.T, store chat.Store) {
		session := newSession("s1")
		mustCreate(t, store, session)
		mustAddUsage(t, store, newUsage("m1"))
		wantSession(t, store, session)
		session.Status, session.EndReason = chat.SessionStatusEnded, chat.EndedByUser
		must(t, updateSession(t, store, &session))
		wantSums(t, store, chat.UsageFilter{}, sumOf(newUsage("m1")))
		wantSession(t, store, session)
	})},
	{"SumUsage of none is empty", onStore(func(t *testing.T, store chat.Store) {
		wantSums(t, store, chat.UsageFilter{})
		wantSums(t, store, chat.UsageFilter{UserID: "user"})
		mustAddUsage(t, store, newUsage("m1"))
		for _, userID := range []string{"unknown", "USER", "use", "user ", "u%", "use_"} {
			wantSums(t, store, chat.UsageFilter{UserID: userID})
		}
	})},
	{"SumUsage gives each user, model and day a sum, in order", onStore(ordersSums)},
	{"a day begins at midnight UTC", onStore(splitsDays)},
	{"From belongs to the time, To does not", onStore(filtersByTime)},
	{"SumUsage counts the estimated responses among all", onStore(func(t *testing.T, store chat.Store) {
		for i, estimated := range []bool{true, false, true, false, false} {
			record := newUsage(fmt.Sprint("m", i))
			record.Usage.Estimated = estimated
			mustAddUsage(t, store, record)
		}
		wantSums(t, store, chat.UsageFilter{}, chat.UsageSum{
			UserID: "user", Model: "model", Day: someDay,
			Responses: 5, Estimated: 2, InputTokens: 5 * 3, OutputTokens: 5 * 4, CostMicros: 5 * 5,
		})
	})},
	{"a response that cost nothing is one", onStore(func(t *testing.T, store chat.Store) {
		record := newUsage("m1")
		record.Usage, record.CostMicros = chat.Usage{}, 0
		mustAddUsage(t, store, record)
		wantSums(t, store, chat.UsageFilter{}, chat.UsageSum{UserID: "user", Model: "model", Day: someDay, Responses: 1})
	})},
	{"sums beyond 32 bits are exact", onStore(func(t *testing.T, store chat.Store) {
		const costMicros = 1<<60 + 1 // not a float64
		for i := range 3 {
			record := newUsage(fmt.Sprint("m", i))
			record.Usage, record.CostMicros = chat.Usage{InputTokens: math.MaxInt32, OutputTokens: math.MaxInt32 - i}, costMicros
			mustAddUsage(t, store, record)
		}
		wantSums(t, store, chat.UsageFilter{}, chat.UsageSum{
			UserID: "user", Model: "model", Day: someDay, Responses: 3,
			InputTokens: 3 * math.MaxInt32, OutputTokens: 3*math.MaxInt32 - 3, CostMicros: 3 * costMicros,
		})
	})},
}

var someDay = time.Date(2026, time.March, 4, 0, 0, 0, 0, time.UTC) // that of someTime

func newUsage(messageID string) chat.UsageRecord {
	return chat.UsageRecord{
		SessionID:  "s1",
		MessageID:  messageID,
		UserID:     "user",
		Model:      "model",
		At:         someTime,
		Usage:      chat.Usage{InputTokens: 3, OutputTokens: 4},
		CostMicros: 5,
	}
}

// sumOf gives the sum of one record.
func sumOf(record chat.UsageRecord) chat.UsageSum {
	year, month, day := record.At.UTC().Date()
	sum := chat.UsageSum{
		UserID:       record.UserID,
		Model:        record.Model,
		Day:          time.Date(year, month, day, 0, 0, 0, 0, time.UTC),
		Responses:    1,
		InputTokens:  int64(record.Usage.InputTokens),
		OutputTokens: int64(record.Usage.OutputTokens),
		CostMicros:   record.CostMicros,
	}
	if record.Usage.Estimated {
		sum.Estimated = 1
	}
	return sum
}

func mustAddUsage(t *testing.T, store chat.Store, records ...chat.UsageRecord) {
	t.Helper()
	for _, record := range records {
		must(t, store.AddUsage(t.Context(), record))
	}
}

// wantSums fails if what the filter chooses does not have the wanted sums, in this order and in every field.
func wantSums(t *testing.T, store chat.Store, filter chat.UsageFilter, want ...chat.UsageSum) {
	t.Helper()
	got, err := store.SumUsage(t.Context(), filter)
	must(t, err)
	if len(got) != len(want) {
		t.Fatalf("SumUsage(%+v): got %d sums, want %d: %+v", filter, len(got), len(want), got)
	}
	for i := range want {
		wantEqual(t, got[i], want[i])
	}
}

func keepsUsage(t *testing.T, store chat.Store) {
	first := filledUsage(1)
	mustAddUsage(t, store, first, first)
	for _, change := range []func(*chat.UsageRecord){
		func(r *chat.UsageRecord) { r.UserID = "another user" },
		func(r *chat.UsageRecord) { r.Model = "another model" },
		func(r *chat.UsageRecord) { r.At = r.At.Add(time.Millisecond) },
		func(r *chat.UsageRecord) { r.At = r.At.AddDate(0, 0, -1) },
		func(r *chat.UsageRecord) { r.Usage.InputTokens++ },
		func(r *chat.UsageRecord) { r.Usage.OutputTokens-- },
		func(r *chat.UsageRecord) { r.Usage.Estimated = !r.Usage.Estimated },
		func(r *chat.UsageRecord) { r.CostMicros *= 2 },
		func(r *chat.UsageRecord) {
			*r = chat.UsageRecord{SessionID: r.SessionID, MessageID: r.MessageID}
		},
	} {
		again := first
		change(&again)
		mustAddUsage(t, store, again)
	}
	wantSums(t, store, chat.UsageFilter{}, sumOf(first))
	wantSums(t, store, chat.UsageFilter{From: first.At, To: first.At.Add(time.Millisecond)}, sumOf(first))
}

func ordersSums(t *testing.T, store chat.Store) {
	groups := []struct {
		day         int
		user, model string
	}{ // in the order in which they are to come: that of days, and then of bytes
		{0, "B", "x"},
		{0, "a", "X"}, {0, "a", "x"}, {0, "a", "x2"}, {0, "a", "é"},
		{0, "a ", "x"}, {0, "b", "x"}, {0, "é", "x"},
		{1, "a", "x"}, {1, "b", "X"},
		{30, "B", "x"}, {30, "a", "x"},
		{365, "a", "x"},
	}
	for round := range 3 {
		for i, g := range slices.Backward(groups) {
			record := newUsage(fmt.Sprint(round, " ", i))
			record.UserID, record.Model, record.CostMicros = g.user, g.model, int64(i)
			record.At = someTime.AddDate(0, 0, g.day).Add(time.Duration(round) * time.Hour)
			mustAddUsage(t, store, record)
		}
	}
	var all, ofA []chat.UsageSum
	for i, g := range groups {
		sum := chat.UsageSum{
			UserID: g.user, Model: g.model, Day: someDay.AddDate(0, 0, g.day),
			Responses: 3, InputTokens: 3 * 3, OutputTokens: 3 * 4, CostMicros: 3 * int64(i),
		}
		all = append(all, sum)
		if g.user == "a" {
			ofA = append(ofA, sum)
		}
	}
	wantSums(t, store, chat.UsageFilter{}, all...)
	wantSums(t, store, chat.UsageFilter{UserID: "a"}, ofA...)
}

func splitsDays(t *testing.T, store chat.Store) {
	west, east := time.FixedZone("west", -8*60*60), time.FixedZone("east", 14*60*60)
	for i, at := range []time.Time{
		time.Date(2026, time.February, 28, 23, 59, 59, 999_999_999, time.UTC), // to the millisecond that day's
		time.Date(2026, time.March, 1, 0, 0, 0, 0, time.UTC),
		time.Date(2026, time.February, 28, 17, 0, 0, 0, west), // 1 March, 01:00 UTC
		time.Date(2026, time.March, 1, 15, 59, 59, 999_000_000, west),
		time.Date(2026, time.March, 1, 13, 59, 59, 999_000_000, east), // 28 February, 23:59:59.999 UTC
		time.Date(2026, time.March, 2, 0, 0, 0, 0, time.UTC),
	} {
		record := newUsage(fmt.Sprint("m", i))
		record.At, record.CostMicros = at, 1<<i
		mustAddUsage(t, store, record)
	}
	sum := func(day time.Time, responses, costMicros int64) chat.UsageSum {
		return chat.UsageSum{
			UserID: "user", Model: "model", Day: day, Responses: responses,
			InputTokens: 3 * responses, OutputTokens: 4 * responses, CostMicros: costMicros,
		}
	}
	first := time.Date(2026, time.February, 28, 0, 0, 0, 0, time.UTC)
	wantSums(t, store, chat.UsageFilter{},
		sum(first, 2, 1+16), sum(first.AddDate(0, 0, 1), 3, 2+4+8), sum(first.AddDate(0, 0, 2), 1, 32))
}

func filtersByTime(t *testing.T, store chat.Store) {
	noon := someDay.Add(12 * time.Hour)
	offset := 13*time.Hour + 300*time.Microsecond // times are kept to the millisecond: so are those of the filter
	for i, at := range []time.Time{
		noon.Add(-time.Millisecond), noon, noon.Add(time.Millisecond), noon.Add(time.Hour), noon.Add(offset),
	} {
		record, other := newUsage(fmt.Sprint("m", i)), newUsage(fmt.Sprint("other ", i))
		record.At, record.CostMicros = at, 1<<i
		other.At, other.CostMicros, other.UserID = at, 1<<i<<5, "other"
		mustAddUsage(t, store, record, other)
	}
	for _, test := range []struct {
		from, to time.Time
		want     int64 // the costs of the user's that are chosen, each of which is a bit
	}{
		{time.Time{}, time.Time{}, 0b11111},
		{noon, time.Time{}, 0b11110}, // the rest of a day, and what comes after
		{noon.Add(time.Millisecond), time.Time{}, 0b11100},
		{noon.Add(offset), time.Time{}, 0b10000},
		{noon.Add(offset + time.Millisecond), time.Time{}, 0},
		{time.Time{}, noon.Add(-time.Millisecond), 0},
		{time.Time{}, noon, 0b00001},
		{time.Time{}, noon.Add(time.Millisecond), 0b00011},
		{time.Time{}, noon.Add(offset), 0b01111},
		{noon, noon.Add(time.Millisecond), 0b00010},
		{noon, noon.Add(time.Hour), 0b00110},
		{noon.In(time.FixedZone("west", -8*60*60)), noon.In(time.FixedZone("east", 14*60*60)).Add(time.Hour), 0b00110},
		{noon, noon, 0},
		{noon.Add(time.Hour), noon, 0},
	} {
		for userID, want := range map[string]int64{
			"user": test.want, "other": test.want << 5, "": test.want | test.want<<5,
		} {
			sums, err := store.SumUsage(t.Context(), chat.UsageFilter{UserID: userID, From: test.from, To: test.to})
			must(t, err)
			var got int64
			for _, sum := range sums {
				got += sum.CostMicros
			}
			if got != want {
				t.Errorf("user %q from %v to %v: got records %010b, want %010b", userID, test.from, test.to, got, want)
			}
		}
	}
}
