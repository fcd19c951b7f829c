package auth

import (
	"bytes"
	"context"
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
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/config"
)

// These look inside, for an issuer that time in a bubble stands still with: it is no server, but the transport to one.

// issuer publishes keys. It counts how often it is asked.
type issuer struct {
	mu    sync.Mutex // guards the fields below
	keys  []jwk
	body  string // instead of the keys
	err   error
	hangs bool
	asked int
}

type jwk map[string]any

func (i *issuer) RoundTrip(r *http.Request) (*http.Response, error) {
	i.mu.Lock()
	i.asked++
	body, err, hangs := i.body, i.err, i.hangs
	if body == "" {
		b, _ := json.Marshal(map[string]any{"keys": i.keys})
		body = string(b)
	}
	i.mu.Unlock()
	if hangs {
		<-r.Context().Done()
		return nil, context.Cause(r.Context())
	}
	if err != nil {
		return nil, err
	}
	return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
}

func (i *issuer) set(change func(*issuer)) {
	i.mu.Lock()
	defer i.mu.Unlock()
	change(i)
}

func (i *issuer) requests() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.asked
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// published gives a key as an issuer publishes it; kv are more members.
func published(kid string, public crypto.PublicKey, kv ...any) jwk {
	k := jwk{"kid": kid, "use": "sig"}
	switch p := public.(type) {
	case *rsa.PublicKey:
		k["kty"], k["n"], k["e"] = "RSA", b64(p.N.Bytes()), b64(big.NewInt(int64(p.E)).Bytes())
	case *ecdsa.PublicKey:
		point, err := p.Bytes()
		if err != nil {
			panic(err)
		}
		size := (len(point) - 1) / 2
		k["kty"], k["crv"], k["x"], k["y"] = "EC", p.Curve.Params().Name, b64(point[1:1+size]), b64(point[1+size:])
	case ed25519.PublicKey:
		k["kty"], k["crv"], k["x"] = "OKP", "Ed25519", b64(p)
	}
	for n := 0; n < len(kv); n += 2 {
		k[kv[n].(string)] = kv[n+1]
	}
	return k
}

// The keys of the tests, made once: an RSA key takes its time.
var (
	rsaKey   = sync.OnceValue(func() *rsa.PrivateKey { return made(rsa.GenerateKey(rand.Reader, 2048)) })
	ecKey    = sync.OnceValue(func() *ecdsa.PrivateKey { return made(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) })
	otherKey = sync.OnceValue(func() *ecdsa.PrivateKey { return made(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) })
	p384Key  = sync.OnceValue(func() *ecdsa.PrivateKey { return made(ecdsa.GenerateKey(elliptic.P384(), rand.Reader)) })
	edKey    = sync.OnceValue(func() ed25519.PrivateKey { return ed25519.NewKeyFromSeed(make([]byte, 32)) })
)

func made[K any](key K, err error) K {
	if err != nil {
		panic(err)
	}
	return key
}

func signed(method jwt.SigningMethod, key any, kid any) string {
	token := jwt.NewWithClaims(method, jwt.MapClaims{"sub": "alice", "exp": time.Now().Add(24 * time.Hour).Unix()})
	if kid != nil {
		token.Header["kid"] = kid
	}
	return made(token.SignedString(key))
}

func newVerifier(t *testing.T, from *issuer, log *slog.Logger) *Verifier {
	t.Helper()
	keys, err := newKeySet("https://id.example.com/jwks.json", from, log)
	if err != nil {
		t.Fatal(err)
	}
	return &Verifier{parser: newParser(config.Auth{}, publicKeyAlgorithms), key: keys.find, keys: keys}
}

func accepts(t *testing.T, v *Verifier, token string) bool {
	t.Helper()
	_, err := v.Verify(token)
	if shown, ok := errors.AsType[*chat.Error](err); err != nil && (!ok || shown.Code != chat.CodeUnauthenticated) {
		t.Errorf("the refusal is %v", err)
	}
	return err == nil
}

var quiet = slog.New(slog.DiscardHandler)

