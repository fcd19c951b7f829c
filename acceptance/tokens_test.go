//go:build unix

package acceptance_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// previousSecret is one that secret has replaced.
const previousSecret = "Xw4mZt8KcVq2LbNf6RyHs9JdPgTa3UeE"

const unauthenticated = "401 unauthenticated"

// signer is a private key, and how tokens are signed with it.
type signer struct {
	method jwt.SigningMethod
	key    crypto.Signer
}

// signers gives a key of each kind that Parley takes.
func signers(t *testing.T) map[string]signer {
	t.Helper()
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]signer{
		"RS256": {jwt.SigningMethodRS256, rsaKey},
		"ES256": newES256(t),
		"EdDSA": {jwt.SigningMethodEdDSA, ed25519.NewKeyFromSeed(make([]byte, 32))},
	}
}

func newES256(t *testing.T) signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return signer{jwt.SigningMethodES256, key}
}

func (s signer) token(t *testing.T, kid string) string {
	t.Helper()
	return signedBy(t, s.method, s.key, kid, nil)
}

// publicPEM writes the public key to a file.
func (s signer) publicPEM(t *testing.T) (path string) {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(s.key.Public())
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(t.TempDir(), "key.pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// jwk gives the public key as it is published.
func (s signer) jwk(t *testing.T, kid string) map[string]string {
	t.Helper()
	b64 := base64.RawURLEncoding.EncodeToString
	switch key := s.key.Public().(type) {
	case *rsa.PublicKey:
		e := big.NewInt(int64(key.E)).Bytes()
		return map[string]string{"kid": kid, "kty": "RSA", "use": "sig", "alg": "RS256", "n": b64(key.N.Bytes()), "e": b64(e)}
	case *ecdsa.PublicKey:
		point, err := key.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		return map[string]string{"kid": kid, "kty": "EC", "crv": "P-256", "x": b64(point[1:33]), "y": b64(point[33:])}
	case ed25519.PublicKey:
		return map[string]string{"kid": kid, "kty": "OKP", "crv": "Ed25519", "x": b64(key)}
	}
	t.Fatal("no key to publish")
	return nil
}

// signedBy signs a token of alice's, good for an hour; nil among the changes takes a claim out.
func signedBy(t *testing.T, method jwt.SigningMethod, key any, kid string, changes jwt.MapClaims) string {
	t.Helper()
	claims := jwt.MapClaims{"sub": "alice", "exp": time.Now().Add(time.Hour).Unix()}
	maps.Copy(claims, changes)
	maps.DeleteFunc(claims, func(_ string, value any) bool { return value == nil })
	token := jwt.NewWithClaims(method, claims)
	if kid != "" {
		token.Header["kid"] = kid
	}
	signed, err := token.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return keepSecret("a token", signed)
}

// admits reports how the server answers who comes with a token: "open", or the status and the code of the refusal.
func (s *server) admits(token string) string {
	s.t.Helper()
	c, resp, err := s.tryDial(token, nil)
	if err != nil {
		return problem(s.t, resp)
	}
	c.conn.CloseNow()
	return "open"
}

func (s *server) wantAdmitted(what, token, want string) {
	s.t.Helper()
	if got := s.admits(token); got != want {
		s.t.Errorf("%s: %s, want %s", what, got, want)
	}
}

func TestTokensThatAreRefused(t *testing.T) {
	s := startServer(t, eliza, "auth: {jwt_secret: "+secret+", issuer: us, audience: chat}\n")
	now := time.Now()
	sign := func(changes jwt.MapClaims) string {
		all := jwt.MapClaims{"iss": "us", "aud": []string{"mail", "chat"}}
		maps.Copy(all, changes)
		return signedBy(t, jwt.SigningMethodHS256, []byte(secret), "", all)
	}
	alice, bob := strings.Split(sign(nil), "."), strings.Split(sign(jwt.MapClaims{"sub": "bob"}), ".")
	for what, c := range map[string]struct{ token, want string }{
		"as it should be":          {sign(nil), "open"},
		"alg none":                 {signedBy(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, "", jwt.MapClaims{"iss": "us", "aud": "chat"}), unauthenticated},
		"HS512":                    {signedBy(t, jwt.SigningMethodHS512, []byte(secret), "", jwt.MapClaims{"iss": "us", "aud": "chat"}), unauthenticated},
		"another secret":           {signedBy(t, jwt.SigningMethodHS256, []byte(previousSecret), "", jwt.MapClaims{"iss": "us", "aud": "chat"}), unauthenticated},
		"another issuer":           {sign(jwt.MapClaims{"iss": "them"}), unauthenticated},
		"no issuer":                {sign(jwt.MapClaims{"iss": nil}), unauthenticated},
		"another audience":         {sign(jwt.MapClaims{"aud": "mail"}), unauthenticated},
		"no audience":              {sign(jwt.MapClaims{"aud": nil}), unauthenticated},
		"nbf in the future":        {sign(jwt.MapClaims{"nbf": now.Add(time.Hour).Unix()}), unauthenticated},
		"nbf within the skew":      {sign(jwt.MapClaims{"nbf": now.Add(15 * time.Second).Unix()}), "open"},
		"issued in the future":     {sign(jwt.MapClaims{"iat": now.Add(time.Hour).Unix()}), unauthenticated},
		"iat is no number":         {sign(jwt.MapClaims{"iat": "now"}), unauthenticated},
		"expired beyond the skew":  {sign(jwt.MapClaims{"exp": now.Add(-31 * time.Second).Unix()}), unauthenticated},
		"expired within the skew":  {sign(jwt.MapClaims{"exp": now.Add(-time.Second).Unix()}), "open"},
		"no exp":                   {sign(jwt.MapClaims{"exp": nil}), unauthenticated},
		"no sub":                   {sign(jwt.MapClaims{"sub": nil}), unauthenticated},
		"the signature of another": {alice[0] + "." + bob[1] + "." + alice[2], unauthenticated},
	} {
		s.wantAdmitted(what, c.token, c.want)
	}
}

func TestTokensOfAPublicKeyFile(t *testing.T) {
	all := signers(t)
	for name, own := range all {
		t.Run(name, func(t *testing.T) {
			file := own.publicPEM(t)
			s := startServer(t, eliza, "auth: {jwt_public_key_file: "+file+"}\n")
			for other, signer := range all {
				want := unauthenticated
				if other == name {
					want = "open"
				}
				s.wantAdmitted("a token of "+other, signer.token(t, ""), want)
			}
			public, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			s.wantAdmitted("key confusion", signedBy(t, jwt.SigningMethodHS256, public, "", nil), unauthenticated)
		})
	}
}

// publisher publishes keys.
type publisher struct {
	*httptest.Server

	mu    sync.Mutex // guards the fields below
	keys  []map[string]string
	asked int
}

func startPublisher(t *testing.T, keys ...map[string]string) *publisher {
	t.Helper()
	p := &publisher{keys: keys}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.asked++
		_ = json.NewEncoder(w).Encode(map[string]any{"keys": p.keys})
	}))
	t.Cleanup(p.Close)
	return p
}

