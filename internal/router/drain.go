package router

import (
	"math/rand/v2"
	"time"

	"github.com/parley-chat/parley/chat"
)

// The bounds of when clients are told to come back after a drain: spread, so that they do not come all at once.
const (
	reconnectSoonest = 500 * time.Millisecond
	reconnectLatest  = 5 * time.Second
)

// sendAway tells a connection that the server drains, and closes it once it has what it waits for.
func (r *Router) sendAway(c *Connection) {
	after := reconnectSoonest + rand.N(reconnectLatest-reconnectSoonest)
	c.tell(chat.ServerDraining{ReconnectAfter: after.Round(time.Millisecond)})
	c.closeWhenRead(CloseRestart, "the server restarts")
}
