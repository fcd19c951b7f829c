package auth_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/config"
	"github.com/parley-chat/parley/internal/auth"
)

const secret = "MHCBZVZB4XQIBVVRPZSWRFXKPRNQ3XGD7Y2KAEF5LJUWTVCSO6QD"

func verifier(t *testing.T, cfg config.Auth) *auth.Verifier {
	t.Helper()
	v, err := auth.New(cfg, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Close)
	return v
}

func sign(t *testing.T, method jwt.SigningMethod, key any, claims jwt.MapClaims) string {
	t.Helper()
	token, err := jwt.NewWithClaims(method, claims).SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// wantRefused fails unless err is unauthenticated, says what it should, and has nothing of the token in it.
func wantRefused(t *testing.T, err error, token, message string) {
	t.Helper()
	shown, ok := errors.AsType[*chat.Error](err)
	if !ok || shown.Code != chat.CodeUnauthenticated || !strings.Contains(shown.Message, message) {
		t.Fatalf("got %v, want unauthenticated: …%s…", err, message)
	}
	for part := range strings.SplitSeq(token, ".") {
		if len(part) > 4 && strings.Contains(err.Error(), part) {
			t.Errorf("the error has a part of the token in it: %v", err)
		}
	}
}

func TestVerifyReadsTheUser(t *testing.T) {
	exp := time.Now().Add(time.Hour).Truncate(time.Second)
	token := sign(t, jwt.SigningMethodHS256, []byte(secret), jwt.MapClaims{
		"sub": "alice@example.com", "name": " Al\u202eice\n", "roles": []string{"admin", "x"}, "jti": "7", "exp": exp.Unix(),
	})
	user, err := verifier(t, config.Auth{JWTSecret: secret}).Verify(token)
	if err != nil {
		t.Fatal(err)
	}
	if user.ID != "alice@example.com" || user.Name != "Alice" || user.TokenID != "7" ||
		!slices.Equal(user.Roles, []string{"admin", "x"}) || !user.ExpiresAt.Equal(exp) {
		t.Errorf("got %+v", user)
	}
}

func TestVerifyChecksTheClaims(t *testing.T) {
	now := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).Unix() // when every synctest bubble begins
	for name, c := range map[string]struct {
		change  jwt.MapClaims // nil removes
		message string        // empty: accepted
	}{
		"as it is":                  {nil, ""},
		"exp in the year 10000":     {jwt.MapClaims{"exp": 253402300800}, "malformed"},
		"no sub":                    {jwt.MapClaims{"sub": nil}, "malformed"},
		"another case of sub":       {jwt.MapClaims{"sub": nil, "SUB": "admin"}, "malformed"},
		"empty sub":                 {jwt.MapClaims{"sub": ""}, "malformed"},
		"sub is a number":           {jwt.MapClaims{"sub": 7}, "malformed"},
		"sub of 256 bytes":          {jwt.MapClaims{"sub": strings.Repeat("a", 256)}, ""},
		"sub of 257 bytes":          {jwt.MapClaims{"sub": strings.Repeat("a", 257)}, "malformed"},
		"sub with a newline":        {jwt.MapClaims{"sub": "a\nb"}, "malformed"},
		"sub with a control":        {jwt.MapClaims{"sub": "a\u0085b"}, "malformed"},
		"no exp":                    {jwt.MapClaims{"exp": nil}, "malformed"},
		"exp is text":               {jwt.MapClaims{"exp": "soon"}, "malformed"},
		"exp beyond all dates":      {jwt.MapClaims{"exp": 1e300}, "the token"},
		"expired":                   {jwt.MapClaims{"exp": now - 30}, "expired"},
		"expired within the leeway": {jwt.MapClaims{"exp": now - 29}, ""},
		"not yet":                   {jwt.MapClaims{"nbf": now + 31}, "not valid"},
		"not yet within the leeway": {jwt.MapClaims{"nbf": now + 30}, ""},
		"issued later":              {jwt.MapClaims{"iat": now + 31}, "not valid"},
		"issued within the leeway":  {jwt.MapClaims{"iat": now + 30}, ""},
		"iat is text":               {jwt.MapClaims{"iat": "x"}, "malformed"},
		"iat before all dates":      {jwt.MapClaims{"iat": -1e300}, "malformed"},
		"iat beyond all dates":      {jwt.MapClaims{"iat": 1e300}, "the token"},
		"nbf is text":               {jwt.MapClaims{"nbf": "x"}, "malformed"},
		"roles is a string":         {jwt.MapClaims{"roles": "admin"}, "malformed"},
		"roles is an object":        {jwt.MapClaims{"roles": map[string]any{"admin": true}}, "malformed"},
		"roles has a number":        {jwt.MapClaims{"roles": []any{"admin", 1}}, "malformed"},
		"no roles":                  {jwt.MapClaims{"roles": []any{}}, ""},
		"name is a number":          {jwt.MapClaims{"name": 1}, "malformed"},
		"jti is a number":           {jwt.MapClaims{"jti": 1}, "malformed"},
		"any iss and aud":           {jwt.MapClaims{"iss": "x", "aud": []string{"y"}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				claims := jwt.MapClaims{"sub": "alice", "exp": now + 60}
				maps.Copy(claims, c.change)
				maps.DeleteFunc(claims, func(_ string, value any) bool { return value == nil })
				token := sign(t, jwt.SigningMethodHS256, []byte(secret), claims)
				_, err := verifier(t, config.Auth{JWTSecret: secret}).Verify(token)
				if c.message != "" {
					wantRefused(t, err, token, c.message)
				} else if err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestWhenATokenWasIssued(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := verifier(t, config.Auth{JWTSecret: secret})
		now := time.Now()
		for iat, want := range map[any]time.Time{
			now.Unix(): now, float64(now.Unix()) + 0.9: now, nil: {},
		} {
			claims := jwt.MapClaims{"sub": "a", "exp": now.Add(time.Hour).Unix()}
			if iat != nil {
				claims["iat"] = iat
			}
			user, err := v.Verify(sign(t, jwt.SigningMethodHS256, []byte(secret), claims))
			if err != nil || !user.IssuedAt.Equal(want) {
				t.Errorf("iat %v is %v (%v), want %v", iat, user.IssuedAt, err, want)
			}
		}
	})
}

func TestThePreviousSecretIsGoodToo(t *testing.T) {
	const previous = "q7ZJ3vT9mXc2RkW8yLhN4sDgB6fPeUaV"
	v := verifier(t, config.Auth{JWTSecret: secret, PreviousJWTSecret: previous})
	claims := jwt.MapClaims{"sub": "a", "exp": time.Now().Add(time.Hour).Unix()}
	for key, good := range map[string]bool{secret: true, previous: true, previous + secret: false, "": false} {
		token := sign(t, jwt.SigningMethodHS256, []byte(key), claims)
		if _, err := v.Verify(token); good && err != nil {
			t.Error(err)
		} else if !good {
			wantRefused(t, err, token, "not valid")
		}
	}
	token := sign(t, jwt.SigningMethodHS256, []byte(previous), claims)
	_, err := verifier(t, config.Auth{JWTSecret: secret}).Verify(token)
	wantRefused(t, err, token, "not valid")
	expired := sign(t, jwt.SigningMethodHS256, []byte(previous), jwt.MapClaims{"sub": "a", "exp": time.Now().Add(-time.Hour).Unix()})
	_, err = v.Verify(expired)
	wantRefused(t, err, expired, "expired")
}

func TestALongNameIsCut(t *testing.T) {
	token := sign(t, jwt.SigningMethodHS256, []byte(secret),
		jwt.MapClaims{"sub": "a", "exp": time.Now().Add(time.Hour).Unix(), "name": "x" + strings.Repeat("é", 200)})
	user, err := verifier(t, config.Auth{JWTSecret: secret}).Verify(token)
	if err != nil || user.Name != "x"+strings.Repeat("é", 127) {
		t.Errorf("got %q, %v", user.Name, err)
	}
}

func TestIssuerAndAudience(t *testing.T) {
	v := verifier(t, config.Auth{JWTSecret: secret, Issuer: "us", Audience: "chat"})
	exp := time.Now().Add(time.Hour).Unix()
	for _, claims := range []jwt.MapClaims{
		{"iss": "us"}, {"aud": "chat"}, {"iss": "them", "aud": "chat"}, {"iss": "us", "aud": []string{"mail"}}, {},
	} {
		claims["sub"], claims["exp"] = "a", exp
		token := sign(t, jwt.SigningMethodHS256, []byte(secret), claims)
		_, err := v.Verify(token)
		wantRefused(t, err, token, "")
	}
	token := sign(t, jwt.SigningMethodHS256, []byte(secret),
		jwt.MapClaims{"sub": "a", "exp": exp, "iss": "us", "aud": []string{"mail", "chat"}})
	if _, err := v.Verify(token); err != nil {
		t.Error(err)
	}
}

func TestTokensThatAreNone(t *testing.T) {
	v := verifier(t, config.Auth{JWTSecret: secret})
	good := sign(t, jwt.SigningMethodHS256, []byte(secret), jwt.MapClaims{"sub": "a", "exp": time.Now().Add(time.Hour).Unix()})
	parts := strings.Split(good, ".")
	header := func(h string) string { return base64.RawURLEncoding.EncodeToString([]byte(h)) }
	critical := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{"sub": "a", "exp": time.Now().Add(time.Hour).Unix()})
	critical.Header["crit"] = []string{"exp"}
	withCritical, err := critical.SignedString([]byte(secret))
	if err != nil {
		t.Fatal(err)
	}
	for name, token := range map[string]string{
		"empty":             "",
		"no token":          "hello",
		"two parts":         parts[0] + "." + parts[1],
		"no signature":      parts[0] + "." + parts[1] + ".",
		"alg none":          header(`{"alg":"none"}`) + "." + parts[1] + ".",
		"alg NONE":          header(`{"alg":"NONE","typ":"JWT"}`) + "." + parts[1] + "." + parts[2],
		"another algorithm": sign(t, jwt.SigningMethodHS512, []byte(secret), jwt.MapClaims{"sub": "a", "exp": 9e9}),
		"another secret":    sign(t, jwt.SigningMethodHS256, []byte("x"+secret), jwt.MapClaims{"sub": "a", "exp": 9e9}),
		"changed claims":    parts[0] + "." + header(`{"sub":"b","exp":9000000000}`) + "." + parts[2],
		"critical header":   withCritical,
		"garbage header":    header(`{{{{secret-looking-text`) + "." + parts[1] + "." + parts[2],
		"too long":          good + strings.Repeat("A", 8<<10),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := v.Verify(token)
			wantRefused(t, err, token, "the token")
		})
	}
}

