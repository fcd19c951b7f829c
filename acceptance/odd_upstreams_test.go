//go:build unix

package acceptance_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/parley-chat/parley/chat"
)

// rawUpstream starts an upstream that answers every request with the same bytes, as they are, and then waits for the
// client to leave. It gives its base URL.
func rawUpstream(t testing.TB, answer string) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				defer conn.Close()
				requests := bufio.NewReader(conn)
				r, err := http.ReadRequest(requests)
				if err != nil {
					return
				}
				io.Copy(io.Discard, r.Body)
				io.WriteString(conn, answer)
				if !strings.Contains(answer, "Connection: close") {
					io.Copy(io.Discard, requests)
				}
			})
		}
	})
	t.Cleanup(func() { // after the server's end
		listener.Close()
		conns.Wait()
	})
	return "http://" + listener.Addr().String()
}

const (
	streamHead = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n"
	helloEvent = `data: {"choices":[{"index":0,"delta":{"content":"Hello"}}]}` + "\n\n"
	finishing  = `data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}` + "\n\n"
	doneMark   = "data: [DONE]\n\n"
	helloWhole = helloEvent + finishing + doneMark
)

// zipped compresses a text that is repeated.
func zipped(t testing.TB, text string, times int) string {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	for range times {
		if _, err := io.WriteString(w, text); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// askRaw has a server of its own ask a raw upstream once, with settings of the llm section.
func askRaw(t *testing.T, answer, settings string) (s *server, c *client, end frame) {
	t.Helper()
	base := rawUpstream(t, answer)
	s = startServer(t, section("retry: {max_attempts: 1}\n"+settings,
		[]string{fmt.Sprintf("id: raw, type: openai, base_url: %q, api_key: %s", base, key)}, model("m", "raw/m")),
		"server: {addr: 127.0.0.1:0, operations_addr: 127.0.0.1:0, shutdown_timeout: 5s}\n")
	c = s.dial(token("alice"))
	c.open()
	return s, c, c.ask("q", "hi")
}

// Upstreams that keep to the letter of HTTP, or do not, are read as far as they can be.
func TestUpstreamsOutOfTheOrdinary(t *testing.T) {
	zip := "Content-Encoding: gzip\r\n\r\n"
	chunked := strings.Replace(streamHead, "Connection: close", "Transfer-Encoding: chunked", 1) + "\r\n"
	chunk := fmt.Sprintf("%x\r\n%s\r\n", len(helloEvent), helloEvent)
	for _, c := range []struct {
		name, answer string
		want         outcome
	}{
		{"HTTP/1.0", "HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + helloWhole, whole("Hello", "stop")},
		{"100 Continue", "HTTP/1.1 100 Continue\r\n\r\n" + streamHead + "\r\n" + helloWhole, whole("Hello", "stop")},
		{"103 Early Hints", "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + streamHead + "\r\n" + helloWhole, whole("Hello", "stop")},
		{"another case of the type", strings.Replace(streamHead, "text/event-stream", "Text/Event-Stream;Charset=UTF-8", 1) +
			"\r\n" + helloWhole, whole("Hello", "stop")},
		{"a byte order mark", streamHead + "\r\n\ufeff" + helloWhole, whole("Hello", "stop")},
		{"text after the finish", streamHead + "\r\n" + helloEvent + finishing + helloEvent + doneMark, whole("Hello", "stop")},
		{"text after the end mark", streamHead + "\r\n" + helloWhole + helloEvent, whole("Hello", "stop")},
		{"an error after the finish", streamHead + "\r\n" + helloEvent + finishing + `data: {"error":{"message":"x"}}` + "\n\n", whole("Hello", "stop")},
		{"an end mark that stays open", strings.Replace(streamHead, "Connection: close\r\n", "", 1) + "\r\n" + helloWhole, whole("Hello", "stop")},
		{"a length too long", streamHead + "Content-Length: 60000\r\n\r\n" + helloWhole, whole("Hello", "stop")},
		{"half a surrogate pair", streamHead + "\r\n" + `data: {"choices":[{"delta":{"content":"a\ud83d"}}]}` + "\n\n" + finishing + doneMark,
			whole("a\ufffd", "stop")},
		{"not UTF-8", streamHead + "\r\ndata: {\"choices\":[{\"delta\":{\"content\":\"a\xff\"}}]}\n\n" + finishing + doneMark, whole("a\ufffd", "stop")},

		{"no type", "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + helloWhole, failed(unavailable, "")},
		{"HTTP/0.9", helloWhole + "\r\nConnection: close", failed(unavailable, "")},
		{"an end mark without a line end", streamHead + "\r\n" + helloEvent + "data: [DONE]", failed(unavailable, "Hello")},
		{"a chunk that is none", chunked + chunk + "ZZZ\r\n", failed(unavailable, "Hello")},
		{"compressed by its word only", streamHead + zip + helloWhole, failed(unavailable, "")},
		{"compressed another way", streamHead + "Content-Encoding: br\r\n\r\n\x8b\x01\x80abc", failed(unavailable, "")},
		{"a bomb of text", streamHead + zip + zipped(t, strings.Repeat("x", 1<<20), 100), failed(unavailable, "")},
		{"a bomb of comments", strings.Replace(streamHead, "Connection: close\r\n", "", 1) + zip + zipped(t, strings.Repeat(": x\n\n", 1<<16), 100),
			failed(timedOut, "")},
		{"a refusal that is a bomb", strings.Replace(streamHead, "200 OK", "400 Bad Request", 1) + zip + zipped(t, strings.Repeat("x", 1<<20), 100),
			failed(rejected, "")},
		{"headers without an end", streamHead + strings.Repeat("X-Header: "+strings.Repeat("y", 1000)+"\r\n", 12_000) + "Connection: close\r\n\r\n" + helloWhole,
			failed(unavailable, "")},
		{"headers and nothing more", "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n", failed(timedOut, "")},
		{"a refusal that hangs", "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 100\r\n\r\n{", failed(unavailable, "")},
		{"deep JSON", streamHead + "\r\ndata: " + strings.Repeat("[", 100_000) + "\n\n" + helloWhole, failed(unavailable, "")},
		{"204 No Content", "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n", failed(unavailable, "")},
		{"a redirect elsewhere", "HTTP/1.1 302 Found\r\nLocation: http://192.0.2.1/\r\nConnection: close\r\n\r\n", failed(unavailable, "")},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, reader, end := askRaw(t, c.answer, "first_token_timeout: 3s\nidle_timeout: 3s\n")
			got := outcome{
				status: end.str("status"), finish: end.str("finish_reason"), code: end.str("error", "code"),
				text: reader.text[end.str("message_id")],
			}
			if got != c.want {
				t.Errorf("the response ends as %v with %.100q, want %v", end, got.text, c.want)
			}
			reader.quiet()
		})
	}
}

// An upstream that takes the connection for another protocol does not hold up the response for ever.
func TestUpstreamThatSwitchesProtocols(t *testing.T) {
	s, c, end := askRaw(t, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", "first_token_timeout: 2s\n")
	if end.str("status") != "failed" {
		t.Errorf("the response ends as %v", end)
	}
	c.quiet()
	s.awaitMetrics(map[string]string{"parley_responses_in_progress": "0"})
}

// Usage that cannot be harms nobody: not the server, nor what is known of the rest.
func TestUsageThatCannotBe(t *testing.T) {
	for name, usage := range map[string]string{
		"both negative": `{"prompt_tokens":-5,"completion_tokens":-1}`,
		"one negative":  `{"prompt_tokens":3,"completion_tokens":-1}`,
		"too many":      `{"prompt_tokens":9223372036854775807,"completion_tokens":9223372036854775807}`,
	} {
		t.Run(name, func(t *testing.T) {
			s, c, first := askRaw(t, streamHead+"\r\n"+helloEvent+finishing+`data: {"choices":[],"usage":`+usage+"}\n\n"+doneMark, "")
			for _, end := range []frame{first, c.ask("q2", "hi"), c.ask("q3", "hi")} {
				input, output := end.num("usage", "input_tokens"), end.num("usage", "output_tokens")
				if end.str("status") != "complete" || input < 0 || output < 0 || input > 1<<40 || output > 1<<40 {
					t.Errorf("a response ends as %v", end)
				}
			}
			if code := s.stop(syscall.SIGTERM); code != 0 {
				t.Errorf("the server exits with %d", code)
			}
			sums, err := s.openStore().SumUsage(t.Context(), chat.UsageFilter{})
			if err != nil || len(sums) != 1 || sums[0].Responses != 3 || sums[0].InputTokens < 0 || sums[0].OutputTokens < 0 {
				t.Errorf("stored are %+v: %v", sums, err)
			}
		})
	}
}

// A tool call that nobody asked for is one whatever the answer ends with.
func TestToolCallThatEndsAsStop(t *testing.T) {
	_, c, end := askRaw(t, streamHead+"\r\n"+`data: {"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"name":"x"}}]}}]}`+"\n\n"+
		finishing+doneMark, "")
	if end.str("status") != "failed" || end.str("error", "code") != rejected {
		t.Errorf("the response ends as %v with %q", end, c.text)
	}
}

// What an upstream says is bounded in the log, and every line of that is the log's own.
func TestLogOfWhatAnUpstreamSays(t *testing.T) {
	for name, answer := range map[string]string{
		"a long reason": "HTTP/1.1 500 " + strings.Repeat("reason ", 30_000) + "\r\nConnection: close\r\n\r\n",
		"more than was promised": "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: " + fmt.Sprint(len(helloEvent)) +
			"\r\n\r\n" + helloWhole,
	} {
		s, c, _ := askRaw(t, answer, "")
		c.quiet()
		if code := s.stop(syscall.SIGTERM); code != 0 {
			t.Errorf("%s: the server exits with %d", name, code)
		}
		if line := slices.MaxFunc(s.log(), func(a, b string) int { return len(a) - len(b) }); len(line) > 10_000 {
			t.Errorf("%s: a line of the log has %d bytes", name, len(line))
		}
		for _, line := range s.log() {
			if !strings.HasPrefix(line, "{") {
				t.Errorf("%s: the log says %.200s", name, line)
			}
		}
	}
}
