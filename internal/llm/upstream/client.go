// Package upstream is the HTTP side of every provider of language models: how it is reached, how long reaching it may
// take, what its refusals mean, and how the events of an answer become chunks until the answer's own end mark.
//
// A provider says what to ask and reads one event; all else is here.
package upstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
)

const (
	// defaultConnectTimeout is for those who configure none.
	defaultConnectTimeout = 10 * time.Second

	idleConnTimeout = 90 * time.Second

	// minSecret is how long a secret is at least, in bytes: an api-version of a base URL's query is none, and to take a
	// shorter one out of a text would tell more than it hides.
	minSecret = 4

	// maxIdleConns is how many connections wait for the next request. A server has as many requests running as there
	// are people waiting for an answer, and a handshake costs more than an idle socket.
	maxIdleConns = 1000

	// pingInterval finds HTTP/2 connections that died without a word: all requests of a host share one, and without
	// pings each would run into its own timeout until the system gives the connection up.
	pingInterval = 15 * time.Second
)

// NoProxy is the [Config].Proxy that keeps to direct connections, whatever the environment says.
const NoProxy = "none"

// Config is how an upstream is reached.
type Config struct {
	ID             string        // the provider's; names it in errors
	BaseURL        string        // what the addresses of all calls begin with; a query is kept
	APIKey         string        // is kept out of errors; sending it is up to the provider
	ConnectTimeout time.Duration // until a connection is there: name, proxy and TLS included; 0: 10 s

	// Proxy is the URL of the proxy, NoProxy for none, or empty for the one that the environment names (HTTPS_PROXY,
	// HTTP_PROXY, NO_PROXY).
	Proxy string

	// CAFile names a PEM file with the certificates of the authorities that are trusted besides the system's.
	CAFile string

	// Dial makes the connections; nil: over TCP.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
}

// Client asks one upstream. It is safe for concurrent use.
type Client struct {
	id             string
	secrets        *strings.Replacer // takes them out of a text
	base           *url.URL
	connectTimeout time.Duration
	transport      *http.Transport
	http           *http.Client
}

// New returns a client with connections of its own. It asks nothing of the upstream yet. The errors are a CAFile that
// cannot be read, and a BaseURL or Proxy that is no URL.
func New(config Config) (*Client, error) {
	base, err := url.Parse(config.BaseURL)
	if err != nil {
		return nil, fmt.Errorf("provider %s: the base URL is not one", config.ID) // it may hold a password
	}
	c := &Client{id: config.ID, base: base, connectTimeout: config.ConnectTimeout}
	c.secrets = secretsOf(config.APIKey, base)
	if c.connectTimeout == 0 {
		c.connectTimeout = defaultConnectTimeout
	}
	proxy, err := proxyOf(config.Proxy)
	if err != nil {
		return nil, fmt.Errorf("provider %s: %w", config.ID, err)
	}
	authorities, err := authoritiesOf(config.CAFile)
	if err != nil {
		return nil, fmt.Errorf("provider %s: %w", config.ID, err)
	}
	// A dial goes on without the request that began it, for the next one. It ends by itself, but later than the request:
	// whose timeout it was must not be a matter of luck.
	dialTimeout := c.connectTimeout + time.Second
	dial := config.Dial
	if dial == nil {
		dial = (&net.Dialer{Timeout: dialTimeout}).DialContext
	}
	c.transport = &http.Transport{
		Proxy:               proxy,
		DialContext:         dial,
		TLSHandshakeTimeout: dialTimeout,
		TLSClientConfig:     &tls.Config{RootCAs: authorities, MinVersion: tls.VersionTLS12},
		MaxIdleConnsPerHost: maxIdleConns,
		IdleConnTimeout:     idleConnTimeout,
		ForceAttemptHTTP2:   true,
		HTTP2:               &http.HTTP2Config{SendPingTimeout: pingInterval, PingTimeout: pingInterval},
		// How long headers may take is up to the request's context: models think before the first byte.
	}
	c.http = &http.Client{
		Transport: c.transport,
		// The key and the conversation are for the configured address and no other.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c, nil
}

// secretsOf finds the key, in the forms in which an upstream may repeat it, and what of the base URL may be one.
func secretsOf(key string, base *url.URL) *strings.Replacer {
	secrets := []string{key}
	for _, values := range base.Query() {
		secrets = append(secrets, values...)
	}
	password, _ := base.User.Password()
	secrets = append(secrets, password, base.User.Username())
	var pairs []string
	for _, s := range secrets {
		if len(s) < minSecret {
			continue
		}
		asJSON, _ := json.Marshal(s) // a string cannot fail
		quoted := strconv.Quote(s)   // as others write JSON, who leave < and & as they are
		for _, form := range []string{s, string(asJSON[1 : len(asJSON)-1]), quoted[1 : len(quoted)-1], url.QueryEscape(s)} {
			pairs = append(pairs, form, "[key]")
		}
	}
	return strings.NewReplacer(pairs...)
}

func proxyOf(setting string) (func(*http.Request) (*url.URL, error), error) {
	switch setting {
	case "":
		return http.ProxyFromEnvironment, nil
	case NoProxy:
		return nil, nil
	}
	proxy, err := url.Parse(setting)
	if err != nil {
		return nil, errors.New("proxy: not a URL") // which may hold a password
	}
	return http.ProxyURL(proxy), nil
}

// authoritiesOf gives the system's authorities and those in a file; nil: just the system's.
func authoritiesOf(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read certificate authorities: %w", err)
	}
	authorities, err := x509.SystemCertPool()
	if err != nil {
		authorities = x509.NewCertPool() // a system that has none
	}
	if !authorities.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("read certificate authorities: %s holds no PEM certificate", file)
	}
	return authorities, nil
}

// URL gives the address of a call: the base URL with further elements of its path.
func (c *Client) URL(elements ...string) *url.URL { return c.base.JoinPath(elements...) }

// Close closes the connections that no request uses. Running requests go on.
func (c *Client) Close() error {
	c.transport.CloseIdleConnections()
	return nil
}

// Do sends a request, such as one to stop an answer. The caller closes the body. The error names the host and no more of
// the URL, which may hold a key.
func (c *Client) Do(r *http.Request) (*http.Response, error) {
	response, err := c.http.Do(r)
	if failed, ok := errors.AsType[*url.Error](err); ok {
		err = fmt.Errorf("%s %s: %w", r.Method, r.URL.Host, failed.Err)
	}
	return response, err
}

// Timeout says which limit an upstream has exceeded. It is the cause of an error with the code llm_timeout.
type Timeout struct {
	Limit string // one of the Limit constants
	After time.Duration
}

// The limits of an upstream, as metrics and the log call them.
const (
	LimitConnect    = "connect"     // until a connection is there
	LimitFirstToken = "first_token" // from the request to the first text
	LimitIdle       = "idle"        // between two chunks
	LimitStream     = "stream"      // the whole response
)

// Error implements error.
func (t *Timeout) Error() string { return fmt.Sprintf("%s timeout after %v", t.Limit, t.After) }

// Timeout reports true, as net.Error has it.
func (t *Timeout) Timeout() bool { return true }

// withConnectTimeout gives a context that ends, with a [Timeout], where there is no connection in time. Whoever gets
// one calls connected.
func (c *Client) withConnectTimeout(ctx context.Context) (inner context.Context, connected, cancel func()) {
	inner, end := context.WithCancelCause(ctx)
	timer := time.AfterFunc(c.connectTimeout, func() { end(&Timeout{LimitConnect, c.connectTimeout}) })
	return inner, func() { timer.Stop() }, func() {
		timer.Stop()
		end(nil)
	}
}
