package sqlite

import (
	"database/sql"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/parley-chat/parley/chat"
)

// A message's text in the benchmarks: about a paragraph.
var paragraph = strings.Repeat("All this happened, more or less. ", 20)

func BenchmarkInsertMessage(b *testing.B) {
	s := openWithSession(b)
	m := numbered(0)
	m.Text = paragraph
	for b.Loop() {
		m.N++
		m.ID = numbered(m.N).ID
		if err := s.InsertMessage(b.Context(), "s1", m); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkInsertMessageFrom100 inserts from 100 goroutines, whose writes share transactions.
func BenchmarkInsertMessageFrom100(b *testing.B) {
	s := openWithSession(b)
	var last atomic.Int64
	b.SetParallelism((100 + runtime.GOMAXPROCS(0) - 1) / runtime.GOMAXPROCS(0))
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			m := numbered(last.Add(1))
			m.Text = paragraph
			if err := s.InsertMessage(b.Context(), "s1", m); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

// BenchmarkLast50Of100000 reads the newest 50 messages of a session, in a store of 1,000 sessions with 100 each.
func BenchmarkLast50Of100000(b *testing.B) {
	s := openWithSession(b)
	if err := s.submit(b.Context(), func(tx *sql.Tx) error {
		_, err := tx.Exec(`
			WITH RECURSIVE numbers (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM numbers WHERE i < 999)
			` + insertEmptySessions + `SELECT 'b' || i, '', '', '', '', 0, 0, 0, '', '' FROM numbers`)
		if err != nil {
			return err
		}
		_, err = tx.Exec(`
			WITH RECURSIVE numbers (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM numbers WHERE i < 99999)
			INSERT INTO messages SELECT 'b' || (i / 100), i % 100 + 1, 'm' || i, 'user', 'complete', '', NULL, 0,
				'{"id":"u","name":"U"}', '', '', '', '', '', NULL, 0, 0, '', ?, 0 FROM numbers`, paragraph)
		return err
	}); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		messages, err := s.Messages(b.Context(), "b500", 0, 50)
		if err != nil || len(messages) != 50 {
			b.Fatalf("read %d messages, error %v", len(messages), err)
		}
	}
}

// BenchmarkSumUsageOfUser sums the last day of one user, of whom there is a year, in a store of 100 users with 3,650
// responses each: what a budget asks before a turn.
func BenchmarkSumUsageOfUser(b *testing.B) {
	s := openWithSession(b)
	const hour = 60 * 60 * 1000
	if err := s.submit(b.Context(), func(tx *sql.Tx) error {
		_, err := tx.Exec(`
			WITH RECURSIVE numbers (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM numbers WHERE i < 364999)
			INSERT INTO usage SELECT 'u' || (i % 100), i / 100 * ?, 's' || (i % 100), 'm' || i, 'eliza', 300, 200, 0, 40
				FROM numbers`, 24*hour/10)
		return err
	}); err != nil {
		b.Fatal(err)
	}
	lastDay := chat.UsageFilter{UserID: "u50", From: time.UnixMilli(364 * 24 * hour)}
	for b.Loop() {
		sums, err := s.SumUsage(b.Context(), lastDay)
		if err != nil || len(sums) != 1 || sums[0].Responses != 10 {
			b.Fatalf("got %+v, error %v", sums, err)
		}
	}
}
