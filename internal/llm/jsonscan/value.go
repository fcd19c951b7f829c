package jsonscan

import (
	"bytes"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// IsNull reports whether a value that [Paths.Scan] found is null or absent.
func IsNull(value []byte) bool { return value == nil || string(value) == "null" }

// String returns what encoding/json would put into an empty string for a value that [Paths.Scan] found: the text of a
// JSON string, "" for null or nil. It returns false for other kinds of values and for text that is not UTF-8. It
// allocates the text and nothing else.
func String(value []byte) (text string, ok bool) {
	if IsNull(value) {
		return "", true
	}
	if value[0] != '"' || !utf8.Valid(value) {
		return "", false
	}
	value = value[1 : len(value)-1]
	if bytes.IndexByte(value, '\\') < 0 {
		return string(value), true
	}
	return unescape(value), true
}

// Int returns what encoding/json would put into a zero int for a value that [Paths.Scan] found: a whole number, 0 for
// null or nil. It returns false for other kinds of values, and for numbers below zero or of more than 9 digits.
func Int(value []byte) (n int, ok bool) {
	if IsNull(value) {
		return 0, true
	}
	for _, c := range value {
		if c < '0' || c > '9' || len(value) > 9 {
			return 0, false
		}
		n = 10*n + int(c-'0')
	}
	return n, true
}

// unescape resolves the escape sequences of text, which are well-formed (RFC 8259 §7). It never gets longer by that.
func unescape(text []byte) string {
	var b strings.Builder
	b.Grow(len(text))
	for {
		i := bytes.IndexByte(text, '\\')
		if i < 0 {
			b.Write(text)
			return b.String()
		}
		b.Write(text[:i])
		text = text[i:]
		if unit, ok := hex4(text); ok {
			text = text[6:]
			if utf16.IsSurrogate(unit) {
				low, _ := hex4(text)
				if unit = utf16.DecodeRune(unit, low); unit != utf8.RuneError {
					text = text[6:]
				}
			}
			b.WriteRune(unit)
			continue
		}
		b.WriteByte(unescaped[text[1]])
		text = text[2:]
	}
}

var unescaped = [256]byte{
	'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t',
}

// hex4 returns the UTF-16 code unit of the \uXXXX that text begins with.
func hex4(text []byte) (unit rune, ok bool) {
	if len(text) < 6 || text[0] != '\\' || text[1] != 'u' {
		return 0, false
	}
	for _, c := range text[2:6] {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		unit = unit<<4 | rune(c)
	}
	return unit, true
}
