package llm_test

import (
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/llm"
)

func TestSystemPromptOfTheModel(t *testing.T) {
	gold := map[string]string{"plan": "gold", "odd name": "x", "name": "{{.Metadata.plan}} <b>&"}
	tests := []struct {
		prompt   string
		metadata map[string]string
		want     string
	}{
		{"", gold, ""},
		{" \n", gold, ""},
		{" Be brief.\n", gold, "Be brief."},
		{"The plan is {{.Metadata.plan}}.", gold, "The plan is gold."},
		{"The plan is {{.Metadata.plan}}.", map[string]string{}, "The plan is ."},
		{"The plan is {{.Metadata.plan}}.", nil, "The plan is ."},
		{"The plan is {{with .Metadata.plan}}{{.}}{{else}}unknown{{end}}.", nil, "The plan is unknown."},
		{`{{index .Metadata "odd name"}}`, gold, "x"},
		{`{{index .Metadata "odd name"}}`, nil, ""},
		{"{{.Metadata.plan}}", nil, ""},
		{"Hello {{.Metadata.name}}", gold, "Hello {{.Metadata.plan}} <b>&"}, // a value is no template, and not escaped
	}
	for _, test := range tests {
		pool := poolOf(t, func(c *llm.Config) {
			c.HistoryTokens = 1000
			c.Models[0].SystemPrompt = test.prompt
			c.Models = append(c.Models, llm.Model{ID: "other", Targets: c.Models[0].Targets, SystemPrompt: "Be long."})
		}, to("a", acts(says())))
		history := []chat.Message{user("m1", "Hi")}
		var want []string
		if test.want != "" {
			want = []string{"system:" + test.want}
		}
		if got := show(pool.Prompt("m", test.metadata, history)); !slices.Equal(got, append(want, "user:Hi")) {
			t.Errorf("%q with %v gives %q", test.prompt, test.metadata, got)
		}
		if got := show(pool.Prompt("other", test.metadata, history)); !slices.Equal(got, []string{"system:Be long.", "user:Hi"}) {
			t.Errorf("another model is told %q", got)
		}
		if got := show(pool.Prompt("gone", test.metadata, history)); !slices.Equal(got, []string{"user:Hi"}) {
			t.Errorf("a model that is not configured is told %q", got)
		}
	}
}

// The tokens of the history include the system prompt's.
func TestPoolsPromptKeepsWithinTheBudget(t *testing.T) {
	pool := poolOf(t, func(c *llm.Config) {
		c.HistoryTokens = 16
		c.Models[0].SystemPrompt = "ssss" // 5
	}, to("a", acts(says())))
	history := []chat.Message{user("m1", "a"), user("m2", "b"), user("m3", "c")} // 5 each
	if got := show(pool.Prompt("m", nil, history)); !slices.Equal(got, []string{"system:ssss", "user:b", "user:c"}) {
		t.Errorf("got %q", got)
	}
}

func TestSystemPromptThatIsNoTemplate(t *testing.T) {
	for _, text := range []string{"{{", "{{.Metadata.plan", "{{.Plan}}", "{{template \"x\"}}", "{{nothing}}", "{{index .Metadata 1}}"} {
		_, err := llm.NewPool(llm.Config{Models: []llm.Model{
			{ID: "m", SystemPrompt: text, Targets: []llm.Target{to("a", acts(says()))}},
		}}, slog.New(slog.DiscardHandler))
		if err == nil || !strings.Contains(err.Error(), `model "m": system prompt`) {
			t.Errorf("%q gives %v", text, err)
		}
	}
}
