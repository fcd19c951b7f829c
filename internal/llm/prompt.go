package llm

import (
	"slices"
	"strings"

	"github.com/parley-chat/parley/chat"
)

// EstimateTokens guesses how many tokens a model makes of s: one for every four bytes of UTF-8, rounded up. That is
// about right for English and rough for everything else; a true count would need each model's own tokenizer.
func EstimateTokens(s string) int { return (len(s) + 3) / 4 }

// messageTokens is what a message costs besides its text: its role and its delimiters.
const messageTokens = 4

func cost(m chat.PromptMessage) int { return EstimateTokens(m.Text) + messageTokens }

// Prompt makes what a model is asked of a conversation, which is given and returned oldest first. The system prompt,
// unless empty, comes first.
//
// budget is in tokens, as [EstimateTokens] counts them and 4 more for every message, and includes the system prompt.
// Within it stand the newest turns, each whole: a user's message and all that follows up to the next one. The newest
// user's message is always there, even where it alone exceeds the budget.
//
// Left out is what the model never said or the user took back: messages that are empty, failed or still streaming;
// those that a later one replaces, and answers to these. What was cancelled or interrupted stays as far as it went. An
// agent speaks as the assistant, with the agent's name before the text.
func Prompt(system string, history []chat.Message, budget int) []chat.PromptMessage {
	var prompt []chat.PromptMessage
	if system != "" {
		prompt = append(prompt, chat.PromptMessage{Role: chat.RoleSystem, Text: system})
		budget -= cost(prompt[0])
	}
	turns := turnsOf(spoken(history))
	first := len(turns)
	for first > 0 {
		size := 0
		for _, m := range turns[first-1] {
			size += cost(m)
		}
		if size > budget {
			break
		}
		budget -= size
		first--
	}
	if first == len(turns) && first > 0 {
		// Not even the newest turn fits. Where it does not begin with a user's message nobody asked anything.
		if question := turns[first-1][0]; question.Role == chat.RoleUser {
			prompt = append(prompt, question)
		}
	}
	return append(prompt, slices.Concat(turns[first:]...)...)
}

// spoken returns the messages that belong into a prompt.
func spoken(history []chat.Message) []chat.PromptMessage {
	replaced := make(map[string]bool)
	for _, m := range history {
		if m.Replaces != "" {
			replaced[m.Replaces] = true
		}
	}
	var messages []chat.PromptMessage
	for _, m := range history {
		switch {
		case replaced[m.ID], m.ReplyTo != "" && replaced[m.ReplyTo]:
		case m.Status == chat.StatusFailed, m.Status == chat.StatusStreaming:
		case strings.TrimSpace(m.Text) == "":
		default:
			messages = append(messages, promptMessage(m))
		}
	}
	return messages
}

func promptMessage(m chat.Message) chat.PromptMessage {
	if m.Role != chat.RoleAgent {
		return chat.PromptMessage{Role: m.Role, Text: m.Text}
	}
	text := m.Text
	if m.Author != nil && m.Author.Name != "" {
		text = m.Author.Name + ": " + text
	}
	return chat.PromptMessage{Role: chat.RoleAssistant, Text: text}
}

// turnsOf parts messages before each user's message.
func turnsOf(messages []chat.PromptMessage) [][]chat.PromptMessage {
	var turns [][]chat.PromptMessage
	for i, m := range messages {
		if i == 0 || m.Role == chat.RoleUser {
			turns = append(turns, nil)
		}
		last := len(turns) - 1
		turns[last] = append(turns[last], m)
	}
	return turns
}
