package router_test

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/parley-chat/parley/chat"
)

// device is a client: it comes and goes, and remembers what it has read of each session.
type device struct {
	w     *world
	name  string
	token string
	staff bool
	user  *person
	dice  *dice
	link  *link
	count int

	// Guarded by the world's lock.
	mirrors map[string]*mirror // by session ID
}

// person is a user with several devices.
type person struct {
	id         string
	asleep, up time.Time // between these all devices are away
	sessions   []string  // guarded by the world's lock
}

// run lives the device's life until the world's end.
func (d *device) run(end time.Time) {
	for time.Now().Before(end) {
		switch {
		case d.user.asleep.Before(time.Now()) && d.user.up.After(time.Now()):
			d.goAway()
			time.Sleep(time.Until(d.user.up))
		case d.link == nil || d.link.gone():
			d.pause(8 * time.Second)
			d.connect()
		default:
			d.pause(3 * time.Second)
			d.act()
		}
	}
}

func (d *device) pause(most time.Duration) { time.Sleep(d.dice.upTo(most)) }

func (d *device) goAway() {
	if d.link != nil {
		d.link.cut()
		<-d.link.done
		d.link = nil
	}
}

func (d *device) connect() {
	if d.dial() {
		d.open(d.choose(), d.part())
	}
}

// dial makes a connection, if it may.
func (d *device) dial() bool {
	user, err := d.w.clerk.Verify(d.token)
	if err != nil {
		panic(err)
	}
	conn, err := d.w.Admit(user, netip.MustParseAddr("192.0.2.1"))
	if err != nil {
		if chat.AsError(err).Code != chat.CodeConnectionLimit {
			d.w.fail(nil, "%s: admitting gives %v", d.name, err)
		}
		d.w.mu.Lock()
		d.w.tally["refused by the limit"]++
		d.w.mu.Unlock()
		return false
	}
	if d.dice.chance(3) {
		d.w.Disconnect(conn) // the upgrade failed
		return false
	}
	l := &link{
		w: d.w, device: d, conn: conn, dice: newDice(d.w.seed, uint64(d.dice.below(1<<60))), expires: user.ExpiresAt,
		done: make(chan struct{}), wakes: make(chan struct{}, 1), turn: make(chan struct{}, 1),
		opens: make(map[string]chat.OpenSession),
	}
	l.ctx, l.cancel = context.WithCancelCause(context.Background())
	d.link = l
	d.w.Connect(conn, l)
	d.w.links.Go(l.write)
	return true
}

// part gives the part that the device wants to play next.
func (d *device) part() chat.AttachAs {
	switch {
	case !d.staff:
		return chat.AsUser
	case d.dice.chance(30):
		return chat.AsAgent
	default:
		return chat.AsObserver
	}
}

// choose gives a session to open; "": a new one.
func (d *device) choose() string {
	d.w.mu.Lock()
	defer d.w.mu.Unlock()
	known := d.user.sessions
	if d.staff {
		known = d.w.open
	}
	if len(known) == 0 || !d.staff && len(known) < sessionsPerUser {
		return ""
	}
	return known[d.dice.below(len(known))]
}

// open opens a session as a client does that remembers what it has.
func (d *device) open(id string, as chat.AttachAs) *chat.Error {
	if as != chat.AsUser && id == "" {
		return nil
	}
	cmd := chat.OpenSession{SessionID: id, As: as, History: []int{0, 3, 50, 200, 200}[d.dice.below(5)]}
	if d.dice.chance(10) && as == chat.AsUser {
		cmd.Model = []string{"m", "n"}[d.dice.below(2)]
	}
	ref := d.next("open")
	l := d.link
	d.w.mu.Lock()
	if m := d.mirrors[id]; m != nil && !d.dice.chance(15) {
		cmd.After, cmd.Epoch = new(m.last), m.epoch
		if d.dice.chance(2) {
			cmd.Epoch = "of another life"
		}
	}
	before, wasMoving := l.current, l.moving
	l.opens[ref], l.awaiting, l.current, l.moving = cmd, ref, ref, true
	if id != "" {
		d.w.talk(id).comes[l] = true
	}
	d.w.mu.Unlock()

	err := l.do(cmd, ref)

	d.w.mu.Lock()
	defer d.w.mu.Unlock()
	l.moving = wasMoving
	switch {
	case err == nil:
	case l.conn.SessionID() == "":
		l.leave()
	default:
		l.current = before
	}
	if err == nil {
		return nil
	}
	switch err.Code {
	case chat.CodeSessionEnded:
		d.w.forget(id)
	case chat.CodeStorageUnavailable, chat.CodeTakeoverConflict:
	case chat.CodeForbidden:
		if as == chat.AsUser || l.conn.User().IsStaff() {
			d.w.failLocked(d.w.talks[id], "%s may not open as %s", l, as)
		}
	default:
		d.w.failLocked(d.w.talks[id], "%s: opening %+v gives %v", l, cmd, err)
	}
	return err
}

