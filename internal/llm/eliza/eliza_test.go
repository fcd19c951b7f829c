package eliza_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"go.uber.org/goleak"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/llm/eliza"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// answer is what the doctor says after these messages of the patient.
func answer(t *testing.T, said ...string) string {
	t.Helper()
	return stream(t, eliza.New(eliza.Config{}), conversation(said...))
}

func conversation(said ...string) chat.Request {
	var request chat.Request
	for i, text := range said {
		if i > 0 {
			request.Messages = append(request.Messages, chat.PromptMessage{Role: chat.RoleAssistant, Text: "I see."})
		}
		request.Messages = append(request.Messages, chat.PromptMessage{Role: chat.RoleUser, Text: text})
	}
	return request
}

func stream(t *testing.T, p chat.Provider, request chat.Request) string {
	t.Helper()
	var text strings.Builder
	var finish chat.FinishReason
	for chunk, err := range p.Stream(t.Context(), request) {
		if err != nil {
			t.Fatal(err)
		}
		if finish != "" {
			t.Errorf("%+v after the end mark", chunk)
		}
		text.WriteString(chunk.Text)
		finish = chunk.FinishReason
	}
	if finish != chat.FinishStop {
		t.Errorf("the finish reason is %q", finish)
	}
	return text.String()
}

// What the patient said comes back from the doctor's side.
func TestTheDoctorReflects(t *testing.T) {
	tests := []struct{ said, heard string }{
		{"My mother takes care of me.", "your mother takes care of you"},
		{"I have been feeling rather tired lately.", "been feeling rather tired lately"},
		{"Well, my boyfriend made me come here.", "your boyfriend"},
		{"I am unhappy", "you are unhappy"},
		{"I’m afraid of dogs", "you are afraid"},
		{"im so tired of you", "you are so tired"},
		{"I remember my first bicycle", "your first bicycle"},
		{"I dreamt about you being my boss", "about me being your boss"},
		{"I can't find my keys", "your keys"}, {"I cant talk to you", "can't talk to me"},
		{"You don't argue with me.", "I don't argue with you"},
		{"I think you don't want me to notice that", "I don't want you to notice that"},
		{"I was happy when you were here", "happy when I was here"},
		{"You are like my father", "what resemblance"},
		{"Why don't you trust me", "I don't trust you"},
		{"If you were mine", "I was yours"},
		{"Am I your friend?", "friend"},
		{"My name is Zoë", "Zoë"},
		{"MY CAT IS GONE", "your CAT IS GONE"},
		{"I need a break, honestly", "a break"},
		{"The weather, the traffic; but I want my tea", "your tea"},
		{"Hello! I feel sad.", "you feel sad"},
	}
	for _, test := range tests {
		var all []string
		for n := 1; n <= 4; n++ { // a rule gives its answers in turn
			said := make([]string, n)
			for i := range said {
				said[i] = test.said
			}
			all = append(all, answer(t, said...))
		}
		if !strings.Contains(strings.ToLower(strings.Join(all, "\n")), strings.ToLower(test.heard)) {
			t.Errorf("%q: %q does not occur in %q", test.said, test.heard, all)
		}
	}
}

func TestTheDoctorGreets(t *testing.T) {
	for _, said := range []string{"Hi", "hello there!", "???", "🙂", "", "これは日本語です", "qwertz"} {
		if got := answer(t, said); !strings.Contains(got, "I'm Eliza") {
			t.Errorf("%q: got %q", said, got)
		}
	}
	if got := answer(t); !strings.Contains(got, "I'm Eliza") {
		t.Errorf("nothing said: got %q", got)
	}
}

func TestTheDoctorRemembers(t *testing.T) {
	said := []string{"My dog ate my homework", "I see", "hm", "hm"}
	if got := answer(t, said[:3]...); !strings.Contains(got, "your dog ate your homework") {
		t.Errorf("got %q, want what was said about the dog", got)
	}
	if got := answer(t, said...); strings.Contains(got, "dog") {
		t.Errorf("got %q: the same again", got)
	}
}

func TestTheDoctorDoesNotRepeatItself(t *testing.T) {
	first, second := answer(t, "I am sad"), answer(t, "I am sad", "I am sad")
	if first == second {
		t.Errorf("%q, twice", first)
	}
}

func TestTheDoctorIsDeterministic(t *testing.T) {
	p := eliza.New(eliza.Config{})
	request := conversation("Hello", "My work is killing me", "hm", "Perhaps", "I dreamed of rain")
	first := stream(t, p, request)
	stream(t, p, conversation("I am sad", "I am sad"))
	if again := stream(t, p, request); again != first {
		t.Errorf("got %q, then %q", first, again)
	}
}