func TestTokensOfAPublishedKey(t *testing.T) {
	v := newVerifier(t, &issuer{keys: []jwk{
		published("r", &rsaKey().PublicKey, "alg", "RS256"), published("e", &ecKey().PublicKey), published("d", edKey().Public()),
	}}, quiet)
	defer v.Close()
	for name, c := range map[string]struct {
		token string
		want  bool
	}{
		"RS256":             {signed(jwt.SigningMethodRS256, rsaKey(), "r"), true},
		"ES256":             {signed(jwt.SigningMethodES256, ecKey(), "e"), true},
		"EdDSA":             {signed(jwt.SigningMethodEdDSA, edKey(), "d"), true},
		"another's kid":     {signed(jwt.SigningMethodES256, ecKey(), "r"), false},
		"another key":       {signed(jwt.SigningMethodES256, otherKey(), "e"), false},
		"RS512":             {signed(jwt.SigningMethodRS512, rsaKey(), "r"), false},
		"PS256":             {signed(jwt.SigningMethodPS256, rsaKey(), "r"), false},
		"no kid":            {signed(jwt.SigningMethodRS256, rsaKey(), nil), false},
		"empty kid":         {signed(jwt.SigningMethodRS256, rsaKey(), ""), false},
		"a number as kid":   {signed(jwt.SigningMethodRS256, rsaKey(), 7), false},
		"alg none":          {signed(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, "r"), false},
		"HS256 of the PEM":  {signed(jwt.SigningMethodHS256, publicPEM(&rsaKey().PublicKey), "r"), false},
		"HS256 of the DER":  {signed(jwt.SigningMethodHS256, made(x509.MarshalPKIXPublicKey(&rsaKey().PublicKey)), "r"), false},
		"HS256 of EdDSA":    {signed(jwt.SigningMethodHS256, []byte(edKey().Public().(ed25519.PublicKey)), "d"), false},
		"HS256 of its text": {signed(jwt.SigningMethodHS256, []byte(b64(edKey().Public().(ed25519.PublicKey))), "d"), false},
	} {
		if got := accepts(t, v, c.token); got != c.want {
			t.Errorf("%s: accepted %v", name, got)
		}
	}
}

func publicPEM(key any) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: made(x509.MarshalPKIXPublicKey(key))})
}

func TestATokenWithoutKIDNeedsTheOnlyKey(t *testing.T) {
	enc, oct := published("enc", &rsaKey().PublicKey, "use", "enc"), jwk{"kty": "oct", "kid": "oct", "k": b64(make([]byte, 32))}
	for name, c := range map[string]struct {
		keys []jwk
		want bool
	}{
		"one":                   {[]jwk{published("e", &ecKey().PublicKey)}, true},
		"one without kid":       {[]jwk{published("", &ecKey().PublicKey)}, true},
		"one that is usable":    {[]jwk{enc, oct, published("e", &ecKey().PublicKey)}, true},
		"two":                   {[]jwk{published("e", &ecKey().PublicKey), published("f", &otherKey().PublicKey)}, false},
		"one of another type":   {[]jwk{published("d", edKey().Public())}, false},
		"two of different type": {[]jwk{published("e", &ecKey().PublicKey), published("d", edKey().Public())}, false},
	} {
		v := newVerifier(t, &issuer{keys: c.keys}, quiet)
		if got := accepts(t, v, signed(jwt.SigningMethodES256, ecKey(), nil)); got != c.want {
			t.Errorf("%s: accepted %v", name, got)
		}
		v.Close()
	}
}

func TestKeysThatAreNotUsed(t *testing.T) {
	short := &rsa.PublicKey{N: new(big.Int).SetBit(big.NewInt(1), 1023, 1), E: 65537}
	huge := &rsa.PublicKey{N: new(big.Int).SetBit(big.NewInt(1), 20_000, 1), E: 65537}
	offCurve := published("k", &ecKey().PublicKey)
	offCurve["x"] = offCurve["y"]
	for name, key := range map[string]any{
		"symmetric":            jwk{"kty": "oct", "kid": "k", "alg": "HS256", "k": b64(make([]byte, 32))},
		"for encryption":       published("k", &ecKey().PublicKey, "use", "enc"),
		"for something else":   published("k", &ecKey().PublicKey, "use", "x"),
		"for signing":          published("k", &ecKey().PublicKey, "key_ops", []string{"sign"}),
		"RSA of 1024 bits":     published("k", short),
		"RSA of 20000 bits":    published("k", huge),
		"another algorithm":    published("k", &rsaKey().PublicKey, "alg", "PS256"),
		"a symmetric one":      published("k", &rsaKey().PublicKey, "alg", "HS256"),
		"P-384":                published("k", &p384Key().PublicKey),
		"not on the curve":     offCurve,
		"X25519":               jwk{"kty": "OKP", "crv": "X25519", "kid": "k", "x": b64(make([]byte, 32))},
		"its private part":     published("k", edKey().Public(), "d", b64(edKey().Seed())),
		"an unknown type":      jwk{"kty": "AKP", "kid": "k"},
		"members of no type":   jwk{"kty": 7, "kid": []int{1}},
		"no key":               jwk{},
		"null":                 nil,
		"a number":             7,
		"no certificate of it": published("k", &ecKey().PublicKey, "x5c", []string{"AAAA"}),
	} {
		body := made(json.Marshal(map[string]any{"keys": []any{key}}))
		_, err := newKeySet("https://id.example.com", &issuer{body: string(body)}, quiet)
		if !errors.Is(err, errNoKeys) {
			t.Errorf("%s: %v", name, err)
		}
		// It takes nothing from the others.
		body = made(json.Marshal(map[string]any{"keys": []any{key, published("e", &ecKey().PublicKey)}}))
		v := newVerifier(t, &issuer{body: string(body)}, quiet)
		if !accepts(t, v, signed(jwt.SigningMethodES256, ecKey(), "e")) {
			t.Errorf("%s: the key beside it is not used", name)
		}
		v.Close()
	}
}

