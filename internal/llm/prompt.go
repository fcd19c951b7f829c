package llm

import (
	"fmt"
	"slices"
	"strings"
	"text/template"

	"github.com/parley-chat/parley/chat"
)

// EstimateTokens guesses how many tokens a model makes of s: one for every four bytes of UTF-8, rounded up. That is
// about right for English and rough for everything else; a true count would need each model's own tokenizer.
func EstimateTokens(s string) int { return (len(s) + 3) / 4 }

// messageTokens is what a message costs besides its text: its role and its delimiters.
const messageTokens = 4

func cost(m chat.PromptMessage) int { return EstimateTokens(m.Text) + messageTokens }

// EstimatePrompt guesses how many tokens a model makes of a whole prompt.
func EstimatePrompt(prompt []chat.PromptMessage) int {
	tokens := 0
	for _, m := range prompt {
		tokens += cost(m)
	}
	return tokens
}

// ParseSystemPrompt reads a system prompt as an operator writes it: text, in which {{.Metadata.plan}} stands for what
// the session's metadata has under that name, or nothing (the language is that of text/template). Metadata is what an
// app's client gave when it opened the session: the model should be told to trust it no more than the user.
func ParseSystemPrompt(text string) (*template.Template, error) {
	t, err := template.New("system prompt").Option("missingkey=zero").Parse(text)
	if err != nil {
		return nil, fmt.Errorf("system prompt: %w", err)
	}
	if _, err := execute(t, nil); err != nil {
		return nil, err
	}
	return t, nil
}

func execute(t *template.Template, metadata map[string]string) (string, error) {
	var text strings.Builder
	err := t.Execute(&text, struct{ Metadata map[string]string }{metadata})
	if err != nil {
		return "", fmt.Errorf("system prompt: %w", err)
	}
	return strings.TrimSpace(text.String()), nil
}

// Prompt makes what a model of the pool is asked of a session's conversation: see the function [Prompt]. The error is
// that of a system prompt which cannot be made with this metadata: without it no model is to be asked. Where the model
// is not configured any more there is none; asking it is model_not_found.
func (p *Pool) Prompt(
	modelID string, metadata map[string]string, history []chat.Message,
) (prompt []chat.PromptMessage, err error) {
	system := ""
	if m := p.model(modelID); m != nil {
		if system, err = execute(m.system, metadata); err != nil {
			return nil, fmt.Errorf("model %s: %w", modelID, err)
		}
	}
	return Prompt(system, history, p.history), nil
}

// Prompt makes what a model is asked of a conversation, which is given and returned oldest first. The system prompt,
// unless empty, comes first.
//
// budget is in tokens, as [EstimateTokens] counts them and 4 more for every message, and includes the system prompt.
// Within it stand the newest turns, each whole: a user's message and all that follows up to the next one. The newest
// user's message is always there, even where it alone exceeds the budget.
//
// Left out is what the model never said, the user took back, or nobody may read: messages that are empty, failed or
// still streaming; those that a later one replaces, and answers to these; and questions that were refused because of
// their content, which would have every later one refused too. What was cancelled or interrupted stays as far as it
// went. An agent speaks as the assistant, with the agent's name before the text.
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
	replaced, refused, asked := make(map[string]bool), make(map[string]bool), make(map[string]bool)
	for _, m := range history {
		if m.Replaces != "" {
			replaced[m.Replaces] = true
		}
		if m.Provider != "" {
			asked[m.ReplyTo] = true
		}
	}
	for _, m := range history {
		if isRefusal(m) && !replaced[m.ID] {
			refused[m.ReplyTo] = true
		}
	}
	var messages []chat.PromptMessage
	for _, m := range history {
		switch {
		case refused[m.ID], replaced[m.ID], m.ReplyTo != "" && replaced[m.ReplyTo]:
		case m.Status == chat.StatusFailed, m.Status == chat.StatusStreaming:
		case strings.TrimSpace(m.Text) == "":
		default:
			prompt := promptMessage(m)
			prompt.Unasked = m.Role == chat.RoleUser && !asked[m.ID]
			messages = append(messages, prompt)
		}
	}
	return messages
}

// isRefusal reports whether a question was refused because of its content, by whoever answered this instead.
func isRefusal(m chat.Message) bool {
	return m.Error != nil && m.Error.Code == chat.CodeContentFiltered ||
		m.FinishReason == chat.FinishContentFilter && strings.TrimSpace(m.Text) == ""
}

func promptMessage(m chat.Message) chat.PromptMessage {
	prompt := chat.PromptMessage{ID: m.ID, Role: m.Role, Text: m.Text}
	if m.Role != chat.RoleAgent {
		return prompt
	}
	prompt.Role = chat.RoleAssistant
	if m.Author != nil && m.Author.Name != "" {
		prompt.Text = m.Author.Name + ": " + prompt.Text
	}
	return prompt
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
