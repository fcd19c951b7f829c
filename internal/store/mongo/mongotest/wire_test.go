package mongotest_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	"go.mongodb.org/mongo-driver/v2/x/mongo/driver/wiremessage"

	"github.com/parley-chat/parley/internal/store/mongo/mongotest"
)

func TestParseNamesTheCommandAndItsCollection(t *testing.T) {
	insert := encode(doc("insert", "messages", "$db", "chat"))
	tests := []struct {
		name       string
		message    []byte
		command    string
		collection string
	}{
		{"a command", msg(1, 0, 0, insert), "insert", "messages"},
		{"without a collection", msg(1, 0, 0, encode(doc("ping", 1, "$db", "admin"))), "ping", ""},
		{"documents after the body", withDocuments(insert, false), "insert", "messages"},
		{"documents before the body", withDocuments(insert, true), "insert", "messages"},
		{"getMore", msg(1, 0, 0, encode(doc("getMore", int64(7), "collection", "messages"))), "getMore", "messages"},
		{"the hello of a driver", query(1, encode(doc("isMaster", 1, "helloOk", true))), "isMaster", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			want := bytes.Clone(test.message)
			command, collection, forwarded, err := mongotest.Parse(test.message)
			if err != nil || command != test.command || collection != test.collection {
				t.Errorf("got %q, %q, %v", command, collection, err)
			}
			if !bytes.Equal(forwarded, want) {
				t.Errorf("sent on as %x, not %x", forwarded, want)
			}
		})
	}
}

// withDocuments is an OP_MSG with a section of documents.
func withDocuments(body []byte, before bool) []byte {
	index, b := wiremessage.AppendHeaderStart(nil, 1, 0, wiremessage.OpMsg)
	b = wiremessage.AppendMsgFlags(b, 0)
	first := append([]byte{0}, body...)
	second := append([]byte{1, 0, 0, 0, 0}, "documents\x00"...)
	second = append(second, encode(doc("_id", 1))...)
	binary.LittleEndian.PutUint32(second[1:], uint32(len(second)-1))
	if before {
		first, second = second, first
	}
	return measured(index, append(append(b, first...), second...))
}

func TestParseRefusesWhatIsNoCommand(t *testing.T) {
	ping := encode(doc("ping", 1))
	tests := []struct {
		name    string
		message []byte
	}{
		{"HTTP", []byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")},
		{"a length that is too short for a header", header(15, 2013)},
		{"a negative length", header(-1, 2013)},
		{"a length beyond all messages", header(48_000_001, 2013)},
		{"less than its length", msg(1, 0, 0, ping)[:30]},
		{"no flags", header(16, 2013)},
		{"no sections", append(header(20, 2013), 0, 0, 0, 0)},
		{"a section that is too long", msg(1, 0, 0, append([]byte{255, 0, 0, 0}, ping[4:]...))},
		{"a section with a negative length", msg(1, 0, 0, append([]byte{255, 255, 255, 255}, ping[4:]...))},
		{"a body that is no BSON", msg(1, 0, 0, []byte{6, 0, 0, 0, 16, 0})},
		{"an empty body", msg(1, 0, 0, encode(doc()))},
		{"a checksum", msg(1, 0, wiremessage.ChecksumPresent, append(ping, 1, 2, 3, 4))},
		{"a query without an end", append(header(24, 2004), 0, 0, 0, 0, 'a', 'b', 'c', 'd')},
		{"a query without a document", query(1, nil)},
		{"a compressed message", header(16, 2012)},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if name, collection, _, err := mongotest.Parse(test.message); err == nil {
				t.Errorf("understood as %q of %q", name, collection)
			}
		})
	}
}

func header(length int32, code wiremessage.OpCode) []byte {
	return wiremessage.AppendHeader(nil, length, 1, 0, code)
}

func FuzzParse(f *testing.F) {
	insert := encode(doc("insert", "messages"))
	f.Add(msg(1, 0, wiremessage.ExhaustAllowed, insert))
	f.Add(withDocuments(insert, true))
	f.Add(query(1, insert))
	f.Fuzz(func(t *testing.T, data []byte) {
		_, _, forwarded, err := mongotest.Parse(data)
		if err != nil {
			return
		}
		length := int(binary.LittleEndian.Uint32(data))
		if len(forwarded) != length {
			t.Errorf("%d bytes are sent on, not %d", len(forwarded), length)
		}
		if _, _, _, code, rest, _ := wiremessage.ReadHeader(forwarded); code == wiremessage.OpMsg {
			if flags, _, _ := wiremessage.ReadMsgFlags(rest); flags&(wiremessage.MoreToCome|wiremessage.ExhaustAllowed) != 0 {
				t.Errorf("the flags %b are sent on, which do not ask for one reply", flags)
			}
		}
	})
}
