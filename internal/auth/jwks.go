package auth

import (
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/golang-jwt/jwt/v5"
)

const (
	refreshInterval = time.Hour        // between two readings of a key set
	retryInterval   = time.Minute      // after one that failed
	demandInterval  = 10 * time.Second // between two readings that unknown keys ask for
	demandWait      = 2 * time.Second  // for such a reading, of who brings an unknown key
	fetchTimeout    = 10 * time.Second
	maxSetBytes     = 1 << 20
)

// keySet holds the public keys of an issuer, which publishes them at a URL (RFC 7517 §5). One goroutine reads them, from
// time to time and when a token names a key that is not known; Verify only looks at what is there.
type keySet struct {
	url    string
	client *http.Client
	log    *slog.Logger

	running context.Context // ends with close
	stop    context.CancelFunc
	done    sync.WaitGroup
	wanted  chan struct{} // asks for a reading now

	failed bool // the last reading has; owned by run

	mu       sync.RWMutex // guards the fields below
	keys     map[keyID]crypto.PublicKey
	awaited  chan struct{} // closed at the end of the reading that unknown keys wait for; nil: they wait for none
	demanded time.Time     // when such a reading was last asked for, or ended
}

// keyID finds a key. The algorithm, which is the key's own, is a part of it: a token that names another finds nothing.
type keyID struct{ kid, alg string }

// newTransport makes the transport for what is asked for once an hour.
func newTransport() *http.Transport {
	return &http.Transport{
		Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true, DisableKeepAlives: true, MaxResponseHeaderBytes: 64 << 10,
	}
}

// newKeySet reads the keys at a URL. It is an error if there is none that can be used.
func newKeySet(address string, transport http.RoundTripper, log *slog.Logger) (*keySet, error) {
	if u, err := url.Parse(address); err == nil && u.Scheme == "http" && !isLoopback(u.Hostname()) {
		log.Warn("security: auth.jwks_url is plain http: who is between here and there can sign tokens for any user",
			"host", u.Host)
	}
	s := &keySet{
		url: address, log: log, wanted: make(chan struct{}, 1),
		client: &http.Client{Transport: transport, CheckRedirect: checkRedirect},
	}
	s.running, s.stop = context.WithCancel(context.Background())
	err := s.read(s.running)
	if err == nil && len(s.keys) == 0 {
		err = errNoKeys
	}
	if err != nil {
		s.close()
		return nil, err
	}
	s.done.Go(s.run)
	return s, nil
}

var errNoKeys = errors.New("the set there has no key for RS256, ES256 (P-256) or EdDSA (Ed25519)")

// close ends the reading and waits for its end. Keys that are known are found all the same.
func (s *keySet) close() {
	s.stop()
	s.done.Wait()
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// checkRedirect refuses to leave https, which would give up what the configured URL promises.
func checkRedirect(next *http.Request, via []*http.Request) error {
	switch {
	case len(via) >= 5:
		return errors.New("too many redirects")
	case via[0].URL.Scheme == "https" && next.URL.Scheme != "https":
		return errors.New("it redirects from https to " + next.URL.Scheme)
	}
	return nil
}

// find gives the key for a token. A token that names no key is for the only one there is.
func (s *keySet) find(token *jwt.Token) (any, error) {
	kid, ok := token.Header["kid"].(string)
	if _, present := token.Header["kid"]; present && !ok {
		return nil, errors.New("kid is not a string")
	}
	id := keyID{kid, token.Method.Alg()}
	key, known := s.lookup(id)
	if !known && s.readAgain() {
		key, known = s.lookup(id)
	}
	if !known {
		return nil, errors.New("no key for it")
	}
	return key, nil
}

func (s *keySet) lookup(id keyID) (key crypto.PublicKey, known bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if id.kid != "" {
		key, known = s.keys[id]
		return key, known
	}
	for only, key := range s.keys {
		return key, len(s.keys) == 1 && only.alg == id.alg
	}
	return nil, false
}

// readAgain has the keys read again, which the issuer may have changed, and waits a moment for that. It reports false
// where they were read so just now: whoever makes up key IDs costs the issuer a request now and then, and others no time.
func (s *keySet) readAgain() bool {
	end := s.demand()
	if end == nil {
		return false
	}
	select {
	case <-end:
		return true
	case <-time.After(demandWait):
	case <-s.running.Done():
	}
	return false
}

// demand asks for a reading, unless one is awaited already, and returns what is closed at its end; nil: not yet again.
func (s *keySet) demand() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.awaited == nil {
		if !s.demanded.IsZero() && time.Since(s.demanded) < demandInterval {
			return nil
		}
		s.awaited, s.demanded = make(chan struct{}), time.Now()
		s.wanted <- struct{}{} // has room: who is awaited is taken out before the end is told
	}
	return s.awaited
}

