//go:build unix

package acceptance_test

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/parley-chat/parley/internal/llm/llmtest"
)

// garbage is a kind of what no client should send, and the answers that are proper.
type garbage struct {
	name   string
	make   func(r *rand.Rand) []byte
	proper []string // what the answer begins with
}

var garbages = []garbage{
	{"printable text", func(r *rand.Rand) []byte {
		b := make([]byte, 1+r.IntN(200))
		for i := range b {
			b[i] = byte(' ' + r.IntN('~'-' '))
		}
		return maskedFrame(0x81, b)
	}, []string{"error invalid_json"}},
	{"random bytes as text", func(r *rand.Rand) []byte { return maskedFrame(0x81, randomBytes(r, 1+r.IntN(200))) },
		[]string{"close 1007", "error invalid_json"}},
	{"JSON of a wrong shape", func(r *rand.Rand) []byte { return maskedFrame(0x81, []byte(bad[r.IntN(len(bad))].frame)) },
		[]string{"error "}},
	{"random JSON", func(r *rand.Rand) []byte { return maskedFrame(0x81, []byte(randomJSON(r, 0))) }, []string{"error "}},
	{"nested JSON", func(r *rand.Rand) []byte {
		return maskedFrame(0x81, []byte(strings.Repeat(`{"type":[`, 9+r.IntN(5000))))
	}, []string{"error invalid_json"}},
	{"crowded JSON", func(r *rand.Rand) []byte {
		return maskedFrame(0x81, []byte(`{"type":"ping"`+strings.Repeat(`,"a":1`, 64+r.IntN(5000))+`}`))
	}, []string{"error invalid_message"}},
	{"broken UTF-8 in JSON", func(r *rand.Rand) []byte {
		bytes := []string{"\xff", "\xc0\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xe2\x82"}
		return maskedFrame(0x81, []byte(`{"type":"ping","ref":"`+bytes[r.IntN(len(bytes))]+`"}`))
	}, []string{"close 1007"}},
	{"a binary message", func(r *rand.Rand) []byte { return maskedFrame(0x82, randomBytes(r, r.IntN(200))) }, []string{"close 1003"}},
	{"a reserved opcode", func(r *rand.Rand) []byte {
		ops := []byte{3, 4, 5, 6, 7, 11, 12, 13, 14, 15}
		return maskedFrame(0x80|ops[r.IntN(len(ops))], randomBytes(r, r.IntN(100)))
	}, []string{"close 1002"}},
	{"reserved bits", func(r *rand.Rand) []byte { return maskedFrame(0x81|byte(1+r.IntN(7))<<4, []byte("{}")) }, []string{"close 1002"}},
	{"a continuation of nothing", func(r *rand.Rand) []byte { return maskedFrame(0x80, []byte("{}")) }, []string{"close 1002"}},
	{"a long ping", func(r *rand.Rand) []byte { return maskedFrame(0x89, randomBytes(r, 126+r.IntN(1000))) }, []string{"close 1002"}},
	{"a bad close frame", func(r *rand.Rand) []byte {
		bodies := []string{"\x03", "\x03\xed", "\x00\x00", "\xff\xff", "\x03\xe8\xff"}
		return maskedFrame(0x88, []byte(bodies[r.IntN(len(bodies))]))
	}, []string{"close 1002", "close 1007"}},
	{"an unmasked frame", func(r *rand.Rand) []byte {
		b := randomBytes(r, r.IntN(200))
		return append(frameHeader(0x81, 0, len(b)), b...)
	}, []string{"close 1002"}},
	{"an oversized length", func(r *rand.Rand) []byte {
		n := uint64(64<<10+1) << r.IntN(40)
		return append(binary.BigEndian.AppendUint64([]byte{0x81, 0xff}, n), "mask and a beginning"...)
	}, []string{"error message_too_large"}},
	{"an impossible length", func(r *rand.Rand) []byte {
		return append(binary.BigEndian.AppendUint64([]byte{0x81, 0xff}, 1<<63|r.Uint64()), "mask"...)
	}, []string{"close 1002"}},
}

