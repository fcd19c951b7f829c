//go:build unix

package acceptance_test

import (
	"fmt"
	"net/http"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/coder/websocket"
)

// metric is a metric as docs/METRICS.md describes it, or as /metrics tells it.
type metric struct {
	kind   string
	labels map[string][]string // and the values that there are
}

var (
	metricRow  = regexp.MustCompile("(?m)^\\| `(parley_\\w+)` \\| (\\w+) \\| (.*?) ?\\| (.+?) \\| (.+?) \\|$")
	valueSet   = regexp.MustCompile("(?ms)^- \\*\\*([^*]+)\\*\\*: (.+?)(?:\n- |\\z)")
	inQuotes   = regexp.MustCompile("`([^`]+)`")
	sampleLine = regexp.MustCompile(`^(\w+?)(_bucket|_sum|_count)?(?:\{(.*)\})? (\S+)$`)
	labelPair  = regexp.MustCompile(`(\w+)="((?:[^"\\]|\\.)*)"`)
)

// documentedMetrics reads docs/METRICS.md. sets are those of its sets of values that the configuration gives.
func documentedMetrics(t *testing.T, sets map[string][]string) map[string]metric {
	t.Helper()
	page, err := os.ReadFile("../docs/METRICS.md")
	if err != nil {
		t.Fatal(err)
	}
	_, list, _ := strings.Cut(string(page), "\n## Sets of values\n")
	for list != "" {
		at := valueSet.FindStringSubmatchIndex(list)
		if at == nil {
			break
		}
		for _, m := range inQuotes.FindAllStringSubmatch(list[at[4]:at[5]], -1) {
			sets[list[at[2]:at[3]]] = append(sets[list[at[2]:at[3]]], m[1])
		}
		list = list[at[5]:]
	}
	documented := make(map[string]metric)
	for _, row := range metricRow.FindAllStringSubmatch(string(page), -1) {
		labels := make(map[string][]string)
		for label := range strings.SplitSeq(row[3], "; ") {
			name, values, ok := strings.Cut(label, ": ")
			if !ok {
				continue
			}
			for value := range strings.SplitSeq(values, ", ") {
				if of, ok := sets[value]; ok {
					labels[strings.Trim(name, "`")] = append(labels[strings.Trim(name, "`")], of...)
				} else if m := inQuotes.FindStringSubmatch(value); m != nil {
					labels[strings.Trim(name, "`")] = append(labels[strings.Trim(name, "`")], m[1])
				} else {
					t.Errorf("%s: %q is no set of values", row[1], value)
				}
			}
		}
		if _, twice := documented[row[1]]; twice {
			t.Errorf("%s is documented twice", row[1])
		}
		documented[row[1]] = metric{row[2], labels}
	}
	if len(documented) < 30 {
		t.Errorf("the page has %d metrics only: does this test still read it?", len(documented))
	}
	return documented
}

// scrape reads what /metrics tells, and how many series there are.
func (s *server) scrape() (told map[string]metric, series int) {
	s.t.Helper()
	told = make(map[string]metric)
	for line := range strings.Lines(s.metricsText()) {
		line = strings.TrimSpace(line)
		if rest, ok := strings.CutPrefix(line, "# TYPE "); ok {
			name, kind, _ := strings.Cut(rest, " ")
			told[name] = metric{kind, make(map[string][]string)}
			continue
		}
		if strings.HasPrefix(line, "#") {
			continue
		}
		m := sampleLine.FindStringSubmatch(line)
		if m == nil {
			s.t.Errorf("/metrics has the line %q", line)
			continue
		}
		series++
		name := m[1]
		if _, ok := told[name]; !ok {
			name += m[2] // it is part of the name
		}
		for _, pair := range labelPair.FindAllStringSubmatch(m[3], -1) {
			if pair[1] != "le" && !slices.Contains(told[name].labels[pair[1]], pair[2]) {
				told[name].labels[pair[1]] = append(told[name].labels[pair[1]], pair[2])
			}
		}
	}
	return told, series
}

