//go:build unix

package acceptance_test

import (
	"maps"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestStaffSeeAndActOnEverybodysSessions(t *testing.T) {
	s := startServer(t, eliza)
	ann, gus := token("ann", "admin"), token("gus", "agent")
	alice, bob := s.dial(token("alice")), s.dial(token("bob"))
	alice.open("metadata", map[string]string{"page": "/pricing"})
	alice.ask("m1", "hello")
	alice.ask("m2", "my dog is sad")
	bob.open()
	bob.ask("m1", "hello")
	bob.send("help.request", "reason", "lost a parcel")
	bob.until("session.updated")

	list := func(query string) []string { return s.pages("/api/v1/admin/sessions?limit=1&"+query, ann, "user_id") }
	hour := time.Hour
	moment := func(d time.Duration) string { return time.Now().Add(d).UTC().Format(time.RFC3339) }
	for query, want := range map[string][]string{
		"":                                   {"bob", "alice"},
		"sort=last_active_at":                {"alice", "bob"},
		"sort=-created_at":                   {"bob", "alice"},
		"sort=user_id":                       {"alice", "bob"},
		"sort=-user_id":                      {"bob", "alice"},
		"sort=messages":                      {"bob", "alice"},
		"sort=-messages":                     {"alice", "bob"},
		"sort=-tokens":                       {"alice", "bob"},
		"user_id=alice":                      {"alice"},
		"status=ended":                       nil,
		"help_requested=true":                {"bob"},
		"help_requested=false":               {"alice"},
		"assisted=true":                      nil,
		"model=eliza&sort=user_id":           {"alice", "bob"},
		"model=other":                        nil,
		"sort=user_id&from=" + moment(-hour): {"alice", "bob"},
		"from=" + moment(hour):               nil,
		"sort=user_id&to=" + moment(hour):    {"alice", "bob"},
		"to=" + moment(-hour):                nil,
		"user_id=alice&status=active&sort=-messages": {"alice"},
	} {
		if got := list(query); !slices.Equal(got, want) {
			t.Errorf("sessions with %q are %v, want %v", query, got, want)
		}
	}
	path := "/api/v1/admin/sessions/" + alice.session
	for who, as := range map[string]string{ann: "an admin", gus: "an agent"} {
		seen := s.api("GET", path, who, nil)
		if seen.status != 200 || seen.body.str("user_id") != "alice" || seen.body.num("messages") != 4 ||
			seen.body.num("tokens") <= 0 || seen.body.str("metadata", "page") != "/pricing" {
			t.Errorf("%s sees %d %s", as, seen.status, seen.raw)
		}
		if texts := s.pages(path+"/messages?limit=3", who, "text"); len(texts) != 4 || texts[0] != "hello" {
			t.Errorf("%s reads %q", as, texts)
		}
	}
	if got := s.api("GET", "/api/v1/admin/sessions/"+bob.session, ann, nil).body.str("help_reason"); got != "lost a parcel" {
		t.Errorf("bob asked for help because of %q", got)
	}

	stats := s.api("GET", "/api/v1/admin/stats", gus, nil)
	if stats.body.num("connections") != 2 || stats.body.num("stored", "sessions") != 2 || stats.body.num("stored", "messages") != 6 ||
		stats.body.num("memory", "active_sessions") != 2 {
		t.Errorf("the figures are %d %s", stats.status, stats.raw)
	}

	ended := s.api("POST", path+"/end", ann, nil)
	if ended.status != 200 || ended.body.str("status") != "ended" || ended.body.str("end_reason") != "admin" {
		t.Errorf("ended: %d %s", ended.status, ended.raw)
	}
	if end := alice.until("session.ended"); end.str("reason") != "admin" {
		t.Errorf("alice is told %v", end)
	}
	alice.closedWith(4410)
}

func TestTheHostApplicationSpeaks(t *testing.T) {
	s := startServer(t, eliza)
	ann := token("ann", "admin")
	c := s.dial(token("alice"))
	c.open()
	path := "/api/v1/admin/sessions/" + c.session + "/messages"
	note := map[string]any{"message_id": "note-1", "text": "The parcel\u0007 was found.", "replaces": "m1"}
	first := s.api("POST", path, ann, note)
	if first.status != 201 || first.body.str("role") != "system" || first.body.str("text") != "The parcel was found." ||
		first.body.str("author", "id") != "ann" || first.body.str("replaces") != "" {
		t.Fatalf("posted: %d %s", first.status, first.raw)
	}
	seen := c.until("message.created")
	if seen.str("message", "id") != "note-1" || seen.str("message", "role") != "system" {
		t.Errorf("alice is told %v", seen)
	}
	if again := s.api("POST", path, ann, note); again.status != 200 || again.body.str("created_at") != first.body.str("created_at") {
		t.Errorf("posted again: %d %s", again.status, again.raw)
	}
	note["text"] = "something else"
	if r := s.api("POST", path, ann, note); r.code() != "409 message_conflict" {
		t.Errorf("the same ID with another text: %s", r.raw)
	}
	if r := s.api("POST", path, ann, map[string]any{"message_id": "note-2", "text": "Hello", "role": "agent"}); r.status != 201 || r.body.str("role") != "agent" {
		t.Errorf("as an agent: %d %s", r.status, r.raw)
	}
	c.until("message.created")
	c.quiet() // no model answers to any of this
	if r := s.api("POST", "/api/v1/admin/sessions/nosuch/messages", ann, note); r.code() != "404 session_not_found" {
		t.Errorf("to no session: %s", r.raw)
	}
}

func TestRolesAreNeededForStaffsEndpoints(t *testing.T) {
	s := startServer(t, eliza)
	c := s.dial(token("alice"))
	c.open()
	session := "/api/v1/admin/sessions/" + c.session
	reads := []string{"/api/v1/admin/sessions", session, session + "/messages", "/api/v1/admin/connections", "/api/v1/admin/stats", "/api/v1/admin/audit"}
	acts := map[string]any{
		"POST " + session + "/messages":         map[string]any{"message_id": "x", "text": "y"},
		"POST " + session + "/end":              nil,
		"DELETE /api/v1/admin/connections/none": nil,
		"POST /api/v1/admin/users/alice/revoke": nil,
		"DELETE /api/v1/admin/users/alice/data": nil,
	}
	for _, path := range reads {
		for who, want := range map[string]string{token("alice"): "403 forbidden", token("x", "Admin", "administrator"): "403 forbidden", token("gus", "agent"): "200", token("ann", "admin"): "200"} {
			if r := s.api("GET", path, who, nil); r.code() != want {
				t.Errorf("GET %s: %s, want %s", path, r.code(), want)
			}
		}
	}
	for _, request := range slices.Sorted(maps.Keys(acts)) {
		method, path, _ := strings.Cut(request, " ")
		for _, who := range []string{token("alice"), token("gus", "agent")} {
			if r := s.api(method, path, who, acts[request]); r.code() != "403 forbidden" {
				t.Errorf("%s: %s, want forbidden", request, r.code())
			}
		}
	}
	c.quiet()
}

func TestConnectionsAreListedAndClosed(t *testing.T) {
	s := startServer(t, eliza)
	ann := token("ann", "admin")
	alice, bob := s.dial(token("alice")), s.dial(token("bob"))
	opened := alice.open()
	bob.open()
	listed := s.api("GET", "/api/v1/admin/connections?user_id=alice", ann, nil).items()
	if len(listed) != 1 || listed[0].str("id") != opened.str("connection_id") || listed[0].str("session_id") != alice.session ||
		listed[0].str("address") != "127.0.0.1" || listed[0].str("name") != "Name of alice" {
		t.Fatalf("alice's connections are %v", listed)
	}
	if all := s.pages("/api/v1/admin/connections?limit=1", ann, "user_id"); len(all) != 2 {
		t.Errorf("the connections are %v", all)
	}
	path := "/api/v1/admin/connections/" + listed[0].str("id")
	if r := s.api("GET", path, ann, nil); r.body.str("user_id") != "alice" {
		t.Errorf("the connection: %s", r.raw)
	}
	if r := s.api("DELETE", path, ann, nil); r.status != 204 {
		t.Errorf("closed: %d %s", r.status, r.raw)
	}
	alice.closedWith(4403)
	bob.quiet()
	if r := s.api("DELETE", "/api/v1/admin/connections?user_id=bob", ann, nil); r.body.num("connections") != 1 {
		t.Errorf("all of bob's: %d %s", r.status, r.raw)
	}
	bob.closedWith(4403)
	again := s.dial(token("alice")) // nothing was revoked
	again.open()
}

func TestWhatStaffDoIsRecorded(t *testing.T) {
	s := startServer(t, eliza)
	ann := token("ann", "admin")
	c := s.dial(token("alice"))
	c.open()
	session := "/api/v1/admin/sessions/" + c.session
	agent := s.dial(token("gus", "agent"))
	agent.open("session_id", c.session, "as", "agent")
	agent.send("session.leave")
	c.until("agent.left")
	s.dial(token("gus", "agent")).open("session_id", c.session, "as", "observer")
	s.api("GET", session+"/messages", ann, nil)
	s.api("POST", session+"/messages", ann, map[string]any{"message_id": "n1", "text": "a word for alice"})
	s.api("POST", session+"/end", ann, nil)
	s.api("POST", session+"/end", ann, nil)
	c.closedWith(4410)
	s.api("POST", "/api/v1/admin/users/bob/revoke", ann, map[string]any{"reason": "left the company"})
	s.api("DELETE", "/api/v1/admin/users/alice/data", ann, nil)

	type line struct{ actor, action, user, session, outcome, detail string }
	var got []line
	records := s.api("GET", "/api/v1/admin/audit?limit=200", ann, nil)
	for _, r := range records.items() {
		got = append(got, line{r.str("actor", "id"), r.str("action"), r.str("user_id"), r.str("session_id"), r.str("outcome"), r.str("detail")})
		if at, err := time.Parse(time.RFC3339, r.str("at")); err != nil || time.Since(at) > time.Hour || r.str("address") != "127.0.0.1" {
			t.Errorf("a record says when and from where: %v", r)
		}
	}
	id := c.session
	want := []line{
		{"ann", "user.erase", "alice", "", "done", ""},
		{"ann", "user.revoke", "bob", "", "done", "left the company"},
		{"ann", "session.end", "alice", id, "session_ended", ""},
		{"ann", "session.end", "alice", id, "done", ""},
		{"ann", "message.post", "alice", id, "done", "system n1"},
		{"ann", "session.read", "alice", id, "done", ""},
		{"gus", "session.observe", "alice", id, "done", ""},
		{"gus", "session.takeover", "alice", id, "done", ""},
	}
	if !slices.Equal(got, want) {
		t.Errorf("the records are\n%v\nwant\n%v", got, want)
	}
	if strings.Contains(records.raw, "a word for alice") {
		t.Error("a conversation's text is in the audit log")
	}
	for query, n := range map[string]int{
		"actor_id=gus": 2, "action=session.end": 2, "user_id=bob": 1, "session_id=" + id: 6, "from=2100-01-01T00:00:00Z": 0, "to=2000-01-01T00:00:00Z": 0,
	} {
		if all := s.pages("/api/v1/admin/audit?limit=1&"+query, ann, "id"); len(all) != n {
			t.Errorf("records with %q: %d, want %d", query, len(all), n)
		}
	}
	// It is kept where it cannot be erased with a user, and survives the server.
	if code := s.stop(syscall.SIGTERM); code != 0 {
		t.Errorf("the server ends with %d", code)
	}
	s.start()
	if all := s.pages("/api/v1/admin/audit?limit=50", ann, "id"); len(all) != len(want) {
		t.Errorf("after a restart there are %d records, want %d", len(all), len(want))
	}
}