func randomBytes(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// randomJSON is a JSON value that is no frame, as its names are none of a frame's.
func randomJSON(r *rand.Rand, depth int) string {
	parts := make([]string, r.IntN(5))
	switch kind := r.IntN(6); {
	case kind == 0 && depth < 5:
		for i := range parts {
			parts[i] = fmt.Sprintf("%q:%s", fmt.Sprint("x", r.IntN(100)), randomJSON(r, depth+1))
		}
		return "{" + strings.Join(parts, ",") + "}"
	case kind == 1 && depth < 5:
		for i := range parts {
			parts[i] = randomJSON(r, depth+1)
		}
		return "[" + strings.Join(parts, ",") + "]"
	case kind == 2:
		return fmt.Sprintf(`"\u%04x\""`, r.IntN(1<<16))
	case kind == 3:
		return fmt.Sprint(r.NormFloat64() * 1e30)
	}
	return []string{"null", "true", "false", "-0", "1e999"}[r.IntN(5)]
}

// litter sends so much garbage, each when the one before was answered, and connects again where it was sent away. It
// gives how often it was answered with what.
func (c *rawClient) litter(r *rand.Rand, frames int, each func()) (answers map[string]int, err error) {
	answers = make(map[string]int)
	for range frames {
		g := garbages[r.IntN(len(garbages))]
		answer, err := c.drop(g.make(r))
		if err != nil {
			return answers, fmt.Errorf("%s: %w", g.name, err)
		}
		answers[answer]++
		if !slices.ContainsFunc(g.proper, func(p string) bool { return strings.HasPrefix(answer, p) }) {
			return answers, fmt.Errorf("%s is answered with %q", g.name, answer)
		}
		each()
	}
	if c.conn != nil {
		return answers, c.conn.Close()
	}
	return answers, nil
}

// drop sends garbage. Who has erred too often is sent away after the answer to the last error, which is seen only
// now, and tries once more.
func (c *rawClient) drop(data []byte) (string, error) {
	for {
		if c.conn == nil {
			if err := c.connect(); err != nil {
				return "", err
			}
		}
		_, _ = c.conn.Write(data) // an error shows when the answer is read
		answer, err := c.answer()
		switch {
		case err != nil:
			return "", err
		case answer == "close 1008":
			continue
		case answer == "error message_too_large":
			if end, err := c.answer(); end != "close 1009" || err != nil {
				return "", fmt.Errorf("after message_too_large comes %q (%w)", end, err)
			}
		}
		return answer, nil
	}
}

// Ten thousand frames of garbage from fifty connections are each answered, or the connection is closed with the code
// that says why. Somebody who reads a slow answer meanwhile misses nothing of it.
func TestTenThousandFramesOfGarbage(t *testing.T) {
	const people, each, words = 50, 200, 100
	const seed = 20260314
	t.Logf("seed %d", seed)
	up := startUpstream(t)
	s := startServer(t, up.scripted("stream_timeout: 10m\nidle_timeout: 5m\nfirst_token_timeout: 5m", fmt.Sprint("gate-", words)))
	bystander := s.dial(token("bob"))
	bystander.open()
	bystander.send("message.send", "message_id", "q", "text", "hi")
	bystander.until("message.created")

	var littering, reading sync.WaitGroup
	var end frame
	reading.Go(func() {
		for end.str("type") != "message.completed" {
			var err error
			if end, err = bystander.read(10 * patience); err != nil {
				t.Errorf("the bystander: %v", err)
				return
			}
		}
	})
	dropped := make(chan struct{}, people*each)
	answers := make([]map[string]int, people)
	for i := range people {
		littering.Go(func() {
			c := rawClient{addr: s.addr, user: fmt.Sprint("user", i)}
			var err error
			if answers[i], err = c.litter(rand.New(rand.NewPCG(seed, uint64(i))), each, func() { dropped <- struct{}{} }); err != nil {
				t.Errorf("user%d: %v", i, err)
			}
		})
	}
	go func() { littering.Wait(); close(dropped) }()
	n := 0
	for range dropped { // the answer goes on with the garbage
		if n++; n%(people*each/words) == 0 {
			up.release(t, 1)
		}
	}
	if n < people*each {
		up.release(t, words) // so that the bystander's answer ends at all
	}
	reading.Wait()
	if got := bystander.text[end.str("message_id")]; end.str("status") != "complete" || got != llmtest.Text(words) {
		t.Errorf("the bystander's answer ends as %v with %q", end, got)
	}
	bystander.quiet()
	t.Log(total(answers))
	if code := s.stop(syscall.SIGTERM); code != 0 {
		t.Errorf("the server ends with %d", code)
	}
	for _, line := range s.log() {
		if strings.Contains(line, "panic") || strings.Contains(line, `"level":"ERROR"`) {
			t.Errorf("the log says %s", line)
		}
	}
}

func total(answers []map[string]int) string {
	sum := make(map[string]int)
	for _, of := range answers {
		for what, n := range of {
			sum[what] += n
		}
	}
	var b strings.Builder
	for _, what := range slices.Sorted(maps.Keys(sum)) {
		fmt.Fprintf(&b, "%s: %d; ", what, sum[what])
	}
	return b.String()
}

// A client that sends nothing but errors has each of them answered, and then it is sent away.
func TestClientOfErrorsOnlyIsClosed(t *testing.T) {
	s := startServer(t, eliza)
	bystander := s.dial(token("bob"))
	bystander.open()
	c := s.dial(token("alice"))
	const allowed = 50
	for i := range allowed + 1 {
		c.sendRaw(fmt.Sprintf(`{"type":"nonsense","ref":"%d"}`, i))
		if f := c.next(); f.str("error", "code") != "unknown_type" || f.str("ref") != fmt.Sprint(i) {
			t.Fatalf("error %d is answered with %v", i, f)
		}
	}
	c.closedWith(1008)
	if entry := s.awaitLog("too many frames were refused"); entry["user"] != "alice" {
		t.Errorf("the log says %v", entry)
	}
	bystander.ask("q", "hello")
	s.dial(token("alice")).quiet() // the user is not locked out
}