// checkMetrics holds what /metrics tells against what is documented, in both directions.
func checkMetrics(t *testing.T, documented, told map[string]metric) {
	t.Helper()
	for name, want := range documented {
		got, ok := told[name]
		switch {
		case !ok:
			t.Errorf("/metrics has no %s", name)
			continue
		case got.kind != want.kind:
			t.Errorf("%s is a %s, documented is a %s", name, got.kind, want.kind)
		}
		for label := range want.labels {
			if len(got.labels[label]) == 0 {
				t.Errorf("%s has no label %s", name, label)
			}
		}
		for label, values := range got.labels {
			for _, value := range values {
				if !slices.Contains(want.labels[label], value) {
					t.Errorf("%s{%s=%q}: the documented values are %q", name, label, value, want.labels[label])
				}
			}
		}
	}
	for name := range told {
		if _, ok := documented[name]; !ok && strings.HasPrefix(name, "parley_") {
			t.Errorf("%s stands in no table of docs/METRICS.md", name)
		}
	}
}

// operationIDs gives those of the HTTP API.
func (s *server) operationIDs() (ids []string) {
	s.t.Helper()
	for _, m := range regexp.MustCompile(`"operationId":"([^"]+)"`).FindAllStringSubmatch(s.api("GET", "/openapi.json", "", nil).raw, -1) {
		ids = append(ids, m[1])
	}
	return ids
}

// build gives the sets of values that are the build's.
func (s *server) build(sets map[string][]string) map[string][]string {
	s.t.Helper()
	told, _ := s.scrape()
	labels := told["parley_build_info"].labels
	sets["a version"], sets["a commit"], sets["a Go version"] = labels["version"], labels["commit"], labels["goversion"]
	return sets
}

const tightLimits = "rate_limit: {messages: {limit: 40, window: 1h}, requests: {limit: 60, window: 1h}, admin: {limit: 5, window: 1h}, " +
	"unauthenticated: {limit: 10, window: 1h}}\n"

