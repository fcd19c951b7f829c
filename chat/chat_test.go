package chat_test

import (
	"errors"
	"fmt"
	"testing"
	"unicode/utf8"

	"github.com/parley-chat/parley/chat"
)

func TestCleanText(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"plain", "hello", "hello"},
		{"newline and tab stay", "a\n\tb", "a\n\tb"},
		{"CR LF is a newline", "a\r\nb", "a\nb"},
		{"C0 and DEL go", "a\x00b\x1b[31mc\x7fd", "ab[31mcd"},
		{"C1 goes", "a\u0085b\u009fc", "abc"},
		{"overrides go", "abc\u202edef\u202dghi", "abcdefghi"},
		{"isolates, embeddings and joiners stay", "\u2067x\u2069 \u202bx\u202c 👩\u200d💻", "\u2067x\u2069 \u202bx\u202c 👩\u200d💻"},
		{"markup stays", "<b>&amp; `x < y && z`", "<b>&amp; `x < y && z`"},
		{"composed and decomposed letters stay", "\u00e9 e\u0301", "\u00e9 e\u0301"},
		{"invalid UTF-8 is replaced", "a\xffb", "a\uFFFDb"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := chat.CleanText(test.in); got != test.want {
				t.Errorf("CleanText(%q) = %q, want %q", test.in, got, test.want)
			}
		})
	}
}

func TestCleanLineIsOneLine(t *testing.T) {
	if got, want := chat.CleanLine(" a\tb\r\nc\u202e "), "a b c"; got != want {
		t.Errorf("CleanLine gives %q, want %q", got, want)
	}
}

func FuzzCleanTextIsIdempotent(f *testing.F) {
	for _, seed := range []string{"", "a\r\x00\n", "\u202e\u202e", "\xf0\x9f", "\u0085\r"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		once := chat.CleanText(s)
		if !utf8.ValidString(once) {
			t.Errorf("CleanText(%q) = %q is not UTF-8", s, once)
		}
		if twice := chat.CleanText(once); twice != once {
			t.Errorf("CleanText(%q) = %q, and again %q", s, once, twice)
		}
	})
}

func TestAsErrorShowsOnlyWhatIsSafe(t *testing.T) {
	secret := errors.New("dial tcp 10.0.0.7:27017: password=hunter2")
	shown := chat.NewError(chat.CodeStorageUnavailable, "the storage cannot be reached").WithCause(secret)
	if got := chat.AsError(fmt.Errorf("open session: %w", shown)); got != shown {
		t.Errorf("AsError finds %v in the chain, want %v", got, shown)
	}
	internal := chat.AsError(secret)
	if internal.Code != chat.CodeInternal || internal.Message == secret.Error() {
		t.Errorf("AsError shows %q with code %s", internal.Message, internal.Code)
	}
	if !errors.Is(internal, secret) {
		t.Error("the cause is lost for the log")
	}
	if chat.AsError(nil) != nil {
		t.Error("AsError(nil) is an error")
	}
}

func TestErrorMatchesByCode(t *testing.T) {
	err := error(chat.NewError(chat.CodeSessionEnded, "the session has ended"))
	if !errors.Is(err, chat.NewError(chat.CodeSessionEnded, "")) {
		t.Error("an error does not match its code")
	}
	if errors.Is(err, chat.NewError(chat.CodeInternal, "")) {
		t.Error("an error matches another code")
	}
}
