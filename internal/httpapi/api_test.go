package httpapi_test

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/audit"
	"github.com/parley-chat/parley/internal/gate"
	"github.com/parley-chat/parley/internal/httpapi"
	"github.com/parley-chat/parley/internal/journal"
	"github.com/parley-chat/parley/internal/llm"
	"github.com/parley-chat/parley/internal/llm/llmtest"
	"github.com/parley-chat/parley/internal/origin"
	"github.com/parley-chat/parley/internal/ratelimit"
	"github.com/parley-chat/parley/internal/router"
	"github.com/parley-chat/parley/internal/session"
	"github.com/parley-chat/parley/internal/store/storetest"
)

// verifier knows a few tokens.
type verifier struct{}

func (verifier) Verify(token string) (chat.User, error) {
	switch token {
	case "alice", "bob":
		return chat.User{ID: token}, nil
	case "ann":
		return chat.User{ID: "ann", Name: "Ann", Roles: []string{chat.UserRoleAdmin}}, nil
	}
	return chat.User{}, chat.NewError(chat.CodeUnauthenticated, "the token is not valid")
}

type models []llm.Model

func (m models) Models() []llm.Model { return m }

func (models) Default() string { return "second" }

// silent is a provider that nobody asks.
type silent struct{}

func (silent) Stream(context.Context, chat.Request) iter.Seq2[chat.Chunk, error] {
	return func(func(chat.Chunk, error) bool) {}
}

// brittle is a store that fails when it is told to.
type brittle struct {
	chat.Store
	down error
}

func (b *brittle) Session(ctx context.Context, id string) (chat.Session, error) {
	if b.down != nil {
		return chat.Session{}, b.down
	}
	return b.Store.Session(ctx, id)
}

func (b *brittle) PutAudit(ctx context.Context, r chat.AuditRecord) error {
	if b.down != nil {
		return b.down
	}
	return b.Store.PutAudit(ctx, r)
}

// revocations notes what is revoked.
type revocations struct{ all []chat.Revocation }

func (r *revocations) Revoke(_ context.Context, revocation chat.Revocation) error {
	r.all = append(r.all, revocation)
	return nil
}

// house is the API over real sessions.
type house struct {
	*httpapi.Handler
	t           *testing.T
	store       *brittle
	sessions    *session.Manager
	revocations revocations
	erased      []string
	log         strings.Builder
}

func newHouse(t *testing.T, edits ...func(*httpapi.Config)) *house {
	h := &house{t: t, store: &brittle{Store: storetest.NewMemory()}}
	log := slog.New(slog.NewTextHandler(&h.log, nil))
	j, err := journal.Open(journal.Config{Path: t.TempDir(), MaxBytes: 1 << 20, StoreID: h.store.ID()}, log)
	if err != nil {
		t.Fatal(err)
	}
	h.sessions = session.NewManager(session.Config{
		CheckpointInterval: time.Second, IdleTimeout: time.Hour, GracePeriod: time.Hour, CleanupInterval: time.Minute,
		LeaseTimeout: time.Hour,
	}, h.store, j, llmtest.NewPool(silent{}, nil, "m"), log)
	rooms := router.New(router.Config{}, h.sessions, verifier{}, log)
	bucket := ratelimit.Config{Limit: 1000, Window: time.Hour, CleanupInterval: time.Hour, Log: log}
	limits := gate.Limits{
		Requests: ratelimit.New[string](bucket), Admin: ratelimit.New[string](bucket), Unauthenticated: ratelimit.New[netip.Prefix](bucket),
	}
	origins := origin.New(nil, false, nil)
	cfg := httpapi.Config{
		Gate: gate.New(nil, origins, verifier{}, limits, log), Origins: origins, Sessions: h.sessions, Store: h.store, Connections: rooms,
		Models:      models{{ID: "first", Name: "The First"}, {ID: "second", Name: "The Second"}, {ID: "third"}},
		Revocations: &h.revocations, Audit: audit.New(h.store, log), Log: log,
		EraseUser: func(_ context.Context, userID string) (int, error) {
			h.erased = append(h.erased, userID)
			return 3, nil
		},
	}
	for _, edit := range edits {
		edit(&cfg)
	}
	h.Handler = httpapi.New(cfg)
	t.Cleanup(func() {
		limits.Requests.Stop()
		limits.Admin.Stop()
		limits.Unauthenticated.Stop()
		rooms.Close(context.Background())
		if err := errors.Join(h.sessions.Close(context.Background()), j.Close()); err != nil {
			t.Error(err)
		}
	})
	return h
}

