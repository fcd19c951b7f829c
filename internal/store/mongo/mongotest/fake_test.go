package mongotest_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/url"
	"sync"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/x/mongo/driver/wiremessage"

	"github.com/parley-chat/parley/internal/store/mongo/mongotest"
)

// opQuery is a kind of message that drivers still say hello by, and are not to use otherwise.
const opQuery wiremessage.OpCode = 2004

// fake is a server that answers every command with what it was asked, and enough of a hello for a driver.
type fake struct {
	listener net.Listener
	wg       sync.WaitGroup
	asked    chan bson.Raw // every command, as it comes; room for all that a test does
	release  chan struct{} // commands called wait are answered when it is closed
	closed   chan struct{}

	mu    sync.Mutex // guards the fields below
	conns []net.Conn
	busy  int                 // how many commands called insert are under way
	most  int                 // of busy, ever
	flags wiremessage.MsgFlag // of the last OP_MSG
}

func newFake(t *testing.T) *fake {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{
		listener: listener,
		asked:    make(chan bson.Raw, 100),
		release:  make(chan struct{}),
		closed:   make(chan struct{}),
	}
	f.wg.Go(f.accept)
	t.Cleanup(f.close)
	return f
}

func (f *fake) uri() string { return "mongodb://" + f.listener.Addr().String() }

func (f *fake) accept() {
	for {
		conn, err := f.listener.Accept()
		if err != nil {
			return
		}
		f.mu.Lock()
		f.conns = append(f.conns, conn)
		f.mu.Unlock()
		f.wg.Go(func() {
			defer conn.Close()
			for f.answer(conn) == nil {
			}
		})
	}
}

func (f *fake) close() {
	f.listener.Close()
	close(f.closed)
	f.mu.Lock()
	for _, conn := range f.conns {
		conn.Close()
	}
	f.mu.Unlock()
	f.wg.Wait()
}

func (f *fake) answer(conn net.Conn) error {
	request, body, err := receive(conn)
	if err != nil {
		return err
	}
	name := body.Index(0).Key()
	f.enter(name, request)
	f.asked <- body
	if name == "wait" {
		select {
		case <-f.release:
		case <-f.closed:
		}
	}
	reply, err := bson.Marshal(doc("ok", 1, "ismaster", true, "helloOk", true, "isWritablePrimary", true,
		"minWireVersion", 0, "maxWireVersion", 21, "maxBsonObjectSize", 1<<24,
		"maxMessageSizeBytes", 48_000_000, "maxWriteBatchSize", 100_000, "asked", body))
	if err != nil {
		return err
	}
	f.leave(name)
	_, err = conn.Write(frame(request, reply))
	return err
}

func (f *fake) enter(name string, request []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if name == "insert" {
		f.busy++
	}
	f.most = max(f.most, f.busy)
	if _, _, _, code, rest, _ := wiremessage.ReadHeader(request); code == wiremessage.OpMsg {
		f.flags, _, _ = wiremessage.ReadMsgFlags(rest)
	}
}

func (f *fake) leave(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if name == "insert" {
		f.busy--
	}
}

// atOnce says how many commands called insert there ever were at the same time.
func (f *fake) atOnce() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.most
}

// lastFlags are those of the last OP_MSG.
func (f *fake) lastFlags() wiremessage.MsgFlag {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.flags
}

// next is the name of the next command that has come, waiting for it.
func (f *fake) next(t *testing.T) string {
	t.Helper()
	select {
	case body := <-f.asked:
		return body.Index(0).Key()
	case <-time.After(patience):
		t.Fatal("no command came")
		return ""
	}
}

// untouched fails the test if a command has come.
func (f *fake) untouched(t *testing.T) {
	t.Helper()
	select {
	case body := <-f.asked:
		t.Errorf("the server got %s", body)
	default:
	}
}

// receive reads a message and finds its document, with code that is none of the proxy's.
func receive(r io.Reader) (message []byte, body bson.Raw, err error) {
	header := make([]byte, 16)
	if _, err := io.ReadFull(r, header); err != nil {
		return nil, nil, err
	}
	rest := make([]byte, binary.LittleEndian.Uint32(header)-16)
	if _, err := io.ReadFull(r, rest); err != nil {
		return nil, nil, err
	}
	message = append(header, rest...)
	ok := false
	switch _, _, _, code, rest, _ := wiremessage.ReadHeader(message); code {
	case wiremessage.OpMsg:
		_, rest, _ = wiremessage.ReadMsgFlags(rest)
		_, rest, _ = wiremessage.ReadMsgSectionType(rest)
		var document []byte
		document, _, ok = wiremessage.ReadMsgSectionSingleDocument(rest)
		body = document
	case wiremessage.OpReply:
		var document []byte
		document, _, ok = wiremessage.ReadReplyDocument(rest[20:])
		body = document
	case opQuery: // flags, the name of a collection, two numbers
		_, rest, ok = bytes.Cut(rest[4:], []byte{0})
		body = rest[8:]
	}
	if !ok {
		return nil, nil, errors.New("not a message that this test understands")
	}
	return message, body, nil
}

