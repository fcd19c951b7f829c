package router

import (
	"fmt"
	"log/slog"
	"net/netip"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/parley-chat/parley/chat"
)

// blocked returns when n goroutines wait in the lock operation that stack traces call wait. It fails where done is
// closed before.
func blocked(t *testing.T, n int, wait string, done <-chan struct{}) {
	t.Helper()
	stacks := make([]byte, 1<<20)
	for strings.Count(string(stacks[:runtime.Stack(stacks, true)]), "["+wait+"]") < n {
		select {
		case <-done:
			t.Errorf("did not wait in %s", wait)
			return
		default:
			runtime.Gosched()
		}
	}
}

// begin runs f on a goroutine.
func begin(f func()) (done <-chan struct{}) {
	ended := make(chan struct{})
	go func() { defer close(ended); f() }()
	return ended
}

// waits fails unless f, called now, waits in a lock operation. It returns when f does, after release.
func waits(t *testing.T, wait string, f, release func()) {
	t.Helper()
	done := begin(f)
	blocked(t, 1, wait, done)
	release()
	<-done
}

func TestR04_1_ReadingTheSessionIDTakesAReadLock(t *testing.T) {
	c := &Connection{sessionID: "s"}
	c.mu.RLock()
	if c.SessionID() != "s" { // beside another reader, without waiting
		t.Error("another ID is read")
	}
	c.mu.RUnlock()
	c.mu.Lock()
	waits(t, "sync.RWMutex.RLock", func() { c.SessionID() }, c.mu.Unlock)
}

func TestR04_2_WritingTheSessionIDTakesAWriteLock(t *testing.T) {
	c := &Connection{}
	c.mu.RLock()
	waits(t, "sync.RWMutex.Lock", func() { c.SetSessionID("s") }, func() {
		if c.sessionID != "" {
			t.Error("it is written while somebody reads")
		}
		c.mu.RUnlock()
	})
	c.mu.Lock()
	waits(t, "sync.Mutex.Lock", func() { c.SetSessionID("t") }, c.mu.Unlock) // as a writer waits for a writer
	if c.SessionID() != "t" {
		t.Error("it is not written")
	}
}

func TestR04_3_AnRWMutexGuardsTheSessionID(t *testing.T) {
	mu, found := reflect.TypeFor[Connection]().FieldByName("mu")
	id, there := reflect.TypeFor[Connection]().FieldByName("sessionID")
	if !found || !there || mu.Type != reflect.TypeFor[sync.RWMutex]() || id.Index[0] != mu.Index[0]+1 {
		t.Errorf("mu is %v, sessionID %v", mu, id)
	}
}

func TestR04_5_TheSessionIDIsReachedByGetterAndSetterOnly(t *testing.T) {
	var _ interface {
		SessionID() string
		SetSessionID(string)
	} = (*Connection)(nil)
	for f := range reflect.TypeFor[Connection]().Fields() {
		if f.IsExported() {
			t.Errorf("%s can be reached from outside without its lock", f.Name)
		}
	}
}

// crowd gives a router with n connections of one user, whose limit that is.
func crowd(t *testing.T, n int) (*Router, []*Connection) {
	t.Helper()
	r := New(Config{MaxConnectionsPerUser: n}, nil, nil, slog.New(slog.DiscardHandler))
	t.Cleanup(r.stopTakeovers)
	var all []*Connection
	for range n {
		c, err := r.Admit(chat.User{ID: "alice"}, netip.Addr{})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	return r, all
}

func TestR14_1_WhoRegistersDuringANotificationWaits(t *testing.T) {
	r, all := crowd(t, 3)
	leaving, err := r.Admit(chat.User{ID: "carol"}, netip.Addr{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range all {
		c.outMu.Lock() // the notification stands still at the first one
	}
	notified := begin(func() { _, _ = r.Admit(chat.User{ID: "alice"}, netip.Addr{}) })
	blocked(t, 1, "sync.Mutex.Lock", notified)
	registered := begin(func() {
		if _, err := r.Admit(chat.User{ID: "bob"}, netip.Addr{}); err != nil {
			t.Error(err)
		}
	})
	blocked(t, 2, "sync.Mutex.Lock", registered)
	unregistered := begin(func() { r.Disconnect(leaving) })
	blocked(t, 3, "sync.Mutex.Lock", unregistered)
	for _, c := range all {
		c.outMu.Unlock()
	}
	<-notified
	<-registered
	<-unregistered
	if r.Connections() != 4 {
		t.Errorf("there are %d connections", r.Connections())
	}
}

func TestR14_2_TheLockIsHeldToTheEndOfTheNotification(t *testing.T) {
	r, all := crowd(t, 4)
	for _, c := range all {
		c.outMu.Lock()
	}
	notified := begin(func() { _, _ = r.Admit(chat.User{ID: "alice"}, netip.Addr{}) })
	blocked(t, 1, "sync.Mutex.Lock", notified)
	for i, c := range all {
		if r.mu.TryLock() {
			t.Errorf("the lock is free while %d connections are not notified", len(all)-i)
			r.mu.Unlock()
		}
		c.outMu.Unlock()
	}
	<-notified
	if !r.mu.TryLock() {
		t.Fatal("the lock is not given back")
	}
	r.mu.Unlock()
}

func TestR14_3_EveryConnectionOfTheUserIsNotifiedOnce(t *testing.T) {
	r, all := crowd(t, 5)
	other, err := r.Admit(chat.User{ID: "bob"}, netip.Addr{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Admit(chat.User{ID: "alice"}, netip.Addr{}); err == nil {
		t.Fatal("there is no limit")
	}
	want := fmt.Sprint([]chat.Notice{chat.ConnectionLimit{Limit: 5, Current: 5}})
	for i, c := range all {
		if got := fmt.Sprint(c.notices); got != want {
			t.Errorf("connection %d is told %s, want %s", i, got, want)
		}
	}
	if len(other.notices) > 0 {
		t.Errorf("somebody else is told %v", other.notices)
	}
}

func TestR14_5_NotificationsBesideReadersAndTheEndOfConnections(t *testing.T) {
	r, all := crowd(t, 4)
	var wg sync.WaitGroup
	for _, c := range all {
		wg.Go(func() {
			for range 200 {
				c.Next()
			}
			r.Disconnect(c)
		})
		wg.Go(func() {
			for range 200 {
				if extra, err := r.Admit(chat.User{ID: "alice"}, netip.Addr{}); err == nil {
					r.Disconnect(extra)
				}
				r.Connections()
			}
		})
	}
	wg.Wait()
	if r.Connections() != 0 || len(r.users) != 0 {
		t.Errorf("%d connections are left of %v", r.Connections(), r.users)
	}
}
