// Package eliza is the model that needs no key, no network and no graphics card: the doctor that Joseph Weizenbaum
// described in "ELIZA — a computer program for the study of natural language communication between man and machine"
// (Communications of the ACM 9(1), January 1966). It is what a first run of Parley talks to.
//
// The algorithm is the paper's; the script, which holds all that the doctor says, is our own. Asked for "help", "show
// me markdown" or "tell me a long story", it shows what a chat page can do instead.
package eliza

import (
	"context"
	"iter"
	"strings"
	"time"
	"unicode"

	"github.com/parley-chat/parley/chat"
)

// NaturalPace is a pace at which people like to read along.
const NaturalPace = 30 * time.Millisecond

// Config is how the doctor speaks.
type Config struct {
	Pace time.Duration // between two words, and more at the end of a sentence; 0: none
}

// Provider is a [chat.Provider]. It keeps nothing between requests, is safe for concurrent use, and answers the same
// conversation the same way every time.
type Provider struct {
	pace     time.Duration
	keywords map[string]*keyword
}

var _ chat.Provider = (*Provider)(nil)

// New returns a doctor.
func New(config Config) *Provider {
	return &Provider{pace: config.Pace, keywords: index(script)}
}

// Stream implements [chat.Provider]. It yields the answer word by word. Its only errors are ctx's.
func (p *Provider) Stream(ctx context.Context, request chat.Request) iter.Seq2[chat.Chunk, error] {
	return func(yield func(chat.Chunk, error) bool) {
		for piece := range pieces(p.answer(request.Messages)) {
			if err := ctx.Err(); err != nil {
				yield(chat.Chunk{}, err)
				return
			}
			if !yield(chat.Chunk{Text: piece}, nil) {
				return
			}
			pause(ctx, p.pauseAfter(piece))
		}
		if err := ctx.Err(); err != nil {
			yield(chat.Chunk{}, err)
			return
		}
		yield(chat.Chunk{FinishReason: chat.FinishStop}, nil)
	}
}

// answer listens to the whole conversation again, for what the doctor remembers of it and has said in it, and returns
// the answer to its last message.
func (p *Provider) answer(messages []chat.PromptMessage) string {
	d := newDoctor(p.keywords)
	answer := welcome
	for _, m := range messages {
		if m.Role == chat.RoleUser {
			answer = d.answer(m.Text)
		}
	}
	return answer
}

// pieces cuts text behind each run of white space.
func pieces(text string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for text != "" {
			end := len(text)
			if space := strings.IndexFunc(text, unicode.IsSpace); space >= 0 {
				end -= len(strings.TrimLeftFunc(text[space:], unicode.IsSpace))
			}
			if !yield(text[:end]) {
				return
			}
			text = text[end:]
		}
	}
}

func (p *Provider) pauseAfter(piece string) time.Duration {
	if strings.ContainsAny(strings.TrimSpace(piece), ".?!…") {
		return 5 * p.pace
	}
	return p.pace
}

// pause waits for d or the end of ctx.
func pause(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
