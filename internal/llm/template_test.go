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
		if got := prompted(t, pool, "m", test.metadata, history); !slices.Equal(got, append(want, "user:Hi")) {
			t.Errorf("%q with %v gives %q", test.prompt, test.metadata, got)
		}
		if got := prompted(t, pool, "other", test.metadata, history); !slices.Equal(got, []string{"system:Be long.", "user:Hi"}) {
			t.Errorf("another model is told %q", got)
		}
		if got := prompted(t, pool, "gone", test.metadata, history); !slices.Equal(got, []string{"user:Hi"}) {
			t.Errorf("a model that is not configured is told %q", got)
		}
	}
}

// prompted is what a model of the pool is told.
func prompted(t *testing.T, pool *llm.Pool, model string, metadata map[string]string, history []chat.Message) []string {
	t.Helper()
	prompt, err := pool.Prompt(model, metadata, history)
	if err != nil {
		t.Fatal(err)
	}
	return show(prompt)
}

// Without its system prompt a model is not to be asked: the metadata is what a client says.
func TestASystemPromptThatCannotBeMade(t *testing.T) {
	pool := poolOf(t, func(c *llm.Config) {
		c.Models[0].SystemPrompt = "Say nothing of money.{{if .Metadata.lang}} Speak {{slice .Metadata.lang 0 2}}.{{end}}"
	}, to("a", acts(says())))
	prompt, err := pool.Prompt("m", map[string]string{"lang": "x"}, []chat.Message{user("m1", "Hi")})
	if err == nil || prompt != nil {
		t.Errorf("the prompt is %q, %v", show(prompt), err)
	}
}

// The tokens of the history include the system prompt's.
func TestPoolsPromptKeepsWithinTheBudget(t *testing.T) {
	pool := poolOf(t, func(c *llm.Config) {
		c.HistoryTokens = 16
		c.Models[0].SystemPrompt = "ssss" // 5
	}, to("a", acts(says())))
	history := []chat.Message{user("m1", "a"), user("m2", "b"), user("m3", "c")} // 5 each
	if got := prompted(t, pool, "m", nil, history); !slices.Equal(got, []string{"system:ssss", "user:b", "user:c"}) {
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
