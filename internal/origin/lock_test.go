package origin

import (
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// waits fails unless f, called now, waits in the lock operation that stack traces call wait. It returns when f does,
// after release.
func waits(t *testing.T, wait string, f, release func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	stacks := make([]byte, 1<<20)
	for waiting := false; !waiting; {
		select {
		case <-done:
			t.Errorf("did not wait in %s", wait)
			waiting = true
		default:
			runtime.Gosched()
			waiting = strings.Contains(string(stacks[:runtime.Stack(stacks, true)]), "["+wait+"]")
		}
	}
	release()
	<-done
}

func TestR13_1_ChecksTakeTheReadLock(t *testing.T) {
	policy := New([]string{"https://a.example"}, false, nil)
	policy.mu.RLock()
	if !policy.checkOrigin("https://a.example") { // beside another reader, without waiting
		t.Error("refused")
	}
	policy.mu.RUnlock()
	policy.mu.Lock()
	waits(t, "sync.RWMutex.RLock", func() { policy.checkOrigin("https://a.example") }, policy.mu.Unlock)
}

func TestR13_2_SettingTakesTheWriteLock(t *testing.T) {
	policy := New(nil, false, nil)
	policy.mu.RLock()
	waits(t, "sync.RWMutex.Lock", func() { policy.Set([]string{"https://a.example"}, false) }, policy.mu.RUnlock)
	if !policy.checkOrigin("https://a.example") {
		t.Error("not set")
	}
}

func TestR13_3_AnRWMutexGuardsTheList(t *testing.T) {
	mu, found := reflect.TypeFor[Policy]().FieldByName("mu")
	list, listed := reflect.TypeFor[Policy]().FieldByName("allowedOrigins")
	if !found || !listed || mu.Type != reflect.TypeFor[sync.RWMutex]() || mu.Index[0] >= list.Index[0] {
		t.Errorf("mu is %v, allowedOrigins %v", mu, list)
	}
}