func TestPublicKeysFixTheAlgorithm(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	keys := map[jwt.SigningMethod]crypto.Signer{
		jwt.SigningMethodRS256: rsaKey, jwt.SigningMethodES256: ecKey, jwt.SigningMethodEdDSA: edKey,
	}
	claims := jwt.MapClaims{"sub": "a", "exp": time.Now().Add(time.Hour).Unix()}
	for method, key := range keys {
		file := pemFile(t, "PUBLIC KEY", pkix(t, key.Public()))
		v := verifier(t, config.Auth{JWTPublicKeyFile: file})
		for other, otherKey := range keys {
			token := sign(t, other, otherKey, claims)
			if _, err := v.Verify(token); (err == nil) != (other == method) {
				t.Errorf("a token of %s against a key of %s: %v", other.Alg(), method.Alg(), err)
			}
		}
		// Key confusion: the public key, which everybody has, used as an HS256 secret.
		public, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		token := sign(t, jwt.SigningMethodHS256, public, claims)
		_, err = v.Verify(token)
		wantRefused(t, err, token, "not valid")
	}
	v := verifier(t, config.Auth{JWTPublicKeyFile: pemFile(t, "RSA PUBLIC KEY", x509.MarshalPKCS1PublicKey(&rsaKey.PublicKey))})
	if _, err := v.Verify(sign(t, jwt.SigningMethodRS256, rsaKey, claims)); err != nil {
		t.Error(err)
	}
	if _, err := v.Verify(sign(t, jwt.SigningMethodRS512, rsaKey, claims)); err == nil {
		t.Error("a token of RS512 is accepted")
	}
}