func TestAKeySetThatCannotBeReadIsAnErrorAtStart(t *testing.T) {
	for name, c := range map[string]struct {
		from *issuer
		want string
	}{
		"unreachable": {&issuer{err: errors.New("connection refused")}, "connection refused"},
		"no keys":     {&issuer{keys: []jwk{}}, "has no key for"},
		"HTML":        {&issuer{body: "<html>"}, "not a JWK set"},
		"null":        {&issuer{body: "null"}, "not a JWK set"},
		"an object":   {&issuer{body: `{"issuer": "x"}`}, "not a JWK set"},
		"too long":    {&issuer{body: `{"keys": [` + strings.Repeat(" ", maxSetBytes) + `]}`}, "longer than 1 MiB"},
	} {
		_, err := newKeySet("https://u:hunter2@id.example.com", c.from, quiet)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", name, err)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		_, err := newKeySet("https://id.example.com", &issuer{hangs: true}, quiet)
		if err == nil || time.Since(start) != 10*time.Second {
			t.Errorf("one that hangs: %v, after %v", err, time.Since(start))
		}
	})
	status := httptest.NewServer(http.NotFoundHandler())
	defer status.Close()
	_, err := New(config.Auth{JWKSURL: status.URL}, nil, quiet)
	if err == nil || !strings.HasPrefix(err.Error(), "auth.jwks_url: the answer has the status 404") {
		t.Errorf("%v", err)
	}
}

func TestKeysAreReadEveryHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		from := &issuer{keys: []jwk{published("old", &ecKey().PublicKey)}}
		v := newVerifier(t, from, quiet)
		defer v.Close()
		from.set(func(i *issuer) { i.keys = []jwk{published("new", &otherKey().PublicKey)} })
		time.Sleep(time.Hour)
		synctest.Wait()
		if from.requests() != 2 || !accepts(t, v, signed(jwt.SigningMethodES256, otherKey(), "new")) ||
			accepts(t, v, signed(jwt.SigningMethodES256, ecKey(), "old")) {
			t.Errorf("after an hour it was asked %d times", from.requests())
		}
	})
}

func TestAnUnknownKeyIsAskedForAtOnceAndNotTooOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		from := &issuer{keys: []jwk{published("old", &ecKey().PublicKey)}}
		v := newVerifier(t, from, quiet)
		defer v.Close()
		from.set(func(i *issuer) { i.keys = append(i.keys, published("new", &otherKey().PublicKey)) })
		for _, kid := range []string{"new", "old"} {
			if key := map[string]any{"new": otherKey(), "old": ecKey()}[kid]; !accepts(t, v, signed(jwt.SigningMethodES256, key, kid)) {
				t.Errorf("%s is refused", kid)
			}
		}
		// Somebody makes up keys.
		start := time.Now()
		for n := range 1000 {
			if accepts(t, v, signed(jwt.SigningMethodES256, otherKey(), fmt.Sprint(n))) {
				t.Fatal("a made-up kid is accepted")
			}
		}
		if from.requests() != 2 || time.Since(start) != 0 {
			t.Errorf("a thousand unknown keys: it was asked %d times, in %v", from.requests(), time.Since(start))
		}
		from.set(func(i *issuer) { i.keys = []jwk{published("newer", &ecKey().PublicKey)} })
		time.Sleep(demandInterval)
		if !accepts(t, v, signed(jwt.SigningMethodES256, ecKey(), "newer")) || from.requests() != 3 {
			t.Errorf("later: it was asked %d times", from.requests())
		}
	})
}

