package session_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/session"
	"github.com/parley-chat/parley/internal/store/storetest"
)

func TestR01_3_OneWarningEachTimeThereAreTooMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, storetest.NewMemory(), &model{}, func(c *session.Config) { c.WarnThreshold = 2 })
		defer h.close(t)
		warnings := func() int {
			return strings.Count(h.log.String(), "level=WARN msg=\"there are many sessions in memory\"")
		}
		for round := 1; round <= 2; round++ {
			var all []*session.Session
			for i := range 5 {
				all = append(all, h.create(t))
				if want := round - 1; i < 2 && warnings() != want {
					t.Errorf("with %d sessions there are %d warnings, want %d", i+1, warnings(), want)
				}
			}
			time.Sleep(5 * time.Minute)
			if warnings() != round {
				t.Errorf("the %d. time there are %d warnings", round, warnings())
			}
			for _, s := range all {
				s.Release()
			}
			time.Sleep(30 * time.Minute)
		}
		if !strings.Contains(h.log.String(), "sessions=3 threshold=2") {
			t.Errorf("the warning does not tell the numbers: %s", h.log)
		}
	})
}

func TestR01_4_MemoryStats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, storetest.NewMemory(), &model{answer: says(0, strings.Repeat("x", 5000), strings.Repeat("y", 5000))}, nil)
		defer h.close(t)
		if stats := h.MemoryStats(); stats != (session.MemoryStats{}) {
			t.Errorf("of nothing: %+v", stats)
		}
		idle, busy := h.create(t), h.create(t)
		idle.Release()
		empty := h.MemoryStats()
		send(t, busy, "q", "hi")
		time.Sleep(17 * time.Minute)
		stats := h.MemoryStats()
		if stats.Total != 2 || stats.Active != 1 || stats.Inactive != 1 || stats.Messages != 2 {
			t.Errorf("of two sessions: %+v", stats)
		}
		if grown := stats.Bytes - empty.Bytes; grown < 10_000 || grown > 20_000 {
			t.Errorf("10,000 bytes of text are told as %d", grown)
		}
		busy.Release()
	})
}

func TestR01_5_SessionThatLeavesTakesItsMessagesWithIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, storetest.NewMemory(), &model{answer: says(0, "yes")}, nil)
		defer h.close(t)
		left, ended := h.create(t), h.create(t)
		ids := []string{left.ID(), ended.ID()}
		pointers := []weak.Pointer[session.Session]{weak.Make(left), weak.Make(ended)}
		for _, s := range []*session.Session{left, ended} {
			send(t, s, "q", strings.Repeat("x", 50_000))
			synctest.Wait()
		}
		if err := ended.End(t.Context(), chat.EndedByUser); err != nil {
			t.Fatal(err)
		}
		left.Release()
		ended.Release()
		left, ended = nil, nil
		time.Sleep(time.Hour)
		if stats := h.MemoryStats(); stats != (session.MemoryStats{}) {
			t.Errorf("in memory are %+v", stats)
		}
		for i, p := range pointers {
			for range 5 {
				runtime.GC()
			}
			if p.Value() != nil {
				t.Errorf("session %d is still referred to", i)
			}
			if stored, err := h.store.Messages(t.Context(), ids[i], 0, 10); err != nil || len(stored) != 2 {
				t.Errorf("the store has %d messages of it (%v)", len(stored), err)
			}
		}
	})
}

