package sqlite

import (
	"database/sql"
	"slices"
	"testing"
	"time"

	"github.com/parley-chat/parley/chat"
)

// A list of all sessions, however many there are, is read from where it goes on, in the order in which an index has them.
func TestListsOfSessionsAreNotSorted(t *testing.T) {
	s := openWithSession(t)
	place := chat.SessionPlace{Number: 1, Text: "a", ID: "s"}
	for by, index := range map[chat.SessionSort]string{
		chat.SortByLastActive: "sessions_by_activity",
		chat.SortByCreated:    "sessions_by_creation",
		chat.SortByUser:       "sessions_by_user_id",
		chat.SortByMessages:   "sessions_by_messages",
		chat.SortByTokens:     "sessions_by_tokens",
	} {
		for descending, comparison := range comparisons {
			order := chat.SessionOrder{By: by, Descending: descending}
			first, _ := findSessionsQuery(chat.SessionFilter{}, order, chat.SessionPlace{}, 10)
			wantPlan(t, s, first, "SCAN sessions USING INDEX "+index)
			next, _ := findSessionsQuery(chat.SessionFilter{}, order, place, 10)
			column, _ := orderedBy(by, place)
			wantPlan(t, s, next, "SEARCH sessions USING INDEX "+index+" (("+column+",id)"+comparison+"(?,?))")
		}
	}
}

// comparisons are those by which a list goes on, by whether it is descending.
var comparisons = map[bool]string{false: ">", true: "<"}

// Those of one user are read like that too, the latest active first, without a look at others'.
func TestListsOfAUserAreNotSorted(t *testing.T) {
	s := openWithSession(t)
	filter, place := chat.SessionFilter{UserID: "u"}, chat.SessionPlace{Number: 1, ID: "s"}
	for descending, comparison := range comparisons {
		order := chat.SessionOrder{By: chat.SortByLastActive, Descending: descending}
		first, _ := findSessionsQuery(filter, order, chat.SessionPlace{}, 10)
		wantPlan(t, s, first, "SEARCH sessions USING INDEX sessions_by_user (user_id=?)")
		next, _ := findSessionsQuery(filter, order, place, 10)
		wantPlan(t, s, next, "SEARCH sessions USING INDEX sessions_by_user (user_id=? AND (last_active_at,id)"+comparison+"(?,?))")
	}
}

func TestAuditIsNotSorted(t *testing.T) {
	s := openWithSession(t)
	place := chat.AuditPlace{At: time.UnixMilli(1), ID: "a"}
	for _, test := range []struct {
		filter      chat.AuditFilter
		first, next string
	}{
		{chat.AuditFilter{}, "SCAN audit USING INDEX audit_by_time", "SEARCH audit USING INDEX audit_by_time ((at,id)<(?,?))"},
		{chat.AuditFilter{UserID: "u"}, "SEARCH audit USING INDEX audit_by_user (user_id=?)",
			"SEARCH audit USING INDEX audit_by_user (user_id=? AND (at,id)<(?,?))"},
		{chat.AuditFilter{ActorID: "a"}, "SEARCH audit USING INDEX audit_by_actor (actor_id=?)",
			"SEARCH audit USING INDEX audit_by_actor (actor_id=? AND (at,id)<(?,?))"},
	} {
		first, _ := auditQuery(test.filter, chat.AuditPlace{}, 10)
		wantPlan(t, s, first, test.first)
		next, _ := auditQuery(test.filter, place, 10)
		wantPlan(t, s, next, test.next)
	}
}

func wantPlan(t *testing.T, s *Store, query string, want ...string) {
	t.Helper()
	if plan := planOf(t, s, query); !slices.Equal(plan, want) {
		t.Errorf("the plan is %q, want %q:\n%s", plan, want, query)
	}
}

// The tokens of a session are a sum that the database makes by itself, so that nothing has to keep it.
func TestTokensAreThoseOfTheUsage(t *testing.T) {
	s := openWithSession(t)
	for _, test := range []struct {
		usage chat.Usage
		want  int64
	}{
		{chat.Usage{}, 0},
		{chat.Usage{InputTokens: 3, OutputTokens: 4}, 7},
		{chat.Usage{InputTokens: 1 << 40, OutputTokens: 1 << 40, Estimated: true}, 1 << 41},
	} {
		session, err := s.Session(t.Context(), "s1")
		if err != nil {
			t.Fatal(err)
		}
		session.Usage, session.Revision = test.usage, session.Revision+1
		if err := s.UpdateSession(t.Context(), &session); err != nil {
			t.Fatal(err)
		}
		var tokens sql.NullInt64
		if err := s.readers.QueryRow("SELECT tokens FROM sessions").Scan(&tokens); err != nil || tokens.Int64 != test.want {
			t.Errorf("of %+v there are %d tokens, want %d; error %v", test.usage, tokens.Int64, test.want, err)
		}
	}
}
