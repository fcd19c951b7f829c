//go:build unix

package acceptance_test

import (
	"compress/gzip"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	spans "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// traces is a collector of them.
type traces struct {
	url string

	mu       sync.Mutex // guards the fields below
	services []string
	raw      []byte
	spans    []*spans.Span
	headers  []http.Header
}

// startTraces starts a collector that takes what it is given.
func startTraces(t *testing.T) *traces {
	t.Helper()
	c := &traces{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := c.take(r); err != nil {
			t.Errorf("the collector is sent what it cannot read: %v", err)
			w.WriteHeader(http.StatusBadRequest)
		}
	}))
	t.Cleanup(server.Close)
	c.url = server.URL
	return c
}

func (c *traces) take(r *http.Request) error {
	if r.URL.Path != "/v1/traces" || r.Method != http.MethodPost {
		return fmt.Errorf("%s %s", r.Method, r.URL.Path)
	}
	body := io.Reader(r.Body)
	if r.Header.Get("Content-Encoding") == "gzip" {
		unzipped, err := gzip.NewReader(r.Body)
		if err != nil {
			return err
		}
		body = unzipped
	}
	raw, err := io.ReadAll(body)
	if err != nil {
		return err
	}
	var request collector.ExportTraceServiceRequest
	if err := proto.Unmarshal(raw, &request); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.raw = append(c.raw, raw...)
	c.headers = append(c.headers, r.Header)
	for _, of := range request.ResourceSpans {
		for _, kv := range of.Resource.Attributes {
			if kv.Key == "service.name" {
				c.services = append(c.services, kv.Value.GetStringValue())
			}
		}
		for _, scope := range of.ScopeSpans {
			c.spans = append(c.spans, scope.Spans...)
		}
	}
	return nil
}

// named gives the spans of a name.
func (c *traces) named(name string) (all []*spans.Span) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.spans {
		if s.Name == name {
			all = append(all, s)
		}
	}
	return all
}

// attributeOf gives a span's attribute; "" where it has none.
func attributeOf(s *spans.Span, name string) string {
	for _, kv := range s.Attributes {
		if kv.Key == name {
			if s := kv.Value.GetStringValue(); s != "" {
				return s
			}
			return fmt.Sprint(kv.Value.GetIntValue())
		}
	}
	return ""
}

const collectorToken = "otlp-5f0c81d2ab"

// telemetrySection gives the section that sends traces to a collector.
func telemetrySection(url string) string {
	return "telemetry: {otlp_endpoint: '" + url + "', otlp_headers: 'authorization=Bearer " +
		keepSecret("the collector's token", collectorToken) + "', service_name: parley-test}\n"
}