// A session that many have used for long has the newest messages in memory only, and gives the others all the same.
func TestLongSessionKeepsItsNewestMessagesOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, storetest.NewMemory(), &model{answer: says(0, "yes")}, nil)
		defer h.close(t)
		s := h.create(t)
		defer s.Release()
		early := newReader(t, s)
		for i := range 300 {
			send(t, s, fmt.Sprint("q", i), "hi")
			synctest.Wait()
			if i == 20 {
				if err := s.Update(t.Context(), new("Greetings"), nil); err != nil {
					t.Fatal(err)
				}
			}
		}
		if n := h.MemoryStats().Messages; n != 600 {
			t.Errorf("%d messages are in memory", n)
		}
		time.Sleep(5 * time.Minute)
		if n := h.MemoryStats().Messages; n != 200 {
			t.Errorf("%d messages are in memory after a while, want 200", n)
		}
		early.drain(t, s)
		if len(early.order) != 600 || early.order[0] != "q0" {
			t.Errorf("a reader from the beginning gets %d messages", len(early.order))
		}
		if early.title != "Greetings" {
			t.Errorf("to a reader from the beginning the title is %q", early.title)
		}
		if again, err := s.Send(t.Context(), alice, chat.RoleUser, chat.SendMessage{MessageID: "q0", Text: "hi"}); err != nil || again == nil {
			t.Errorf("an old message sent again gives %v, %v", again, err)
		}
		if _, err := s.Send(t.Context(), alice, chat.RoleUser, chat.SendMessage{MessageID: "q0", Text: "ho"}); code(err) != chat.CodeMessageConflict {
			t.Errorf("another text under an old ID gives %v", err)
		}
		h.model.nowAnswers(hangs)
		send(t, s, "last", "hi")
		synctest.Wait()
		for _, interrupt := range []bool{false, true} {
			again, err := s.Send(t.Context(), alice, chat.RoleUser, chat.SendMessage{MessageID: "q0", Text: "hi", Interrupt: interrupt})
			if err != nil || again == nil || !again.Repeat || !s.Responding() {
				t.Errorf("an old message sent again during a response gives %v, %v", again, err)
			}
		}
		s.Cancel("")
		synctest.Wait()
		if calls := len(h.model.calls()); calls != 301 {
			t.Errorf("the model was asked %d times", calls)
		}
	})
}

func TestR12_3_MaximumOfResponseTimesIsConfigured(t *testing.T) {
	for _, most := range []int{1, 3} {
		if got := responseTimesAfter(t, 5, most); len(got) != most {
			t.Errorf("with a maximum of %d, %d are kept", most, len(got))
		}
	}
}

func TestR12_4_ResponseTimesAreThoseOfTheLatestResponses(t *testing.T) {
	for i, got := range responseTimesAfter(t, 5, 3) {
		if want := int64(i+3) * 1000; got.TotalMS != want || got.FirstTokenMS != want {
			t.Errorf("the %d. is %+v, want %d", i, got, want)
		}
	}
}

// responseTimesAfter gives those of a session with n responses, the i-th of which took i seconds.
func responseTimesAfter(t *testing.T, n, most int) (got []chat.ResponseTime) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, storetest.NewMemory(), &model{}, func(c *session.Config) { c.MaxResponseTimes = most })
		defer h.close(t)
		s := h.create(t)
		defer s.Release()
		for i := 1; i <= n; i++ {
			h.model.nowAnswers(says(time.Duration(i)*time.Second, "yes"))
			send(t, s, fmt.Sprint("q", i), "hi")
			time.Sleep(time.Minute)
		}
		got = s.Record().ResponseTimes
	})
	return got
}

func TestR12_5_ResponseTimesStayWithinTheLimitWhereverTheyAre(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, storetest.NewMemory(), &model{answer: says(time.Second, "yes")}, func(c *session.Config) { c.MaxResponseTimes = 3 })
		defer h.close(t)
		s := h.create(t)
		id := s.ID()
		for i := range 10 {
			send(t, s, fmt.Sprint("q", i), "hi")
			time.Sleep(time.Minute)
			if i == 5 { // it leaves memory and comes back
				s.Release()
				time.Sleep(time.Hour)
				var err error
				if s, err = h.Open(t.Context(), id, anybody); err != nil {
					t.Fatal(err)
				}
			}
			stored, err := h.store.Session(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			want := min(i+1, 3)
			if held := s.Record().ResponseTimes; len(held) != want || len(stored.ResponseTimes) != want {
				t.Errorf("after %d responses, %d are held and %d stored", i+1, len(held), len(stored.ResponseTimes))
			}
		}
		if first, total := s.ResponseTimes(); first.P95 != 1000 || total.Mean != 1000 || total.Count != 3 {
			t.Errorf("they are %+v and %+v", first, total)
		}
		s.Release()
	})
}