// leave notes that the link is bound no longer. The world's lock is held.
func (l *link) leave() { l.current, l.leftAt = "", time.Now() }

func (d *device) next(what string) string {
	d.count++
	return fmt.Sprintf("%s-%s-%d", d.name, what, d.count)
}

// act does one of the things that clients do.
func (d *device) act() {
	l := d.link
	d.w.mu.Lock()
	busy := l.awaiting != ""
	id, bound := "", l.current != ""
	if bound {
		id = l.reading
	}
	var as chat.AttachAs
	if bound {
		as = l.opens[l.current].As
	}
	d.w.mu.Unlock()
	switch n := d.dice.below(100); {
	case n < 6:
		time.AfterFunc(d.dice.upTo(300*time.Millisecond), l.cut) // in the middle of what follows
	case n < 9:
		l.cut()
		<-l.done
		return
	case n < 13:
		l.stalled.Store(time.Now().Add(d.dice.upTo(13 * time.Second)).UnixNano())
	case n < 16:
		d.refresh()
		return
	case n < 18:
		l.do(chat.Ping{}, "ping")
	}
	switch {
	case busy:
	case !bound || id == "" || d.dice.chance(6):
		d.open(d.choose(), d.part())
	case as == chat.AsObserver:
		d.observe()
	case d.dice.chance(4):
		d.move(chat.LeaveSession{})
	default:
		d.talk(id, as)
	}
}

// move does something after which the link may be bound no longer.
func (d *device) move(cmd chat.Command) {
	l := d.link
	d.w.mu.Lock()
	l.moving = true
	d.w.mu.Unlock()
	l.do(cmd, "move")
	d.w.mu.Lock()
	l.moving = false
	if l.conn.SessionID() == "" {
		l.leave()
	}
	d.w.mu.Unlock()
}

func (d *device) refresh() {
	token := d.token
	switch n := d.dice.below(10); {
	case n == 0:
		token = "somebody-else"
	case n == 1 && d.staff:
		token = d.user.id // without its role
	}
	d.move(chat.RefreshAuth{Token: token})
}

func (d *device) observe() {
	if d.dice.chance(10) {
		err := d.link.do(chat.SendMessage{MessageID: d.next("o"), Text: "no"}, "")
		d.expect(err, "a message of an observer's", chat.CodeForbidden, chat.CodeSessionEnded, chat.CodeSessionNotOpen)
	}
	if d.dice.chance(10) {
		d.move(chat.LeaveSession{})
	}
}

// expect fails unless the error is one of those.
func (d *device) expect(err *chat.Error, what string, codes ...chat.Code) {
	if err == nil {
		if d.link.ctx.Err() == nil {
			d.w.fail(d.w.talkOf(d.link), "%s: %s is not refused", d.link, what)
		}
		return
	}
	d.allow(err, what, codes...)
}

// allow fails where there is an error that is none of those.
func (d *device) allow(err *chat.Error, what string, codes ...chat.Code) {
	always := []chat.Code{chat.CodeSessionEnded, chat.CodeSessionNotOpen, chat.CodeStorageUnavailable}
	if err != nil && !slices.Contains(codes, err.Code) && !slices.Contains(always, err.Code) {
		d.w.fail(d.w.talkOf(d.link), "%s: %s gives %v", d.link, what, err)
	}
}

