package websocket

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// In the tests of this file a client sends bytes, as they stand on the wire, and the server's frames are read and
// described one by one: "text pong", "pong payload", "close 1002". What a server must not send fails them.

const ping = `{"type":"ping"}`

// heardBy is what a server has said to its client.
type heardBy struct {
	said []string
	err  error
	end  chan struct{} // closed when the server has closed the TCP connection
}

// listen reads to the end, and answers no close frame.
func (p *peer) listen() *heardBy {
	h := &heardBy{end: make(chan struct{})}
	go func() {
		defer close(h.end)
		var sent string
		buf := make([]byte, 4<<10)
		for {
			n, err := p.conn.Read(buf)
			sent += string(buf[:n])
			for ok := true; ok; {
				var said string
				if said, sent, ok, h.err = cutFrame(sent); h.err != nil {
					return
				}
				if ok {
					h.said = append(h.said, said)
				}
			}
			if err != nil {
				return
			}
		}
	}()
	return h
}

// exchange sends bytes, in pieces, each when the server has done what the one before asks for, and gives what the server
// says until it closes. Where nothing that is sent ends the connection, the client is to.
func exchange(t *testing.T, pieces ...string) (said []string) {
	test(t, func(t *testing.T, h *house, p *peer) {
		heard := p.listen()
		for _, piece := range pieces {
			_, _ = p.conn.Write([]byte(piece)) // the server may have closed
			synctest.Wait()
		}
		<-heard.end
		if heard.err != nil {
			t.Error(heard.err)
		}
		if n := strings.Count(strings.Join(heard.said, "\n"), "close"); n > 1 {
			t.Errorf("the server sends %d close frames", n)
		}
		said = heard.said
	})
	return said
}

// rfcTest is what a client sends, and all that the server says to it.
type rfcTest struct {
	name string
	sent []string
	want []string
}

var bye = frame(fin|opClose, closing(1000, ""))

func run(t *testing.T, tests []rfcTest) {
	t.Helper()
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := exchange(t, tt.sent...); !slices.Equal(got, tt.want) {
				t.Errorf("the server says %q, want %q", got, tt.want)
			}
		})
	}
}

func sent(pieces ...string) []string { return pieces }
func want(said ...string) []string   { return said }

func TestRFC6455_5_1_Masking(t *testing.T) {
	run(t, []rfcTest{
		{"5.1 masked client frame", sent(frame(fin|opText, ping), bye), want("text pong", "close 1000")},
		{"5.1 unmasked client frame → 1002", sent(unmasked(fin|opText, ping)), want("close 1002")},
		{"5.1 unmasked empty frame → 1002", sent(unmasked(fin|opText, "")), want("close 1002")},
		{"5.1 unmasked ping → 1002", sent(unmasked(fin|opPing, "x")), want("close 1002")},
		{"5.1 unmasked close → 1002", sent(unmasked(fin|opClose, closing(1000, ""))), want("close 1002")},
		{
			"5.1 unmasked continuation → 1002",
			sent(frame(opText, ping[:5]), unmasked(fin|opContinuation, ping[5:])), want("close 1002"),
		},
		{"5.3 mask of zeros", sent(maskedFrame(fin|opText, ping, [4]byte{}), bye), want("text pong", "close 1000")},
		{
			"5.3 another mask for each fragment, of every length modulo 4",
			sent(
				maskedFrame(opText, ping[:1], [4]byte{1, 2, 3, 4}), maskedFrame(opContinuation, ping[1:3], [4]byte{255, 0, 128, 7}),
				maskedFrame(opContinuation, ping[3:6], [4]byte{9, 9, 9, 9}), maskedFrame(opContinuation, ping[6:10], maskKey),
				maskedFrame(fin|opContinuation, ping[10:], [4]byte{0, 0, 0, 1}), bye,
			),
			want("text pong", "close 1000"),
		},
	})
}

