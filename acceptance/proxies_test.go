//go:build unix

package acceptance_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/parley-chat/parley/internal/llm/llmtest"
)

// reverseProxy is a proxy that runs with the configuration of deploy/proxies.
type reverseProxy struct {
	addr  string // where it listens, with TLS
	roots *x509.CertPool
}

// snippet reads a file of deploy/proxies, with what is particular to a test put in its place.
func snippet(t *testing.T, name string, changes ...string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "deploy", "proxies", name))
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	for i := 0; i < len(changes); i += 2 {
		if !strings.Contains(text, changes[i]) {
			t.Fatalf("%s has no %q", name, changes[i])
		}
		text = strings.Replace(text, changes[i], changes[i+1], 1)
	}
	return text
}

// findProxy finds a proxy's program. A test without it is skipped, unless PARLEY_TEST_REQUIRE names it.
func findProxy(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err == nil {
		return path
	}
	if _, err := os.Stat("/usr/sbin/" + name); err == nil {
		return "/usr/sbin/" + name
	}
	if slices.Contains(strings.Split(os.Getenv("PARLEY_TEST_REQUIRE"), ","), name) {
		t.Fatalf("PARLEY_TEST_REQUIRE asks for %s, and there is none", name)
	}
	t.Skipf("no %s on this machine", name)
	return ""
}

// freeAddr gives an address of this machine's that nobody listens on.
func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// runProxy runs a proxy until the test ends, and waits until it listens.
func runProxy(t *testing.T, addr, dir string, command ...string) *reverseProxy {
	t.Helper()
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir)
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s says:\n%s", command[0], said.String())
		}
	})
	for deadline := time.Now().Add(patience); ; {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			conn.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not listen: %v", command[0], err)
		}
	}
	pem, err := os.ReadFile(filepath.Join(dir, "cert.pem"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	return &reverseProxy{addr: addr, roots: roots}
}

// nginxServers are the lines of an nginx upstream.
func nginxServers(addrs ...string) string {
	var lines strings.Builder
	for _, addr := range addrs {
		fmt.Fprintf(&lines, "server %s max_fails=0;\n", addr)
	}
	return lines.String()
}

func startNginx(t *testing.T, servers ...string) *reverseProxy {
	t.Helper()
	program, dir, addr := findProxy(t, "nginx"), t.TempDir(), freeAddr(t)
	writeCertificate(t, dir)
	site := snippet(t, "nginx.conf", "server 127.0.0.1:8080 max_fails=0;", nginxServers(servers...), "listen 443 ssl;", "listen "+addr+" ssl;",
		"/etc/ssl/chat.example.com/fullchain.pem", dir+"/cert.pem", "/etc/ssl/chat.example.com/privkey.pem", dir+"/key.pem")
	var folders strings.Builder
	for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		fmt.Fprintf(&folders, "%s_temp_path %s/%s;\n", kind, dir, kind)
	}
	whole := fmt.Sprintf("daemon off; master_process off; pid %s/pid; error_log stderr warn;\nevents { worker_connections 1024; }\nhttp {\naccess_log off;\n%s%s}\n",
		dir, folders.String(), site)
	path := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(path, []byte(whole), 0o600); err != nil {
		t.Fatal(err)
	}
	return runProxy(t, addr, dir, program, "-p", dir, "-c", path)
}

func startCaddy(t *testing.T, server string) *reverseProxy {
	t.Helper()
	program, dir, addr := findProxy(t, "caddy"), t.TempDir(), freeAddr(t)
	writeCertificate(t, dir)
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	site := "{\nadmin off\nauto_https off\n}\n" + snippet(t, "Caddyfile", "chat.example.com {", "https://chat.example.com:"+port+" {\nbind 127.0.0.1\ntls "+dir+"/cert.pem "+dir+"/key.pem\n",
		"127.0.0.1:8080 {", server+" {")
	path := filepath.Join(dir, "Caddyfile")
	if err := os.WriteFile(path, []byte(site), 0o600); err != nil {
		t.Fatal(err)
	}
	return runProxy(t, addr, dir, program, "run", "--config", path, "--adapter", "caddyfile")
}

// client speaks to the proxy as a browser to chat.example.com.
func (p *reverseProxy) client() *http.Client {
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: p.roots}}
	transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", p.addr)
	}
	return &http.Client{Transport: transport, Timeout: patience}
}

// host is what a browser calls the proxy: its name, and the port where that is not the usual one.
func (p *reverseProxy) host() string {
	_, port, _ := net.SplitHostPort(p.addr)
	return "chat.example.com:" + port
}