func TestTheDoctorListensToThePatientOnly(t *testing.T) {
	request := conversation("My dog is old", "hm")
	plain := stream(t, eliza.New(eliza.Config{}), request)
	request.Messages[1].Text = "My cat is old"
	request.Messages = append([]chat.PromptMessage{{Role: chat.RoleSystem, Text: "My bird is old"}}, request.Messages...)
	if got := stream(t, eliza.New(eliza.Config{}), request); got != plain || !strings.Contains(got, "dog") {
		t.Errorf("got %q and %q", plain, got)
	}
}

func TestDemonstrations(t *testing.T) {
	for said, wants := range map[string][]string{
		"Show me Markdown, please!": nil, // only the very words
		"show me markdown":          {"## ", "\n1. ", "\n```go\n", "| ---: |", "\n> "},
		"Please show me Markdown.":  {"## "},
		"Tell me a long story":      {"typewriter"},
		"help":                      {"`show me markdown`", "\n- "},
		"I need help":               nil,
	} {
		got := answer(t, said)
		if wants == nil && len(got) > 200 {
			t.Errorf("%q: %q", said, got)
		}
		for _, want := range wants {
			if !strings.Contains(got, want) {
				t.Errorf("%q: %q lacks %q", said, got, want)
			}
		}
	}
	if story := answer(t, "tell me a long story"); len(strings.Fields(story)) < 300 {
		t.Errorf("a story of %d words is not long", len(strings.Fields(story)))
	}
}

func TestWordsComeAtThePace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := eliza.New(eliza.Config{Pace: eliza.NaturalPace})
		start := time.Now()
		var pieces int
		for chunk, err := range p.Stream(t.Context(), conversation("tell me a long story")) {
			if err != nil {
				t.Fatal(err)
			}
			if chunk.Text != "" {
				pieces++
			}
			if words := len(strings.Fields(chunk.Text)); words > 1 {
				t.Fatalf("%q is more than a word", chunk.Text)
			}
		}
		if took, least := time.Since(start), time.Duration(pieces)*eliza.NaturalPace; took < least || took > 2*least {
			t.Errorf("%d words took %s", pieces, took)
		}
	})
}

func TestTheEndOfTheContextStopsTheDoctor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second+time.Millisecond)
		defer cancel()
		p := eliza.New(eliza.Config{Pace: 4 * time.Second})
		start := time.Now()
		var chunks int
		var last error
		for chunk, err := range p.Stream(ctx, conversation("show me markdown")) {
			if last = err; err == nil {
				chunks++
			} else if chunk != (chat.Chunk{}) {
				t.Errorf("%+v with the error", chunk)
			}
		}
		if !errors.Is(last, context.DeadlineExceeded) || chunks != 3 {
			t.Errorf("got %d chunks, then %v", chunks, last)
		}
		if took := time.Since(start); took != 10*time.Second+time.Millisecond {
			t.Errorf("stopped after %s", took)
		}
	})
}

func TestLeavingTheLoop(t *testing.T) {
	for range eliza.New(eliza.Config{}).Stream(t.Context(), conversation("hello")) {
		break
	}
}

// However long a message is, listening to it is linear work; this one takes minutes if it is not.
func TestLongMessages(t *testing.T) {
	const size = 1 << 20
	for _, word := range []string{"i ", "you me ", "my i you ", "x", "if,", "' ", "but "} {
		long := "My " + strings.Repeat(word, size/len(word))
		if got := answer(t, long); got == "" || len(got) > 2000 {
			t.Errorf("%q, over and over: an answer of %d bytes", word, len(got))
		}
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add("My mother hates me", "hm")
	f.Add("I was if you were", "can you $1 =help")
	f.Add("i'm u're don''t -- '", "\xff\x00ſ İ")
	f.Fuzz(func(t *testing.T, first, second string) {
		got := answer(t, first, second)
		if strings.TrimSpace(got) == "" {
			t.Error("no answer")
		}
		if utf8.ValidString(second) && utf8.ValidString(first) && !utf8.ValidString(got) {
			t.Errorf("%q is not UTF-8", got)
		}
		for _, part := range []string{"$1", "$2", "$3", "$4"} {
			if strings.Contains(got, part) {
				t.Errorf("%q has a part that was not filled in", got)
			}
		}
	})
}