// talk does something in a session that needs a part in it.
func (d *device) talk(id string, as chat.AttachAs) {
	l := d.link
	switch n := d.dice.below(100); {
	case n < 40:
		d.send(id, as, chat.SendMessage{MessageID: d.next("m"), Text: "anew"})
	case n < 48:
		d.send(id, as, chat.SendMessage{MessageID: d.next("m"), Text: "now", Interrupt: true})
	case n < 62:
		d.sendAgain(id, as)
	case n < 70:
		l.do(chat.CancelResponse{}, "")
	case n < 77:
		err := l.do(chat.RetryResponse{Interrupt: d.dice.chance(30)}, "")
		d.allow(err, "a retry", chat.CodeResponseInProgress, chat.CodeInvalidRequest, chat.CodeForbidden)
	case n < 84:
		d.edit(id, as)
	case n < 88:
		err := l.do(chat.UpdateSession{Title: new(d.next("title")), Model: new("n")}, "")
		d.allow(err, "an update")
	case n < 90:
		d.allow(l.do(chat.RequestHelp{Reason: d.next("why")}, ""), "a request for help", chat.CodeForbidden)
	case n < 93:
		d.allow(l.do(chat.SetTyping{Active: d.dice.chance(50)}, ""), "typing")
	case n < 94:
		err := l.do(chat.EndSession{}, "")
		d.allow(err, "the end")
		if err != nil {
			d.w.mu.Lock()
			d.w.talk(id).vague = true
			d.w.mu.Unlock()
		}
	default:
		d.blunder(id, as)
	}
}

// send sends a message whose text carries its ID, and checks the answer against what is known of that ID.
func (d *device) send(id string, as chat.AttachAs, cmd chat.SendMessage) {
	cmd.Text = cmd.MessageID + " " + cmd.Text
	d.w.mu.Lock()
	talk := d.w.talk(id)
	known, receipted := talk.receipts[cmd.MessageID]
	talk.try(cmd, as)
	d.w.mu.Unlock()
	err := d.link.do(cmd, "")
	codes := []chat.Code{chat.CodeResponseInProgress}
	if cmd.Replaces != "" {
		codes = append(codes, chat.CodeInvalidMessage)
	}
	switch {
	case receipted && known == cmd.Text:
		d.allow(err, "a message that was receipted")
		return
	case receipted:
		d.expect(err, "another text under a receipted ID", chat.CodeMessageConflict)
		return
	case talk.texts(d.w, cmd.MessageID) > 1:
		codes = append(codes, chat.CodeMessageConflict)
	}
	d.allow(err, "a message", codes...)
}

// sendAgain sends a message of the session once more, or another text under its ID.
func (d *device) sendAgain(id string, as chat.AttachAs) {
	d.w.mu.Lock()
	sent := d.w.talk(id).sent[d.user.id]
	if len(sent) == 0 {
		d.w.mu.Unlock()
		return
	}
	again := sent[len(sent)-1-d.dice.below(min(len(sent), 10))]
	d.w.mu.Unlock()
	if again.Text = again.Text[len(again.MessageID)+1:]; d.dice.chance(30) {
		again.Text = "something else"
	}
	again.Replaces, again.Interrupt = "", false
	d.send(id, as, again)
}

func (d *device) edit(id string, as chat.AttachAs) {
	d.w.mu.Lock()
	replaces := ""
	if m := d.mirrors[id]; m != nil {
		replaces = m.lastOf(d.user.id)
	}
	d.w.mu.Unlock()
	if replaces != "" && as == chat.AsUser {
		d.send(id, as, chat.SendMessage{MessageID: d.next("m"), Text: "better", Replaces: replaces, Interrupt: d.dice.chance(50)})
	}
}

// blunder does what has to be refused.
func (d *device) blunder(id string, as chat.AttachAs) {
	l := d.link
	named := chat.Bound{SessionID: "elsewhere"}
	switch d.dice.below(4) {
	case 0:
		d.expect(l.do(chat.SendMessage{Bound: named, MessageID: "x", Text: "x"}, ""), "another session's ID", chat.CodeSessionMismatch)
	case 1:
		err := l.do(chat.OpenSession{SessionID: "nowhere", As: as}, "")
		d.expect(err, "an unknown session", chat.CodeSessionNotFound)
	case 2:
		d.w.mu.Lock()
		other := d.w.open[d.dice.below(len(d.w.open))]
		foreign := d.w.talks[other].owner != d.user.id
		d.w.mu.Unlock()
		if foreign {
			err := l.do(chat.OpenSession{SessionID: other, As: chat.AsUser}, "")
			d.expect(err, "a foreign session", chat.CodeSessionNotFound)
		}
	case 3:
		d.w.mu.Lock()
		m := d.mirrors[id]
		var after int64
		epoch := ""
		if m != nil {
			after, epoch = m.last+1<<40, m.epoch
		}
		d.w.mu.Unlock()
		if m != nil && d.link.conn.SessionID() == id && as == chat.AsUser {
			err := l.do(chat.OpenSession{SessionID: id, As: as, After: &after, Epoch: epoch}, "")
			d.expect(err, "an after beyond the end", chat.CodeInvalidMessage, chat.CodeSessionEnded)
		}
	}
}
