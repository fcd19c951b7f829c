package httpapi_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/parley-chat/parley/internal/httpapi"
	"github.com/parley-chat/parley/internal/telemetry"
)

func TestTracesOfRequests(t *testing.T) {
	spans := tracetest.NewInMemoryExporter()
	h := newHouse(t, func(c *httpapi.Config) { c.Tracer = telemetry.New(sdk.NewTracerProvider(sdk.WithSyncer(spans))) })
	h.store.down = errors.New("SECRET-CAUSE")
	for _, c := range []struct{ method, target, token, name, status, code, user string }{
		{"GET", "/api/v1/models", "alice", "list-models", "200", "", "alice"},
		{"GET", "/api/v1/sessions/secret-id", "alice", "get-session", "503", "storage_unavailable", "alice"},
		{"GET", "/api/v1/models", "mallory", "GET", "401", "unauthenticated", ""},
		{"BREW", "/api/v1/models", "alice", "_OTHER", "405", "", "alice"},
	} {
		spans.Reset()
		answer := h.ask(c.method, c.target, c.token, "")
		var problem struct {
			TraceID string `json:"trace_id"`
		}
		_ = json.Unmarshal(answer.Body.Bytes(), &problem) // some answers are none
		all := spans.GetSpans()
		if len(all) != 1 || all[0].Name != c.name {
			t.Fatalf("%s %s is traced as %+v", c.method, c.target, all)
		}
		got := make(map[string]string)
		for _, kv := range all[0].Attributes {
			got[string(kv.Key)] = kv.Value.String()
			if strings.Contains(strings.ToLower(kv.Value.String()), "secret") {
				t.Errorf("the span says %s = %s", kv.Key, kv.Value.String())
			}
		}
		if got["http.response.status_code"] != c.status || got["error.type"] != c.code || got["enduser.id"] != c.user {
			t.Errorf("%s %s is traced with %v", c.method, c.target, got)
		}
		id := all[0].SpanContext.TraceID().String()
		if (problem.TraceID == id) != (c.code == "storage_unavailable") {
			t.Errorf("%s %s is answered with the trace %q of %s", c.method, c.target, problem.TraceID, id)
		}
		if logged := strings.Contains(h.log.String(), "trace_id="+id); logged != (c.code != "") {
			t.Errorf("%s %s: the log names its trace: %v\n%s", c.method, c.target, logged, h.log.String())
		}
	}
}
