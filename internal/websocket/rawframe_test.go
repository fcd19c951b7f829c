package websocket

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"
)

// The first byte of a frame (RFC 6455 §5.2): FIN, three reserved bits, and the opcode.
const (
	fin  = 0x80
	rsv1 = 0x40
	rsv2 = 0x20
	rsv3 = 0x10

	opContinuation = 0x0
	opText         = 0x1
	opBinary       = 0x2
	opClose        = 0x8
	opPing         = 0x9
	opPong         = 0xa
)

const maskBit = 0x80 // of the second byte

var maskKey = [4]byte{0x37, 0xfa, 0x21, 0x3d}

// frame is a client's frame as it should be: masked, its length in the shortest form.
func frame(first byte, payload string) string { return maskedFrame(first, payload, maskKey) }

func maskedFrame(first byte, payload string, key [4]byte) string {
	return string(binary.BigEndian.AppendUint32(length([]byte{first}, maskBit, len(payload)), binary.BigEndian.Uint32(key[:]))) +
		masked(payload, key)
}

// length appends a payload's length in the shortest form, with the mask bit or without.
func length(header []byte, mask byte, n int) []byte {
	switch {
	case n <= 125:
		return append(header, mask|byte(n))
	case n <= 0xffff:
		return binary.BigEndian.AppendUint16(append(header, mask|126), uint16(n))
	default:
		return binary.BigEndian.AppendUint64(append(header, mask|127), uint64(n))
	}
}

// length16 and length64 are a frame's header and mask with its length in two or in eight bytes, whatever it is.
func length16(first byte, n uint16) string {
	return string(append(binary.BigEndian.AppendUint16([]byte{first, maskBit | 126}, n), maskKey[:]...))
}

func length64(first byte, n uint64) string {
	return string(append(binary.BigEndian.AppendUint64([]byte{first, maskBit | 127}, n), maskKey[:]...))
}

func unmasked(first byte, payload string) string {
	return string(length([]byte{first}, 0, len(payload))) + payload
}

func masked(payload string, key [4]byte) string {
	b := []byte(payload)
	for i := range b {
		b[i] ^= key[i%4]
	}
	return string(b)
}

// closing is the body of a close frame (§5.5.1).
func closing(code int, reason string) string {
	return string(binary.BigEndian.AppendUint16(nil, uint16(code))) + reason
}

// cutFrame takes one frame off what a server has sent, and describes it. ok is false where it is not all there. What a
// server must not send is an error: a mask (§5.1), reserved bits, a length that is not in its shortest form (§5.2),
// fragments and binary messages, which this one has no use for, a text that is not UTF-8 (§5.6), and a close frame whose
// code or reason is not allowed (§7.4.1, §5.5.1).
func cutFrame(sent string) (said, rest string, ok bool, err error) {
	if len(sent) < 2 {
		return "", sent, false, nil
	}
	n, size := int(sent[1]&0x7f), 2
	switch n {
	case 126:
		size = 4
	case 127:
		size = 10
	}
	if len(sent) < size {
		return "", sent, false, nil
	}
	switch n {
	case 126:
		n = int(binary.BigEndian.Uint16([]byte(sent[2:])))
	case 127:
		n = int(binary.BigEndian.Uint64([]byte(sent[2:])))
	}
	if shortest := len(length([]byte{0}, 0, n)); sent[1]&maskBit != 0 || sent[0]&0xf0 != fin || size != shortest {
		return "", "", false, fmt.Errorf("the server sends a frame of % x", sent[:size])
	}
	if len(sent) < size+n {
		return "", sent, false, nil
	}
	said, err = describe(sent[0]&0xf, sent[size:size+n])
	return said, sent[size+n:], true, err
}

func describe(op byte, payload string) (string, error) {
	switch {
	case op == opText:
		var f struct {
			Type, Ref string
			Error     struct{ Code string }
		}
		if err := json.Unmarshal([]byte(payload), &f); err != nil || !utf8.ValidString(payload) {
			return "", fmt.Errorf("the server sends the text %q", payload)
		}
		return "text " + f.Type + f.Error.Code + f.Ref, nil
	case len(payload) > 125:
		return "", errors.New("the server sends a control frame that is too long")
	case op == opPing:
		return "ping " + payload, nil
	case op == opPong:
		return "pong " + payload, nil
	case op == opClose && payload == "":
		return "close", nil
	case op == opClose && len(payload) >= 2 && utf8.ValidString(payload[2:]):
		code := int(payload[0])<<8 | int(payload[1])
		if allowedCode(code) {
			return fmt.Sprint("close ", code), nil
		}
	}
	return "", fmt.Errorf("the server sends the opcode %d with %q", op, payload)
}

// allowedCode is what RFC 6455 §7.4 and IANA's registry of WebSocket close codes let an endpoint send.
func allowedCode(code int) bool {
	switch {
	case code >= 1000 && code <= 1014:
		return code != 1004 && code != 1005 && code != 1006
	case code >= 3000 && code <= 4999:
		return true
	}
	return false
}