func TestEveryMetricIsDocumented(t *testing.T) {
	up := startUpstream(t)
	models := []string{"words-3", "flaky-1", "status-500", "hang", "gate-20", "cut-after-3"}
	lines := []string{model("failover", "dead/words-3, up/words-3", "price: {input: 1, output: 2}")}
	for _, m := range models {
		lines = append(lines, model(m, "up/"+m))
	}
	s := startServer(t, section("moderation: {url: '"+up.url+"/moderate'}\nfirst_token_timeout: 1s\n"+
		"retry: {max_attempts: 2, initial_backoff: 1ms, max_backoff: 1ms}\nbreaker: {failures: 3, delay: 1h}\n",
		[]string{up.provider("up"), fmt.Sprintf("id: dead, type: openai, base_url: 'http://%s/v1'", deadAddr(t))}, lines...),
		tightLimits, "websocket: {max_connections_per_user: 4, max_message_bytes: 4KiB, allowed_origins: ['https://app.example.com']}\n")
	documented := documentedMetrics(t, s.build(map[string][]string{
		"a model's ID":      append([]string{"failover"}, models...),
		"a provider's ID":   {"up", "dead"},
		"a target's model":  models,
		"an operation's ID": s.operationIDs(),
	}))

	converse(t, s, up)
	knock(t, s)
	callTheAPI(t, s)

	told, _ := s.scrape()
	checkMetrics(t, documented, told)
	s.awaitMetrics(map[string]string{
		`parley_responses_total{model="words-3",provider="up",status="complete"}`:           "2",
		`parley_responses_total{model="failover",provider="up",status="complete"}`:          "1",
		`parley_responses_total{model="flaky-1",provider="up",status="complete"}`:           "1",
		`parley_responses_total{model="gate-20",provider="up",status="cancelled"}`:          "1",
		`parley_responses_total{model="status-500",provider="up",status="failed"}`:          "2",
		`parley_responses_total{model="hang",provider="up",status="failed"}`:                "1",
		`parley_responses_total{model="cut-after-3",provider="up",status="failed"}`:         "1",
		`parley_responses_total{model="words-3",provider="none",status="failed"}`:           "1",
		`parley_response_failures_total{code="content_filtered"}`:                           "1",
		`parley_response_failures_total{code="llm_timeout"}`:                                "1",
		`parley_response_first_token_seconds_count{model="words-3"}`:                        "2",
		`parley_response_seconds_count{model="words-3"}`:                                    "2",
		`parley_response_first_token_seconds_count{model="cut-after-3"}`:                    "1",
		`parley_response_seconds_count{model="cut-after-3"}`:                                "",
		`parley_llm_retries_total{provider="up",target="flaky-1"}`:                          "1",
		`parley_llm_requests_total{outcome="unavailable",provider="dead",target="words-3"}`: "2",
		`parley_llm_breaker_state{provider="up",state="open",target="status-500"}`:          "1",
		`parley_llm_cost_total{model="failover"}`:                                           "2.2e-05",
		`parley_messages_stored_total{role="user"}`:                                         "10",
		`parley_messages_stored_total{role="assistant"}`:                                    "10",
		`parley_messages_stored_total{role="agent"}`:                                        "1",
		`parley_moderations_total{verdict="refused"}`:                                       "1",
		`parley_connections_replaced_total`:                                                 "1",
		`parley_connections_closed_total{code="4409"}`:                                      "1",
		`parley_connections_closed_total{code="1000"}`:                                      "1",
		`parley_connections_closed_total{code="1003"}`:                                      "1",
		`parley_connections_closed_total{code="1009"}`:                                      "1",
		`parley_connections_closed_total{code="other"}`:                                     "1",
		`parley_connections_refused_total{code="unauthenticated"}`:                          "10",
		`parley_connections_refused_total{code="origin_forbidden"}`:                         "1",
		`parley_connections_refused_total{code="connection_limit"}`:                         "1",
		`parley_rate_limit_decisions_total{bucket="messages",decision="refused"}`:           "2",
		`parley_rate_limit_decisions_total{bucket="unauthenticated",decision="allowed"}`:    "10",
		`parley_rate_limit_decisions_total{bucket="admin",decision="refused"}`:              "1",
		`parley_rate_limit_keys{bucket="unauthenticated"}`:                                  "1",
		`parley_http_requests_total{code="200",operation="list-models"}`:                    "1",
		`parley_http_requests_total{code="401",operation="list-sessions"}`:                  "",
		`parley_http_requests_total{code="404",operation="get-session"}`:                    "1",
		`parley_http_requests_total{code="404",operation="none"}`:                           "1",
		`parley_http_requests_total{code="405",operation="none"}`:                           "1",
		`parley_http_requests_total{code="429",operation="admin-stats"}`:                    "1",
		`parley_http_requests_total{code="400",operation="admin-list-audit"}`:               "1",
		`parley_http_request_seconds_count{operation="admin-list-audit"}`:                   "1",
		`parley_frame_errors_total{code="rate_limited"}`:                                    "2",
		`parley_frame_errors_total{code="invalid_json"}`:                                    "1",
		`parley_frame_errors_total{code="message_too_large"}`:                               "1",
		`parley_storage_down`:           "0",
		`parley_journal_down`:           "0",
		`parley_journal_waiting_events`: "0",
		`parley_draining`:               "0",
	})
	others := []string{"go_goroutines", "go_memstats_heap_inuse_bytes", "go_gc_gomemlimit_bytes"}
	if runtime.GOOS == "linux" {
		others = append(others, "process_start_time_seconds", "process_open_fds", "process_max_fds",
			"process_resident_memory_bytes", "process_cpu_seconds_total")
	}
	for _, name := range others { // which the dashboard and the alerts ask for
		if s.figure(name) <= 0 {
			t.Errorf("%s is %v", name, s.figure(name))
		}
	}
	if opened, open := s.figure("parley_connections_opened_total"), s.figure("parley_connections"); open > opened {
		t.Errorf("of %v connections %v are open", opened, open)
	}
	if writes, events := s.figure("parley_journal_write_seconds_count"), s.figure("parley_journal_events_written_total"); writes < 1 || events < writes/2 {
		t.Errorf("%v writes carried %v events", writes, events)
	}
	if deltas, frames := s.figure("parley_deltas_sent_total"), s.figure("parley_delta_frames_sent_total"); frames < 4 || deltas < frames {
		t.Errorf("%v frames carried %v pieces", frames, deltas)
	}
}

