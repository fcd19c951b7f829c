package storetest

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/parley-chat/parley/chat"
)

// Benchmark measures what sessions do most: appending a message, saving how far a response has come, opening a session,
// and listing those of a user; in stores and conversations of several sizes, as the last two must not depend on them.
// most bounds the messages of the largest store.
func Benchmark(b *testing.B, most int, open func(b *testing.B) chat.Store) {
	for _, size := range []int{1000, 100_000, 1_000_000} {
		if size > most {
			continue
		}
		b.Run(fmt.Sprintf("messages=%d", size), func(b *testing.B) {
			store := open(b)
			fillForBenchmark(b, store, size)
			for _, concurrency := range []int{1, 100} {
				b.Run(fmt.Sprintf("append/at-once=%d", concurrency), func(b *testing.B) { benchmarkAppend(b, store, concurrency) })
				b.Run(fmt.Sprintf("checkpoint/at-once=%d", concurrency), func(b *testing.B) { benchmarkCheckpoint(b, store, concurrency) })
			}
			b.Run("open-last-50/conversation=100", func(b *testing.B) { benchmarkOpen(b, store, "s0") })
			b.Run(fmt.Sprintf("open-last-50/conversation=%d", size/2), func(b *testing.B) { benchmarkOpen(b, store, "long") })
			b.Run("list-50-sessions", func(b *testing.B) {
				of, latest := chat.SessionFilter{UserID: "user0"}, chat.SessionOrder{Descending: true}
				for b.Loop() {
					page, err := store.FindSessions(b.Context(), of, latest, chat.SessionPlace{}, 50)
					if err != nil || len(page) == 0 {
						b.Fatalf("%d sessions, error %v", len(page), err)
					}
				}
			})
		})
	}
}

const benchmarkText = "A line of text, as long as many that people write to each other and to machines: this one has about 130 bytes."

// fillForBenchmark stores conversations of 100 messages, of ten users, and a long one that has half of all.
func fillForBenchmark(b *testing.B, store chat.Store, size int) {
	b.Helper()
	type job struct {
		session string
		n       int64
	}
	jobs := make(chan job)
	var workers sync.WaitGroup
	for range 256 {
		workers.Go(func() {
			for j := range jobs {
				m := benchmarkMessage(j.n)
				m.Seq = j.n
				if err := store.InsertMessage(context.Background(), j.session, chat.Claim{}, m); err != nil {
					b.Error(err)
				}
			}
		})
	}
	create := func(id string, i, messages int) {
		s := chat.Session{
			ID: id, UserID: fmt.Sprint("user", i%10), Title: "A title", Status: chat.SessionStatusActive, CreatedAt: someTime,
			LastActiveAt: someTime.Add(time.Duration(i) * time.Second),
		}
		if err := store.CreateSession(context.Background(), &s); err != nil {
			b.Fatal(err)
		}
		for n := range messages {
			jobs <- job{id, int64(n + 1)}
		}
	}
	create("long", 0, size/2)
	for i := range size / 200 {
		create(fmt.Sprint("s", i), i, 100)
	}
	close(jobs)
	workers.Wait()
}

func benchmarkMessage(n int64) chat.Message {
	return chat.Message{
		ID: fmt.Sprint("m", n), N: n, Role: chat.RoleUser, Text: benchmarkText, Status: chat.StatusComplete, CreatedAt: someTime,
		Author: &chat.Author{ID: "user", Name: "User"},
	}
}

// atOnce does b.N operations, some of them at the same time, each by a goroutine with its own session.
func atOnce(b *testing.B, store chat.Store, concurrency int, do func(session string, i int64) error) {
	b.Helper()
	var left atomic.Int64
	left.Store(int64(b.N))
	sessions := make([]string, concurrency)
	for i := range sessions {
		s := chat.Session{ID: chat.NewID(), UserID: "writer", Status: chat.SessionStatusActive, CreatedAt: someTime, LastActiveAt: someTime}
		sessions[i] = s.ID
		if err := store.CreateSession(context.Background(), &s); err != nil {
			b.Fatal(err)
		}
		m := benchmarkMessage(1)
		m.Status = chat.StatusStreaming
		if err := store.InsertMessage(context.Background(), s.ID, chat.Claim{}, m); err != nil {
			b.Fatal(err)
		}
	}
	b.ResetTimer()
	var workers sync.WaitGroup
	for _, session := range sessions {
		workers.Go(func() {
			for i := int64(2); left.Add(-1) >= 0; i++ {
				if err := do(session, i); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	workers.Wait()
}

func benchmarkAppend(b *testing.B, store chat.Store, concurrency int) {
	atOnce(b, store, concurrency, func(session string, i int64) error {
		return store.InsertMessage(context.Background(), session, chat.Claim{}, benchmarkMessage(i))
	})
}

func benchmarkCheckpoint(b *testing.B, store chat.Store, concurrency int) {
	atOnce(b, store, concurrency, func(session string, i int64) error {
		m := benchmarkMessage(1)
		m.Text, m.Status = fmt.Sprint(benchmarkText, i), chat.StatusStreaming
		return store.UpdateMessage(context.Background(), session, chat.Claim{}, m)
	})
}

// benchmarkOpen does what opening a session asks of a store.
func benchmarkOpen(b *testing.B, store chat.Store, id string) {
	for b.Loop() {
		if _, err := store.Session(b.Context(), id); err != nil {
			b.Fatal(err)
		}
		if _, err := store.ClaimSession(b.Context(), id, chat.Claim{}, chat.Claim{}); err != nil {
			b.Fatal(err)
		}
		page, err := store.Messages(b.Context(), id, 0, 50)
		if err != nil || len(page) != 50 {
			b.Fatalf("%d messages, error %v", len(page), err)
		}
	}
}
