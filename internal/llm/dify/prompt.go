package dify

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/parley-chat/parley/chat"
)

// state is what is kept with a session: a conversation of Dify, and how far it goes.
type state struct {
	ConversationID string `json:"conversation_id"`
	Through        string `json:"through"` // the ID of the last answer that Dify gave in it
	Model          string `json:"model"`   // a conversation keeps the inputs that it began with
}

// parseState reads a state. What is none is the zero state, which leads to a new conversation.
func parseState(text string) state {
	var s state
	if json.Unmarshal([]byte(text), &s) != nil {
		return state{}
	}
	return s
}

func (s state) String() string {
	text, _ := json.Marshal(s) // strings cannot fail
	return string(text)
}

// question is what an application is asked.
type question struct {
	conversation string // empty: a new one
	query        string
	system       string
}

// prompt makes a question of a conversation, of which Dify may have the beginning.
//
// Dify has what was said up to the answer in its state, if that answer is still part of the conversation. Then only what
// came after it is told. Otherwise there was none yet, or it failed or was taken back by an edit or a retry, which cannot
// be taken back at Dify, or it was too long ago for the prompt: a new conversation begins, and all is told.
//
// What follows the user's last message, an agent's words, is left out: they are no question.
func prompt(messages []chat.PromptMessage, s state) question {
	var q question
	var told []chat.PromptMessage
	var instructions []string
	for _, m := range messages {
		if m.Role == chat.RoleSystem {
			instructions = append(instructions, m.Text)
		} else {
			told = append(told, m)
		}
	}
	q.system = strings.Join(instructions, "\n\n")
	for i := len(told); i > 0; i-- {
		if told[i-1].Role == chat.RoleUser {
			told = told[:i]
			break
		}
	}
	known := slices.IndexFunc(told, func(m chat.PromptMessage) bool { return m.ID != "" && m.ID == s.Through })
	if known >= 0 && s.ConversationID != "" {
		q.conversation = s.ConversationID
		told = told[known+1:]
	}
	q.query = transcript(told)
	return q
}

// transcript makes one text of several messages, the last of which is the one to answer.
func transcript(messages []chat.PromptMessage) string {
	if len(messages) == 0 {
		return ""
	}
	last := len(messages) - 1
	if last == 0 {
		return messages[0].Text
	}
	var b strings.Builder
	b.WriteString("What was said before:\n\n")
	for _, m := range messages[:last] {
		speaker := "Assistant"
		if m.Role == chat.RoleUser {
			speaker = "User"
		}
		b.WriteString(speaker + ": " + m.Text + "\n\n")
	}
	b.WriteString("What the user says now, and is to be answered:\n\n" + messages[last].Text)
	return b.String()
}
