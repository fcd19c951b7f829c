package eliza

import (
	_ "embed"
	"slices"
	"strings"
)

// The texts that show what a chat page makes of a long answer.
var (
	//go:embed demo/help.md
	help string
	//go:embed demo/markdown.md
	markdown string
	//go:embed demo/story.md
	story string
)

// demonstration returns what text asks to be shown; empty: it asks for nothing of the kind. Only these very words do:
// a patient who says "I need help" means it.
func demonstration(text string) string {
	words := strings.Join(slices.Concat(sentences(strings.ToLower(text))...), " ")
	switch strings.TrimPrefix(words, "please ") {
	case "help", "what can you do":
		return help
	case "markdown", "show me markdown", "show me some markdown":
		return markdown
	case "story", "tell me a story", "tell me a long story":
		return story
	}
	return ""
}
