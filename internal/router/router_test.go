package router_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/journal"
	"github.com/parley-chat/parley/internal/llm/llmtest"
	"github.com/parley-chat/parley/internal/router"
	"github.com/parley-chat/parley/internal/session"
	"github.com/parley-chat/parley/internal/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// models is a provider that says "yes" after a second.
type models struct{}

func (models) Stream(ctx context.Context, _ chat.Request) iter.Seq2[chat.Chunk, error] {
	return func(yield func(chat.Chunk, error) bool) {
		select {
		case <-time.After(time.Second):
			_ = yield(chat.Chunk{Text: "yes"}, nil) && yield(chat.Chunk{FinishReason: chat.FinishStop}, nil)
		case <-ctx.Done():
			yield(chat.Chunk{}, ctx.Err())
		}
	}
}

// verifier takes a token "user" or "user role".
type verifier struct{}

func (verifier) Verify(token string) (chat.User, error) {
	name, role, _ := strings.Cut(token, " ")
	if name == "" {
		return chat.User{}, chat.NewError(chat.CodeUnauthenticated, "no")
	}
	return chat.User{ID: name, Name: name, Roles: strings.Fields(role), ExpiresAt: time.Now().Add(time.Hour)}, nil
}

type house struct {
	*router.Router
	t        *testing.T
	sessions *session.Manager
	journal  *journal.Journal
	delay    atomic.Int64 // of each operation of the store, in nanoseconds
	log      *strings.Builder
}

func newHouse(t *testing.T, cfg router.Config) *house {
	h := &house{t: t, log: &strings.Builder{}}
	store := storetest.NewMemory()
	store.Before = func(context.Context, string) error {
		time.Sleep(time.Duration(h.delay.Load()))
		return nil
	}
	log := slog.New(slog.NewTextHandler(h.log, nil))
	var err error
	h.journal, err = journal.Open(journal.Config{Path: t.TempDir(), MaxBytes: 64 << 20, StoreID: store.ID()}, log)
	if err != nil {
		t.Fatal(err)
	}
	h.sessions = session.NewManager(session.Config{
		CheckpointInterval: time.Second,
		IdleTimeout:        time.Hour, GracePeriod: time.Hour, CleanupInterval: time.Minute, LeaseTimeout: time.Hour,
	}, store, h.journal, llmtest.NewPool(models{}, nil, "m", "n"), log)
	h.Router = router.New(cfg, h.sessions, verifier{}, log)
	return h
}

func (h *house) close() {
	if left := h.Close(context.Background()); left > 0 {
		h.t.Errorf("%d connections are left", left)
	}
	if err := h.sessions.Close(context.Background()); err != nil {
		h.t.Error(err)
	}
	if err := h.journal.Close(); err != nil {
		h.t.Error(err)
	}
}

// peer is a connection without a socket: a [router.Transport] whose writer collects.
type peer struct {
	h      *house
	conn   *router.Connection
	ctx    context.Context
	cancel context.CancelFunc
	done   chan struct{}
	wakes  chan struct{}
	turn   chan struct{} // holds one: a connection's commands, and its end, come one after another

	mu    sync.Mutex // guards the fields below
	out   []router.Outgoing
	close int
}

func (h *house) connect(token string) *peer {
	h.t.Helper()
	user, err := verifier{}.Verify(token)
	if err != nil {
		h.t.Fatal(err)
	}
	conn, err := h.Admit(user, netip.MustParseAddr("192.0.2.1"))
	if err != nil {
		h.t.Fatal(err)
	}
	p := newPeer(h, conn)
	h.Connect(conn, p)
	go p.write()
	return p
}

func newPeer(h *house, conn *router.Connection) *peer {
	p := &peer{
		h: h, conn: conn, done: make(chan struct{}), wakes: make(chan struct{}, 1), turn: make(chan struct{}, 1),
	}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	return p
}

