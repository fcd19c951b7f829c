package mongotest_test

import (
	"net/url"
	"runtime"
	"strings"
	"testing"

	"github.com/parley-chat/parley/internal/store/mongo/mongotest"
)

func TestURIKeepsTheOptions(t *testing.T) {
	host := strings.TrimPrefix(newFake(t).uri(), "mongodb://")
	tests := []struct{ name, uri, want string }{
		{"nothing", "mongodb://" + host, "mongodb://PROXY/?directConnection=true"},
		{"a slash", "mongodb://" + host + "/", "mongodb://PROXY/?directConnection=true"},
		{"credentials", "mongodb://me:p%40ss@" + host + "/db?authSource=admin",
			"mongodb://me:p%40ss@PROXY/db?authSource=admin&directConnection=true"},
		{"what stands in the way", "mongodb://" + host + "/?directconnection=false&compressors=zlib&w=majority",
			"mongodb://PROXY/?directConnection=true&w=majority"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := mongotest.StartAt(t, test.uri, nil)
			dial(t, s).do(insert)
			uri, err := url.Parse(s.URI())
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Replace(s.URI(), uri.Host, "PROXY", 1); got != test.want {
				t.Errorf("got %s, not %s", got, test.want)
			}
		})
	}
}

func TestNoProxyWhereItCouldNotRead(t *testing.T) {
	for _, uri := range []string{
		"mongodb+srv://cluster.example/",
		"mongodb://db.example/?tls=true",
		"mongodb://one.example,two.example/",
		"mongodb://db.example/?loadBalanced=true",
		"mongodb://%2Ftmp%2Fmongodb-27017.sock/",
	} {
		for require, want := range map[string]string{"": "skip", "chromium": "skip", "chromium,mongo": "fail"} {
			t.Setenv("PARLEY_TEST_REQUIRE", require)
			for name, method := range map[string]func(*mongotest.Server){
				"Inject":   func(s *mongotest.Server) { s.Inject(mongotest.Fault{Action: mongotest.Hold}) },
				"Freeze":   (*mongotest.Server).Freeze,
				"Thaw":     (*mongotest.Server).Thaw,
				"Cut":      (*mongotest.Server).Cut,
				"Refuse":   func(s *mongotest.Server) { s.Refuse(true) },
				"Commands": func(s *mongotest.Server) { s.Commands() },
			} {
				got := outcome(t, func(tb testing.TB) {
					s := mongotest.StartAt(tb, uri, nil)
					if s.URI() != uri {
						t.Errorf("%s became %s", uri, s.URI())
					}
					method(s)
				})
				if got != want {
					t.Errorf("%s, %s, required %q: %q, not %q", uri, name, require, got, want)
				}
			}
		}
	}
}

func TestStartWithoutAServer(t *testing.T) {
	t.Setenv("PARLEY_TEST_MONGO_URI", "")
	t.Setenv("PARLEY_TEST_REQUIRE", "chromium")
	if got := outcome(t, func(tb testing.TB) { mongotest.Start(tb) }); got != "skip" {
		t.Errorf("nothing asked for: %q", got)
	}
	t.Setenv("PARLEY_TEST_MONGO_URI", "nonsense")
	if got := outcome(t, func(tb testing.TB) { mongotest.Start(tb) }); got != "fail" {
		t.Errorf("a URI that is none: %q", got)
	}
	t.Setenv("PARLEY_TEST_MONGO_URI", newFake(t).uri())
	mongotest.Start(t)
}

// outcome runs a test that skips or fails, or does neither.
func outcome(t *testing.T, test func(testing.TB)) string {
	tb := &recorder{T: t}
	done := make(chan struct{})
	go func() {
		defer close(done)
		test(tb)
	}()
	<-done
	return tb.outcome
}

// recorder is a test whose end is seen by another.
type recorder struct {
	*testing.T
	outcome string
}

func (r *recorder) end(outcome string) {
	r.outcome = outcome
	runtime.Goexit()
}

func (r *recorder) Skip(...any)           { r.end("skip") }
func (r *recorder) Skipf(string, ...any)  { r.end("skip") }
func (r *recorder) Fatal(...any)          { r.end("fail") }
func (r *recorder) Fatalf(string, ...any) { r.end("fail") }