func (p *reverseProxy) dial(t testing.TB, token string) (*client, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	web := p.client()
	web.Timeout = 0 // it would end the connection
	conn, resp, err := websocket.Dial(ctx, "wss://"+p.host()+"/chat/ws", &websocket.DialOptions{
		HTTPClient:   web,
		HTTPHeader:   http.Header{"Origin": {"https://" + p.host()}},
		Subprotocols: []string{"parley.v1", "parley.bearer." + token},
	})
	if err != nil {
		if resp != nil {
			return nil, fmt.Errorf("%s: %w", resp.Status, err)
		}
		return nil, err
	}
	conn.SetReadLimit(-1)
	t.Cleanup(func() { conn.CloseNow() })
	return newClient(t, conn), nil
}

// behindProxy is the server section of a configuration of a server that stands behind a proxy on this machine.
const behindProxy = "server: {addr: 127.0.0.1:0, operations_addr: 127.0.0.1:0, path_prefix: /chat, trusted_proxies: [127.0.0.1/32]}\n"

func TestThroughReverseProxies(t *testing.T) {
	up := startUpstream(t)
	for name, start := range map[string]func(t *testing.T, server string) *reverseProxy{
		"nginx": func(t *testing.T, server string) *reverseProxy { return startNginx(t, server) },
		"caddy": startCaddy,
	} {
		t.Run(name, func(t *testing.T) {
			s := startServer(t, up.models("gate-20"), behindProxy,
				"websocket: {ping_interval: 300ms, pong_timeout: 1s}\nrate_limit: {unauthenticated: {limit: 2, window: 1h}}\n")
			p := start(t, s.addr)
			c, err := p.dial(t, token("alice"))
			if err != nil {
				t.Fatal(err)
			}
			c.open()
			c.send("message.send", "message_id", "q", "text", "hi")
			for words := 1; words <= 3; words++ { // each word comes before the next one is given
				up.release(t, 1)
				c.untilWords(words)
			}
			up.release(t, 17)
			c.until("message.completed")
			if got := c.text[c.order[1]]; got != llmtest.Text(20) {
				t.Errorf("through %s comes %q", name, got)
			}
			// Idle but for the server's pings, which the proxy passes on, and their answers.
			c.send("message.send", "message_id", "q2", "text", "hi")
			idle := time.AfterFunc(2*time.Second, func() { up.release(t, 20) })
			defer idle.Stop()
			c.until("message.completed")

			web := p.client()
			ask := func(bearer, from string) string {
				t.Helper()
				r, err := http.NewRequestWithContext(t.Context(), "GET", "https://"+p.host()+"/chat/api/v1/models", nil)
				if err != nil {
					t.Fatal(err)
				}
				r.Header.Set("Authorization", "Bearer "+bearer)
				r.Header.Set("X-Forwarded-For", from) // which the proxy must not believe as it is
				r.Header.Set("Origin", "https://"+p.host())
				resp, err := web.Do(r)
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				return resp.Status[:3]
			}
			if got := ask(token("alice"), "192.0.2.1"); got != "200" {
				t.Errorf("the HTTP API through %s: %s", name, got)
			}
			codes := ask("bad", "192.0.2.1") + ask("bad", "192.0.2.2") + ask("bad", "192.0.2.3")
			if codes != "401401429" {
				t.Errorf("three bad tokens of a client that claims to be three through %s: %s", name, codes)
			}
			if code := s.stop(syscall.SIGTERM); code != 0 {
				t.Errorf("the server exits with %d", code)
			}
			c.closedWith(1012)
		})
	}
}

// An hour without a byte cannot be waited for in a test: what the snippets say of it is read.
func TestIdleConnectionsLiveForAnHourBehindProxies(t *testing.T) {
	nginx := snippet(t, "nginx.conf")
	for _, key := range []string{"proxy_read_timeout", "proxy_send_timeout"} {
		m := regexp.MustCompile(key + ` (\d+)m;`).FindStringSubmatch(nginx)
		if m == nil {
			t.Fatalf("nginx.conf has no %s in minutes", key)
		}
		if d, err := time.ParseDuration(m[1] + "m"); err != nil || d < time.Hour {
			t.Errorf("nginx's %s is %v", key, d)
		}
	}
	for _, wrong := range []string{"stream_timeout", "read_timeout"} {
		if strings.Contains(snippet(t, "Caddyfile"), wrong) {
			t.Errorf("the Caddyfile limits connections by %s; by default there is no limit", wrong)
		}
	}
}
