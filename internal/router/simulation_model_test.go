package router_test

import (
	"fmt"
	"strings"
	"time"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/router"
)

// talk is the simple model of one session: what was asked of it, and what anybody was told of it.
type talk struct {
	id, owner string
	trace     []string

	sent     map[string][]chat.SendMessage // by author: what was sent, in order
	tries    map[string]map[string]bool    // by message ID: the texts that were sent under it
	accepted map[string]string             // what was sent without an error, by message ID
	receipts map[string]string             // texts by message ID
	retries  int                           // that were accepted

	seats map[chat.AttachAs][]*link // who was told session.opened
	comes map[*link]bool            // who ever tried to open it

	epoch string // the newest
	lives map[string]*life
	over  bool // somebody was told session.ended
	vague bool // an end was tried of which the store may have lost the answer

	calls   map[string]int    // of the provider, by question
	speech  map[string]string // what the provider said, by call
	running string            // the call that runs
}

// life is what is known of one epoch of a session's log. The same seq means the same to everybody.
type life struct {
	facts   map[int64]fact
	created map[string]int64 // the first seq at which anybody saw a message
	texts   map[string]string
	last    int64
	end     int64 // the seq of session.ended; 0: not yet
}

// fact is what a seq says of a message: how long its text is from there on. Of what else happens it says nothing.
type fact struct {
	message string
	length  int
}

func newTalk(id string) *talk {
	return &talk{
		id: id, sent: make(map[string][]chat.SendMessage), tries: make(map[string]map[string]bool),
		accepted: make(map[string]string), receipts: make(map[string]string), seats: make(map[chat.AttachAs][]*link),
		comes: make(map[*link]bool), lives: make(map[string]*life), calls: make(map[string]int), speech: make(map[string]string),
	}
}

func (t *talk) try(cmd chat.SendMessage, as chat.AttachAs) {
	author := strings.Split(cmd.MessageID, ".")[0]
	if t.tries[cmd.MessageID] == nil {
		t.tries[cmd.MessageID] = make(map[string]bool)
		t.sent[author] = append(t.sent[author], cmd)
	}
	t.tries[cmd.MessageID][cmd.Text] = true
}

// texts gives the number of texts that were sent under an ID. It takes the world's lock.
func (t *talk) texts(w *world, id string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(t.tries[id])
}

// life gives what is known of an epoch.
func (t *talk) life(epoch string) *life {
	if t.lives[epoch] == nil {
		t.lives[epoch] = &life{facts: make(map[int64]fact), created: make(map[string]int64), texts: make(map[string]string)}
	}
	return t.lives[epoch]
}

func (t *talk) note(format string, args ...any) {
	if len(t.trace) == 100 {
		t.trace = append(t.trace[:0], t.trace[1:]...)
	}
	t.trace = append(t.trace, time.Now().Format("04:05.000 ")+fmt.Sprintf(format, args...))
}

// mirror is what a client holds of a session, by the rules of the protocol.
type mirror struct {
	epoch    string
	last     int64
	start    int64 // the log's end when the client began anew
	whole    bool  // there were no older messages than those it got then
	messages map[string]*heldMessage
	ended    bool
}

type heldMessage struct {
	chat.Message
	streaming bool
}

// lastOf gives the ID of the newest message of an author's.
func (m *mirror) lastOf(author string) (id string) {
	var n int64
	for _, h := range m.messages {
		if h.Role == chat.RoleUser && h.Author.ID == author && h.N > n {
			id, n = h.ID, h.N
		}
	}
	return id
}

// take applies an event and returns what is wrong with it.
func (m *mirror) take(e *chat.Event) error {
	if e.Repeat {
		body := e.Body.(chat.MessageCreated)
		if h := m.messages[body.Message.ID]; h != nil && h.Text != body.Message.Text || e.Seq > m.last {
			return fmt.Errorf("a repeat of %d, after %d, has the text %q", e.Seq, m.last, body.Message.Text)
		}
		return nil
	}
	switch {
	case m.ended:
		return fmt.Errorf("event %d follows session.ended", e.Seq)
	case e.From != m.last+1 || e.Seq < e.From:
		return fmt.Errorf("event %d stands for %d on, after %d", e.Seq, e.From, m.last)
	}
	m.last = e.Seq
	switch b := e.Body.(type) {
	case chat.MessageCreated:
		return m.create(b.Message)
	case chat.MessageDelta:
		h := m.messages[b.MessageID]
		if h == nil || !h.streaming {
			return fmt.Errorf("a delta for %s, which is not streaming", b.MessageID)
		}
		if b.Kind == chat.DeltaReasoning {
			h.Reasoning += b.Text
		} else {
			h.Text += b.Text
		}
	case chat.MessageCompleted:
		h := m.messages[b.MessageID]
		if h == nil || !h.streaming {
			return fmt.Errorf("a completion of %s, which is not streaming", b.MessageID)
		}
		if b.Length != len(h.Text) || b.Status == chat.StatusStreaming || b.Status == "" {
			return fmt.Errorf("%s ends %s with %d bytes, the client holds %d", b.MessageID, b.Status, b.Length, len(h.Text))
		}
		h.streaming, h.Status, h.Error = false, b.Status, b.Error
	case chat.SessionEnded:
		for id, h := range m.messages {
			if h.streaming {
				return fmt.Errorf("the session ends under %s", id)
			}
		}
		m.ended = true
	}
	return nil
}