func (p *peer) Wake() {
	select {
	case p.wakes <- struct{}{}:
	default:
	}
}

func (p *peer) Close(code int, _ string) {
	p.mu.Lock()
	if p.close == 0 {
		p.close = code
	}
	p.mu.Unlock()
	p.cancel()
}

func (p *peer) Done() <-chan struct{} { return p.done }

func (p *peer) write() {
	defer close(p.done)
	defer func() {
		p.turn <- struct{}{}
		p.h.Disconnect(p.conn)
	}()
	for {
		for {
			out, ok := p.conn.Next()
			if !ok {
				break
			}
			if out.Close != 0 {
				p.Close(out.Close, out.Reason)
				break
			}
			p.mu.Lock()
			p.out = append(p.out, out)
			p.mu.Unlock()
		}
		select {
		case <-p.wakes:
		case <-p.ctx.Done():
			return
		}
	}
}

// hangUp loses the connection.
func (p *peer) hangUp() {
	p.cancel()
	<-p.done
}

func (p *peer) do(cmd chat.Command) error {
	select {
	case p.turn <- struct{}{}:
	case <-p.done:
		return errors.New("the connection is gone")
	}
	defer func() { <-p.turn }()
	return p.h.Do(p.ctx, p.conn, cmd, "ref")
}

func (p *peer) must(cmd chat.Command) {
	p.h.t.Helper()
	if err := p.do(cmd); err != nil {
		p.h.t.Fatalf("%T: %v", cmd, err)
	}
}

func (p *peer) code() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.close
}

// told gives what the connection was told so far, in words.
func (p *peer) told() string {
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	var words []string
	for _, o := range p.out {
		switch {
		case o.Event == nil:
			words = append(words, strings.TrimPrefix(fmt.Sprintf("%T", o.Notice), "chat."))
		case o.Event.Repeat:
			words = append(words, "Repeat")
		default:
			words = append(words, strings.TrimPrefix(fmt.Sprintf("%T", o.Event.Body), "chat."))
		}
	}
	p.out = nil
	return strings.Join(words, " ")
}

func (p *peer) expect(want string) {
	p.h.t.Helper()
	if got := p.told(); got != want {
		p.h.t.Errorf("the connection was told %q, want %q", got, want)
	}
}

func refused(t *testing.T, err error, want chat.Code) {
	t.Helper()
	if shown, ok := errors.AsType[*chat.Error](err); !ok || shown.Code != want {
		t.Errorf("the error is %v, want %s", err, want)
	}
}

func test(t *testing.T, cfg router.Config, f func(t *testing.T, h *house)) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, cfg)
		defer h.close()
		f(t, h)
	})
}

func TestR02_1_OneIDForEverything(t *testing.T) {
	test(t, router.Config{}, func(t *testing.T, h *house) {
		p := h.connect("alice")
		p.must(chat.OpenSession{As: chat.AsUser})
		synctest.Wait()
		id := p.conn.SessionID()
		if opened := p.out[0].Notice.(chat.SessionOpened); opened.Session.ID != id || id == "" {
			t.Errorf("the client is told %q, the connection is bound to %q", opened.Session.ID, id)
		}
		s, err := h.sessions.Open(t.Context(), id, func(*chat.Session) bool { return true })
		if err != nil || s.ID() != id {
			t.Fatalf("the Manager knows no %q: %v", id, err)
		}
		s.Release()
	})
}