// converse has conversations that end in each of the ways.
func converse(t *testing.T, s *server, up *upstream) {
	alice := token("alice")
	c := s.dial(alice)
	c.open("model", "words-3")
	c.ask("q1", "hi")
	c.ask("q2", "something forbidden")
	for i, m := range []string{"flaky-1", "failover", "status-500", "status-500", "hang", "cut-after-3"} {
		c.send("session.update", "model", m)
		c.ask(fmt.Sprint("m", i), "hi")
	}
	c.send("session.update", "model", "gate-20")
	c.until("session.updated")
	c.send("message.send", "message_id", "g", "text", "hi")
	up.release(t, 3)
	c.until("message.delta")
	c.send("response.cancel")
	c.until("message.completed")

	agent := s.dial(token("ann", "agent"))
	agent.open("session_id", c.session, "as", "agent")
	agent.send("message.send", "message_id", "human", "text", "Can I help?")
	agent.until("message.created")
	agent.send("session.leave")
	agent.conn.Close(4999, "") // which means nothing

	d := s.dial(alice)
	d.open("session_id", c.session)
	c.closedWith(4409)
	d.conn.Close(websocket.StatusNormalClosure, "")

	bob := s.dial(token("bob"))
	bob.open("model", "words-3")
	bob.ask("q", "hi")
	if f := bob.refused("no JSON"); f.str("error", "code") != "invalid_json" {
		t.Errorf("what is no JSON is answered with %v", f)
	}
	for range 38 {
		bob.send("session.update", "title", "bob's")
	}
	for range 2 {
		if f := bob.sendRefused("session.update", "title", "bob's"); f.str("error", "code") != "rate_limited" {
			t.Errorf("too many frames are answered with %v", f)
		}
	}
	bob.sendRaw(`{"type":"ping","x":"` + strings.Repeat("x", 4096) + `"}`)
	bob.closedWith(1009)
	binary := s.dial(token("bob"))
	if err := binary.conn.Write(t.Context(), websocket.MessageBinary, []byte("{}")); err != nil {
		t.Error(err)
	}
	binary.closedWith(1003)
	lost := s.dial(token("bob"))
	lost.conn.CloseNow()
}

// knock has upgrades refused.
func knock(t *testing.T, s *server) {
	carol := token("carol")
	for range 4 {
		s.dial(carol)
	}
	refused := func(token string, header http.Header, want string) {
		t.Helper()
		if _, resp, err := s.tryDial(token, header); err == nil || problem(t, resp) != want {
			t.Errorf("an upgrade is answered with %v, want %s", resp, want)
		}
	}
	refused(carol, nil, "429 connection_limit")
	refused(carol, http.Header{"Origin": {"https://elsewhere.example.com"}}, "403 origin_forbidden")
}

// callTheAPI asks the HTTP API, and is refused in the end.
func callTheAPI(t *testing.T, s *server) {
	want := func(method, path, token, code string) {
		t.Helper()
		if got := s.api(method, path, token, nil).code(); got != code {
			t.Errorf("%s %s is answered with %s, want %s", method, path, got, code)
		}
	}
	dave, eve := token("dave"), token("eve", "admin")
	want("GET", "/api/v1/models", dave, "200")
	want("GET", "/api/v1/sessions/7Gf9wBzD2kQ1", dave, "404 session_not_found")
	want("GET", "/api/v1/nothing", dave, "404 invalid_request")
	want("PUT", "/api/v1/models", dave, "405 invalid_request")
	want("GET", "/api/v1/admin/audit?limit=none", eve, "400 invalid_request")
	for range 4 {
		want("GET", adminStats, eve, "200")
	}
	want("GET", adminStats, eve, tooMany)
	// From here on this address has failed too often.
	for range 10 {
		if _, resp, err := s.tryDial("forged", nil); err == nil || problem(t, resp) != "401 unauthenticated" {
			t.Errorf("a forged token is answered with %v", resp)
		}
	}
	want("GET", "/api/v1/models", dave, tooMany)
}

func TestADrainCanBeSeen(t *testing.T) {
	up := startUpstream(t)
	s := startServer(t, up.models("gate-5"))
	c := s.dial(token("alice"))
	c.open()
	c.send("message.send", "message_id", "q", "text", "hi")
	up.release(t, 1)
	c.until("message.delta")
	s.awaitMetrics(map[string]string{"parley_draining": "0"})
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	s.awaitMetrics(map[string]string{"parley_draining": "1", "parley_responses_in_progress": "1"})
	if _, resp, err := s.tryDial(token("bob"), nil); err == nil || problem(t, resp) != "503 server_draining" {
		t.Errorf("while the server drains an upgrade is answered with %v", resp)
	}
	s.awaitMetrics(map[string]string{`parley_connections_refused_total{code="server_draining"}`: "1"})
	up.release(t, 4)
	c.closedWith(1012)
	if code := s.wait(); code != 0 {
		t.Errorf("the server ends with %d", code)
	}
}
