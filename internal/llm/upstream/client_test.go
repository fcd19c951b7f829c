package upstream_test

import (
	"bufio"
	"context"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/llm/llmtest"
	"github.com/parley-chat/parley/internal/llm/upstream"
)

var hello = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	io.Copy(io.Discard, r.Body)
	w.Header().Set("Content-Type", "text/event-stream")
	io.WriteString(w, "data: text Hello\n\ndata: done\n\n")
})

// isHello asks for an answer, which must be that of hello.
func isHello(t *testing.T, p provider) {
	t.Helper()
	if got, err := llmtest.Ask(t.Context(), t, p, chat.Request{}); err != nil || got.Text != "Hello" {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestConnectTimeout(t *testing.T) {
	release := make(chan struct{})
	dials := map[string]func(ctx context.Context, network, addr string) (net.Conn, error){
		"the dial hangs": func(context.Context, string, string) (net.Conn, error) {
			<-release
			return nil, net.ErrClosed
		},
		"the TLS handshake hangs": func(context.Context, string, string) (net.Conn, error) {
			ours, theirs := net.Pipe()
			go io.Copy(io.Discard, theirs)
			return ours, nil
		},
	}
	for name, dial := range dials {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				release = make(chan struct{})
				client := open(t, upstream.Config{ConnectTimeout: 3 * time.Second, Dial: dial})
				start := time.Now()
				_, err := llmtest.Ask(t.Context(), t, provider{client: client, url: "https://127.0.0.1"}, chat.Request{})
				if waited := time.Since(start); waited != 3*time.Second {
					t.Errorf("waited %s", waited)
				}
				timeout, ok := errors.AsType[*upstream.Timeout](err)
				if !ok || *timeout != (upstream.Timeout{Limit: upstream.LimitConnect, After: 3 * time.Second}) ||
					!errors.Is(err, chat.NewError(chat.CodeLLMTimeout, "")) {
					t.Errorf("got %v", err)
				}
				close(release)
				time.Sleep(time.Minute) // what was begun for the next request ends by itself
			})
		})
	}
}

func TestTheConnectTimeoutIsNotThatOfTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		client := open(t, upstream.Config{Dial: func(context.Context, string, string) (net.Conn, error) {
			<-release
			return nil, net.ErrClosed
		}})
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		_, err := llmtest.Ask(ctx, t, provider{client: client, url: "http://127.0.0.1"}, chat.Request{})
		if err != context.DeadlineExceeded {
			t.Errorf("got %v", err)
		}
		close(release)
	})
}

// A model may think for longer than a connection may take.
func TestTheConnectTimeoutEndsWithTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := open(t, upstream.Config{
			ConnectTimeout: time.Second,
			Dial: llmtest.Pipes(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				time.Sleep(time.Minute)
				hello(w, r)
			})),
		})
		for range 2 { // the second one finds the connection there
			isHello(t, provider{client: client, url: "http://127.0.0.1"})
		}
	})
}

func TestNobodyListens(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener.Close()
	p := provider{client: open(t, upstream.Config{}), url: "http://" + listener.Addr().String()}
	_, err = llmtest.Ask(t.Context(), t, p, chat.Request{})
	if !errors.Is(err, chat.NewError(chat.CodeLLMUnavailable, "")) {
		t.Errorf("got %v", err)
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	var requests atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if requests.Add(1) > 1 {
			hello(w, r)
			return
		}
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(http.StatusPermanentRedirect)
	}))
	t.Cleanup(server.Close)
	_, err := llmtest.Ask(t.Context(), t, provider{client: open(t, upstream.Config{}), url: server.URL}, chat.Request{})
	if !errors.Is(err, chat.NewError(chat.CodeLLMUnavailable, "")) || requests.Load() != 1 {
		t.Errorf("got %v after %d requests", err, requests.Load())
	}
}

// caFile writes the certificate of a server as an operator has it.
func caFile(t *testing.T, server *httptest.Server) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(file, block, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func newTLSServer(t *testing.T) *httptest.Server {
	t.Helper()
	server := httptest.NewUnstartedServer(hello)
	server.Config.ErrorLog = nil
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	return server
}

func TestCAFile(t *testing.T) {
	server := newTLSServer(t)
	isHello(t, provider{client: open(t, upstream.Config{CAFile: caFile(t, server)}), url: server.URL})

	_, err := llmtest.Ask(t.Context(), t, provider{client: open(t, upstream.Config{}), url: server.URL}, chat.Request{})
	if !errors.Is(err, chat.NewError(chat.CodeLLMUnavailable, "")) || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("without it: got %v", err)
	}
}

func TestBadConfig(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, config := range map[string]upstream.Config{
		"a CA file that is not there": {CAFile: filepath.Join(t.TempDir(), "none.pem")},
		"a CA file without any":       {CAFile: empty},
		"a proxy that is no URL":      {Proxy: "http://user:hunter2@[::1"},
	} {
		config.ID = "provider-7"
		_, err := upstream.New(config)
		if err == nil || !strings.Contains(err.Error(), "provider provider-7: ") || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// proxy is an HTTP proxy that keeps a record of what it was asked for.
type proxy struct {
	*httptest.Server
	asked chan string // method, target and Proxy-Authorization
}

func newProxy(t *testing.T) proxy {
	t.Helper()
	p := proxy{asked: make(chan string, 10)}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.asked <- r.Method + " " + r.URL.String() + " " + r.Host + " " + r.Header.Get("Proxy-Authorization")
		if r.Method == http.MethodConnect {
			tunnel(w, r.Host)
			return
		}
		hello(w, r)
	}))
	t.Cleanup(p.Close)
	return p
}

