package journal_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/parley-chat/parley/chat"
)

// BenchmarkAppend measures what a token costs until it may be shown: each waits for the one before it.
func BenchmarkAppend(b *testing.B) {
	for _, logs := range []int{1, 100} {
		for _, sealed := range []bool{false, true} {
			b.Run(fmt.Sprintf("logs=%d/sealed=%t", logs, sealed), func(b *testing.B) { appendTokens(b, logs, sealed) })
		}
	}
}

func appendTokens(b *testing.B, logs int, sealed bool) {
	cfg := config(b)
	cfg.MaxBytes = 1 << 40
	if sealed {
		cfg.Keys = newKeys(b)
	}
	j := newDisk().openJournal(b, cfg)
	b.ReportAllocs()
	var group sync.WaitGroup
	for i := range logs {
		id := fmt.Sprint(i)
		log := j.Begin(id, "e", 0, func(int64, error) {})
		body := delta("m", " token")
		group.Go(func() {
			for seq := range int64(b.N / logs) {
				<-log.Append(chat.Event{SessionID: id, From: seq + 1, Seq: seq + 1, Body: body})
				if seq%1000 == 0 {
					log.Stored(seq)
				}
			}
		})
	}
	group.Wait()
}
