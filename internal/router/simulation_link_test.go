package router_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/router"
)

// The causes for which a link's commands end.
var errCut, errClosed = errors.New("the network is gone"), errors.New("the server closes the connection")

// writeTimeout is how long a client may take nothing before it is given up.
const writeTimeout, closeStuck = 10 * time.Second, 4408

// link is one connection of a device: a [router.Transport] that loses what is on its way when it is cut.
type link struct {
	w      *world
	device *device
	conn   *router.Connection
	dice   *dice
	ctx    context.Context
	cancel context.CancelCauseFunc
	done   chan struct{}
	wakes  chan struct{}
	turn   chan struct{} // holds one: a connection's commands, and its end, come one after another

	stalled atomic.Int64 // until when the client reads nothing, in nanoseconds since 1970
	code    atomic.Int64 // the close code; 0: none

	// Guarded by the world's lock.
	opens    map[string]chat.OpenSession // by ref
	awaiting string                      // the ref of an open that was not answered yet
	held     []router.Outgoing           // what came meanwhile
	current  string                      // the ref of the open that the link is bound by; "": it is not
	moving   bool                        // a command is changing that
	leftAt   time.Time
	seen     *mirror // of the session that events come from
	reading  string
	expires  time.Time
}

var _ router.Transport = (*link)(nil)

func (l *link) Wake() {
	select {
	case l.wakes <- struct{}{}:
	default:
	}
}

func (l *link) Close(code int, _ string) {
	l.code.CompareAndSwap(0, int64(code))
	l.cancel(errClosed)
}

func (l *link) Done() <-chan struct{} { return l.done }

// cut loses the connection.
func (l *link) cut() { l.cancel(errCut) }

func (l *link) gone() bool {
	select {
	case <-l.done:
		return true
	default:
		return false
	}
}

// do sends a command. An error is answered as by the WebSocket handler; it is nil where the link is going.
func (l *link) do(cmd chat.Command, ref string) *chat.Error {
	select {
	case l.turn <- struct{}{}:
	case <-l.done:
		return nil
	}
	defer func() { <-l.turn }()
	err := l.w.Do(l.ctx, l.conn, cmd, ref)
	if err == nil {
		l.w.accepted(l, cmd)
		return nil
	}
	if errors.Is(err, errCut) || errors.Is(err, errClosed) {
		return nil
	}
	shown := chat.AsError(err)
	if shown.Code == chat.CodeInternal || !l.w.store.fails && shown.Code == chat.CodeStorageUnavailable {
		l.w.fail(l.w.talkOf(l), "%s: %#v gives %v", l, cmd, err)
	}
	l.conn.Answer(l.ctx, chat.ErrorNotice{Err: shown}, ref)
	return shown
}

// write carries what the connection is told, until it is closed or cut.
func (l *link) write() {
	defer close(l.done)
	defer func() {
		l.turn <- struct{}{}
		time.Sleep(l.dice.upTo(100 * time.Millisecond)) // a closing handshake
		l.w.ended(l)
		l.w.Disconnect(l.conn)
	}()
	for l.ctx.Err() == nil {
		batch, last := l.pull()
		if len(batch) > 0 && !l.travel() {
			break
		}
		l.w.deliver(l, batch)
		if last.Close != 0 {
			l.Close(last.Close, last.Reason)
			break
		}
		if len(batch) == 0 {
			select {
			case <-l.wakes:
			case <-l.ctx.Done():
			}
		}
	}
	if errors.Is(context.Cause(l.ctx), errCut) {
		return
	}
	for out, ok := l.conn.Farewell(); ok; out, ok = l.conn.Farewell() {
		l.w.deliver(l, []router.Outgoing{out})
	}
}

// pull takes some of what waits. last is a close frame, if there is one.
func (l *link) pull() (batch []router.Outgoing, last router.Outgoing) {
	for range 1 + l.dice.below(6) {
		out, ok := l.conn.Next()
		switch {
		case !ok:
			return batch, last
		case out.Close != 0:
			return batch, out
		}
		l.w.sentOut(l, out)
		batch = append(batch, out)
	}
	return batch, last
}

// travel is the time that frames take; false: they are lost on the way.
func (l *link) travel() bool {
	left := time.Until(time.Unix(0, l.stalled.Load()))
	if left > writeTimeout {
		if l.wait(writeTimeout) {
			l.Close(closeStuck, "takes nothing")
		}
		return false
	}
	if left <= 0 && l.dice.chance(50) {
		return true
	}
	return l.wait(max(left, 0) + l.dice.upTo(50*time.Millisecond))
}

func (l *link) wait(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-l.ctx.Done():
		return false
	}
}

func (l *link) String() string { return fmt.Sprintf("%s/%.4s", l.device.name, l.conn.ID()) }