func (p *publisher) publish(keys ...map[string]string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.keys = keys
}

func (p *publisher) requests() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked
}

func (p *publisher) section() string { return "auth: {jwks_url: \"" + p.URL + "/jwks.json\"}\n" }

func TestJWKSTokens(t *testing.T) {
	all := signers(t)
	var keys []map[string]string
	for name, signer := range all {
		keys = append(keys, signer.jwk(t, "kid-"+name))
	}
	symmetric := map[string]string{"kid": "oct", "kty": "oct", "alg": "HS256", "k": base64.RawURLEncoding.EncodeToString([]byte(secret))}
	s := startServer(t, eliza, startPublisher(t, append(keys, symmetric)...).section())
	for name, signer := range all {
		s.wantAdmitted(name, signer.token(t, "kid-"+name), "open")
	}
	s.wantAdmitted("another's kid", all["ES256"].token(t, "kid-RS256"), unauthenticated)
	s.wantAdmitted("no kid among several keys", all["ES256"].token(t, ""), unauthenticated)
	s.wantAdmitted("a symmetric key", signedBy(t, jwt.SigningMethodHS256, []byte(secret), "oct", nil), unauthenticated)
	public, err := os.ReadFile(all["RS256"].publicPEM(t))
	if err != nil {
		t.Fatal(err)
	}
	s.wantAdmitted("key confusion", signedBy(t, jwt.SigningMethodHS256, public, "kid-RS256", nil), unauthenticated)
}