func TestR02_4_MismatchedSessionIDsAreRefused(t *testing.T) {
	test(t, router.Config{}, func(t *testing.T, h *house) {
		p := h.connect("alice")
		refused(t, p.do(chat.SendMessage{MessageID: "q", Text: "hi"}), chat.CodeSessionNotOpen)
		refused(t, p.do(chat.Ping{Bound: chat.Bound{SessionID: "x"}}), chat.CodeSessionMismatch)
		p.must(chat.OpenSession{As: chat.AsUser})
		p.expect("SessionOpened")
		for _, cmd := range []chat.Command{
			chat.SendMessage{Bound: chat.Bound{SessionID: "x"}, MessageID: "q", Text: "hi"}, chat.CancelResponse{Bound: chat.Bound{SessionID: "x"}},
			chat.RetryResponse{Bound: chat.Bound{SessionID: "x"}}, chat.UpdateSession{Bound: chat.Bound{SessionID: "x"}, Title: new("t")},
			chat.EndSession{Bound: chat.Bound{SessionID: "x"}}, chat.RequestHelp{Bound: chat.Bound{SessionID: "x"}}, chat.SetTyping{Bound: chat.Bound{SessionID: "x"}},
			chat.LeaveSession{Bound: chat.Bound{SessionID: "x"}}, chat.Ping{Bound: chat.Bound{SessionID: "x"}}, chat.RefreshAuth{Bound: chat.Bound{SessionID: "x"}, Token: "alice"},
		} {
			refused(t, p.do(cmd), chat.CodeSessionMismatch)
		}
		p.expect("")
	})
}

func TestForeignSessionIsNotFound(t *testing.T) {
	test(t, router.Config{}, func(t *testing.T, h *house) {
		alice, bob := h.connect("alice"), h.connect("bob")
		alice.must(chat.OpenSession{As: chat.AsUser})
		id := alice.conn.SessionID()
		refused(t, bob.do(chat.OpenSession{SessionID: id, As: chat.AsUser}), chat.CodeSessionNotFound)
		refused(t, bob.do(chat.OpenSession{SessionID: "nonsense", As: chat.AsUser}), chat.CodeSessionNotFound)
		refused(t, bob.do(chat.OpenSession{SessionID: id, As: chat.AsObserver}), chat.CodeForbidden)
		if alice.code() != 0 {
			t.Error("a refused open closed somebody's connection")
		}
	})
}

func TestSecondConnectionReplacesTheFirst(t *testing.T) {
	test(t, router.Config{}, func(t *testing.T, h *house) {
		old := h.connect("alice")
		old.must(chat.OpenSession{As: chat.AsUser})
		id := old.conn.SessionID()
		old.must(chat.SendMessage{MessageID: "q", Text: "hi"})
		old.expect("SessionOpened MessageCreated MessageCreated")
		next := h.connect("alice")
		next.must(chat.OpenSession{SessionID: id, As: chat.AsUser, History: 50})
		if old.code() != router.CloseReplaced {
			t.Errorf("the first connection is closed with %d", old.code())
		}
		select {
		case <-old.done:
		default:
			t.Error("the new connection was bound before the old one had gone")
		}
		next.expect("SessionOpened MessageCreated MessageCreated")
		time.Sleep(2 * time.Second)
		next.expect("MessageDelta SessionUpdated MessageCompleted")
		if next.conn.SessionID() != id {
			t.Error("the old one's late end has unbound the new one")
		}
		if !strings.Contains(h.log.String(), old.conn.ID()) || !strings.Contains(h.log.String(), "connection replaced") {
			t.Errorf("the log says %s", h.log)
		}
	})
}

func TestTwoConnectionsThatSwapSessionsEnd(t *testing.T) {
	test(t, router.Config{}, func(t *testing.T, h *house) {
		a, b := h.connect("alice"), h.connect("alice")
		a.must(chat.OpenSession{As: chat.AsUser})
		b.must(chat.OpenSession{As: chat.AsUser})
		idA, idB := a.conn.SessionID(), b.conn.SessionID()
		var wg sync.WaitGroup
		wg.Go(func() { _ = a.do(chat.OpenSession{SessionID: idB, As: chat.AsUser}) })
		wg.Go(func() { _ = b.do(chat.OpenSession{SessionID: idA, As: chat.AsUser}) })
		wg.Wait() // synctest reports a deadlock
	})
}