func TestPublicKeysThatCannotBeUsed(t *testing.T) {
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(p384)
	if err != nil {
		t.Fatal(err)
	}
	text := filepath.Join(t.TempDir(), "key.pem")
	if err := os.WriteFile(text, []byte("no key"), 0o600); err != nil {
		t.Fatal(err)
	}
	for want, cfg := range map[string]config.Auth{
		"neither a secret nor": {},
		"no such file":         {JWTPublicKeyFile: filepath.Join(t.TempDir(), "none.pem")},
		"not a PEM file":       {JWTPublicKeyFile: text},
		"holds a private key":  {JWTPublicKeyFile: pemFile(t, "PRIVATE KEY", private)},
		"not a key for":        {JWTPublicKeyFile: pemFile(t, "PUBLIC KEY", pkix(t, p384.Public()))},
		"no public key":        {JWTPublicKeyFile: pemFile(t, "PUBLIC KEY", []byte("x"))},
		"of 1024 bits is too":  {JWTPublicKeyFile: pemFile(t, "PUBLIC KEY", pkix(t, shortRSAKey))},
	} {
		if _, err := auth.New(cfg, nil, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want …%s…", err, want)
		}
	}
}

func TestSignedTokensVerify(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		user := chat.User{ID: "alice", Name: "Alice", Roles: []string{"agent"}, TokenID: "t1"}
		token, err := auth.Sign(secret, user, "us", "chat", time.Now(), time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		v := verifier(t, config.Auth{JWTSecret: secret, Issuer: "us", Audience: "chat"})
		got, err := v.Verify(token)
		if err != nil {
			t.Fatal(err)
		}
		user.IssuedAt, user.ExpiresAt = time.Now().UTC(), time.Now().Add(time.Hour).UTC()
		if got.ID != user.ID || got.Name != user.Name || !slices.Equal(got.Roles, user.Roles) ||
			got.TokenID != user.TokenID || !got.IssuedAt.Equal(user.IssuedAt) || !got.ExpiresAt.Equal(user.ExpiresAt) {
			t.Errorf("got %+v, want %+v", got, user)
		}
		time.Sleep(time.Hour + 30*time.Second)
		_, err = v.Verify(token)
		wantRefused(t, err, token, "expired")
	})
	for name, sign := range map[string]func() (string, error){
		"no secret": func() (string, error) { return auth.Sign("", chat.User{ID: "a"}, "", "", time.Now(), time.Hour) },
		"no user":   func() (string, error) { return auth.Sign(secret, chat.User{}, "", "", time.Now(), time.Hour) },
		"no time":   func() (string, error) { return auth.Sign(secret, chat.User{ID: "a"}, "", "", time.Now(), 0) },
	} {
		if token, err := sign(); err == nil {
			t.Errorf("%s: got %q", name, token)
		}
	}
}

func pkix(t *testing.T, key any) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func pemFile(t *testing.T, kind string, der []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "key.pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
