package router_test

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"iter"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/store/storetest"
)

// dice is a source of randomness that several goroutines may use.
type dice struct {
	mu   sync.Mutex // guards the field below
	rand *rand.Rand
}

func newDice(seed, stream uint64) *dice { return &dice{rand: rand.New(rand.NewPCG(seed, stream))} }

// below gives a number from 0 to n-1.
func (d *dice) below(n int) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.rand.IntN(n)
}

// chance reports true in percent of 100 cases.
func (d *dice) chance(percent int) bool { return d.below(100) < percent }

// upTo gives a duration from 0 to most.
func (d *dice) upTo(most time.Duration) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	return time.Duration(d.rand.Int64N(int64(most) + 1))
}

// roughStore is a store that takes its time, fails, and loses the answers to what it has done.
type roughStore struct {
	*storetest.Memory
	dice  *dice
	fails bool        // not only slow
	calm  atomic.Bool // neither slow nor failing any more
}

// unhindered marks a context whose operations the store does at once.
type unhindered struct{}

var errNoDisk, errNoAnswer = errors.New("no disk"), errors.New("the answer was lost")

func newRoughStore(dice *dice, fails bool) *roughStore {
	s := &roughStore{Memory: storetest.NewMemory(), dice: dice, fails: fails}
	s.Before = func(ctx context.Context, _ string) error {
		if s.calm.Load() || ctx.Value(unhindered{}) != nil {
			return nil
		}
		switch n := s.dice.below(100); {
		case n < 70:
			time.Sleep(s.dice.upTo(20 * time.Millisecond))
		case n < 98:
			time.Sleep(s.dice.upTo(time.Second))
		case n == 98 && s.fails:
			return errNoDisk
		case s.fails && s.dice.chance(10):
			<-ctx.Done() // it hangs
		}
		return nil
	}
	return s
}

// forget loses the answer to something that is done, now and then.
func (s *roughStore) forget(err error) error {
	if err == nil && s.fails && !s.calm.Load() && s.dice.chance(1) {
		return errNoAnswer
	}
	return err
}

func (s *roughStore) InsertMessage(ctx context.Context, sessionID string, by chat.Claim, m chat.Message) error {
	return s.forget(s.Memory.InsertMessage(ctx, sessionID, by, m))
}

func (s *roughStore) UpdateMessage(ctx context.Context, sessionID string, by chat.Claim, m chat.Message) error {
	return s.forget(s.Memory.UpdateMessage(ctx, sessionID, by, m))
}

func (s *roughStore) ClaimSession(ctx context.Context, id string, from, to chat.Claim) (chat.Session, error) {
	record, err := s.Memory.ClaimSession(ctx, id, from, to)
	return record, s.forget(err)
}

func (s *roughStore) UpdateSession(ctx context.Context, session chat.SessionView, places ...chat.Place) error {
	return s.forget(s.Memory.UpdateSession(ctx, session, places...))
}

// stored gives all messages of a session as they are stored, at once.
func (s *roughStore) stored(sessionID string) []chat.Message {
	ctx := context.WithValue(context.Background(), unhindered{}, true)
	all, err := s.Messages(ctx, sessionID, 0, 1<<20)
	if err != nil {
		panic(err)
	}
	return all
}

// moodyModels is a provider that finishes, fails, hangs and breaks off, by the text it is asked.
type moodyModels struct {
	w     *world
	calls atomic.Int64
}

func (p *moodyModels) Stream(ctx context.Context, r chat.Request) iter.Seq2[chat.Chunk, error] {
	question := ""
	for _, m := range r.Messages {
		if m.Role == chat.RoleUser {
			question = m.Text
		}
	}
	call := fmt.Sprintf("[%d]", p.calls.Add(1))
	hash := fnv.New64()
	_, _ = hash.Write([]byte(question))
	mood := newDice(p.w.seed, hash.Sum64())
	return func(yield func(chat.Chunk, error) bool) {
		end := p.w.asked(r.SessionID, question, call)
		defer end()
		say := func(c chat.Chunk) bool {
			p.w.said(r.SessionID, call, c)
			return yield(c, nil)
		}
		ending := p.speak(ctx, mood, call, say)
		switch {
		case ending == nil:
		case errors.Is(ending, errBrokenOff):
		default:
			yield(chat.Chunk{}, ending)
		}
	}
}

var errBrokenOff = errors.New("broken off")

// speak says what there is to say. Its error is how the stream ends; nil: with the end mark, or nobody listens.
func (*moodyModels) speak(ctx context.Context, mood *dice, call string, say func(chat.Chunk) bool) error {
	pace := []time.Duration{0, 30 * time.Millisecond, 300 * time.Millisecond}[mood.below(3)]
	pieces, ending := mood.below(40), mood.below(20)
	chunk := chat.Chunk{Text: call, Provider: "moody"}
	for i := range pieces {
		if pace > 0 {
			select {
			case <-time.After(mood.upTo(pace)):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		switch {
		case i == 0:
		case mood.chance(10):
			chunk = chat.Chunk{Reasoning: "hm… "}
		case mood.chance(1):
			chunk = chat.Chunk{Text: strings.Repeat("ü", 12<<10)}
		default:
			chunk = chat.Chunk{Text: fmt.Sprintf(" wörd%d", i)}
		}
		if !say(chunk) {
			return nil
		}
	}
	switch ending {
	case 0:
		return chat.NewError(chat.CodeLLMRejected, "no")
	case 1:
		return errors.New("password=x")
	case 2:
		return errBrokenOff
	case 3:
		<-ctx.Done()
		return ctx.Err()
	}
	say(chat.Chunk{FinishReason: chat.FinishStop})
	return nil
}

// clerk is a verifier of tokens "user" or "user role" that are valid for a random time.
type clerk struct{ dice *dice }

func (c clerk) Verify(token string) (chat.User, error) {
	u, err := verifier{}.Verify(token)
	u.ExpiresAt = time.Now().Add(90*time.Second + c.dice.upTo(5*time.Minute))
	return u, err
}