func TestRFC6455_5_2_BaseFraming(t *testing.T) {
	var tests []rfcTest
	for name, bits := range map[string]byte{"RSV1": rsv1, "RSV2": rsv2, "RSV3": rsv3, "all": rsv1 | rsv2 | rsv3} {
		tests = append(tests,
			rfcTest{"5.2 RSV bits: " + name + " → 1002", sent(frame(fin|bits|opText, ping)), want("close 1002")},
			rfcTest{"5.2 RSV bits: " + name + " of a ping → 1002", sent(frame(fin|bits|opPing, "")), want("close 1002")},
			rfcTest{
				"5.2 RSV bits: " + name + " of a continuation → 1002",
				sent(frame(opText, ping[:5]), frame(fin|bits|opContinuation, ping[5:])), want("close 1002"),
			})
	}
	for _, op := range []byte{3, 4, 5, 6, 7, 11, 12, 13, 14, 15} {
		tests = append(tests,
			rfcTest{fmt.Sprintf("5.2 reserved opcodes: %d → 1002", op), sent(frame(fin|op, ping)), want("close 1002")},
			rfcTest{fmt.Sprintf("5.2 reserved opcodes: %d within a message → 1002", op),
				sent(frame(opText, ping), frame(fin|op, "")), want("close 1002")},
		)
	}
	spaces := func(n int) string { return ping + strings.Repeat(" ", n-len(ping)) }
	for _, n := range []int{len(ping), 124, 125, 126, 127, 128, 999, 1000} {
		tests = append(tests, rfcTest{
			fmt.Sprintf("5.2 minimal length encoding: %d bytes", n), sent(frame(fin|opText, spaces(n)), bye),
			want("text pong", "close 1000"),
		})
	}
	// "Note that in all cases, the minimal number of bytes MUST be used to encode the length."
	for _, n := range []uint16{0, 1, 15, 125} {
		tests = append(tests, rfcTest{
			fmt.Sprintf("5.2 minimal length encoding: %d in two bytes → 1002", n),
			sent(length16(fin|opText, n) + masked(spaces(125)[:n], maskKey)), want("close 1002"),
		})
	}
	for _, n := range []uint64{0, 15, 125, 126, 1000, 65535} {
		tests = append(tests, rfcTest{
			fmt.Sprintf("5.2 minimal length encoding: %d in eight bytes → 1002", n),
			sent(length64(fin|opText, n) + masked(spaces(1000)[:min(n, 1000)], maskKey)), want("close 1002"),
		})
	}
	for _, op := range []byte{opPing, opPong, opClose} {
		tests = append(tests, rfcTest{
			fmt.Sprintf("5.2 minimal length encoding: a control frame %d of 2 in two bytes → 1002", op),
			sent(length16(fin|op, 2) + masked(closing(1000, ""), maskKey)), want("close 1002"),
		})
	}
	tests = append(tests,
		rfcTest{"5.2 most significant bit of the length → 1002", sent(length64(fin|opText, 1<<63)), want("close 1002")},
		rfcTest{"5.2 all bits of the length → 1002", sent(length64(fin|opText, 1<<64-1)), want("close 1002")},
		rfcTest{
			"5.2 the largest length → 1009, before any of it is read", sent(length64(fin|opText, 1<<63-1)),
			want("text errormessage_too_large", "close 1009"),
		},
		rfcTest{
			"5.2 a length that overflows with what is there → 1009",
			sent(frame(opText, "x"), length64(fin|opContinuation, 1<<63-1)), want("text errormessage_too_large", "close 1009"),
		},
		rfcTest{"5.2 empty message", sent(frame(fin|opText, ""), bye), want("text errorinvalid_json", "close 1000")},
	)
	run(t, tests)
}