// tunnel connects the client of a CONNECT to addr until one of them leaves (RFC 9110 §9.3.6).
func tunnel(w http.ResponseWriter, addr string) {
	there, err := net.Dial("tcp", addr)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	defer there.Close()
	here, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer here.Close()
	io.WriteString(here, "HTTP/1.1 200 OK\r\n\r\n")
	done := make(chan struct{})
	go func() {
		defer close(done)
		io.Copy(there, buffered)
		there.Close()
	}()
	io.Copy(here, there)
	here.Close()
	<-done
}

func TestProxy(t *testing.T) {
	proxy := newProxy(t)
	configured, _ := url.Parse(proxy.URL)
	configured.User = url.UserPassword("user", "hunter2")
	const authorization = "Basic dXNlcjpodW50ZXIy" // user:hunter2

	t.Run("to http", func(t *testing.T) {
		isHello(t, provider{client: open(t, upstream.Config{Proxy: configured.String()}), url: "http://upstream.example/v1"})
		if got, want := <-proxy.asked, "POST http://upstream.example/v1 upstream.example "+authorization; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
	t.Run("to https", func(t *testing.T) {
		server := newTLSServer(t)
		client := open(t, upstream.Config{Proxy: configured.String(), CAFile: caFile(t, server)})
		isHello(t, provider{client: client, url: server.URL})
		host := server.Listener.Addr().String()
		if got, want := <-proxy.asked, "CONNECT //"+host+" "+host+" "+authorization; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		client.Close() // and so the tunnel
	})
}

// Of the environment's proxy no more is seen than that it is dialled.
func TestProxyOfTheEnvironment(t *testing.T) {
	for setting, want := range map[string]string{
		"":                               environmentProxy,
		upstream.NoProxy:                 "upstream.example:80",
		"http://configured.example:3128": "configured.example:3128",
	} {
		dialled := ""
		client := open(t, upstream.Config{Proxy: setting, Dial: func(_ context.Context, _, addr string) (net.Conn, error) {
			dialled = addr
			return nil, net.ErrClosed
		}})
		_, err := llmtest.Ask(t.Context(), t, provider{client: client, url: "http://upstream.example/v1"}, chat.Request{})
		if err == nil || dialled != want {
			t.Errorf("with the proxy %q: dialled %q, %v; want %q", setting, dialled, err, want)
		}
	}
}

func TestWhoIsAtTheProxyIsNotTold(t *testing.T) {
	refusing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusProxyAuthRequired)
	}))
	t.Cleanup(refusing.Close)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener.Close()
	for _, proxy := range []string{
		strings.Replace(refusing.URL, "//", "//user:hunter2@", 1),
		"http://user:hunter2@" + listener.Addr().String(),
		"https://user:hunter2@" + listener.Addr().String(),
		"socks5://user:hunter2@" + listener.Addr().String(),
	} {
		for _, url := range []string{"http://upstream.example/v1", "https://upstream.example/v1"} {
			p := provider{client: open(t, upstream.Config{Proxy: proxy}), url: url}
			_, err := llmtest.Ask(t.Context(), t, p, chat.Request{})
			if err == nil || strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "user:") {
				t.Errorf("%s by %s: got %v", url, proxy, err)
			}
		}
	}
}

// A SOCKS proxy resolves the names, so that none is asked for here (RFC 1928 §4).
func TestSOCKS(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(hello)
	t.Cleanup(server.Close)
	asked := make(chan string, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		serveSOCKS(listener, server.Listener.Addr().String(), asked)
	}()
	t.Cleanup(func() { listener.Close(); <-done })

	client := open(t, upstream.Config{Proxy: "socks5h://" + listener.Addr().String()})
	isHello(t, provider{client: client, url: "http://upstream.example/v1"})
	if got := <-asked; got != "upstream.example" {
		t.Errorf("asked for %q", got)
	}
}

// serveSOCKS connects one client to addr, whatever it asks for.
func serveSOCKS(listener net.Listener, addr string, asked chan<- string) {
	here, err := listener.Accept()
	if err != nil {
		return
	}
	defer here.Close()
	r := bufio.NewReader(here)
	read := func(n int) []byte {
		p := make([]byte, n)
		io.ReadFull(r, p)
		return p
	}
	read(int(read(2)[1]))                  // version, and the methods of authentication
	here.Write([]byte{5, 0})               // none
	asked <- string(read(int(read(5)[4]))) // version, command, 0, a name, its length
	read(2)                                // the port
	here.Write([]byte{5, 0, 0, 1, 0, 0, 0, 0, 0, 0})
	there, err := net.Dial("tcp", addr)
	if err != nil {
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		io.Copy(there, r)
		there.Close()
	}()
	io.Copy(here, there)
	here.Close()
	<-done
}
