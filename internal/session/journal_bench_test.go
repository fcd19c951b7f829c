//go:build unix

package session

import (
	"context"
	"io"
	"iter"
	"log/slog"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/journal"
	"github.com/parley-chat/parley/internal/llm/llmtest"
	"github.com/parley-chat/parley/internal/store/storetest"
)

// BenchmarkToken measures what the journal costs a token: alone, from where the model gives it to where a reader has
// it; and with a hundred sessions at the same time. The journal that is off shows every event at once.
func BenchmarkToken(b *testing.B) {
	for _, mode := range []string{"off", "on", "sync"} {
		b.Run("alone/journal="+mode, func(b *testing.B) { benchmarkToken(b, mode, 1) })
	}
	for _, mode := range []string{"off", "on", "sync"} {
		b.Run("hundred/journal="+mode, func(b *testing.B) { benchmarkToken(b, mode, 100) })
	}
}

// off is a journal that writes nothing.
type off struct{ s *Session }

var written = func() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

func (o off) Append(chat.Event) <-chan struct{} {
	o.s.log.shown = o.s.log.end
	for _, w := range o.s.wakers {
		w.wake()
	}
	return written
}

func (o off) Stored(int64) {}

type noModels struct{}

func (noModels) Stream(context.Context, chat.Request) iter.Seq2[chat.Chunk, error] {
	return func(func(chat.Chunk, error) bool) {}
}

func benchmarkToken(b *testing.B, mode string, sessions int) {
	store, log := storetest.NewMemory(), slog.New(slog.NewTextHandler(io.Discard, nil))
	j, err := journal.Open(journal.Config{
		Path: b.TempDir(), MaxBytes: 1 << 40, Sync: mode == "sync", StoreID: store.ID(),
	}, log)
	if err != nil {
		b.Fatal(err)
	}
	defer j.Close()
	m := NewManager(Config{CleanupInterval: time.Hour, IdleTimeout: time.Hour, LeaseTimeout: time.Hour}, store, j, llmtest.NewPool(noModels{}, nil, "m"), log)
	defer m.Close(context.Background())

	all := make([]*Session, sessions)
	for i := range all {
		if all[i], err = m.Create("alice", "", nil); err != nil {
			b.Fatal(err)
		}
		if mode == "off" {
			all[i].journal = off{all[i]}
		}
	}
	before := cpu()
	b.ReportAllocs()
	b.ResetTimer()
	var goroutines sync.WaitGroup
	for i, s := range all {
		goroutines.Go(func() { streamTokens(s, b.N/sessions+min(1, max(0, b.N%sessions-i))) })
	}
	goroutines.Wait()
	b.StopTimer()
	b.ReportMetric(float64(cpu()-before)/float64(b.N), "cpu-ns/op")
}

// streamTokens appends tokens, each once its reader has the one before.
func streamTokens(s *Session, n int) {
	changed := make(chan struct{}, 1)
	defer s.Notify(func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	})()
	var msg *message
	s.change(func() {
		msg = s.addMessage(chat.Message{ID: "a", N: 1, Role: chat.RoleAssistant, Status: chat.StatusStreaming})
	})
	cursor := Cursor{}
	for range n {
		s.change(func() { s.addDelta(msg, chat.DeltaText, " token") })
		for {
			e, ok, _ := s.Read(&cursor)
			if _, delta := e.Body.(chat.MessageDelta); ok && delta {
				break
			}
			if !ok {
				<-changed
			}
		}
	}
}

// cpu gives the processor time of this process so far.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
