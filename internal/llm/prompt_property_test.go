package llm_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/llm"
)

func filtered(m chat.Message) chat.Message {
	m.Error = chat.NewError(chat.CodeContentFiltered, "shame")
	m.Status = chat.StatusFailed
	return m
}

// A question that was refused because of its content is left out, until it is asked again.
func TestPromptLeavesRefusedQuestionsOut(t *testing.T) {
	bad, refusal := user("m2", "bad"), filtered(answer("a2", "m2", "", chat.StatusFailed))
	agent := chat.Message{ID: "g", Role: chat.RoleAgent, Text: "Please don't.", Status: chat.StatusComplete}
	before := []chat.Message{user("m1", "1"), answer("a1", "m1", "one", chat.StatusComplete), bad, refusal}
	tests := []struct {
		name  string
		after []chat.Message
		want  []string
	}{
		{"the next question", []chat.Message{user("m3", "3")}, []string{"user:3"}},
		{"what was said after it stays", []chat.Message{agent, user("m3", "3")}, []string{"assistant:Please don't.", "user:3"}},
		{"it is asked again", []chat.Message{replacing(answer("a3", "m2", "", chat.StatusStreaming), "a2")}, []string{"user:bad"}},
		{"it was answered then", []chat.Message{replacing(answer("a3", "m2", "well", chat.StatusComplete), "a2"), user("m3", "3")},
			[]string{"user:bad", "assistant:well", "user:3"}},
		{"it was refused again", []chat.Message{filtered(replacing(answer("a3", "m2", "", chat.StatusFailed), "a2")), user("m3", "3")},
			[]string{"user:3"}},
		{"with some text before the refusal", []chat.Message{
			user("m3", "3"), filtered(answer("a3", "m3", "We", chat.StatusFailed)), user("m4", "4"),
		}, []string{"user:4"}},
		{"another failure", []chat.Message{user("m3", "3"), {
			ID: "a3", Role: chat.RoleAssistant, ReplyTo: "m3", Status: chat.StatusFailed, Error: errRejected,
		}, user("m4", "4")}, []string{"user:3", "user:4"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			want := append([]string{"user:1", "assistant:one"}, test.want...)
			if got := show(llm.Prompt("", slices.Concat(before, test.after), 1000)); !slices.Equal(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

// A user's message that no provider was given is marked: one to an agent, and one whose response failed before.
func TestPromptMarksWhatNoProviderWasGiven(t *testing.T) {
	given, agent := answer("a1", "m1", "Hello", chat.StatusComplete), user("g", "x")
	given.Provider, agent.Role = "p", chat.RoleAgent
	history := []chat.Message{
		user("m1", "asked"), given, user("m2", "unasked"), agent,
		user("m3", "unchecked"), answer("a3", "m3", "", chat.StatusFailed),
	}
	for _, m := range llm.Prompt("Be brief.", history, 1000) {
		if m.Unasked != (m.ID == "m2" || m.ID == "m3") {
			t.Errorf("%s is marked %v", m.ID, m.Unasked)
		}
		if (m.ID == "") != (m.Role == chat.RoleSystem) {
			t.Errorf("the %s message has the ID %q", m.Role, m.ID)
		}
	}
}

// drawHistory makes a conversation of any kind: answers may be missing, and be replaced, refused, cut, or empty.
func drawHistory(r *rapid.T) []chat.Message {
	var history []chat.Message
	last := ""
	text := rapid.StringN(0, 60, -1)
	for i := range rapid.IntRange(0, 25).Draw(r, "messages") {
		id := fmt.Sprint("m", i)
		m := chat.Message{ID: id, Status: chat.StatusComplete, Text: text.Draw(r, "text")}
		switch rapid.IntRange(0, 5).Draw(r, "kind") {
		case 0, 1:
			m.Role, m.Text = chat.RoleUser, "?"+m.Text
			if last != "" && rapid.IntRange(0, 5).Draw(r, "edit") == 0 {
				m.Replaces = last
			}
			last = id
		case 2, 3:
			m.Role, m.ReplyTo = chat.RoleAssistant, last
			m.Status = rapid.SampledFrom([]chat.Status{
				chat.StatusComplete, chat.StatusComplete, chat.StatusCancelled, chat.StatusInterrupted, chat.StatusFailed, chat.StatusStreaming,
			}).Draw(r, "status")
			if m.Status == chat.StatusFailed {
				m.Error = rapid.SampledFrom([]*chat.Error{errFiltered, errDown}).Draw(r, "error")
			}
		case 4:
			m.Role, m.Author = chat.RoleAgent, &chat.Author{ID: "7", Name: rapid.SampledFrom([]string{"", "Ann"}).Draw(r, "name")}
		case 5:
			m.Role = chat.RoleSystem
		}
		history = append(history, m)
	}
	return history
}

// Whatever a conversation is: its prompt is the end of what the whole would be, in whole turns, and fits, but for the
// newest question, which is there in any case.
func TestPromptOfAnyConversation(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		history := drawHistory(r)
		system := rapid.StringN(0, 40, -1).Draw(r, "system")
		budget := rapid.IntRange(-10, 300).Draw(r, "budget")
		all := llm.Prompt("", history, 1<<30)
		prompt := llm.Prompt(system, history, budget)
		cost := llm.EstimatePrompt(prompt)
		if system != "" {
			if len(prompt) == 0 || prompt[0].Role != chat.RoleSystem || prompt[0].Text != system {
				r.Fatalf("the system prompt is not first in %q", show(prompt))
			}
			prompt = prompt[1:]
		}
		newest := -1
		for i, m := range all {
			if m.Role == chat.RoleUser {
				newest = i
			}
			if strings.TrimSpace(m.Text) == "" {
				r.Fatalf("%s is empty", m.ID)
			}
		}
		alone := newest >= 0 && len(prompt) == 1 && prompt[0] == all[newest]
		rest := all[len(all)-min(len(prompt), len(all)):]
		switch {
		case cost > budget && len(prompt) > 0 && !alone:
			r.Fatalf("%d tokens for a budget of %d: %q", cost, budget, show(prompt))
		case !alone && !slices.Equal(prompt, rest):
			r.Fatalf("%q is not the end of %q", show(prompt), show(all))
		case !alone && len(prompt) > 0 && len(prompt) < len(all) && prompt[0].Role != chat.RoleUser:
			r.Fatalf("%q begins in the middle of a turn of %q", show(prompt), show(all))
		case newest >= 0 && !slices.Contains(prompt, all[newest]):
			r.Fatalf("the newest question %q is not in %q", all[newest].Text, show(prompt))
		}
		// It is as long as it can be: one more turn would not fit.
		if left := all[:len(all)-len(prompt)]; !alone && len(left) > 0 && len(prompt) > 0 {
			from := len(left) - 1
			for from > 0 && left[from].Role != chat.RoleUser {
				from--
			}
			if more := llm.EstimatePrompt(left[from:]); cost+more <= budget {
				r.Fatalf("%d tokens more would fit into %d beside %d", more, budget, cost)
			}
		}
	})
}

// Of the newest user's message that nothing took back, none is lost.
func TestNewestQuestionIsAlwaysAsked(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		history := append(drawHistory(r), user("newest", "and now?"))
		if rapid.Bool().Draw(r, "an answer has begun") {
			history = append(history, answer("last", "newest", "", chat.StatusStreaming))
		}
		prompt := llm.Prompt("Be brief.", history, rapid.IntRange(-10, 100).Draw(r, "budget"))
		if last := prompt[len(prompt)-1]; last.ID != "newest" || last.Role != chat.RoleUser {
			r.Fatalf("the last of %q is not the newest question", show(prompt))
		}
	})
}
