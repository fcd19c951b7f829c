package websocket

import (
	"net"
	"testing"

	"github.com/parley-chat/parley/internal/router"
)

// A writer that is about to rest when its connection ends must not take back that no writer starts any more: a late
// Wake, by a turn that still holds the session's readers, would start one beside serve's last Wait, or after it.
func TestNoWriterStartsAfterTheEnd(t *testing.T) {
	ours, theirs := net.Pipe()
	defer theirs.Close()
	defer ours.Close()
	c := newConn(&Handler{}, ours, &router.Connection{}, nil)
	c.writing = true // a writer has just gathered, before the end, and found nothing

	c.mu.Lock() // as serve does when the read loop has ended
	c.closing = &closeFrame{}
	c.writing = true
	c.mu.Unlock()

	c.rest() // the writer goes to rest
	if !c.writing {
		t.Error("the next Wake would start a writer after the connection's end")
	}
}
