package session

import "github.com/parley-chat/parley/chat"

// pageSize is how many messages a reader far behind gets from the store at a time.
const pageSize = 20

// Cursor is a reader's place in a session's log. The zero Cursor stands before the first event. It belongs to one
// reader and is not safe for concurrent use.
type Cursor struct {
	backlog []chat.Event // what is to be read next: an opening reader's history, or a page from the store
	pos     int64        // the log has been read up to here
	sent    int64        // what the reader knows to have: the seq of the last event it was given
}

// Read gives the next event after the cursor and moves the cursor behind it. False means that there is nothing yet. It
// waits for nobody but the store, where the cursor lies before what is in memory, and an error is the store's.
func (s *Session) Read(c *Cursor) (chat.Event, bool, error) {
	e, ok, err := s.nextEvent(c)
	if !ok || err != nil {
		return chat.Event{}, false, err
	}
	e.SessionID = s.id
	e.From = c.sent + 1
	c.sent = e.Seq
	c.pos = max(c.pos, e.Seq)
	return e, true, nil
}

func (s *Session) nextEvent(c *Cursor) (chat.Event, bool, error) {
	for {
		if len(c.backlog) > 0 {
			e := c.backlog[0]
			c.backlog = c.backlog[1:]
			return e, true, nil
		}
		e, ok, floor, changed := s.nextInMemory(c.pos)
		if c.pos >= floor {
			return e, ok, nil
		}
		if err := s.readPage(c, floor, changed); err != nil {
			return e, false, err
		}
	}
}

// nextInMemory gives the next event, unless the cursor lies below the floor, under which the store has to be asked;
// and the seq of the last change of the session there.
func (s *Session) nextInMemory(pos int64) (e chat.Event, ok bool, floor, changed int64) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.lost != nil {
		return e, false, 0, 0
	}
	if pos >= s.log.floor {
		e, ok = s.log.next(pos)
	}
	return e, ok, s.log.floor, s.log.changed
}

// readPage reads the messages that follow the cursor from the store, up to the floor, where the log in memory begins.
// The changes of the session among them are told as what they have come to, where the last one was.
func (s *Session) readPage(c *Cursor, floor, changed int64) error {
	ctx, cancel := s.manager.storeContext()
	defer cancel()
	page, err := s.manager.store.MessagesAfter(ctx, s.id, c.pos, pageSize)
	if err != nil {
		return storageError(err)
	}
	last := c.pos
	tell := func() {
		if changed > last {
			r := s.Record()
			c.backlog = append(c.backlog, chat.Event{Seq: changed, Body: state(&r)})
			last = changed
		}
	}
	for _, m := range page {
		if m.Seq > floor {
			break
		}
		if changed < m.Seq {
			tell()
		}
		c.backlog = append(c.backlog, chat.Event{Seq: m.Seq, Body: chat.MessageCreated{Message: m}})
		last = m.Seq
	}
	if len(page) < pageSize || page[len(page)-1].Seq > floor {
		tell()
	}
	if len(c.backlog) == 0 {
		c.pos = floor
	}
	return nil
}

// Passed reports whether the event of this seq lies behind the cursor, so that Read will not give it any more.
func (c *Cursor) Passed(seq int64) bool {
	return seq <= c.pos && (len(c.backlog) == 0 || seq < c.backlog[0].Seq)
}
