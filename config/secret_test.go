package config_test

import (
	"encoding/base64"
	"encoding/hex"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/parley-chat/parley/config"
)

// secretProblem returns what Validate says of a JWT secret; nil: nothing.
func secretProblem(t *testing.T, secret string) *config.Problem {
	t.Helper()
	cfg := validConfig()
	cfg.Auth.JWTSecret = secret
	err := cfg.Validate()
	if err == nil {
		return nil
	}
	return wantProblems(t, err, "auth.jwt_secret")["auth.jwt_secret"]
}

func TestR17_1_TheLengthIsCountedInCharacters(t *testing.T) {
	for secret, want := range map[string]string{"x": "has 1 characters", "äöü€": "has 4 characters"} {
		if p := secretProblem(t, secret); p == nil || !strings.Contains(p.Problem, want) {
			t.Errorf("%q: %v", secret, p)
		}
	}
}

func TestR17_2_ShortSecretIsRefused(t *testing.T) {
	if p := secretProblem(t, strongSecret[:31]); p == nil || !strings.Contains(p.Problem, "31 characters") {
		t.Error(p)
	}
	if p := secretProblem(t, strongSecret[:32]); p != nil {
		t.Error(p)
	}
}

func TestR17_3_PlaceholdersAreRefused(t *testing.T) {
	for _, secret := range []string{
		"changemechangemechangemechangeme",
		"your-256-bit-secret-your-256-bit-secret",
		"your-super-secret-jwt-key-change-in-production",
		"this-is-a-very-long-placeholder-secret-please-change-it-before-production-use-12345",
		"a-string-secret-at-least-256-bits-long",
		"REPLACE_ME_WITH_A_RANDOM_STRING_OF_32_CHARS",
		"<replace me with the output of parley keygen>",
		"passwordpasswordpasswordpassword",
		"P4ssw0rdP4ssw0rdChangeM3Changeme!",
		"example-default-test-secret-example",
		"MySuperSecretPasswordForProduction2024!",
		"00000000000000000000000000000000",
		"12345678901234567890123456789012",
		"abcdefghijklmnopqrstuvwxyz123456",
		"zyxwvutsrqponmlkjihgfedcba987654",
		"0123456789abcdef0123456789abcdef",
		"00112233445566778899aabbccddeeff",
		"a1b2c3d4e5f6g7h8i9j0k1l2m3n4o5p6",
		"qwertyuiopasdfghjklzxcvbnm123456",
		"abababababababababababababababab",
		"x7Kq9x7Kq9x7Kq9x7Kq9x7Kq9x7Kq9x7Kq9",
		"deadbeefdeadbeefdeadbeefdeadbeef",
		"deadbeefcafebabe8badf00dfeedface",
		"correct-horse-battery-staple-and-more",
		"correct horse battery staple correct horse",
		"CorrectHorseBatteryStapleForEverybody",
		"Thequickbrownfoxjumpsoverthelazydog",
		"monkey dragon sunshine football baseball",
		"four score and seven years ago our fathers",
		"it was the best of times, it was the worst of times",
		"myverysecretjwtkeythatnobodywillguess",
		"lasciate ogni speranza voi chentrate",
		"                                ",
	} {
		p := secretProblem(t, secret)
		if p == nil {
			t.Errorf("%q is accepted", secret)
			continue
		}
		if !strings.Contains(p.Fix, "parley keygen") {
			t.Errorf("%q: no guidance in %q", secret, p.Fix)
		}
	}
}

func TestR17_5_GuidanceNamesKeygenAndNotTheSecret(t *testing.T) {
	for _, secret := range []string{"", "hunter2", strings.Repeat("hunter2-", 6)} {
		p := secretProblem(t, secret)
		if p == nil || !strings.Contains(p.Fix, "parley keygen") || secret != "" && strings.Contains(p.Error(), "hunter2") {
			t.Errorf("%q: %v", secret, p)
		}
	}
}

// What is random enough passes, whatever else stands there.
func TestR17_3_RandomSecretsWithWordsPass(t *testing.T) {
	for _, secret := range []string{
		"changeme-9f86d081884c7d659a2feaa0c55ad015",
		"prod_secret_kX3vQ9zLw7RtB2nYc5HdJ8mP",
		"qL8xpassword0Zt3vKr7WdYb5Nh2Jc6Gm",
		"f81d4fae-7dec-41d0-a765-00a0c91e6bf6",
		"unblock-thinly-glance-cadet-poker-verse-mumbling-ferment-onyx",
	} {
		if p := secretProblem(t, secret); p != nil {
			t.Errorf("%q: %v", secret, p)
		}
	}
}

func TestR17_3_RandomSecretsOfAllUsualFormatsPass(t *testing.T) {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	const base32 = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567" // of crypto/rand.Text
	of := func(alphabet string, length int) func(*rand.ChaCha8) string {
		return func(random *rand.ChaCha8) string {
			text := make([]byte, length)
			for i := range text {
				text[i] = alphabet[random.Uint64()%uint64(len(alphabet))]
			}
			return string(text)
		}
	}
	bytes := func(n int, encode func([]byte) string) func(*rand.ChaCha8) string {
		return func(random *rand.ChaCha8) string {
			b := make([]byte, n)
			random.Read(b)
			return encode(b)
		}
	}
	for name, next := range map[string]func(*rand.ChaCha8) string{
		"32 hex digits":           bytes(16, hex.EncodeToString),
		"64 hex digits":           bytes(32, hex.EncodeToString),
		"base64 of 32 bytes":      bytes(32, base64.StdEncoding.EncodeToString),
		"base64url of 32 bytes":   bytes(32, base64.RawURLEncoding.EncodeToString),
		"32 letters and digits":   of(letters, 32),
		"two of crypto/rand.Text": of(base32, 52),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			random := rand.NewChaCha8([32]byte{17})
			for range 20_000 {
				if secret := next(random); secretProblem(t, secret) != nil {
					t.Errorf("%q is refused", secret)
				}
			}
		})
	}
}