func TestRFC6455_5_4_Fragmentation(t *testing.T) {
	text := `{"type":"ping","ref":"` + "é€😀" + `"}`
	bytewise := []string{frame(opText, text[:1])}
	for i := range len(text) - 2 {
		bytewise = append(bytewise, frame(opContinuation, text[i+1:i+2]))
	}
	bytewise = append(bytewise, frame(fin|opContinuation, text[len(text)-1:]), bye)
	run(t, []rfcTest{
		{"5.4 fragmentation: two", sent(frame(opText, ping[:4]), frame(fin|opContinuation, ping[4:]), bye), want("text pong", "close 1000")},
		{"5.4 fragmentation: a byte each, within characters", bytewise, want("text pongé€😀", "close 1000")},
		{"5.4 fragmentation: all at once", sent(strings.Join(bytewise, "")), want("text pongé€😀", "close 1000")},
		{
			"5.4 fragmentation: two messages",
			sent(
				frame(opText, ping[:4]), frame(fin|opContinuation, ping[4:]), frame(opText, `{"type":"ping",`),
				frame(fin|opContinuation, `"ref":"2"}`), bye,
			),
			want("text pong", "text pong2", "close 1000"),
		},
		{
			"5.4 fragmentation: interleaved control frames",
			sent(
				frame(opText, ping[:4]), frame(fin|opPing, "a"), frame(opContinuation, ping[4:8]), frame(fin|opPong, "unsolicited"),
				frame(fin|opPing, "b"), frame(fin|opContinuation, ping[8:]), bye,
			),
			want("pong a", "pong b", "text pong", "close 1000"),
		},
		{"5.4 fragmentation: an interleaved close ends it", sent(frame(opText, ping), bye), want("close 1000")},
		{"5.4 fragmentation: a continuation without a start → 1002", sent(frame(fin|opContinuation, ping)), want("close 1002")},
		{"5.4 fragmentation: an unfinished one → 1002", sent(frame(opContinuation, ping)), want("close 1002")},
		{
			"5.4 fragmentation: a continuation after the end → 1002",
			sent(frame(fin|opText, ping), frame(fin|opContinuation, "")), want("text pong", "close 1002"),
		},
		{
			"5.4 fragmentation: a new text frame in the middle → 1002",
			sent(frame(opText, ping[:4]), frame(fin|opText, ping)), want("close 1002"),
		},
		{"5.4 fragmentation: an unfinished one in the middle → 1002", sent(frame(opText, ping[:4]), frame(opText, ping)), want("close 1002")},
		{
			"5.4 fragmentation: a new binary frame in the middle → 1002",
			sent(frame(opText, ping[:4]), frame(fin|opBinary, ping)), want("close 1002"),
		},
		{
			"5.4 fragmentation: empty fragments",
			sent(
				frame(opText, ""), frame(opContinuation, ""), frame(opContinuation, ping), frame(opContinuation, ""),
				frame(fin|opContinuation, ""), bye,
			),
			want("text pong", "close 1000"),
		},
		{
			"5.4 fragmentation: nothing but empty ones",
			sent(frame(opText, ""), frame(opContinuation, ""), frame(fin|opContinuation, ""), bye),
			want("text errorinvalid_json", "close 1000"),
		},
		{"5.4 fragmentation: a fragmented ping → 1002", sent(frame(opPing, "x"), frame(fin|opContinuation, "y")), want("close 1002")},
		{"5.4 fragmentation: a fragmented pong → 1002", sent(frame(opPong, "")), want("close 1002")},
		{"5.4 fragmentation: a fragmented close → 1002", sent(frame(opClose, closing(1000, ""))), want("close 1002")},
	})
}

func TestRFC6455_5_5_ControlFrames(t *testing.T) {
	const most = 125
	long := strings.Repeat("x", most)
	tests := []rfcTest{
		{"5.5.2 ping: without a payload", sent(frame(fin|opPing, ""), bye), want("pong ", "close 1000")},
		{"5.5.2 ping: the pong has the same payload", sent(frame(fin|opPing, "a\x00\xff"), bye), want("pong a\x00\xff", "close 1000")},
		{"5.5.2 ping: of 125 bytes", sent(frame(fin|opPing, long), bye), want("pong "+long, "close 1000")},
		{"5.5.2 ping: one after another", sent(frame(fin|opPing, "a"), frame(fin|opPing, "b"), bye), want("pong a", "pong b", "close 1000")},
		{"5.5.2 ping: after the close frame there is no pong", sent(bye + frame(fin|opPing, "a")), want("close 1000")},
		{"5.5.3 pong: an unsolicited one is not answered", sent(frame(fin|opPong, "a"), frame(fin|opText, ping), bye), want("text pong", "close 1000")},
		{"5.5.3 pong: of 125 bytes", sent(frame(fin|opPong, long), bye), want("close 1000")},
		{"5.5.1 close: of 125 bytes", sent(frame(fin|opClose, closing(1000, long[2:]))), want("close 1000")},
	}
	for name, op := range map[string]byte{"ping": opPing, "pong": opPong, "close": opClose} {
		for _, n := range []int{most + 1, most + 2, 1000, 70_000} {
			tests = append(tests, rfcTest{
				fmt.Sprintf("5.5 control > 125: a %s of %d → 1002", name, n),
				sent(frame(fin|op, closing(1000, strings.Repeat("x", n-2)))), want("close 1002"),
			})
		}
	}
	run(t, tests)
}

