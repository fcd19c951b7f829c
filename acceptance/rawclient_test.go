//go:build unix

package acceptance_test

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// rawClient is a client that writes bytes rather than frames, as no library would.
type rawClient struct {
	addr, user string
	conn       net.Conn // nil: it has to connect
	in         *bufio.Reader
}

// connect opens a WebSocket (RFC 6455 §4.1).
func (c *rawClient) connect() error {
	conn, err := net.DialTimeout("tcp", c.addr, patience)
	if err != nil {
		return err
	}
	c.conn, c.in = conn, bufio.NewReader(conn)
	c.conn.SetDeadline(time.Now().Add(patience))
	if _, err := fmt.Fprintf(conn, "GET /ws HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: parley.v1\r\n"+
		"Authorization: Bearer %s\r\n\r\n", c.addr, token(c.user)); err != nil {
		return err
	}
	resp, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		return fmt.Errorf("the server answers with %s", resp.Status)
	}
	return nil
}

// answer reads until the server answers with an error or closes, and says which: "error invalid_json", "close 1002".
func (c *rawClient) answer() (string, error) {
	for {
		op, payload, err := c.readFrame()
		switch {
		case err != nil:
			return "", err
		case op == 1:
			var f frame
			if err := json.Unmarshal(payload, &f); err != nil {
				return "", err
			}
			if f.str("type") == "error" {
				return "error " + f.str("error", "code"), nil
			}
		case op == 8 && len(payload) >= 2:
			return fmt.Sprint("close ", binary.BigEndian.Uint16(payload)), c.close(payload)
		case op == 9:
			if _, err := c.conn.Write(maskedFrame(0x8a, payload)); err != nil {
				return "", err
			}
		default:
			return "", fmt.Errorf("the server sends the opcode %d with %q", op, payload)
		}
	}
}

// close answers a close frame. Nothing may follow it (RFC 6455 §5.5.1).
func (c *rawClient) close(body []byte) error {
	defer func() { c.conn = nil }()
	defer c.conn.Close()
	_, _ = c.conn.Write(maskedFrame(0x88, body)) // the server may have gone
	_ = c.conn.(*net.TCPConn).CloseWrite()
	if rest, _ := io.ReadAll(c.in); len(rest) > 0 {
		return fmt.Errorf("after its close frame the server sends % x", rest)
	}
	return nil
}

func (c *rawClient) readFrame() (op byte, payload []byte, err error) {
	c.conn.SetDeadline(time.Now().Add(patience))
	header := make([]byte, 2, 10)
	if _, err := io.ReadFull(c.in, header); err != nil {
		return 0, nil, err
	}
	if header[0]&0xf0 != 0x80 || header[1]&0x80 != 0 {
		return 0, nil, fmt.Errorf("the server sends a frame of % x", header)
	}
	n := int(header[1])
	switch n {
	case 126:
		n, err = c.readLength(2)
	case 127:
		n, err = c.readLength(8)
	}
	if err != nil {
		return 0, nil, err
	}
	payload = make([]byte, n)
	_, err = io.ReadFull(c.in, payload)
	return header[0] & 0xf, payload, err
}

func (c *rawClient) readLength(size int) (int, error) {
	b := make([]byte, 8)
	_, err := io.ReadFull(c.in, b[8-size:])
	if n := binary.BigEndian.Uint64(b); n <= 16<<20 {
		return int(n), err
	}
	return 0, errors.New("the server announces more than 16 MiB")
}

// maskedFrame is a frame with a payload, as a client sends it.
func maskedFrame(first byte, payload []byte) []byte {
	key := [4]byte{0x37, 0xfa, 0x21, 0x3d}
	f := append(frameHeader(first, 0x80, len(payload)), key[:]...)
	for i, b := range payload {
		f = append(f, b^key[i%4])
	}
	return f
}

// frameHeader is a frame's header without the mask; maskBit says whether that follows.
func frameHeader(first, maskBit byte, n int) []byte {
	switch {
	case n <= 125:
		return []byte{first, maskBit | byte(n)}
	case n <= 0xffff:
		return binary.BigEndian.AppendUint16([]byte{first, maskBit | 126}, uint16(n))
	default:
		return binary.BigEndian.AppendUint64([]byte{first, maskBit | 127}, uint64(n))
	}
}