// run reads the keys again and again until the set is closed.
func (s *keySet) run() {
	timer := time.NewTimer(refreshInterval)
	defer timer.Stop()
	for {
		demanded := false
		select {
		case <-timer.C:
		case <-s.wanted:
			demanded = true
		case <-s.running.Done():
			return
		}
		s.note(s.read(s.running))
		if demanded {
			s.tellEnd()
		}
		if s.failed {
			timer.Reset(retryInterval)
		} else {
			timer.Reset(refreshInterval)
		}
	}
}

func (s *keySet) tellEnd() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.awaited)
	s.awaited, s.demanded = nil, time.Now()
}

// note logs that the keys cannot be read, and that they can again, once.
func (s *keySet) note(err error) {
	changed := s.failed != (err != nil)
	s.failed = err != nil
	switch {
	case !changed || s.running.Err() != nil:
	case err != nil:
		s.log.Warn("auth.jwks_url: the keys cannot be read: those that are known go on", "error", err)
	default:
		s.log.Info("auth.jwks_url: the keys are read again")
	}
}

// read replaces the keys by those that are published now.
func (s *keySet) read(ctx context.Context) error {
	body, err := s.fetch(ctx)
	if err != nil {
		return err
	}
	keys, unusable, err := parseKeys(body)
	if err != nil {
		return err
	}
	for _, reason := range unusable {
		s.log.Debug("auth.jwks_url: a key is not used", "reason", reason)
	}
	s.mu.Lock()
	before := s.keys
	s.keys = keys
	s.mu.Unlock()
	// An issuer that withdraws all of its keys is obeyed: what they signed must not be believed any more.
	if len(keys) == 0 && len(before) > 0 {
		s.log.Warn("auth.jwks_url: every token is refused: no key is left that can be used", "unusable", len(unusable))
	}
	return nil
}

func (s *keySet) fetch(ctx context.Context) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url, nil)
	if err != nil {
		return nil, withoutURL(err)
	}
	request.Header.Set("Accept", "application/jwk-set+json, application/json")
	response, err := s.client.Do(request)
	if err != nil {
		return nil, withoutURL(err)
	}
	defer func() { _ = response.Body.Close() }() // it has been read, or is not wanted
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the answer has the status %d", response.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, maxSetBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	if len(body) > maxSetBytes {
		return nil, errors.New("the answer is longer than 1 MiB")
	}
	return body, nil
}

// withoutURL leaves out what may hold a password.
func withoutURL(err error) error {
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		return wrapped.Err
	}
	return err
}

// parseKeys reads a key set. A key that cannot be used takes nothing from the others: sets hold keys for other purposes.
func parseKeys(body []byte) (keys map[keyID]crypto.PublicKey, unusable []string, err error) {
	var set struct {
		Keys *[]json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(body, &set); err != nil || set.Keys == nil {
		return nil, nil, errors.New("the answer is not a JWK set")
	}
	keys = make(map[keyID]crypto.PublicKey)
	for _, raw := range *set.Keys {
		id, key, err := parseKey(raw)
		if _, twice := keys[id]; err == nil && twice {
			err = errors.New("it has the kid of another one")
		}
		if err != nil {
			unusable = append(unusable, err.Error())
			continue
		}
		keys[id] = key
	}
	return keys, unusable, nil
}

// parseKey reads a public key that is for verifying signatures with the one algorithm that its type allows.
func parseKey(raw json.RawMessage) (keyID, crypto.PublicKey, error) {
	var stated jwkset.JWKMarshal
	if err := json.Unmarshal(raw, &stated); err != nil {
		return keyID{}, nil, errors.New("it is malformed")
	}
	switch {
	case stated.KTY == jwkset.KtyOct || stated.K != "":
		return keyID{}, nil, errors.New("it is symmetric: who can read it could sign with it")
	case stated.D != "":
		return keyID{}, nil, errors.New("its private part is published")
	case stated.USE != "" && stated.USE != jwkset.UseSig:
		return keyID{}, nil, errors.New("it is not for signatures")
	case len(stated.KEYOPS) > 0 && !slices.Contains(stated.KEYOPS, jwkset.KeyOpsVerify):
		return keyID{}, nil, errors.New("it is not for verifying")
	}
	key, err := jwkset.NewJWKFromMarshal(stated, jwkset.JWKMarshalOptions{}, jwkset.JWKValidateOptions{})
	if err != nil {
		return keyID{}, nil, errors.New("it is malformed, or of a type that is not supported")
	}
	method, err := methodOf(key.Key())
	if err != nil {
		return keyID{}, nil, err
	}
	if stated.ALG != "" && stated.ALG.String() != method.Alg() {
		return keyID{}, nil, errors.New("it is for another algorithm than " + method.Alg())
	}
	return keyID{stated.KID, method.Alg()}, key.Key(), nil
}
