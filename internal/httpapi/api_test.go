package httpapi_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/httpapi"
	"github.com/parley-chat/parley/internal/llm"
)

// verifier knows one token.
type verifier string

func (v verifier) Verify(token string) (chat.User, error) {
	if token != string(v) {
		return chat.User{}, chat.NewError(chat.CodeUnauthenticated, "the token is not valid")
	}
	return chat.User{ID: "alice"}, nil
}

// eraser notes what it is asked for; of sessions it knows one.
type eraser struct{ erased []string }

func (e *eraser) EraseSession(_ context.Context, userID, sessionID string) error {
	if sessionID != "mine" {
		return chat.NewError(chat.CodeSessionNotFound, "there is no such session")
	}
	e.erased = append(e.erased, userID+"'s "+sessionID)
	return nil
}

func (e *eraser) EraseUser(_ context.Context, userID string) (int, error) {
	e.erased = append(e.erased, "all of "+userID)
	return 3, nil
}

// admins knows the token of an admin, too.
type admins struct{ verifier }

func (a admins) Verify(token string) (chat.User, error) {
	if token == "admin" {
		return chat.User{ID: "ann", Roles: []string{chat.UserRoleAdmin}}, nil
	}
	return a.verifier.Verify(token)
}

func TestErasure(t *testing.T) {
	for _, c := range []struct {
		name, method, target, token string
		status                      int
		body, erased                string
	}{
		{"one's session", "DELETE", "/api/v1/sessions/mine", "good", 204, "", "alice's mine"},
		{"another session", "DELETE", "/api/v1/sessions/theirs", "good", 404, "session_not_found", ""},
		{"without a token", "DELETE", "/api/v1/sessions/mine", "", 401, "unauthenticated", ""},
		{"another method", "PUT", "/api/v1/sessions/mine", "good", 405, "DELETE", ""},
		{"a user, as an admin", "DELETE", "/api/v1/admin/users/bob/data", "admin", 200, `{"sessions":3}`, "all of bob"},
		{"a user, as one", "DELETE", "/api/v1/admin/users/bob/data", "good", 403, "forbidden", ""},
		{"a user, without a token", "DELETE", "/api/v1/admin/users/bob/data", "", 401, "unauthenticated", ""},
		{"a user, by another method", "GET", "/api/v1/admin/users/bob/data", "admin", 405, "DELETE", ""},
	} {
		e := &eraser{}
		h := httpapi.New(admins{"good"}, models{}, e, slog.New(slog.DiscardHandler))
		r := httptest.NewRequest(c.method, c.target, nil)
		if c.token != "" {
			r.Header.Set("Authorization", "Bearer "+c.token)
		}
		response := httptest.NewRecorder()
		h.ServeHTTP(response, r)
		if response.Code != c.status || !strings.Contains(response.Body.String(), c.body) {
			t.Errorf("%s: answered with %d %s", c.name, response.Code, response.Body)
		}
		if got := strings.Join(e.erased, ", "); got != c.erased {
			t.Errorf("%s: erased is %q, want %q", c.name, got, c.erased)
		}
	}
}

type models []llm.Model

func (m models) Models() []llm.Model { return m }

func (models) Default() string { return "second" }

// request asks a handler with three models, with header lines given as names and values.
func request(t *testing.T, method, target string, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	h := httpapi.New(verifier("good"), models{{ID: "first", Name: "The First"}, {ID: "second", Name: "The Second"}, {ID: "third"}},
		&eraser{}, slog.New(slog.DiscardHandler))
	r := httptest.NewRequest(method, target, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	response := httptest.NewRecorder()
	h.ServeHTTP(response, r)
	for name, want := range map[string]string{"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"} {
		if got := response.Header().Get(name); got != want {
			t.Errorf("%s %s: %s is %q, want %q", method, target, name, got, want)
		}
	}
	return response
}

func TestModelsAreListedInTheirOrder(t *testing.T) {
	for _, scheme := range []string{"Bearer", "bearer"} {
		response := request(t, http.MethodGet, "/api/v1/models", "Authorization", scheme+" good")
		const want = `{"items":[{"id":"first","name":"The First"},{"id":"second","name":"The Second","default":true},` +
			`{"id":"third","name":"third"}]}`
		if got := strings.TrimSpace(response.Body.String()); response.Code != http.StatusOK || got != want {
			t.Errorf("got %d %s, want %s", response.Code, got, want)
		}
		if got := response.Header().Get("Content-Type"); got != "application/json" {
			t.Errorf("the type is %q", got)
		}
	}
}

func TestRefusalsAreProblems(t *testing.T) {
	const bearer = "Bearer good"
	for _, c := range []struct {
		name, method, target, authorization string
		status                              int
		code                                chat.Code
	}{
		{"no token", "GET", "/api/v1/models", "", 401, chat.CodeUnauthenticated},
		{"a bad token", "GET", "/api/v1/models", "Bearer bad", 401, chat.CodeUnauthenticated},
		{"another scheme", "GET", "/api/v1/models", "Basic good", 401, chat.CodeUnauthenticated},
		{"a token in the query", "GET", "/api/v1/models?token=good", bearer, 400, chat.CodeInvalidRequest},
		{"an access token in the query", "GET", "/api/v1/models?access_token=good", "", 400, chat.CodeInvalidRequest},
		{"POST", "POST", "/api/v1/models", bearer, 405, chat.CodeInvalidRequest},
		{"DELETE", "DELETE", "/api/v1/models", "", 405, chat.CodeInvalidRequest},
		{"below the list", "GET", "/api/v1/models/first", bearer, 404, chat.CodeInvalidRequest},
		{"nothing", "POST", "/api/v1/nothing", bearer, 404, chat.CodeInvalidRequest},
		{"the root", "GET", "/api/", bearer, 404, chat.CodeInvalidRequest},
	} {
		var header []string
		if c.authorization != "" {
			header = []string{"Authorization", c.authorization}
		}
		response := request(t, c.method, c.target, header...)
		var problem struct {
			Title, Detail string
			Status        int
			Code          chat.Code
		}
		if err := json.Unmarshal(response.Body.Bytes(), &problem); err != nil {
			t.Errorf("%s: %v in %s", c.name, err, response.Body)
		}
		if response.Code != c.status || problem.Status != c.status || problem.Code != c.code ||
			problem.Title == "" || problem.Detail == "" {
			t.Errorf("%s: got %d %+v, want %d %s", c.name, response.Code, problem, c.status, c.code)
		}
		if got := response.Header().Get("Content-Type"); got != "application/problem+json" {
			t.Errorf("%s: the type is %q", c.name, got)
		}
		if got := response.Header().Get("WWW-Authenticate"); (got == "Bearer") != (c.status == http.StatusUnauthorized) {
			t.Errorf("%s: WWW-Authenticate is %q", c.name, got)
		}
		if got := response.Header().Get("Allow"); (got == "GET, HEAD") != (c.status == http.StatusMethodNotAllowed) {
			t.Errorf("%s: Allow is %q", c.name, got)
		}
	}
}

func TestRefusalsAreLoggedWithoutTheQuery(t *testing.T) {
	var log strings.Builder
	h := httpapi.New(verifier("good"), models{}, &eraser{}, slog.New(slog.NewTextHandler(&log, nil)))
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/api/v1/models?token=hunter2", nil))
	if got := log.String(); !strings.Contains(got, "code=invalid_request path=/api/v1/models ") || strings.Contains(got, "hunter2") {
		t.Errorf("the log says %s", got)
	}
}
