// Package auth tells who speaks: it turns a token into a [chat.User], finds the token in a request, and signs the
// tokens that the command line hands out.
package auth

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/golang-jwt/jwt/v5"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/config"
)

// Leeway is how far a token's times may be off, for clocks that differ.
const Leeway = 30 * time.Second

const (
	maxTokenBytes = 8 << 10
	maxClaimBytes = 256 // of sub, name and jti
)

// Verifier checks tokens. It is safe for concurrent use. Close ends it.
type Verifier struct {
	parser      *jwt.Parser
	key         func(*jwt.Token) (any, error)
	keys        *keySet      // nil: the key is configured
	revocations *Revocations // nil: nothing is revoked
}

// New makes a verifier for the configured key: HS256 for a secret; for a public key, be it configured or published at
// the configured URL, the one algorithm that its type allows. A token cannot choose another. Tokens that were revoked
// are refused; revocations may be nil.
//
// Keys that are published are fetched before New returns, and again in the background until [Verifier.Close].
func New(cfg config.Auth, revocations *Revocations, log *slog.Logger) (*Verifier, error) {
	v := &Verifier{revocations: revocations}
	algorithms := []string{jwt.SigningMethodHS256.Alg()}
	switch {
	case cfg.JWTSecret != "":
		v.key = one(secrets(cfg))
	case cfg.JWTPublicKeyFile != "":
		method, key, err := readPublicKey(cfg.JWTPublicKeyFile)
		if err != nil {
			return nil, fmt.Errorf("auth.jwt_public_key_file: %w", err)
		}
		algorithms, v.key = []string{method.Alg()}, one(key)
	case cfg.JWKSURL != "":
		keys, err := newKeySet(cfg.JWKSURL, newTransport(), log)
		if err != nil {
			return nil, fmt.Errorf("auth.jwks_url: %w", err)
		}
		algorithms, v.key, v.keys = publicKeyAlgorithms, keys.find, keys
	default:
		return nil, errors.New("auth: neither a secret nor a public key")
	}
	v.parser = newParser(cfg, algorithms)
	return v, nil
}

// Close ends what runs in the background and waits for it. Tokens can still be verified, with the keys that are known.
func (v *Verifier) Close() {
	if v.keys != nil {
		v.keys.close()
	}
}

func newParser(cfg config.Auth, algorithms []string) *jwt.Parser {
	options := []jwt.ParserOption{
		jwt.WithValidMethods(algorithms),
		jwt.WithLeeway(Leeway),
		jwt.WithExpirationRequired(),
		jwt.WithIssuedAt(),
		jwt.WithStrictDecoding(),
	}
	if cfg.Issuer != "" {
		options = append(options, jwt.WithIssuer(cfg.Issuer))
	}
	if cfg.Audience != "" {
		options = append(options, jwt.WithAudience(cfg.Audience))
	}
	return jwt.NewParser(options...)
}

// secrets gives the secret that tokens are signed with, and the one before it while it is still good.
func secrets(cfg config.Auth) any {
	keys := []jwt.VerificationKey{[]byte(cfg.JWTSecret)}
	if cfg.PreviousJWTSecret != "" {
		keys = append(keys, []byte(cfg.PreviousJWTSecret))
	}
	return jwt.VerificationKeySet{Keys: keys}
}

func one(key any) func(*jwt.Token) (any, error) {
	return func(*jwt.Token) (any, error) { return key, nil }
}

// Verify checks a token and returns the user that it speaks for. Any error is a [chat.Error] of
// [chat.CodeUnauthenticated] whose text has nothing of the token in it.
func (v *Verifier) Verify(token string) (chat.User, error) {
	if len(token) > maxTokenBytes {
		return chat.User{}, malformed(errors.New("longer than 8 KiB"))
	}
	// The claims are a map because a struct's names match in any case: "SUB" would be a sub.
	claims := jwt.MapClaims{}
	if _, err := v.parser.ParseWithClaims(token, claims, v.keyFor); err != nil {
		return chat.User{}, refusal(err)
	}
	user, err := userOf(claims)
	if err != nil {
		return chat.User{}, malformed(err)
	}
	if v.revocations != nil && v.revocations.Revoked(user) {
		return chat.User{}, unauthenticated("the token was revoked", errors.New("revoked"))
	}
	return user, nil
}

// keyFor gives the key for a token, unless it has a header that changes how it is to be understood (RFC 7515 §4.1.11).
func (v *Verifier) keyFor(token *jwt.Token) (any, error) {
	if _, critical := token.Header["crit"]; critical {
		return nil, errors.New("crit is not supported")
	}
	return v.key(token)
}

// refusals are what a token can be refused for, and what is shown then; what is more telling stands first. The parser's
// own error is not passed on, for it quotes the token.
var refusals = []struct {
	reason  error
	message string
}{
	{jwt.ErrTokenExpired, "the token has expired"},
	{jwt.ErrTokenNotValidYet, notValid},
	{jwt.ErrTokenUsedBeforeIssued, notValid},
	{jwt.ErrTokenInvalidIssuer, notValid},
	{jwt.ErrTokenInvalidAudience, notValid},
	{jwt.ErrTokenRequiredClaimMissing, isMalformed},
	{jwt.ErrInvalidType, isMalformed},
	{jwt.ErrTokenSignatureInvalid, notValid},
	{jwt.ErrTokenMalformed, isMalformed},
	{jwt.ErrTokenUnverifiable, notValid},
}

