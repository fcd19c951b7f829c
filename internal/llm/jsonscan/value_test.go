package jsonscan_test

import (
	"strings"
	"testing"

	"github.com/parley-chat/parley/internal/llm/jsonscan"
)

func TestString(t *testing.T) {
	tests := []struct {
		value, want string
		ok          bool
	}{
		{`""`, "", true},
		{`"a"`, "a", true},
		{`"Straße 👋🏽"`, "Straße 👋🏽", true},
		{`"\"\\\/\b\f\n\r\t"`, "\"\\/\b\f\n\r\t", true},
		{`"a\nb\u0020c"`, "a\nb c", true},
		{`"\u00e9\u00E9\u0000\u20ac"`, "éé\x00€", true},
		{`"\ud83d\ude00!"`, "😀!", true},
		{`"\ud83d"`, "\uFFFD", true},
		{`"\ude00"`, "\uFFFD", true},
		{`"\ud83da"`, "\uFFFDa", true},
		{`"\ud83d\n"`, "\uFFFD\n", true},
		{`"\ud83d\u0041"`, "\uFFFDA", true},
		{`"\ud83d\ud83d\ude00"`, "\uFFFD😀", true},
		{`"\ude00\ud83d"`, "\uFFFD\uFFFD", true},
		{`"\\ud83d"`, `\ud83d`, true},
		{`"\uFFFD"`, "\uFFFD", true},
		{"\"\u2028\x7f\"", "\u2028\x7f", true},
		{`null`, "", true},
		{``, "", true},
		{"\"\xff\"", "", false},
		{"\"\xed\xa0\x80\"", "", false}, // a surrogate in UTF-8
		{`5`, "", false},
		{`true`, "", false},
		{`{"a":"b"}`, "", false},
		{`["a"]`, "", false},
	}
	for _, test := range tests {
		var value []byte
		if test.value != "" {
			value = []byte(test.value)
			checkValue(t, value)
		}
		if got, ok := jsonscan.String(value); got != test.want || ok != test.ok {
			t.Errorf("%s: got %q, %v; want %q, %v", test.value, got, ok, test.want, test.ok)
		}
	}
}

func TestInt(t *testing.T) {
	tests := []struct {
		value string
		want  int
		ok    bool
	}{
		{`0`, 0, true},
		{`17`, 17, true},
		{`999999999`, 999999999, true},
		{`null`, 0, true},
		{``, 0, true},
		{`1000000000`, 0, false},
		{`-1`, 0, false},
		{`1.0`, 0, false},
		{`1e2`, 0, false},
		{`"17"`, 0, false},
		{`true`, 0, false},
		{`{}`, 0, false},
	}
	for _, test := range tests {
		var value []byte
		if test.value != "" {
			value = []byte(test.value)
			checkValue(t, value)
		}
		if got, ok := jsonscan.Int(value); got != test.want || ok != test.ok {
			t.Errorf("%s: got %d, %v; want %d, %v", test.value, got, ok, test.want, test.ok)
		}
	}
}

func TestAStringIsOneAllocation(t *testing.T) {
	for _, value := range []string{
		`"plain"`, `"with \"escapes\" \u00e9\ud83d\ude00"`, `"` + strings.Repeat(`long\n`, 1000) + `"`,
	} {
		raw := []byte(value)
		if n := testing.AllocsPerRun(100, func() { jsonscan.String(raw) }); n != 1 {
			t.Errorf("%.40s: %v allocations", value, n)
		}
	}
}