func TestLimitOfConnections(t *testing.T) {
	test(t, router.Config{MaxConnections: 3, MaxConnectionsPerUser: 2}, func(t *testing.T, h *house) {
		a, b := h.connect("alice"), h.connect("alice")
		_, err := h.Admit(chat.User{ID: "alice"}, netip.Addr{})
		refused(t, err, chat.CodeConnectionLimit)
		a.expect("ConnectionLimit")
		b.expect("ConnectionLimit")
		c := h.connect("bob")
		_, err = h.Admit(chat.User{ID: "carol"}, netip.Addr{})
		refused(t, err, chat.CodeConnectionLimit)
		c.expect("")
		a.hangUp()
		carol, err := h.Admit(chat.User{ID: "carol"}, netip.Addr{})
		if err != nil {
			t.Fatalf("a slot that was given back is not free: %v", err)
		}
		h.Disconnect(carol) // its upgrade failed
		if h.Connections() != 2 {
			t.Errorf("there are %d connections", h.Connections())
		}
	})
}

func TestR14_4_NoticesWhileConnectionsComeAndGo(t *testing.T) {
	test(t, router.Config{MaxConnectionsPerUser: 5}, func(t *testing.T, h *house) {
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for range 50 {
					if c, err := h.Admit(chat.User{ID: "alice", ExpiresAt: time.Now().Add(time.Hour)}, netip.Addr{}); err == nil {
						p := newPeer(h, c)
						h.Connect(c, p)
						go p.write()
						p.hangUp()
					}
				}
			})
		}
		wg.Wait()
		if h.Connections() != 0 {
			t.Errorf("%d slots are lost", h.Connections())
		}
	})
}

func TestRepeatIsForTheSenderAlone(t *testing.T) {
	test(t, router.Config{}, func(t *testing.T, h *house) {
		p := h.connect("alice")
		p.must(chat.OpenSession{As: chat.AsUser})
		watcher := h.connect("ann admin")
		watcher.must(chat.OpenSession{SessionID: p.conn.SessionID(), As: chat.AsObserver})
		p.must(chat.SendMessage{MessageID: "q", Text: "hi"})
		p.expect("SessionOpened MessageCreated MessageCreated")
		watcher.expect("SessionOpened MessageCreated MessageCreated")
		p.must(chat.SendMessage{MessageID: "q", Text: "hi"})
		p.expect("Repeat")
		watcher.expect("")
		refused(t, watcher.do(chat.SendMessage{MessageID: "w", Text: "hi"}), chat.CodeForbidden)
	})
}

func TestEndedSessionAnswersNothingButOpening(t *testing.T) {
	test(t, router.Config{}, func(t *testing.T, h *house) {
		p := h.connect("alice")
		p.must(chat.OpenSession{As: chat.AsUser})
		id := p.conn.SessionID()
		p.must(chat.EndSession{})
		p.expect("SessionOpened SessionEnded")
		refused(t, p.do(chat.SendMessage{MessageID: "q", Text: "hi"}), chat.CodeSessionEnded)
		refused(t, p.do(chat.LeaveSession{}), chat.CodeSessionEnded)
		refused(t, p.do(chat.OpenSession{SessionID: id, As: chat.AsUser}), chat.CodeSessionEnded)
		p.must(chat.Ping{})
		p.must(chat.OpenSession{As: chat.AsUser})
		p.expect("Pong SessionOpened")
	})
}