func (m *mirror) create(c chat.Message) error {
	if h := m.messages[c.ID]; h != nil {
		if !h.streaming || !strings.HasPrefix(c.Text, h.Text) || !strings.HasPrefix(c.Reasoning, h.Reasoning) {
			return fmt.Errorf("message %s (%s, %q) comes again as %q", c.ID, h.Status, h.Text, c.Text)
		}
	}
	streaming := c.Status == chat.StatusStreaming
	if streaming {
		for id, h := range m.messages {
			if h.streaming && id != c.ID {
				return fmt.Errorf("response %s begins while %s goes on", c.ID, id)
			}
		}
	}
	m.messages[c.ID] = &heldMessage{Message: c, streaming: streaming}
	return nil
}

// agree holds what a client has taken against what others were told of the same seq.
func (t *talk) agree(m *mirror, e *chat.Event) error {
	l := t.life(m.epoch)
	l.last = max(l.last, e.Seq)
	if l.end > 0 && e.Seq > l.end {
		return fmt.Errorf("event %d comes after the end at %d", e.Seq, l.end)
	}
	id := ""
	switch b := e.Body.(type) {
	case chat.MessageCreated:
		id = b.Message.ID
		if at, ok := l.created[id]; !ok || e.Seq < at {
			l.created[id] = e.Seq
		}
	case chat.MessageDelta:
		id = b.MessageID
	case chat.MessageCompleted:
		id = b.MessageID
	case chat.SessionEnded:
		if l.end, t.over = e.Seq, true; l.last > e.Seq {
			return fmt.Errorf("the end at %d comes after %d", e.Seq, l.last)
		}
		return nil
	default:
		return nil
	}
	text := m.messages[id].Text
	if known := l.texts[id]; !strings.HasPrefix(known, text) {
		if !strings.HasPrefix(text, known) {
			return fmt.Errorf("message %s is %q, and to somebody else %q", id, text, known)
		}
		l.texts[id] = text
	} else if known == "" {
		l.texts[id] = text
	}
	f := fact{id, len(text)}
	if known, ok := l.facts[e.Seq]; ok && known != f {
		return fmt.Errorf("event %d is %+v, and to somebody else %+v", e.Seq, f, known)
	}
	l.facts[e.Seq] = f
	return nil
}

// sentOut checks what the router gives to a link's writer, at the moment it does.
func (w *world) sentOut(l *link, out router.Outgoing) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if out.Event != nil {
		t := w.talk(out.Event.SessionID)
		if l.current == "" && !l.moving && !out.Event.Repeat && time.Now().After(l.leftAt) {
			w.failLocked(t, "%s has left and is told of event %d of %s", l, out.Event.Seq, out.Event.SessionID)
		}
		if !l.device.staff && t.owner != l.device.user.id {
			w.failLocked(t, "%s is told of %s's session", l, t.owner)
		}
		return
	}
	opened, ok := out.Notice.(chat.SessionOpened)
	if !ok {
		return
	}
	id, cmd := opened.Session.ID, l.opens[out.Ref]
	t := w.talk(id)
	t.comes[l] = true
	if cmd.SessionID == "" {
		cmd.SessionID = id
		l.opens[out.Ref] = cmd
	}
	if t.owner == "" {
		t.owner = opened.Session.UserID
		w.remember(t, l)
	}
	t.note("%s is told opened %+v: epoch %.4s seq %d resumed %t reset %t", l, cmd, opened.Epoch, opened.Seq, opened.Resumed, opened.Reset)
	if t.life(opened.Epoch); t.epoch != opened.Epoch {
		if t.lives[opened.Epoch].last > 0 {
			w.failLocked(t, "%s: epoch %s comes back after %s", l, opened.Epoch, t.epoch)
		}
		t.epoch = opened.Epoch
	}
	if l.current == out.Ref && !l.moving {
		w.seat(t, l, cmd.As)
	}
}

// seat makes sure that the link is the only one of its kind in a session.
func (w *world) seat(t *talk, l *link, as chat.AttachAs) {
	if as == chat.AsObserver {
		return
	}
	left := t.seats[as][:0]
	for _, other := range t.seats[as] {
		if other == l || other.gone() || !other.sits(t.id, as) {
			continue
		}
		left = append(left, other)
		w.failLocked(t, "%s is told session.opened while %s sits there (close code %d)", l, other, other.code.Load())
	}
	t.seats[as] = append(left, l)
}

// sits reports whether the link plays a part in a session, unless it is about to change that. The world's lock is held.
func (l *link) sits(id string, as chat.AttachAs) bool {
	open := l.opens[l.current]
	return l.current != "" && !l.moving && open.SessionID == id && open.As == as
}

