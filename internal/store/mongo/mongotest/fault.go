package mongotest

import (
	"context"
	"errors"
	"slices"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// Fault is something that happens to commands.
type Fault struct {
	// Command and Collection say to which. Empty is any, of the commands that work with data: what keeps a connection
	// and a session going (hello, ping, endSessions and the like) has to be named.
	Command, Collection string

	Skip  int    // so many that match pass first
	Times int    // how often it happens; 0: once; negative: always
	OnHit func() // unless nil, called when it happens, before Action

	Action Action // what happens: [DropBefore], [DropAfter], [Hold], [Delay], [Fail], [Reply] or [ReplyAfter]
}

// Action is what happens to a command. It gives the answer, or an error, which closes the client's connection.
type Action func(*call) (message, error)

// call is a command that a fault happens to.
type call struct {
	command  *command
	ctx      context.Context // ends when the proxy does
	released <-chan struct{} // closed when the fault is removed
	execute  func() (message, error)
}

var errDropped = errors.New("dropped, as a fault wants it")

// DropBefore closes the client's connection, and does not execute the command.
func DropBefore(*call) (message, error) { return nil, errDropped }

// DropAfter executes the command, and closes the client's connection instead of answering.
func DropAfter(c *call) (message, error) {
	if _, err := c.execute(); err != nil {
		return nil, err
	}
	return nil, errDropped
}

// Hold executes the command when the fault is removed.
func Hold(c *call) (message, error) {
	select {
	case <-c.released:
		return c.execute()
	case <-c.ctx.Done():
		return nil, c.ctx.Err()
	}
}

// Delay executes the command after a while, or when the fault is removed.
func Delay(d time.Duration) Action {
	return func(c *call) (message, error) {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
			return c.execute()
		case <-c.released:
			return c.execute()
		case <-c.ctx.Done():
			return nil, c.ctx.Err()
		}
	}
}

// Fail answers with an error of the server, such as 11600, InterruptedAtShutdown, and does not execute the command.
func Fail(code int, codeName, message string, labels ...string) Action {
	document := bson.D{{Key: "ok", Value: 0.0}, {Key: "errmsg", Value: message}, {Key: "code", Value: int32(code)},
		{Key: "codeName", Value: codeName}}
	if len(labels) > 0 {
		document = append(document, bson.E{Key: "errorLabels", Value: labels})
	}
	return Reply(document)
}

// Reply answers with a document, and does not execute the command: for what this database does not say, such as a write
// error with the key that was there already.
func Reply(document any) Action {
	return func(c *call) (message, error) { return c.command.reply(document) }
}

// ReplyAfter executes the command, and answers with a document instead, such as one with a writeConcernError.
func ReplyAfter(document any) Action {
	return func(c *call) (message, error) {
		if _, err := c.execute(); err != nil {
			return nil, err
		}
		return c.command.reply(document)
	}
}

// hellos are the names of one command.
var hellos = []string{"hello", "isMaster", "ismaster"}

// plumbing are the other commands that a fault has to name.
var plumbing = []string{"ping", "buildInfo", "saslStart", "saslContinue", "endSessions", "killCursors"}

func (f *Fault) matches(c *command) bool {
	if f.Collection != "" && f.Collection != c.collection {
		return false
	}
	hello := slices.Contains(hellos, c.name)
	if f.Command == "" {
		return !hello && !slices.Contains(plumbing, c.name)
	}
	return f.Command == c.name || hello && slices.Contains(hellos, f.Command)
}

// injected is a fault in a proxy, whose lock guards its counts.
type injected struct {
	Fault
	released chan struct{}
	passed   int
	hits     int
}

// strikes says whether the fault happens to the command, and counts it.
func (f *injected) strikes(c *command) bool {
	if !f.matches(c) {
		return false
	}
	if f.passed < f.Skip {
		f.passed++
		return false
	}
	if f.Times >= 0 && f.hits >= max(f.Times, 1) {
		return false
	}
	f.hits++
	return true
}

func (p *proxy) inject(fault Fault) (hits func() int, remove func()) {
	if fault.Action == nil {
		panic("a fault without an action")
	}
	f := &injected{Fault: fault, released: make(chan struct{})}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults = append(p.faults, f)
	return func() int { return p.hits(f) }, func() { p.remove(f) }
}

func (p *proxy) hits(f *injected) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return f.hits
}

func (p *proxy) remove(f *injected) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if i := slices.Index(p.faults, f); i >= 0 {
		p.faults = slices.Delete(p.faults, i, i+1)
		close(f.released)
	}
}

// strike gives the fault that happens to the command; nil: none does.
func (p *proxy) strike(c *command) *injected {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, f := range p.faults {
		if f.strikes(c) {
			return f
		}
	}
	return nil
}
