package llm_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/llm"
)

func user(id, text string) chat.Message {
	return chat.Message{ID: id, Role: chat.RoleUser, Text: text, Status: chat.StatusComplete}
}

func answer(id, replyTo, text string, status chat.Status) chat.Message {
	return chat.Message{ID: id, Role: chat.RoleAssistant, Text: text, Status: status, ReplyTo: replyTo}
}

func replacing(m chat.Message, id string) chat.Message {
	m.Replaces = id
	return m
}

// show writes a prompt as "role:text" lines.
func show(prompt []chat.PromptMessage) []string {
	var lines []string
	for _, m := range prompt {
		lines = append(lines, string(m.Role)+":"+m.Text)
	}
	return lines
}

func TestPromptHoldsTheConversation(t *testing.T) {
	agent := chat.Message{
		ID: "g", Role: chat.RoleAgent, Text: "Let me look.", Status: chat.StatusComplete,
		Author: &chat.Author{ID: "7", Name: "Ann"},
	}
	nameless := agent
	nameless.Author = nil
	tests := []struct {
		name    string
		history []chat.Message
		want    []string
	}{
		{"nothing", nil, nil},
		{"second turn", []chat.Message{
			user("m1", "Hi"), answer("a1", "m1", "Hello.", chat.StatusComplete), user("m2", "Bye"),
		}, []string{"user:Hi", "assistant:Hello.", "user:Bye"}},
		{"cut answers stay, failed and empty ones go", []chat.Message{
			user("m1", "1"), answer("a1", "m1", "as far", chat.StatusCancelled),
			user("m2", "2"), answer("a2", "m2", "as it went", chat.StatusInterrupted),
			user("m3", "3"), answer("a3", "m3", "half", chat.StatusFailed),
			user("m4", "4"), answer("a4", "m4", "", chat.StatusInterrupted),
			user("m5", "5"), answer("a5", "m5", "", chat.StatusStreaming),
		}, []string{
			"user:1", "assistant:as far", "user:2", "assistant:as it went", "user:3", "user:4", "user:5",
		}},
		{"a retry takes the place of the answer", []chat.Message{
			user("m1", "1"), answer("a1", "m1", "bad", chat.StatusComplete),
			replacing(answer("a2", "m1", "better", chat.StatusComplete), "a1"), user("m2", "2"),
		}, []string{"user:1", "assistant:better", "user:2"}},
		{"a retry that has begun", []chat.Message{
			user("m1", "1"), answer("a1", "m1", "bad", chat.StatusComplete),
			replacing(answer("a2", "m1", "", chat.StatusStreaming), "a1"),
		}, []string{"user:1"}},
		{"an edit takes the place of the question and its answer", []chat.Message{
			user("m1", "1"), answer("a1", "m1", "one", chat.StatusComplete),
			user("m2", "typo"), answer("a2", "m2", "what?", chat.StatusComplete),
			replacing(user("m3", "2"), "m2"),
		}, []string{"user:1", "assistant:one", "user:2"}},
		{"staff", []chat.Message{
			{ID: "s", Role: chat.RoleSystem, Text: "The user is in Graz.", Status: chat.StatusComplete},
			user("m1", "Where is my parcel?"), agent, nameless, user("m2", "Thanks"),
		}, []string{
			"system:The user is in Graz.", "user:Where is my parcel?", "assistant:Ann: Let me look.",
			"assistant:Let me look.", "user:Thanks",
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := show(llm.Prompt("", test.history, 1000)); !slices.Equal(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
			want := append([]string{"system:Be brief."}, test.want...)
			if got := show(llm.Prompt("Be brief.", test.history, 1000)); !slices.Equal(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

// Each message costs 4 tokens and its text one for every 4 bytes.
func TestPromptKeepsWithinTheBudget(t *testing.T) {
	history := []chat.Message{
		user("m1", "aaaa"), answer("a1", "m1", "bbbb", chat.StatusComplete), // 10 tokens
		user("m2", "cccccccc"), answer("a2", "m2", "dddddddd", chat.StatusComplete), // 12 tokens
		user("m3", "eeee"), // 5 tokens
	}
	all := []string{"user:aaaa", "assistant:bbbb", "user:cccccccc", "assistant:dddddddd", "user:eeee"}
	tests := []struct {
		system string
		budget int
		want   []string
	}{
		{"", 27, all},
		{"", 26, all[2:]},
		{"", 17, all[2:]},
		{"", 16, all[4:]},
		{"", 5, all[4:]},
		{"", 4, all[4:]},
		{"", 0, all[4:]},
		{"", -1, all[4:]},
		{"ssss", 32, append([]string{"system:ssss"}, all...)},
		{"ssss", 31, append([]string{"system:ssss"}, all[2:]...)},
		{"ssss", 1, append([]string{"system:ssss"}, all[4:]...)},
	}
	for _, test := range tests {
		if got := show(llm.Prompt(test.system, history, test.budget)); !slices.Equal(got, test.want) {
			t.Errorf("budget %d, system %q: got %q, want %q", test.budget, test.system, got, test.want)
		}
	}
}

// A long turn ends the prompt, even where a shorter one lies before it: a conversation with a hole misleads.
func TestPromptHasNoHoles(t *testing.T) {
	history := []chat.Message{user("m1", "a"), user("m2", strings.Repeat("b", 400)), user("m3", "c")}
	if got := show(llm.Prompt("", history, 50)); !slices.Equal(got, []string{"user:c"}) {
		t.Errorf("got %q", got)
	}
}

func TestPromptOfALongConversation(t *testing.T) {
	var history []chat.Message
	for i := range 1000 {
		id := fmt.Sprint("m", i)
		history = append(history, user(id, "question "+id), answer("a"+id, id, "answer "+id, chat.StatusComplete))
	}
	history = append(history, user("last", "last"))
	prompt := llm.Prompt("Be brief.", history, 500)
	total := 0
	for _, m := range prompt {
		total += llm.EstimateTokens(m.Text) + 4
	}
	if total > 500 || total < 480 {
		t.Errorf("%d tokens for a budget of 500", total)
	}
	if prompt[1].Role != chat.RoleUser || prompt[len(prompt)-1].Text != "last" {
		t.Errorf("begins with %+v and ends with %+v", prompt[1], prompt[len(prompt)-1])
	}
}

func TestEstimateTokens(t *testing.T) {
	for text, want := range map[string]int{"": 0, "a": 1, "abcd": 1, "abcde": 2, "日本": 2} {
		if got := llm.EstimateTokens(text); got != want {
			t.Errorf("%q: got %d, want %d", text, got, want)
		}
	}
}
