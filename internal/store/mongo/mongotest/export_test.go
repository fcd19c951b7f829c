package mongotest

import (
	"bytes"
	"testing"
)

// StartAt is Start before the server with a URI. With a turn, whoever shares it runs one command at a time.
func StartAt(tb testing.TB, uri string, turn chan struct{}) *Server {
	tb.Helper()
	up, err := parseUpstream(uri)
	if err != nil {
		tb.Fatal(err)
	}
	up.turn = turn
	return start(tb, up)
}

// Parse reads the command at the beginning of data, and gives its name, its collection, and what is sent on.
func Parse(data []byte) (name, collection string, forwarded []byte, err error) {
	m, err := readMessage(bytes.NewReader(data))
	if err != nil {
		return "", "", nil, err
	}
	c, err := parseCommand(m)
	return c.name, c.collection, c.message, err
}