// ended checks the reason for which a link ends. From here on its seat may be another's.
func (w *world) ended(l *link) {
	w.mu.Lock()
	defer w.mu.Unlock()
	t := w.talks[l.reading]
	l.current = ""
	ok := true
	w.tally[fmt.Sprintf("closed with %d", l.code.Load())]++
	switch code := l.code.Load(); code {
	case 0:
		ok = l.ctx.Err() != nil
	case router.CloseReplaced:
		ok = false
		for _, t := range w.talks {
			if t.comes[l] && len(t.comes) > 1 {
				ok = true
			}
		}
	case router.CloseTokenExpired:
		ok = !time.Now().Before(l.expires)
	case router.CloseSessionEnded:
		ok = !l.device.staff && t != nil
	case router.CloseRestart:
		ok = w.Draining()
	case closeStuck:
	default:
		ok = false
	}
	if t != nil {
		t.note("%s is gone: %d, %v", l, l.code.Load(), l.ctx.Err())
	}
	if !ok {
		w.failLocked(t, "%s is closed with %d", l, l.code.Load())
	}
}

// deliver gives a client what has reached it.
func (w *world) deliver(l *link, batch []router.Outgoing) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, out := range batch {
		_, opened := out.Notice.(chat.SessionOpened)
		switch {
		case l.awaiting == "":
			w.receive(l, out)
		case out.Ref == l.awaiting && opened:
			l.awaiting, l.held = "", nil // what came meanwhile will come again
			w.receive(l, out)
		case out.Ref == l.awaiting:
			held := l.held
			l.awaiting, l.held = "", nil
			for _, h := range held {
				w.receive(l, h)
			}
		default:
			l.held = append(l.held, out)
		}
	}
}

// receive is what a client does with a frame.
func (w *world) receive(l *link, out router.Outgoing) {
	switch n := out.Notice.(type) {
	case nil:
	case chat.SessionOpened:
		w.begin(l, l.opens[out.Ref], n)
		return
	case chat.AuthRefreshed:
		l.expires = n.ExpiresAt
		return
	default:
		return
	}
	e := out.Event
	t := w.talk(e.SessionID)
	t.note("%s gets %d-%d %s", l, e.From, e.Seq, brief(e.Body))
	if e.SessionID != l.reading {
		w.failLocked(t, "%s reads %s and gets event %d of %s", l, l.reading, e.Seq, e.SessionID)
		return
	}
	if err := l.seen.take(e); err != nil {
		w.failLocked(t, "%s: %v", l, err)
		return
	}
	if c, ok := e.Body.(chat.MessageCreated); ok && c.Message.Author != nil {
		w.receipt(t, c.Message)
	}
	if e.Repeat {
		w.tally["repeated"]++
		return
	}
	if err := t.agree(l.seen, e); err != nil {
		w.failLocked(t, "%s: %v", l, err)
	}
}

// begin lets a client begin a session anew, or go on where it was.
func (w *world) begin(l *link, cmd chat.OpenSession, n chat.SessionOpened) {
	id := n.Session.ID
	t := w.talk(id)
	l.reading = id
	has := l.device.mirrors[id]
	goesOn := cmd.After != nil && cmd.Epoch == n.Epoch
	if n.Resumed != goesOn || n.Reset != (cmd.After != nil && !goesOn) {
		w.failLocked(t, "%s: opening %+v gives %+v", l, cmd, n)
	}
	w.tally[fmt.Sprintf("resumed %t, reset %t", n.Resumed, n.Reset)]++
	if n.Resumed {
		if has == nil || has.epoch != n.Epoch || has.last != *cmd.After || n.Seq < has.last {
			w.failLocked(t, "%s: %+v is resumed at %+v", l, n, has)
		}
		l.seen = has
		return
	}
	l.seen = &mirror{epoch: n.Epoch, start: n.Seq, whole: !n.HasMore, messages: make(map[string]*heldMessage)}
	l.device.mirrors[id] = l.seen
}

// receipt makes sure that what somebody is told of a person's message is stored, and the same for everybody.
func (w *world) receipt(t *talk, m chat.Message) {
	if known, ok := t.receipts[m.ID]; ok {
		if known != m.Text {
			w.failLocked(t, "message %s is %q and %q", m.ID, known, m.Text)
		}
		return
	}
	t.receipts[m.ID] = m.Text
	if !t.tries[m.ID][m.Text] {
		w.failLocked(t, "nobody has sent %s as %q", m.ID, m.Text)
	}
	for _, s := range w.store.stored(t.id) {
		if s.ID == m.ID && s.Text == m.Text {
			return
		}
	}
	w.failLocked(t, "message %s is receipted and not stored", m.ID)
}

func brief(body chat.EventBody) string {
	switch b := body.(type) {
	case chat.MessageCreated:
		return fmt.Sprintf("created %s %s %d bytes n %d", b.Message.ID, b.Message.Status, len(b.Message.Text), b.Message.N)
	case chat.MessageDelta:
		return fmt.Sprintf("delta %s %s %d bytes", b.MessageID, b.Kind, len(b.Text))
	case chat.MessageCompleted:
		return fmt.Sprintf("completed %s %s %d bytes", b.MessageID, b.Status, b.Length)
	}
	return fmt.Sprintf("%T", body)
}