func TestAnIssuerThatHangsHoldsNobodyUpForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		from := &issuer{keys: []jwk{published("k", &ecKey().PublicKey)}}
		v := newVerifier(t, from, quiet)
		from.set(func(i *issuer) { i.hangs = true })
		var asking sync.WaitGroup
		start := time.Now()
		for n := range 100 {
			asking.Go(func() { accepts(t, v, signed(jwt.SigningMethodES256, otherKey(), fmt.Sprint(n))) })
		}
		synctest.Wait()
		if !accepts(t, v, signed(jwt.SigningMethodES256, ecKey(), "k")) || time.Since(start) != 0 {
			t.Errorf("a known key waits %v", time.Since(start))
		}
		asking.Wait()
		if took := time.Since(start); took != demandWait || from.requests() != 2 {
			t.Errorf("unknown keys wait %v; it was asked %d times", took, from.requests())
		}
		v.Close() // which does not wait for the answer
		if took := time.Since(start); took != demandWait {
			t.Errorf("closing takes until %v", took)
		}
		if !accepts(t, v, signed(jwt.SigningMethodES256, ecKey(), "k")) || accepts(t, v, signed(jwt.SigningMethodES256, ecKey(), "x")) ||
			time.Since(start) != demandWait {
			t.Error("after Close what is known is not known")
		}
	})
}

func TestAnIssuerThatIsAwayIsOnlyLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logs bytes.Buffer
		from := &issuer{keys: []jwk{published("k", &ecKey().PublicKey)}}
		v := newVerifier(t, from, slog.New(slog.NewTextHandler(&logs, nil)))
		for _, change := range []func(*issuer){
			func(i *issuer) { i.err = errors.New("connection refused") },
			func(i *issuer) { i.err, i.body = nil, "<html>" },
		} {
			from.set(change)
			time.Sleep(time.Hour)
			synctest.Wait()
			if !accepts(t, v, signed(jwt.SigningMethodES256, ecKey(), "k")) {
				t.Error("the old key is refused")
			}
		}
		from.set(func(i *issuer) { i.body = "" })
		time.Sleep(retryInterval)
		synctest.Wait()
		v.Close()
		if strings.Count(logs.String(), "level=WARN") != 1 || strings.Count(logs.String(), "are read again") != 1 {
			t.Errorf("the log: %s", logs.String())
		}
	})
}

func TestAnIssuerThatWithdrawsAllKeysIsObeyed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logs bytes.Buffer
		from := &issuer{keys: []jwk{published("k", &ecKey().PublicKey)}}
		v := newVerifier(t, from, slog.New(slog.NewTextHandler(&logs, nil)))
		from.set(func(i *issuer) { i.keys = []jwk{} })
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if accepts(t, v, signed(jwt.SigningMethodES256, ecKey(), "k")) {
			t.Error("a key that was withdrawn is used")
		}
		v.Close()
		if strings.Count(logs.String(), "every token is refused") != 1 {
			t.Errorf("the log: %s", logs.String())
		}
	})
}

func TestPlainHTTPIsWarnedOf(t *testing.T) {
	for address, want := range map[string]bool{
		"http://id.example.com/jwks": true, "http://10.0.0.1": true, "https://id.example.com/jwks": false,
		"http://localhost:1/jwks": false, "http://127.0.0.1:1/jwks": false, "http://[::1]:1": false,
		"http://localhost.example.com": true,
	} {
		var logs bytes.Buffer
		keys, err := newKeySet(address, &issuer{keys: []jwk{published("k", &ecKey().PublicKey)}}, slog.New(slog.NewTextHandler(&logs, nil)))
		if err != nil {
			t.Fatal(err)
		}
		keys.close()
		if got := strings.Contains(logs.String(), "security: auth.jwks_url"); got != want {
			t.Errorf("%s: warned %v", address, got)
		}
	}
}

func TestRedirectsStayOnHTTPS(t *testing.T) {
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"keys": []jwk{published("k", &ecKey().PublicKey)}})
	}))
	defer plain.Close()
	redirect := http.RedirectHandler(plain.URL, http.StatusFound)
	secure := httptest.NewTLSServer(redirect)
	defer secure.Close()
	if _, err := newKeySet(secure.URL, secure.Client().Transport, quiet); err == nil || !strings.Contains(err.Error(), "https to http") {
		t.Errorf("from https to http: %v", err)
	}
	other := httptest.NewServer(redirect)
	defer other.Close()
	v, err := New(config.Auth{JWKSURL: other.URL}, nil, quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	if !accepts(t, v, signed(jwt.SigningMethodES256, ecKey(), "k")) {
		t.Error("after a redirect the key is not known")
	}
}
