package auth_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/config"
	"github.com/parley-chat/parley/internal/auth"
)

// hs256 signs a token of any header and claims, with nothing of the library's that checks it.
func hs256(header, claims string) string {
	text := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + base64.RawURLEncoding.EncodeToString([]byte(claims))
	return text + "." + base64.RawURLEncoding.EncodeToString(hmacOf(text))
}

func hmacOf(text string) []byte {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(text))
	return mac.Sum(nil)
}

// Whatever comes as a token, verifying it ends. What is accepted was signed with the key, is of somebody, and has not
// expired; what is refused is not quoted. Each input is tried as a token, and as a header and claims that are signed.
func FuzzVerify(f *testing.F) {
	const header = `{"alg":"HS256","typ":"JWT"}`
	good := hs256(header, `{"sub":"alice","exp":9000000000}`)
	unsigned := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`)) + "." + strings.Split(good, ".")[1] + "."
	for _, seed := range [][3]string{
		{good, header, `{"sub":"alice","name":"Alice","roles":["agent"],"jti":"1","iat":1700000000,"nbf":1700000000.5,"exp":9000000000}`},
		{unsigned, `{"alg":"none"}`, `{"sub":"alice","exp":9000000000}`},
		{good + strings.Repeat("A", 8<<10), header, `{"sub":"` + strings.Repeat("a", 4<<10) + `","exp":9000000000}`},
		{"", "", ""},
		{"..", "{}", "{}"},
		{"a.b.c", "null", "null"},
		{good + "=", `{"alg":"HS256","crit":["exp"],"exp":1}`, `{"sub":"alice","exp":1}`},
		{strings.ToUpper(good), `{"alg":["HS256"]}`, `{"sub":"alice","exp":"9000000000"}`},
		{good + "." + good, `{"alg":"HS256","alg":"none"}`, `{"sub":"alice","sub":"bob","exp":9e99,"exp":9000000000}`},
		{" " + good, `{"alg":"HS256","kid":{}}`, `[{"sub":"alice"}]`},
		{good[:len(good)-1], `{"ALG":"HS256"}`, `{"SUB":"alice","sub":null,"exp":1e400,"iat":-1e308,"nbf":{},"aud":[1,[]],"roles":{}}`},
		{"\x00.\xff.\n", header + " x", "{\"sub\":\"a\\ud800\\u0000\xff\",\"exp\":9000000000}"},
	} {
		f.Add(seed[0], seed[1], seed[2])
	}
	v, err := auth.New(config.Auth{JWTSecret: secret}, nil, discard)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, token, header, claims string) {
		for _, token := range []string{token, hs256(header, claims)} {
			user, err := v.Verify(token)
			if err != nil {
				checkRefusal(t, err, token, header, claims)
				continue
			}
			if !isSigned(token) || user.ID == "" || chat.CleanLine(user.ID) != user.ID ||
				!user.ExpiresAt.After(time.Now().Add(-auth.Leeway)) {
				t.Errorf("%q is accepted as %+v", token, user)
			}
		}
	})
}

// isSigned reports whether a token has the signature of the tests' secret, and says that it is HS256.
func isSigned(token string) bool {
	last := strings.LastIndexByte(token, '.')
	parsed, _, err := jwt.NewParser().ParseUnverified(token, jwt.MapClaims{})
	if err != nil || parsed.Method.Alg() != "HS256" {
		return false
	}
	signature, err := base64.RawURLEncoding.DecodeString(token[last+1:])
	return err == nil && hmac.Equal(signature, hmacOf(token[:last]))
}

// checkRefusal fails unless err is unauthenticated and quotes nothing that is longer than its own words.
func checkRefusal(t *testing.T, err error, token, header, claims string) {
	t.Helper()
	shown, ok := errors.AsType[*chat.Error](err)
	if !ok || shown.Code != chat.CodeUnauthenticated {
		t.Errorf("%q is refused with %v", token, err)
	}
	const longestWord = len("unauthenticated")
	for _, part := range append(strings.Split(token, "."), append(strings.Split(header, `"`), strings.Split(claims, `"`)...)...) {
		if len(part) > longestWord && strings.Contains(err.Error(), part) {
			t.Errorf("the refusal of %q quotes it: %v", token, err)
		}
	}
}
