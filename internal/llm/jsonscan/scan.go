// Package jsonscan finds single values in a JSON text, for streams of many small events of which one field matters.
// It checks the whole text, and where encoding/json could see something else in it, the answer is to ask encoding/json.
package jsonscan

import (
	"bytes"
	"strconv"
	"strings"
)

// maxDepth is how deep arrays and objects may nest. It bounds the recursion; events of models nest about five deep.
const maxDepth = 32

// Paths are places in a JSON text. They are safe for concurrent use.
type Paths struct {
	root  *node
	count int
}

// node is a place that is wanted, or on the way to one.
type node struct {
	index int    // of its value among the wanted ones; -1: only what is below is wanted
	kind  byte   // what it must be for that, '{' or '['; 0: nothing below is wanted
	below []step // at most 64
}

type step struct {
	key   []byte // in an object
	index int    // in an array
	to    *node
}

// unwanted is any place that no path leads to.
var unwanted = &node{index: -1}

// NewPaths returns the places that paths name: the keys and the array indexes on the way to a value, joined by dots,
// as in "choices.0.delta.content". One path may lead through what another leads to. NewPaths panics where a path takes
// for an array what another takes for an object, and on more than 64 keys of one object.
func NewPaths(paths ...string) *Paths {
	p := &Paths{root: &node{index: -1}, count: len(paths)}
	for i, path := range paths {
		n := p.root
		for key := range strings.SplitSeq(path, ".") {
			n = n.add(key)
		}
		n.index = i
	}
	return p
}

// add returns the place below n that is called key, a new one if need be.
func (n *node) add(key string) *node {
	kind := byte('[')
	index, err := strconv.Atoi(key)
	if err != nil {
		kind = '{'
	}
	if n.kind != 0 && n.kind != kind || len(n.below) == 64 {
		panic("jsonscan: impossible path at " + key)
	}
	n.kind = kind
	for _, s := range n.below {
		if string(s.key) == key {
			return s.to
		}
	}
	to := &node{index: -1}
	n.below = append(n.below, step{[]byte(key), index, to})
	return to
}

// Scan sets values[i] to the value at the i-th path, as it stands in data, or to nil where there is none; null has
// nothing below it. Scan is false, and values mean nothing, unless it is sure that encoding/json would find the same.
// It is not sure where data is not one valid JSON text or nests too deep, where a path leads through a value of
// another kind, and where an object on the way has a wanted key twice, or in other case (encoding/json takes that for
// the same), or any key with escapes or beyond ASCII.
//
// A string among the values is well-formed as JSON, but not checked to be UTF-8.
func (p *Paths) Scan(data []byte, values [][]byte) bool {
	values = values[:p.count]
	clear(values)
	s := scanner{data: data}
	return s.value(p.root, values) && s.peek() == 0 && s.pos == len(data)
}

// scanner reads data from pos on. Its methods pass over what they are named after and return whether it is there.
type scanner struct {
	data  []byte
	pos   int
	depth int
}

// peek passes over white space and returns the byte that follows, 0 at the end.
func (s *scanner) peek() byte {
	for ; s.pos < len(s.data); s.pos++ {
		switch c := s.data[s.pos]; c {
		case ' ', '\n', '\r', '\t':
		default:
			return c
		}
	}
	return 0
}

// value puts itself and what is below into values, which is no field of s so that it stays on the caller's stack.
func (s *scanner) value(n *node, values [][]byte) (ok bool) {
	c := s.peek()
	begin := s.pos
	if n.kind != 0 && n.kind != c && c != 'n' {
		return false
	}
	switch c {
	case '"':
		_, ok = s.string()
	case '{', '[':
		s.depth++
		ok = s.depth <= maxDepth && s.nested(n, c, values)
		s.depth--
	case 'n':
		ok = s.word("null")
	case 't':
		ok = s.word("true")
	case 'f':
		ok = s.word("false")
	default:
		ok = s.number()
	}
	if ok && n.index >= 0 {
		values[n.index] = s.data[begin:s.pos:s.pos]
	}
	return ok
}

// nested is an object or an array.
func (s *scanner) nested(n *node, kind byte, values [][]byte) bool {
	end := kind + 2 // true of both, in ASCII
	s.pos++
	if s.peek() == end {
		s.pos++
		return true
	}
	var seen uint64 // bit i: below[i]
	for i := 0; ; i++ {
		var to *node
		ok := true
		if kind == '{' {
			to, ok = s.key(n, &seen)
		} else {
			to = n.element(i)
		}
		if !ok || !s.value(to, values) {
			return false
		}
		switch s.peek() {
		case ',':
			s.pos++
		case end:
			s.pos++
			return true
		default:
			return false
		}
	}
}

func (n *node) element(i int) *node {
	for _, s := range n.below {
		if s.index == i {
			return s.to
		}
	}
	return unwanted
}

// key is a key of n with its colon. It returns the place that it leads to.
func (s *scanner) key(n *node, seen *uint64) (to *node, ok bool) {
	if s.peek() != '"' {
		return nil, false
	}
	begin := s.pos + 1
	plain, ok := s.string()
	if !ok {
		return nil, false
	}
	key := s.data[begin : s.pos-1]
	if s.peek() != ':' {
		return nil, false
	}
	s.pos++
	if n.kind == 0 {
		return unwanted, true
	}
	for i := range n.below {
		wanted := &n.below[i]
		if len(key) != len(wanted.key) || !bytes.EqualFold(key, wanted.key) {
			continue
		}
		again := *seen&(1<<i) != 0
		*seen |= 1 << i
		return wanted.to, !again && bytes.Equal(key, wanted.key)
	}
	return unwanted, plain
}

// string is plain if it is ASCII and has no escapes.
func (s *scanner) string() (plain, ok bool) {
	plain = true
	for i := s.pos + 1; i < len(s.data); i++ {
		switch c := s.data[i]; {
		case c == '"':
			s.pos = i + 1
			return plain, true
		case c < ' ':
			return false, false
		case c == '\\':
			plain = false
			n := escape(s.data[i:])
			if n == 0 {
				return false, false
			}
			i += n - 1
		case c >= 0x80:
			plain = false
		}
	}
	return false, false
}

// escape returns the length of the escape sequence that text begins with; 0: it is none.
func escape(text []byte) int {
	if _, ok := hex4(text); ok {
		return 6
	}
	if len(text) > 1 && unescaped[text[1]] != 0 {
		return 2
	}
	return 0
}

// word is true, false or null.
func (s *scanner) word(word string) bool {
	if !bytes.HasPrefix(s.data[s.pos:], []byte(word)) {
		return false
	}
	s.pos += len(word)
	return true
}

// number is that of RFC 8259 §6.
func (s *scanner) number() bool {
	if s.at() == '-' {
		s.pos++
	}
	if s.at() == '0' {
		s.pos++
	} else if !s.digits() {
		return false
	}
	if s.at() == '.' {
		s.pos++
		if !s.digits() {
			return false
		}
	}
	if c := s.at(); c == 'e' || c == 'E' {
		s.pos++
		if c := s.at(); c == '+' || c == '-' {
			s.pos++
		}
		return s.digits()
	}
	return true
}

func (s *scanner) digits() bool {
	begin := s.pos
	for c := s.at(); '0' <= c && c <= '9'; c = s.at() {
		s.pos++
	}
	return s.pos > begin
}

// at returns the byte at pos, 0 at the end.
func (s *scanner) at() byte {
	if s.pos == len(s.data) {
		return 0
	}
	return s.data[s.pos]
}