func TestRFC6455_5_5_1_Close(t *testing.T) {
	utf8Cut := "\xf0\x9f\x98" // a character without its last byte
	tests := []rfcTest{
		{"5.5.1 close handshake: echo without a body", sent(frame(fin|opClose, "")), want("close")},
		{"5.5.1 close handshake: a reason", sent(frame(fin|opClose, closing(1000, "going home"))), want("close 1000")},
		{"5.5.1 close handshake: a reason in UTF-8", sent(frame(fin|opClose, closing(1001, "é€😀"))), want("close 1001")},
		{"5.5.1 close handshake: 1-byte body → 1002", sent(frame(fin|opClose, "\x03")), want("close 1002")},
		{"5.5.1 close handshake: bad UTF-8 reason → 1007", sent(frame(fin|opClose, closing(1000, "\xff"))), want("close 1007")},
		{"5.5.1 close handshake: a reason cut within a character → 1007", sent(frame(fin|opClose, closing(1000, utf8Cut))), want("close 1007")},
		{
			"5.5.1 close handshake: data after close ignored",
			sent(bye + frame(fin|opText, ping) + unmasked(fin|opText, ping) + "garbage"), want("close 1000"),
		},
		{"5.5.1 close handshake: a second close ignored", sent(bye + frame(fin|opClose, closing(4000, ""))), want("close 1000")},
		{
			"5.5.1 close handshake: what came before is answered first",
			sent(frame(fin|opText, ping) + frame(fin|opText, "{") + bye), want("text pong", "text errorinvalid_json", "close 1000"),
		},
	}
	// §7.4.1, §7.4.2 and IANA's registry, where 1012 to 1014 have been added.
	for _, code := range []int{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999} {
		tests = append(tests, rfcTest{
			fmt.Sprintf("7.4 code ranges: %d is echoed", code), sent(frame(fin|opClose, closing(code, ""))), want(fmt.Sprint("close ", code)),
		})
	}
	for _, code := range []int{0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 1999, 2000, 2999, 5000, 9999, 65535} {
		tests = append(tests, rfcTest{
			fmt.Sprintf("7.4 code ranges: %d → 1002", code), sent(frame(fin|opClose, closing(code, "x"))), want("close 1002"),
		})
	}
	run(t, tests)
}

func TestRFC6455_5_6_DataFrames(t *testing.T) {
	quoted := func(s string) string { return `{"type":"ping","ref":"` + s + `"}` }
	tests := []rfcTest{
		{"5.6 binary → 1003", sent(frame(fin|opBinary, ping)), want("close 1003")},
		{"5.6 binary: empty → 1003", sent(frame(fin|opBinary, "")), want("close 1003")},
		{"5.6 binary: its first fragment → 1003", sent(frame(opBinary, ping)), want("close 1003")},
		{"5.6 text of all planes", sent(frame(fin|opText, quoted("aé€😀\U0010ffff\ufffd\ufeff")), bye), want("text pongaé€😀\U0010ffff\ufffd\ufeff", "close 1000")},
		{
			"8.1 valid UTF-8 across fragments, with a ping within a character",
			sent(frame(opText, quoted("😀")[:24]), frame(fin|opPing, "x"), frame(fin|opContinuation, quoted("😀")[24:]), bye),
			want("pong x", "text pong😀", "close 1000"),
		},
		{
			"8.1 invalid UTF-8 across fragments → 1007",
			sent(frame(opText, quoted("€")[:23]), frame(fin|opContinuation, "x"+quoted("€")[24:])), want("close 1007"),
		},
		{
			"8.1 a character that the last fragment does not end → 1007",
			sent(frame(opText, ping), frame(fin|opContinuation, "\xe2\x82")), want("close 1007"),
		},
		{
			"8.1 a character is not continued by the next message",
			sent(frame(fin|opText, quoted("€")[:23]), frame(fin|opText, quoted("€")[23:])), want("close 1007"),
		},
	}
	for name, bad := range map[string]string{
		"a continuation byte alone": "\x80", "two": "\xbf\xbf", "a byte that begins nothing": "\xff", "overlong /": "\xc0\xaf",
		"overlong of three bytes": "\xe0\x80\xaf", "overlong of four": "\xf0\x80\x80\xaf", "the modified NUL": "\xc0\x80",
		"a surrogate": "\xed\xa0\x80", "a pair of surrogates": "\xed\xa0\xbd\xed\xb8\x80", "beyond U+10FFFF": "\xf4\x90\x80\x80",
		"five bytes": "\xf8\x88\x80\x80\x80", "cut within a character": "\xf0\x9f\x98",
	} {
		tests = append(tests, rfcTest{
			"8.1 invalid UTF-8: " + name + " → 1007", sent(frame(fin|opText, quoted(bad))), want("close 1007"),
		})
	}
	run(t, tests)
}

