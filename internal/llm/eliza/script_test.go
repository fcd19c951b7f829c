package eliza

import (
	"strings"
	"testing"
)

// A script has no compiler. This is what one would refuse.
func TestScript(t *testing.T) {
	keywords := index(script)
	if len(script) < 30 {
		t.Errorf("%d keywords", len(script))
	}
	forms := 0
	for i := range script {
		key := &script[i]
		forms += len(key.words)
		if last := key.rules[len(key.rules)-1]; last.pattern != "*" {
			t.Errorf("%s: the last rule is %q, which may not fit", key.words[0], last.pattern)
		}
		for _, rule := range key.rules {
			checkRule(t, keywords, key.words[0], rule)
		}
	}
	if forms != len(keywords) {
		t.Error("a word belongs to two keywords")
	}
	checkRule(t, keywords, "recollection", recollection)
}

func checkRule(t *testing.T, keywords map[string]*keyword, word string, r rule) {
	t.Helper()
	parts := 0
	for _, element := range strings.Fields(r.pattern) {
		group, isGroup := strings.CutPrefix(element, "@")
		if isGroup && groups[group] == nil {
			t.Errorf("%s: no group %s", word, group)
		}
		if isGroup || element == "*" || element == "+" {
			parts++
		} else if said, ok := substitutions[element]; ok {
			t.Errorf("%s: %q never fits: %s is heard as %s", word, r.pattern, element, said)
		}
	}
	for _, answer := range r.answers {
		if other, ok := strings.CutPrefix(answer, "="); ok {
			if keywords[other] == nil {
				t.Errorf("%s: no keyword %s", word, other)
			}
			if len(r.answers) > 1 {
				t.Errorf("%s: %q goes elsewhere only now and then", word, r.pattern)
			}
			continue
		}
		for n := parts + 1; n <= 9; n++ {
			if strings.Contains(answer, "$"+string(rune('0'+n))) {
				t.Errorf("%s: %q has no part $%d for %q", word, r.pattern, n, answer)
			}
		}
	}
}

// Rules that go on with another keyword must arrive somewhere.
func TestScriptHasNoCircles(t *testing.T) {
	keywords := index(script)
	for start := range script {
		visited := map[*keyword]bool{}
		var visit func(key *keyword)
		visit = func(key *keyword) {
			if visited[key] {
				return
			}
			visited[key] = true
			for _, rule := range key.rules {
				if other, ok := strings.CutPrefix(rule.answers[0], "="); ok {
					if keywords[other] == &script[start] {
						t.Errorf("%s comes back to itself by %s", script[start].words[0], key.words[0])
					}
					visit(keywords[other])
				}
			}
		}
		visit(&script[start])
	}
}
