// Package mongotest is a MongoDB to test against, behind a proxy that fails as it is told, so that tests see a database
// that stalls, refuses, and loses its connections before and after it did what it was asked.
//
// The database is the one that PARLEY_TEST_MONGO_URI names. Without it, and where PARLEY_TEST_REQUIRE names mongo, it is
// FerretDB, which speaks MongoDB's wire protocol: it is built from the module in the folder ferretdb, runs in a process of
// its own, and is given one command at a time, because what it does is not atomic. Otherwise the tests are skipped.
//
// What it does wrong has to be kept away from: several indexes in one command, of which there are some already; a hundred
// and more updates in one command, for which it hangs; more than one sum in a $group, of which it adds up the first.
//
// One FerretDB serves all tests of a process. It needs an end, which [Main] gives it:
//
//	func TestMain(m *testing.M) { goleak.VerifyTestMain(mongotest.Main(m)) }
package mongotest

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

const (
	uriEnv     = "PARLEY_TEST_MONGO_URI"
	requireEnv = "PARLEY_TEST_REQUIRE"
)

// patience bounds what the package itself waits for. It is long, so that a slow machine fails no test.
const patience = 30 * time.Second

// Server is a MongoDB for one test. Its methods may be called at any time, from any goroutine that may fail the test.
type Server struct {
	tb       testing.TB
	upstream upstream
	proxy    *proxy // nil: the upstream can only be connected to directly

	mu        sync.Mutex // guards the field below
	databases []string   // those that were given names, to be dropped
}

// Start gives a MongoDB until the test ends. Without one the test is skipped, unless PARLEY_TEST_REQUIRE names mongo:
// then it fails. Clients are to be disconnected before the test ends, as by a cleanup function of their own.
func Start(tb testing.TB) *Server {
	tb.Helper()
	return start(tb, findUpstream(tb))
}

func findUpstream(tb testing.TB) upstream {
	tb.Helper()
	if uri := os.Getenv(uriEnv); uri != "" {
		up, err := parseUpstream(uri)
		if err != nil {
			tb.Fatalf("%s: %v", uriEnv, err)
		}
		return up
	}
	if !required() {
		tb.Skipf("no MongoDB: %s=mongo builds and runs one, and %s names one that runs", requireEnv, uriEnv)
	}
	up, err := shared.start()
	if err != nil {
		tb.Fatalf("%s asks for mongo: %v", requireEnv, err)
	}
	return up
}

func required() bool { return slices.Contains(strings.Split(os.Getenv(requireEnv), ","), "mongo") }

func start(tb testing.TB, up upstream) *Server {
	tb.Helper()
	s := &Server{tb: tb, upstream: up}
	if up.addr != "" {
		p, err := newProxy(up)
		if err != nil {
			tb.Fatal(err)
		}
		s.proxy = p
	}
	tb.Cleanup(s.close)
	return s
}

func (s *Server) close() {
	if s.proxy != nil {
		s.proxy.close()
	}
	s.mu.Lock()
	databases := s.databases
	s.mu.Unlock()
	if len(databases) == 0 {
		return
	}
	if err := s.upstream.drop(databases); err != nil {
		s.tb.Errorf("drop the test's databases: %v", err)
	}
}

// URI is what a client connects to.
func (s *Server) URI() string {
	if s.proxy == nil {
		return s.upstream.uri
	}
	return s.upstream.uriAt(s.proxy.addr())
}

// Database gives, with each call, the name of another database, which is empty and is dropped when the test ends.
func (s *Server) Database() string {
	name := "parley_test_" + strings.ToLower(rand.Text())
	s.mu.Lock()
	defer s.mu.Unlock()
	s.databases = append(s.databases, name)
	return name
}

// Inject makes a fault happen to the commands that it matches. hits says how often it has happened so far; remove takes
// it away, and lets go of the commands that it holds. Of several faults that match, the oldest happens.
func (s *Server) Inject(f Fault) (hits func() int, remove func()) {
	s.tb.Helper()
	return s.proxied().inject(f)
}

// Freeze stops the server as a machine that hangs is stopped: connections stay and are made, but no command that comes
// from now on is executed or answered, until Thaw.
func (s *Server) Freeze() {
	s.tb.Helper()
	s.proxied().freeze()
}

// Thaw ends what Freeze began. The commands that have come meanwhile are executed, even if their clients have gone.
func (s *Server) Thaw() {
	s.tb.Helper()
	s.proxied().thaw()
}

// Cut closes all connections of clients. Commands that have arrived are executed nevertheless, unanswered.
func (s *Server) Cut() {
	s.tb.Helper()
	s.proxied().cut()
}

// Refuse begins or ceases to refuse connections. Beginning, it cuts those that there are. To a client it is a connection
// that is reset before a byte comes back: the port stays taken, so that nobody else gets it.
func (s *Server) Refuse(refuse bool) {
	s.tb.Helper()
	s.proxied().refuse(refuse)
}

// Commands counts the commands that were executed, by their names, such as insert. Those that a fault answered are not
// among them.
func (s *Server) Commands() map[string]int {
	s.tb.Helper()
	return s.proxied().commands()
}

func (s *Server) proxied() *proxy {
	s.tb.Helper()
	if s.proxy != nil {
		return s.proxy
	}
	const why = "there can be no faults: " + uriEnv + " names more than one host, or encrypts the connection"
	if required() {
		s.tb.Fatal(why)
	}
	s.tb.Skip(why)
	return nil
}

// drop drops databases, past whatever happens to the proxies of tests.
func (u upstream) drop(databases []string) error {
	uri := u.uri
	if u.addr != "" {
		p, err := newProxy(u)
		if err != nil {
			return err
		}
		defer p.close()
		uri = u.uriAt(p.addr())
	}
	client, err := mongo.Connect(options.Client().ApplyURI(uri))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	defer client.Disconnect(ctx)
	for _, name := range databases {
		if err := client.Database(name).Drop(ctx); err != nil {
			return fmt.Errorf("drop %s: %w", name, err)
		}
	}
	return nil
}

// Runner is a testing.M, or what stands for one.
type Runner interface{ Run() int }

// Main gives the tests of m, and the end of the FerretDB that they have started, if they have. What it gives is for
// goleak.VerifyTestMain, or for os.Exit(mongotest.Main(m).Run()).
func Main(m Runner) Runner { return runner{m} }

type runner struct{ tests Runner }

func (r runner) Run() int {
	code := r.tests.Run()
	if err := shared.stop(); err != nil {
		fmt.Fprintln(os.Stderr, "mongotest:", err)
		return max(code, 1)
	}
	return code
}
