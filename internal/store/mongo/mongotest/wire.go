package mongotest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// See https://www.mongodb.com/docs/manual/reference/mongodb-wire-protocol/.
const (
	headerLen     = 16
	maxMessageLen = 48_000_000 // what servers call maxMessageSizeBytes

	opReply = 1    // answers opQuery
	opQuery = 2004 // drivers say hello by it, until they know the server
	opMsg   = 2013

	checksumPresent = 1 << 0
	moreToCome      = 1 << 1  // of a request: it wants no reply
	exhaustAllowed  = 1 << 16 // of a request: it takes many replies
)

// message is one message of the wire protocol, with its header.
type message []byte

func (m message) field(i int) int32 { return int32(binary.LittleEndian.Uint32(m[4*i:])) }
func (m message) requestID() int32  { return m.field(1) }
func (m message) responseTo() int32 { return m.field(2) }
func (m message) opCode() int32     { return m.field(3) }
func (m message) flags() uint32     { return binary.LittleEndian.Uint32(m[headerLen:]) }
func (m message) clearFlags(flags uint32) {
	binary.LittleEndian.PutUint32(m[headerLen:], m.flags()&^flags)
}

// readMessage reads one message.
func readMessage(r io.Reader) (message, error) {
	header := make(message, headerLen)
	if _, err := io.ReadFull(r, header); err != nil {
		return nil, err
	}
	length := header.field(0)
	if length < headerLen || length > maxMessageLen {
		return nil, fmt.Errorf("a message cannot have %d bytes", length)
	}
	// It grows with what comes: a length alone takes no memory.
	var m bytes.Buffer
	m.Write(header)
	if _, err := io.CopyN(&m, r, int64(length)-headerLen); err != nil {
		return nil, fmt.Errorf("read a message of %d bytes: %w", length, err)
	}
	return m.Bytes(), nil
}

// newMessage makes a message of a header and what follows it.
func newMessage(responseTo, opCode int32, rest []byte) message {
	m := make(message, 0, headerLen+len(rest))
	for _, field := range []int32{headerLen + int32(len(rest)), 0, responseTo, opCode} {
		m = binary.LittleEndian.AppendUint32(m, uint32(field))
	}
	return append(m, rest...)
}

// command is a request that asks for exactly one reply.
type command struct {
	message
	name       string // its first key
	collection string // empty: it concerns none
	silent     bool   // its client wants no reply
}

// parseCommand reads a request. It changes those that want no reply, or many, into ones that want one.
func parseCommand(m message) (command, error) {
	switch m.opCode() {
	case opMsg:
		return parseMsg(m)
	case opQuery:
		return parseQuery(m)
	}
	return command{}, fmt.Errorf("requests of the kind %d are not understood", m.opCode())
}

// parseMsg reads an OP_MSG, which is flags and sections.
func parseMsg(m message) (command, error) {
	if len(m) < headerLen+4 {
		return command{}, io.ErrUnexpectedEOF
	}
	if m.flags()&checksumPresent != 0 {
		return command{}, errors.New("checksums are not understood, and no driver sends any")
	}
	body, err := findBody(m[headerLen+4:])
	if err != nil {
		return command{}, err
	}
	c := command{message: m, silent: m.flags()&moreToCome != 0}
	m.clearFlags(moreToCome | exhaustAllowed)
	return c, c.parseBody(body)
}

// findBody finds the section of the kind 0, which holds the command. Those of the kind 1 are the documents to insert,
// and the like. Both begin with their length.
func findBody(sections []byte) (bson.Raw, error) {
	for len(sections) >= 5 {
		kind, section := sections[0], sections[1:]
		length := binary.LittleEndian.Uint32(section)
		switch {
		case length < 5 || uint64(length) > uint64(len(section)):
			return nil, fmt.Errorf("a section cannot have %d bytes", length)
		case kind == 0:
			return bson.Raw(section[:length]), nil
		case kind != 1:
			return nil, fmt.Errorf("sections of the kind %d are not understood", kind)
		}
		sections = section[length:]
	}
	return nil, errors.New("a message without a body")
}

// parseQuery reads an OP_QUERY, which is flags, the collection's name, two numbers and a document.
func parseQuery(m message) (command, error) {
	if len(m) < headerLen+4 {
		return command{}, io.ErrUnexpectedEOF
	}
	_, rest, found := strings.Cut(string(m[headerLen+4:]), "\x00")
	if !found || len(rest) < 8 {
		return command{}, io.ErrUnexpectedEOF
	}
	c := command{message: m}
	return c, c.parseBody(bson.Raw(rest[8:]))
}

func (c *command) parseBody(body bson.Raw) error {
	if err := body.Validate(); err != nil {
		return fmt.Errorf("a request that is no BSON: %w", err)
	}
	first, err := body.IndexErr(0)
	if err != nil {
		return fmt.Errorf("a request without a command: %w", err)
	}
	c.name = first.Key()
	collection := first.Value()
	if c.name == "getMore" { // its own value is the cursor
		collection = body.Lookup("collection")
	}
	c.collection, _ = collection.StringValueOK()
	return nil
}

// reply answers the command with a document.
func (c *command) reply(document any) (message, error) {
	raw, err := bson.Marshal(document)
	if err != nil {
		return nil, err
	}
	if c.opCode() == opQuery {
		// Flags, a cursor, where in it the reply begins, and the number of documents.
		rest := binary.LittleEndian.AppendUint32(make([]byte, 16), 1)
		return newMessage(c.requestID(), opReply, append(rest, raw...)), nil
	}
	// Flags, and a section of the kind 0.
	return newMessage(c.requestID(), opMsg, append(make([]byte, 5), raw...)), nil
}