// What a server does arrives at the collector, with one ID in the traces, the log, the frames and the providers' requests.
func TestTracesArrive(t *testing.T) {
	var mu sync.Mutex
	var told []string
	overloaded := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		told = append(told, r.Header.Get("Traceparent"))
		mu.Unlock()
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	t.Cleanup(overloaded.Close)
	up, sink := startUpstream(t), startTraces(t)
	s := startServer(t, section("retry: {max_attempts: 1}\n",
		[]string{"id: first, type: openai, base_url: '" + overloaded.URL + "/v1'", up.provider("up")},
		model("echo", "first/busy, up/echo"), model("broken", "first/busy")), telemetrySection(sink.url))
	const linked = "0af7651916cd43dd8448eb211c80319c"
	c, _, err := s.tryDial(token("alice"), http.Header{"Traceparent": {"00-" + linked + "-b7ad6b7169203331-01"}})
	if err != nil {
		t.Fatal(err)
	}
	c.open()
	answer := c.ask("q1", "MARKER-OF-WHAT-WAS-SAID")
	if answer.str("status") != "complete" {
		t.Fatalf("the response ends as %v", answer)
	}
	c.send("session.update", "model", "broken")
	failed := c.ask("q2", "MARKER-OF-WHAT-WAS-SAID")
	id := failed.str("error", "trace_id")
	if failed.str("status") != "failed" || failed.str("error", "code") != "llm_unavailable" || len(id) != 32 {
		t.Errorf("the response ends as %v", failed)
	}
	if got := s.api("GET", "/api/v1/sessions/"+c.session, token("alice"), nil); got.status != 200 {
		t.Errorf("the session is answered with %v", got)
	}
	if entry := s.awaitEntry("a response failed", "session", c.session); entry["trace_id"] != id || entry["user"] != "alice" {
		t.Errorf("the log says %v, the reader was told %s", entry, id)
	}
	if code := s.stop(syscall.SIGTERM); code != 0 {
		t.Errorf("the server exits with %d", code)
	}

	turns, attempts := sink.named("chat echo"), sink.named("chat busy")
	turns = slices.DeleteFunc(turns, func(s *spans.Span) bool { return len(s.ParentSpanId) > 0 })
	if len(turns) != 1 || len(attempts) != 2 || len(sink.named("chat broken")) != 1 {
		t.Fatalf("there are %d turns, %d attempts at the first target and %d failed turns: %v", len(turns), len(attempts),
			len(sink.named("chat broken")), sink.spans)
	}
	turn := turns[0]
	if attributeOf(turn, "parley.session_id") != c.session || attributeOf(turn, "gen_ai.usage.output_tokens") == "" ||
		len(turn.Links) != 1 || hex.EncodeToString(turn.Links[0].TraceId) != linked || hex.EncodeToString(turn.TraceId) == linked {
		t.Errorf("the turn is %v", turn)
	}
	if attributeOf(attempts[0], "error.type") != "llm_unavailable" || attributeOf(attempts[0], "http.response.status_code") != "503" ||
		attributeOf(attempts[0], "server.address") != "127.0.0.1" || string(attempts[0].ParentSpanId) != string(turn.SpanId) {
		t.Errorf("the attempt is %v", attempts[0])
	}
	if want := fmt.Sprintf("00-%x-%x-01", attempts[0].TraceId, attempts[0].SpanId); told[0] != want {
		t.Errorf("the provider was told %q, want %q", told[0], want)
	}
	if broken := sink.named("chat broken")[0]; hex.EncodeToString(broken.TraceId) != id || broken.Status.Code != spans.Status_STATUS_CODE_ERROR {
		t.Errorf("the failed turn is %v, the reader was told %s", broken, id)
	}
	if got := sink.named("get-session"); len(got) != 1 || attributeOf(got[0], "http.response.status_code") != "200" {
		t.Errorf("the requests are %v", got)
	}
	if len(sink.services) == 0 || sink.services[0] != "parley-test" || sink.headers[0].Get("Authorization") != "Bearer "+collectorToken {
		t.Errorf("the service is %q", sink.services)
	}
	if strings.Contains(string(sink.raw), "MARKER") || strings.Contains(strings.Join(s.log(), "\n"), "MARKER") {
		t.Error("what was said is in a trace or in the log")
	}
	for _, line := range s.log() {
		if !json.Valid([]byte(line)) {
			t.Errorf("the log has a line that is no JSON: %s", line)
		}
	}
}

// A collector that takes connections and says nothing holds up neither an answer nor the end.
func TestACollectorThatHangs(t *testing.T) {
	up := startUpstream(t)
	asked, ctx := make(chan struct{}), t.Context()
	var once sync.Once
	hung := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		once.Do(func() { close(asked) })
		select {
		case <-r.Context().Done():
		case <-ctx.Done():
		}
	}))
	t.Cleanup(hung.Close)
	s := startServer(t, up.scripted("", "echo"), telemetrySection(hung.URL),
		"server: {addr: 127.0.0.1:0, operations_addr: 127.0.0.1:0, shutdown_timeout: 20s}\n")
	c := s.dial(token("alice"))
	c.open()
	if end := c.ask("q", "hi"); end.str("status") != "complete" {
		t.Errorf("the response ends as %v", end)
	}
	awaitClosed(t, asked)
	if end := c.ask("q2", "and now?"); end.str("status") != "complete" {
		t.Errorf("the response ends as %v while the collector hangs", end)
	}
	if code := s.stop(syscall.SIGTERM); code != 0 {
		t.Errorf("the server exits with %d", code)
	}
	if _, ok := s.findLog("traces could not be sent"); !ok {
		t.Error("the log does not say that traces are lost")
	}
}

// awaitClosed waits for something that has to come.
func awaitClosed(t *testing.T, done <-chan struct{}) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	select {
	case <-done:
	case <-ctx.Done():
		t.Fatal("it never came")
	}
}