// ask makes a request, and checks what every answer has to have.
func (h *house) ask(method, target, token, body string) *httptest.ResponseRecorder {
	h.t.Helper()
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	if body == "" {
		r = httptest.NewRequest(method, target, nil)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	response := httptest.NewRecorder()
	h.ServeHTTP(response, r)
	for name, want := range map[string]string{"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Vary": "Origin"} {
		if got := response.Header().Get(name); got != want {
			h.t.Errorf("%s %s: %s is %q, want %q", method, target, name, got, want)
		}
	}
	if policy := response.Header().Get("Content-Security-Policy"); !strings.Contains(policy, "default-src 'none'") {
		h.t.Errorf("%s %s: the policy is %q", method, target, policy)
	}
	return response
}

// wantProblem fails unless an answer is a problem document of a code.
func wantProblem(t *testing.T, what string, r *httptest.ResponseRecorder, status int, code chat.Code) {
	t.Helper()
	var p struct {
		Title, Detail string
		Status        int
		Code          chat.Code
	}
	if err := json.Unmarshal(r.Body.Bytes(), &p); err != nil {
		t.Fatalf("%s: %v: %s", what, err, r.Body)
	}
	if r.Code != status || p.Status != status || p.Code != code || p.Title == "" || p.Detail == "" ||
		r.Header().Get("Content-Type") != "application/problem+json" {
		t.Errorf("%s: %d %s %s, want %d %s", what, r.Code, r.Header().Get("Content-Type"), r.Body, status, code)
	}
}

func TestModelsAreListedInTheirOrder(t *testing.T) {
	response := newHouse(t).ask("GET", "/api/v1/models", "alice", "")
	const want = `{"items":[{"id":"first","name":"The First"},{"id":"second","name":"The Second","default":true},` +
		`{"id":"third","name":"third"}]}`
	if got := strings.TrimSpace(response.Body.String()); response.Code != http.StatusOK || got != want {
		t.Errorf("got %d %s, want %s", response.Code, got, want)
	}
	if got := response.Header().Get("Content-Type"); got != "application/json" {
		t.Errorf("the type is %q", got)
	}
}

func TestEachAddressSaysWhatItAnswers(t *testing.T) {
	h := newHouse(t)
	for target, want := range map[string]string{
		"/api/v1/models": "GET, HEAD", "/api/v1/sessions": "GET, HEAD, POST", "/api/v1/sessions/x": "DELETE, GET, HEAD, PATCH",
		"/api/v1/admin/users/x/data": "DELETE",
	} {
		response := h.ask("PUT", target, "ann", "")
		wantProblem(t, "PUT "+target, response, http.StatusMethodNotAllowed, chat.CodeInvalidRequest)
		if got := response.Header().Get("Allow"); got != want {
			t.Errorf("%s allows %q, want %q", target, got, want)
		}
	}
	wantProblem(t, "nowhere", h.ask("GET", "/api/v1/nowhere", "alice", ""), http.StatusNotFound, chat.CodeInvalidRequest)
	wantProblem(t, "nowhere, for nobody", h.ask("GET", "/api/v1/nowhere", "", ""), http.StatusUnauthorized, chat.CodeUnauthenticated)
}

func TestErasure(t *testing.T) {
	h := newHouse(t)
	s, err := h.sessions.Create("alice", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	s.Release()
	path := "/api/v1/sessions/" + s.ID()
	wantProblem(t, "another's", h.ask("DELETE", path, "bob", ""), http.StatusNotFound, chat.CodeSessionNotFound)
	if r := h.ask("DELETE", path, "alice", ""); r.Code != http.StatusNoContent {
		t.Errorf("one's own: %d %s", r.Code, r.Body)
	}
	wantProblem(t, "it is gone", h.ask("GET", path, "alice", ""), http.StatusNotFound, chat.CodeSessionNotFound)
	wantProblem(t, "a user, by a user", h.ask("DELETE", "/api/v1/admin/users/bob/data", "bob", ""), http.StatusForbidden, chat.CodeForbidden)
	if r := h.ask("DELETE", "/api/v1/admin/users/bob%2Fx/data", "ann", ""); r.Code != http.StatusOK || strings.TrimSpace(r.Body.String()) != `{"sessions":3}` {
		t.Errorf("a user, by an admin: %d %s", r.Code, r.Body)
	}
	if !slices.Equal(h.erased, []string{"bob/x"}) {
		t.Errorf("erased is %q", h.erased)
	}
}

func TestARevocationSaysWhatWasRevoked(t *testing.T) {
	h := newHouse(t)
	before := chat.Now()
	h.ask("POST", "/api/v1/admin/users/bob/revoke", "ann", "")
	h.ask("POST", "/api/v1/admin/users/bob/revoke", "ann", `{"jti": "7", "expires_at": "2030-01-02T03:04:05Z"}`)
	wantProblem(t, "of a wrong type", h.ask("POST", "/api/v1/admin/users/bob/revoke", "ann", `{"jti": 7}`), http.StatusBadRequest, chat.CodeInvalidMessage)
	if len(h.revocations.all) != 2 {
		t.Fatalf("revoked is %+v", h.revocations.all)
	}
	all, one := h.revocations.all[0], h.revocations.all[1]
	if all.UserID != "bob" || all.TokenID != "" || all.At.Before(before) || !all.Until.IsZero() {
		t.Errorf("all of bob's: %+v", all)
	}
	if one.TokenID != "7" || !one.Until.Equal(time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)) {
		t.Errorf("one of bob's: %+v", one)
	}
}

// What is wrong on the server is told as such, with nothing of the cause, and staff do nothing of which there can be no
// record.
func TestAStoreThatIsDown(t *testing.T) {
	h := newHouse(t)
	h.store.down = errors.New("dial tcp 10.9.8.7: secret-host is down")
	for _, target := range []string{"/api/v1/sessions/x", "/api/v1/admin/sessions/x"} {
		r := h.ask("GET", target, "ann", "")
		wantProblem(t, target, r, http.StatusServiceUnavailable, chat.CodeStorageUnavailable)
		if r.Header().Get("Retry-After") == "" || strings.Contains(r.Body.String(), "secret-host") {
			t.Errorf("%s: %v %s", target, r.Header(), r.Body)
		}
	}
	wantProblem(t, "a revocation", h.ask("POST", "/api/v1/admin/users/bob/revoke", "ann", ""), http.StatusServiceUnavailable, chat.CodeStorageUnavailable)
	wantProblem(t, "an erasure", h.ask("DELETE", "/api/v1/admin/users/bob/data", "ann", ""), http.StatusServiceUnavailable, chat.CodeStorageUnavailable)
	if len(h.revocations.all)+len(h.erased) > 0 {
		t.Error("it was done without a record")
	}
}

// A cursor is worth nothing beyond its own list, and nothing of it is believed.
func TestCursorsAreOfTheirList(t *testing.T) {
	h := newHouse(t)
	for range 3 {
		s, err := h.sessions.Create("alice", "", nil)
		if err != nil {
			t.Fatal(err)
		}
		s.Release()
	}
	var first struct {
		Items      []struct{ ID string }
		NextCursor string `json:"next_cursor"`
	}
	if err := json.Unmarshal(h.ask("GET", "/api/v1/sessions?limit=2", "alice", "").Body.Bytes(), &first); err != nil || len(first.Items) != 2 || first.NextCursor == "" {
		t.Fatalf("the first page: %+v, %v", first, err)
	}
	if r := h.ask("GET", "/api/v1/sessions?limit=2&cursor="+first.NextCursor, "bob", ""); r.Code != 200 || !strings.Contains(r.Body.String(), `"items":[]`) {
		t.Errorf("in bob's hands: %d %s", r.Code, r.Body)
	}
	wantProblem(t, "in another order",
		h.ask("GET", "/api/v1/admin/sessions?sort=user_id&cursor="+first.NextCursor, "ann", ""), http.StatusBadRequest, chat.CodeInvalidRequest)
	for _, cursor := range []string{"!", "bm9uZQ", "eyJBdCI6N30"} {
		wantProblem(t, cursor, h.ask("GET", "/api/v1/sessions?cursor="+cursor, "alice", ""), http.StatusBadRequest, chat.CodeInvalidRequest)
	}
}

func TestRefusalsAreProblems(t *testing.T) {
	h := newHouse(t)
	for _, c := range []struct {
		name, method, target, authorization string
		status                              int
		code                                chat.Code
	}{
		{"no token", "GET", "/api/v1/models", "", 401, chat.CodeUnauthenticated},
		{"a bad token", "GET", "/api/v1/models", "Bearer bad", 401, chat.CodeUnauthenticated},
		{"another scheme", "GET", "/api/v1/models", "Basic alice", 401, chat.CodeUnauthenticated},
		{"a scheme in another case", "GET", "/api/v1/nothing", "bearer alice", 404, chat.CodeInvalidRequest},
		{"a token in the query", "GET", "/api/v1/models?token=alice", "Bearer alice", 400, chat.CodeInvalidRequest},
		{"an access token in the query", "GET", "/api/v1/models?access_token=alice", "", 400, chat.CodeInvalidRequest},
		{"below the list", "GET", "/api/v1/models/first", "Bearer alice", 404, chat.CodeInvalidRequest},
		{"the root", "GET", "/api/", "Bearer alice", 404, chat.CodeInvalidRequest},
	} {
		r := httptest.NewRequest(c.method, c.target, nil)
		if c.authorization != "" {
			r.Header.Set("Authorization", c.authorization)
		}
		response := httptest.NewRecorder()
		h.ServeHTTP(response, r)
		wantProblem(t, c.name, response, c.status, c.code)
		if got := response.Header().Get("WWW-Authenticate"); (got == "Bearer") != (c.status == http.StatusUnauthorized) {
			t.Errorf("%s: WWW-Authenticate is %q", c.name, got)
		}
	}
}

func TestRefusalsAreLoggedWithoutTheQuery(t *testing.T) {
	h := newHouse(t)
	h.ask("GET", "/api/v1/models?token=hunter2", "", "")
	if got := h.log.String(); !strings.Contains(got, "code=invalid_request method=GET path=/api/v1/models ") || strings.Contains(got, "hunter2") {
		t.Errorf("the log says %s", got)
	}
}