func TestTakeoverAndItsEnd(t *testing.T) {
	test(t, router.Config{}, func(t *testing.T, h *house) {
		user, agent, rival := h.connect("alice"), h.connect("ann agent"), h.connect("bea agent")
		user.must(chat.OpenSession{As: chat.AsUser})
		id := user.conn.SessionID()
		agent.must(chat.OpenSession{SessionID: id, As: chat.AsAgent})
		user.expect("SessionOpened AgentJoined")
		agent.told()
		refused(t, rival.do(chat.OpenSession{SessionID: id, As: chat.AsAgent}), chat.CodeTakeoverConflict)
		agent.must(chat.SetTyping{Active: true})
		agent.must(chat.SendMessage{MessageID: "a", Text: "hello"})
		user.expect("Typing MessageCreated")
		agent.hangUp()
		time.Sleep(20 * time.Second)
		back := h.connect("ann agent")
		back.must(chat.OpenSession{SessionID: id, As: chat.AsAgent})
		time.Sleep(time.Minute)
		user.expect("")
		back.hangUp()
		time.Sleep(29 * time.Second)
		user.expect("")
		time.Sleep(2 * time.Second)
		user.expect("AgentLeft")
		rival.must(chat.OpenSession{SessionID: id, As: chat.AsAgent})
		rival.must(chat.OpenSession{SessionID: id, As: chat.AsAgent}) // once more: the takeover goes on
		user.expect("AgentJoined")
		rival.must(chat.LeaveSession{})
		user.expect("AgentLeft")
	})
}

func TestSessionThatAnAgentEndsSendsTheUserAway(t *testing.T) {
	test(t, router.Config{}, func(t *testing.T, h *house) {
		user, agent := h.connect("alice"), h.connect("ann agent")
		user.must(chat.OpenSession{As: chat.AsUser})
		agent.must(chat.OpenSession{SessionID: user.conn.SessionID(), As: chat.AsAgent})
		agent.must(chat.EndSession{})
		user.expect("SessionOpened AgentJoined SessionEnded")
		if user.code() != router.CloseSessionEnded || agent.code() != 0 {
			t.Errorf("the user is closed with %d, the agent with %d", user.code(), agent.code())
		}
	})
}

func TestTokenExpires(t *testing.T) {
	test(t, router.Config{}, func(t *testing.T, h *house) {
		p := h.connect("alice")
		time.Sleep(59*time.Minute - time.Second)
		p.expect("")
		time.Sleep(2 * time.Second)
		p.expect("AuthExpiring")
		refused(t, p.do(chat.RefreshAuth{Token: "bob"}), chat.CodeForbidden)
		refused(t, p.do(chat.RefreshAuth{Token: ""}), chat.CodeUnauthenticated)
		p.must(chat.RefreshAuth{Token: "alice"})
		p.expect("AuthRefreshed")
		time.Sleep(30 * time.Minute)
		if p.code() != 0 {
			t.Errorf("a refreshed connection is closed with %d", p.code())
		}
		time.Sleep(31 * time.Minute)
		if p.code() != router.CloseTokenExpired {
			t.Errorf("an expired connection is closed with %d", p.code())
		}
	})
}

func TestRefreshTakesAwayWhatTheRolesNoLongerAllow(t *testing.T) {
	test(t, router.Config{}, func(t *testing.T, h *house) {
		user, agent := h.connect("alice"), h.connect("ann agent")
		user.must(chat.OpenSession{As: chat.AsUser})
		agent.must(chat.OpenSession{SessionID: user.conn.SessionID(), As: chat.AsAgent})
		user.told()
		agent.must(chat.RefreshAuth{Token: "ann"})
		user.expect("AgentLeft")
		refused(t, agent.do(chat.SendMessage{MessageID: "a", Text: "x"}), chat.CodeSessionNotOpen)
	})
}

func TestDrain(t *testing.T) {
	test(t, router.Config{}, func(t *testing.T, h *house) {
		idle, busy := h.connect("alice"), h.connect("bob")
		busy.must(chat.OpenSession{As: chat.AsUser})
		busy.must(chat.SendMessage{MessageID: "q", Text: "hi"})
		busy.expect("SessionOpened MessageCreated MessageCreated")
		h.StartDraining()
		idle.expect("ServerDraining")
		if idle.code() != router.CloseRestart {
			t.Errorf("the idle connection is closed with %d", idle.code())
		}
		busy.expect("ServerDraining")
		if busy.code() != 0 {
			t.Errorf("the busy connection is closed with %d", busy.code())
		}
		_, err := h.Admit(chat.User{ID: "carol"}, netip.Addr{})
		refused(t, err, chat.CodeServerDraining)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if left := h.Drain(ctx); left != 0 {
			t.Errorf("%d connections are left", left)
		}
		busy.expect("MessageDelta SessionUpdated MessageCompleted")
		if busy.code() != router.CloseRestart {
			t.Errorf("the busy connection is closed with %d", busy.code())
		}
	})
}