// What follows a frame that fails the connection is not looked at (§7.1.7).
func TestRFC6455_7_1_7_FailedConnectionHearsNothingMore(t *testing.T) {
	var tests []rfcTest
	for name, wrong := range map[string]string{
		"an unmasked frame": unmasked(fin|opText, ping), "a reserved opcode": frame(fin|3, ""), "a binary message": frame(fin|opBinary, "x"),
		"bad UTF-8": frame(fin|opText, "\xff"), "a bad close": frame(fin|opClose, "x"),
	} {
		tests = append(tests, rfcTest{
			"7.1.7 after " + name,
			sent(wrong + frame(fin|opText, ping) + frame(fin|opPing, "x") + frame(fin|opText, `{"type":"session.open"}`)), nil,
		})
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := exchange(t, tt.sent...); len(got) != 1 || !strings.HasPrefix(got[0], "close 10") {
				t.Errorf("the server says %q", got)
			}
		})
	}
}

// The server closes the TCP connection, and does not wait for the client to (§7.1.1), nor longer than a moment for the
// client's close frame (§7.1.3).
func TestRFC6455_7_1_1_TheServerClosesTCP(t *testing.T) {
	for name, tt := range map[string]struct {
		sent []string
		wait time.Duration
	}{
		"the client has closed":                   {sent(bye), 0},
		"the client has broken the protocol":      {sent(unmasked(fin|opText, ping)), closeGrace},
		"and goes on to talk":                     {sent(unmasked(fin|opText, ping), frame(fin|opText, ping), frame(fin|opPing, "")), closeGrace},
		"a message is too big":                    {sent(frame(fin|opText, strings.Repeat(" ", 1001))), closeGrace},
		"a message is too big, and answers close": {sent(frame(fin|opText, strings.Repeat(" ", 1001)), frame(fin|opClose, closing(1009, ""))), closeGrace},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHouse(t)
				defer h.close()
				p := h.connect(t)
				defer p.conn.Close()
				heard := p.listen()
				start := time.Now()
				for _, piece := range tt.sent {
					_, _ = p.conn.Write([]byte(piece))
					synctest.Wait()
				}
				<-heard.end
				if d := time.Since(start); d != tt.wait {
					t.Errorf("it closes after %v, want %v", d, tt.wait)
				}
			})
		})
	}
}

// A connection that the server closes hears the client's close frame, and ends with it (§7.1.2, §7.1.4); data that was
// under way is dropped (§5.5.1).
func TestRFC6455_7_1_2_TheServerStartsTheHandshake(t *testing.T) {
	test(t, func(t *testing.T, h *house, p *peer) {
		heard := p.listen()
		h.router.StartDraining()
		synctest.Wait()
		start := time.Now()
		for _, piece := range []string{frame(fin|opText, ping), frame(fin|opPing, "x"), frame(fin|opClose, closing(1012, ""))} {
			_, _ = p.conn.Write([]byte(piece))
		}
		<-heard.end
		if got, want := heard.said, []string{"text server.draining", "close 1012"}; !slices.Equal(got, want) || heard.err != nil {
			t.Errorf("the server says %q (%v), want %q", got, heard.err, want)
		}
		if d := time.Since(start); d != 0 {
			t.Errorf("it waits %v after the client's close frame", d)
		}
	})
}

// A client that goes without a close frame, at whatever place of the stream, leaves nothing behind (§7.2.1).
func TestRFC6455_7_2_1_AbruptEnds(t *testing.T) {
	stream := frame(fin|opText, ping) + frame(opText, ping[:5]) + frame(fin|opPing, "ping") + frame(fin|opContinuation, ping[5:])
	for cut := range len(stream) {
		test(t, func(t *testing.T, h *house, p *peer) {
			heard := p.listen()
			_, _ = p.conn.Write([]byte(stream[:cut]))
			synctest.Wait()
			p.conn.Close()
			synctest.Wait()
			if n := h.router.Connections(); n != 0 || heard.err != nil {
				t.Errorf("cut at %d: %d connections are left (%v)", cut, n, heard.err)
			}
			if strings.Contains(h.log.String(), "protocol violation") {
				t.Errorf("cut at %d: the log says %s", cut, h.log)
			}
		})
	}
}