func TestJWKSKeysAreRotatedWithoutARestart(t *testing.T) {
	before, after := newES256(t), newES256(t)
	p := startPublisher(t, before.jwk(t, "before"))
	s := startServer(t, eliza, p.section())
	s.wantAdmitted("without kid, the only key", before.token(t, ""), "open")
	s.wantAdmitted("the key that is published", before.token(t, "before"), "open")
	p.publish(after.jwk(t, "after"))
	s.wantAdmitted("the new key", after.token(t, "after"), "open")
	s.wantAdmitted("the old key", before.token(t, "before"), unauthenticated)
	for n := range 10 {
		s.wantAdmitted("a made-up kid", after.token(t, fmt.Sprint(n)), unauthenticated)
	}
	if n := p.requests(); n > 3 { // at the start, for the new key, and once more on a machine that takes its time
		t.Errorf("made-up kids: the keys were asked for %d times", n)
	}
}

func TestJWKSServerThatGoesAwayIsOnlyLogged(t *testing.T) {
	key := newES256(t)
	p := startPublisher(t, key.jwk(t, "k"))
	s := startServer(t, eliza, p.section())
	p.Close()
	s.wantAdmitted("an unknown key", key.token(t, "other"), unauthenticated)
	s.awaitLog("auth.jwks_url: the keys cannot be read: those that are known go on")
	s.wantAdmitted("a known key", key.token(t, "k"), "open")
}

func TestJWKSThatCannotBeReadDoesNotStart(t *testing.T) {
	p := startPublisher(t, map[string]string{"kid": "oct", "kty": "oct", "k": "c2VjcmV0"})
	gone := startPublisher(t)
	gone.Close()
	for what, section := range map[string]string{"no usable key": p.section(), "unreachable": gone.section()} {
		code, stderr := refusedConfig(t, eliza, section)
		if code == 0 || !strings.Contains(stderr, "auth.jwks_url") {
			t.Errorf("%s: the server exits with %d: %s", what, code, stderr)
		}
		_, path := configuration(t, eliza, section)
		if code, _, stderr := runParley(t, "check", "--config", path); code == 0 || !strings.Contains(stderr, "auth.jwks_url") {
			t.Errorf("%s: check exits with %d: %s", what, code, stderr)
		}
	}
}

func TestTokensOfThePreviousSecret(t *testing.T) {
	s := startServer(t, eliza, "auth: {jwt_secret: "+secret+", previous_jwt_secret: "+previousSecret+"}\n")
	s.wantAdmitted("a token of the secret", token("alice"), "open")
	s.wantAdmitted("one of the previous secret", signedBy(t, jwt.SigningMethodHS256, []byte(previousSecret), "", nil), "open")
	code, made, stderr := runParley(t, "token", "--config", s.config, "--sub", "alice")
	if code != 0 {
		t.Fatalf("token exits with %d: %s", code, stderr)
	}
	startServer(t, eliza).wantAdmitted("a new token", strings.TrimSpace(made), "open") // it knows the new secret only

	code, stderr = refusedConfig(t, eliza, "auth: {jwt_secret: "+secret+", previous_jwt_secret: "+secret+"}\n")
	if code != 2 || !strings.Contains(stderr, "auth.previous_jwt_secret") || strings.Contains(stderr, secret) {
		t.Errorf("with the same secret twice the server exits with %d: %s", code, stderr)
	}
}

func TestATokenWithoutTheRoleEndsTheTakeover(t *testing.T) {
	s := startServer(t, eliza)
	user, agent := s.dial(token("alice")), s.dial(token("ann", "agent"))
	user.open()
	agent.open("session_id", user.session, "as", "agent")
	user.until("agent.joined")
	agent.send("auth.refresh", "token", token("ann", "agent"), "ref", "kept")
	agent.until("auth.refreshed")
	agent.send("message.send", "message_id", "a1", "text", "How can I help?")
	user.until("message.created")
	agent.send("auth.refresh", "token", token("ann"), "ref", "dropped")
	if f := agent.until("auth.refreshed"); f.str("ref") != "dropped" {
		t.Errorf("the refresh is answered with %v", f)
	}
	if f := user.until("agent.left"); f.str("author", "id") != "ann" {
		t.Errorf("the user is told %v", f)
	}
	if f := agent.sendRefused("message.send", "message_id", "a2", "text", "still here"); f.str("error", "code") != "session_not_open" {
		t.Errorf("the former agent is told %v", f)
	}
	if f := agent.sendRefused("session.open", "session_id", user.session, "as", "agent"); f.str("error", "code") != "forbidden" {
		t.Errorf("the former agent, who opens it again, is told %v", f)
	}
	user.ask("q", "hello")
}