func TestR04_4_SessionIDIsSafeForConcurrentUse(t *testing.T) {
	var c router.Connection
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 1000 {
				c.SetSessionID(fmt.Sprint(i))
				if c.SessionID() == "" {
					t.Error("a session ID is lost")
				}
			}
		})
	}
	wg.Wait()
}

func TestConnectionThatIsBeingClosedTakesNoSeat(t *testing.T) {
	test(t, router.Config{}, func(t *testing.T, h *house) {
		old, next := h.connect("alice"), h.connect("alice")
		old.must(chat.OpenSession{As: chat.AsUser})
		id := old.conn.SessionID()
		h.delay.Store(int64(time.Second))
		slow := make(chan error)
		go func() { slow <- old.do(chat.OpenSession{SessionID: id, As: chat.AsUser, Model: "n"}) }()
		time.Sleep(time.Second / 2) // it changes the model first
		h.delay.Store(0)
		next.must(chat.OpenSession{SessionID: id, As: chat.AsUser})
		if err := <-slow; err == nil {
			t.Error("the replaced connection has opened the session")
		}
		time.Sleep(time.Minute)
		if old.code() != router.CloseReplaced || next.code() != 0 {
			t.Errorf("the old one is closed with %d, the new one with %d", old.code(), next.code())
		}
	})
}

func TestTakeoverEndsWithALeaveThatIsCutShort(t *testing.T) {
	test(t, router.Config{}, func(t *testing.T, h *house) {
		user, agent := h.connect("alice"), h.connect("ann agent")
		user.must(chat.OpenSession{As: chat.AsUser})
		agent.must(chat.OpenSession{SessionID: user.conn.SessionID(), As: chat.AsAgent})
		user.told()
		h.delay.Store(int64(time.Second))
		go func() { _ = user.do(chat.UpdateSession{Title: new("x")}) }() // so that leaving has to wait
		time.Sleep(time.Second / 10)
		go func() { _ = agent.do(chat.LeaveSession{}) }()
		time.Sleep(time.Second / 10)
		agent.cancel()
		time.Sleep(time.Minute)
		user.expect("SessionUpdated AgentLeft")
	})
}

func TestAgentWhoComesBackAtTheLastMomentStays(t *testing.T) {
	test(t, router.Config{}, func(t *testing.T, h *house) {
		user, agent := h.connect("alice"), h.connect("ann agent")
		user.must(chat.OpenSession{As: chat.AsUser})
		id := user.conn.SessionID()
		agent.must(chat.OpenSession{SessionID: id, As: chat.AsAgent})
		agent.hangUp()
		h.delay.Store(int64(time.Second))
		time.Sleep(30*time.Second - time.Second/2)
		go func() { _ = user.do(chat.UpdateSession{Title: new("x")}) }() // the end of the takeover waits behind it
		time.Sleep(time.Second)                                          // 30 seconds are over
		back := h.connect("ann agent")
		back.must(chat.OpenSession{SessionID: id, As: chat.AsAgent})
		time.Sleep(time.Minute)
		s, err := h.sessions.Open(t.Context(), id, func(*chat.Session) bool { return true })
		if err != nil {
			t.Fatal(err)
		}
		defer s.Release()
		if by := s.Record().AssistedBy; by == nil || by.ID != "ann" {
			t.Errorf("an agent sits there, and the session is assisted by %v", by)
		}
	})
}
