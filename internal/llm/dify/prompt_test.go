package dify

import (
	"testing"

	"github.com/parley-chat/parley/chat"
)

func TestPrompt(t *testing.T) {
	system := chat.PromptMessage{Role: chat.RoleSystem, Text: "Be brief."}
	message := func(id string, role chat.Role, text string) chat.PromptMessage {
		return chat.PromptMessage{ID: id, Role: role, Text: text}
	}
	q1, a1 := message("q1", chat.RoleUser, "Hi"), message("a1", chat.RoleAssistant, "Hello.")
	q2, a2 := message("q2", chat.RoleUser, "How are you?"), message("a2", chat.RoleAssistant, "Fine.")
	q3, agent := message("q3", chat.RoleUser, "Bye"), message("g1", chat.RoleAssistant, "Anna: May I help?")
	const conversation = "45701982-8118-4bc5-8e9b-64562b4555f2"
	through := func(id string) state { return state{conversation, id, "any"} }
	const before, now = "What was said before:\n\n", "What the user says now, and is to be answered:\n\n"

	type messages = []chat.PromptMessage
	tests := []struct {
		name     string
		messages messages
		state    state
		want     question
	}{
		{"the first question", messages{q1}, state{}, question{"", "Hi", ""}},
		{"a system prompt", messages{system, q1}, state{}, question{"", "Hi", "Be brief."}},
		{"the next question", messages{q1, a1, q2}, through("a1"), question{conversation, "How are you?", ""}},
		{"the next question, with a system prompt", messages{system, q1, a1, q2}, through("a1"),
			question{conversation, "How are you?", "Be brief."}},
		{"history without its beginning", messages{a1, q2}, through("a1"), question{conversation, "How are you?", ""}},
		{"no state", messages{q1, a1, q2}, state{},
			question{"", before + "User: Hi\n\nAssistant: Hello.\n\n" + now + "How are you?", ""}},
		{"an answer that is gone", messages{q1, a1, q3}, through("a2"),
			question{"", before + "User: Hi\n\nAssistant: Hello.\n\n" + now + "Bye", ""}},
		{"a first answer that is gone", messages{q1}, through("a1"), question{"", "Hi", ""}},
		{"an agent between", messages{q1, a1, q2, agent, q3}, through("a1"),
			question{conversation, before + "User: How are you?\n\nAssistant: Anna: May I help?\n\n" + now + "Bye", ""}},
		{"another model between", messages{q1, a1, q2, a2, q3}, through("a1"),
			question{conversation, before + "User: How are you?\n\nAssistant: Fine.\n\n" + now + "Bye", ""}},
		{"an agent last", messages{q1, a1, q2, agent}, through("a1"), question{conversation, "How are you?", ""}},
		{"an agent first", messages{agent, q1}, state{},
			question{"", before + "Assistant: Anna: May I help?\n\n" + now + "Hi", ""}},
		{"a retry with an agent after the question", messages{q1, agent}, through("a1"), question{"", "Hi", ""}},
		{"a state without an answer", messages{system, q1}, state{conversation, "", ""}, question{"", "Hi", "Be brief."}},
		{"a state without a conversation", messages{q1, a1, q2}, state{"", "a1", ""},
			question{"", before + "User: Hi\n\nAssistant: Hello.\n\n" + now + "How are you?", ""}},
		{"an answer with nothing after it", messages{q1, a1}, through("a1"), question{"", "Hi", ""}},
	}
	for _, test := range tests {
		if got := prompt(test.messages, test.state); got != test.want {
			t.Errorf("%s: got %+q, want %+q", test.name, got, test.want)
		}
	}
}

func TestState(t *testing.T) {
	s := state{"45701982-8118-4bc5-8e9b-64562b4555f2", "answer-1", "any"}
	if got := parseState(s.String()); got != s {
		t.Errorf("%s is read as %+v", s, got)
	}
	for _, text := range []string{"", "{", "[]", `{"conversation_id":5,"through":"a"}`} {
		if got := parseState(text); got != (state{}) {
			t.Errorf("%q is read as %+v", text, got)
		}
	}
}