// frame is the reply to a request.
func frame(request, document []byte) []byte {
	_, id, _, code, _, _ := wiremessage.ReadHeader(request)
	if code != opQuery {
		return msg(0, id, 0, document)
	}
	index, b := wiremessage.AppendHeaderStart(nil, 0, id, wiremessage.OpReply)
	b = wiremessage.AppendReplyFlags(b, 0)
	b = wiremessage.AppendReplyCursorID(b, 0)
	b = wiremessage.AppendReplyStartingFrom(b, 0)
	b = wiremessage.AppendReplyNumberReturned(b, 1)
	return measured(index, append(b, document...))
}

// msg is an OP_MSG.
func msg(id, responseTo int32, flags wiremessage.MsgFlag, document []byte) []byte {
	index, b := wiremessage.AppendHeaderStart(nil, id, responseTo, wiremessage.OpMsg)
	b = wiremessage.AppendMsgFlags(b, flags)
	b = wiremessage.AppendMsgSectionType(b, wiremessage.SingleDocument)
	return measured(index, append(b, document...))
}

// query is the OP_QUERY of a command.
func query(id int32, document []byte) []byte {
	index, b := wiremessage.AppendHeaderStart(nil, id, 0, opQuery)
	b = wiremessage.AppendQueryFlags(b, 0)
	b = wiremessage.AppendQueryFullCollectionName(b, "admin.$cmd")
	b = wiremessage.AppendQueryNumberToSkip(b, 0)
	b = wiremessage.AppendQueryNumberToReturn(b, -1)
	return measured(index, append(b, document...))
}

func measured(index int32, b []byte) []byte {
	binary.LittleEndian.PutUint32(b[index:], uint32(len(b)))
	return b
}

func encode(document bson.D) []byte {
	b, err := bson.Marshal(document)
	if err != nil {
		panic(err)
	}
	return b
}

// client is a connection to a server, with none of a driver's ideas.
type client struct {
	t    *testing.T
	conn net.Conn
	id   int32
}

func dial(t *testing.T, s *mongotest.Server) *client {
	t.Helper()
	conn, err := connect(t, s)
	if err != nil {
		t.Fatal(err)
	}
	return &client{t: t, conn: conn}
}

func connect(t *testing.T, s *mongotest.Server) (net.Conn, error) {
	t.Helper()
	uri, err := url.Parse(s.URI())
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", uri.Host)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	return conn, nil
}

func (c *client) send(document bson.D) {
	c.t.Helper()
	c.id++
	c.write(msg(c.id, 0, 0, encode(document)))
}

func (c *client) write(b []byte) {
	c.t.Helper()
	if _, err := c.conn.Write(b); err != nil {
		c.t.Fatal(err)
	}
}

// answer reads the reply to what was sent last.
func (c *client) answer() bson.Raw {
	c.t.Helper()
	message, body, err := receive(c.conn)
	if err != nil {
		c.t.Fatal(err)
	}
	if _, _, responseTo, _, _, _ := wiremessage.ReadHeader(message); responseTo != c.id {
		c.t.Fatalf("a reply to %d, not to %d: %s", responseTo, c.id, body)
	}
	return body
}

// do sends a command whose answer is to be the server's.
func (c *client) do(document bson.D) {
	c.t.Helper()
	c.send(document)
	if got := c.answer(); got.Lookup("asked").Type != bson.TypeEmbeddedDocument {
		c.t.Fatalf("%v was answered %s", document, got)
	}
}

// ended fails the test unless the connection is closed without a further byte.
func (c *client) ended() {
	c.t.Helper()
	n, err := c.conn.Read(make([]byte, 1))
	if n != 0 || err == nil {
		c.t.Errorf("the connection goes on (%d bytes, %v)", n, err)
	}
}

// doc makes a document of keys and their values.
func doc(pairs ...any) bson.D {
	d := bson.D{}
	for i := 0; i < len(pairs); i += 2 {
		d = append(d, bson.E{Key: pairs[i].(string), Value: pairs[i+1]})
	}
	return d
}