const (
	notValid    = "the token is not valid here"
	isMalformed = "the token is malformed"
)

func refusal(err error) *chat.Error {
	for _, r := range refusals {
		if errors.Is(err, r.reason) {
			return unauthenticated(r.message, r.reason)
		}
	}
	return unauthenticated(notValid, errors.New("refused by the parser"))
}

func unauthenticated(message string, cause error) *chat.Error {
	return chat.NewError(chat.CodeUnauthenticated, message).WithCause(cause)
}

func malformed(cause error) *chat.Error { return unauthenticated(isMalformed, cause) }

// The first and the last second that RFC 3339 can write: the begin of the year 0 and the end of 9999.
const (
	beginOfTime = -62167219200
	endOfTime   = 253402300799
)

func userOf(claims jwt.MapClaims) (chat.User, error) {
	sub, err := text(claims, "sub")
	if err != nil {
		return chat.User{}, err
	}
	if err := checkSubject(sub); err != nil {
		return chat.User{}, err
	}
	id, err := text(claims, "jti")
	if err != nil {
		return chat.User{}, err
	}
	name, err := displayName(claims["name"])
	if err != nil {
		return chat.User{}, err
	}
	roles, err := stringArray(claims["roles"])
	if err != nil {
		return chat.User{}, err
	}
	expires, err := date(claims, "exp")
	if err != nil {
		return chat.User{}, err
	}
	issued, err := date(claims, "iat")
	if err != nil {
		return chat.User{}, err
	}
	if _, err := date(claims, "nbf"); err != nil { // beyond what the parser can compare
		return chat.User{}, err
	}
	if now := time.Now().UTC().Truncate(time.Second); issued.After(now) {
		issued = now // by a clock that is ahead: a revocation of this moment is to cover it
	}
	return chat.User{ID: sub, Name: name, Roles: roles, TokenID: id, IssuedAt: issued, ExpiresAt: expires}, nil
}

func checkSubject(sub string) error {
	switch {
	case sub == "":
		return errors.New("sub is missing")
	case len(sub) > maxClaimBytes:
		return fmt.Errorf("sub is longer than %d bytes", maxClaimBytes)
	case chat.CleanLine(sub) != sub, strings.ContainsRune(sub, utf8.RuneError): // of which several could be meant
		return errors.New("sub has characters that an ID must not have")
	}
	return nil
}

// text returns a claim that is a string of bounded length; empty where it is absent.
func text(claims jwt.MapClaims, name string) (string, error) {
	value, present := claims[name]
	s, ok := value.(string)
	if present && (!ok || len(s) > maxClaimBytes) {
		return "", fmt.Errorf("%s is not a string of at most %d bytes", name, maxClaimBytes)
	}
	return s, nil
}

// displayName makes a claim fit to be shown. A name that is too long is cut: nobody should be locked out for it.
func displayName(value any) (string, error) {
	name, ok := value.(string)
	if !ok && value != nil {
		return "", errors.New("name is not a string")
	}
	name = chat.CleanLine(name)
	if len(name) > maxClaimBytes {
		end := maxClaimBytes
		for !utf8.RuneStart(name[end]) {
			end--
		}
		name = strings.TrimSpace(name[:end])
	}
	return name, nil
}

func stringArray(value any) ([]string, error) {
	if value == nil {
		return nil, nil
	}
	array, ok := value.([]any)
	roles := make([]string, len(array))
	for i, v := range array {
		var isString bool
		roles[i], isString = v.(string)
		ok = ok && isString
	}
	if !ok {
		return nil, errors.New("roles is not an array of strings")
	}
	return roles, nil
}

// date reads a claim that is a date, in whole seconds; zero where it is absent.
func date(claims jwt.MapClaims, name string) (time.Time, error) {
	value, present := claims[name]
	if !present {
		return time.Time{}, nil
	}
	seconds, ok := value.(float64)
	if !ok || seconds < beginOfTime || seconds > endOfTime {
		return time.Time{}, errors.New(name + " is no date")
	}
	return time.Unix(int64(math.Floor(seconds)), 0).UTC(), nil
}

// Sign makes an HS256 token for user that is valid from now for ttl, at least a second. Empty fields of user, issuer
// and audience are left out; its times are not looked at.
func Sign(secret string, user chat.User, issuer, audience string, now time.Time, ttl time.Duration) (string, error) {
	err := checkSubject(user.ID)
	switch {
	case secret == "":
		err = errors.New("no secret")
	case ttl < time.Second:
		err = errors.New("it would be valid for less than a second")
	}
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	claims := jwt.MapClaims{"sub": user.ID, "iat": now.Unix(), "exp": now.Add(ttl).Unix()}
	for name, value := range map[string]string{"name": user.Name, "jti": user.TokenID, "iss": issuer, "aud": audience} {
		if value != "" {
			claims[name] = value
		}
	}
	if len(user.Roles) > 0 {
		claims["roles"] = user.Roles
	}
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString([]byte(secret))
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	return token, nil
}
