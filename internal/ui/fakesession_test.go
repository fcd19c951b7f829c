package ui_test

import (
	"fmt"
	"maps"
	"time"

	"github.com/parley-chat/parley/chat"
)

// fakeSession is a log, and what the log amounts to.
type fakeSession struct {
	server   *fakeServer
	id       string
	epoch    string
	fields   frame // of the session, as session.opened shows them
	events   []frame
	messages []*fakeMessage
	turn     *fakeTurn
}

type fakeMessage struct {
	fields  frame
	lastSeq int
}

// fakeTurn is an answer on its way.
type fakeTurn struct {
	session   *fakeSession
	message   *fakeMessage
	cancelled chan struct{} // closed by response.cancel
}

// script is an answer that the test gives in steps: each string is a delta, and closing it completes the answer.
type script chan string

func (steps script) answer(turn *fakeTurn, _ string) {
	for {
		select {
		case text, more := <-steps:
			if !more {
				turn.end("complete")
				return
			}
			turn.delta(text)
		case <-turn.cancelled:
			turn.end("cancelled")
			return
		case <-turn.session.server.closed:
			return
		}
	}
}

// next gives the next step, once the answer has begun.
func (steps script) next(s *fakeServer, text string) {
	s.t.Helper()
	select {
	case steps <- text:
	case <-s.patience.Done():
		s.t.Fatalf("no answer is being written that could go on with %q", text)
	}
}

// replay sends the history: each message whole, at its last seq.
func (session *fakeSession) replay(c *fakeConn) {
	for _, m := range session.messages {
		f := frame{"type": "message.created", "session_id": session.id, "seq": m.lastSeq, "message": m.fields}
		if m.lastSeq != c.cursor+1 {
			f["from"] = c.cursor + 1
		}
		c.write(f)
		c.cursor = m.lastSeq
	}
}

func (session *fakeSession) follow(c *fakeConn) {
	for ; c.cursor < len(session.events); c.cursor++ {
		if c.skip > 0 {
			c.skip--
			continue
		}
		c.write(session.events[c.cursor])
	}
}

func (session *fakeSession) append(f frame) int {
	f["session_id"], f["seq"] = session.id, len(session.events)+1
	session.events = append(session.events, f)
	for c := range session.server.conns {
		if c.session == session {
			session.follow(c)
		}
	}
	return len(session.events)
}

func (session *fakeSession) add(fields frame) *fakeMessage {
	shown := frame{}
	for key, value := range fields {
		shown[key] = value
	}
	m := &fakeMessage{fields: fields}
	session.messages = append(session.messages, m)
	m.lastSeq = session.append(frame{"type": "message.created", "message": shown})
	return m
}

func (session *fakeSession) send(id, text string) {
	for _, m := range session.messages {
		if m.fields["id"] == id {
			return
		}
	}
	question := session.add(frame{
		"id": id, "role": "user", "text": text, "status": "complete", "created_at": stamp(time.Now()),
	})
	session.begin(question, "")
}

func (session *fakeSession) begin(question *fakeMessage, replaces string) {
	session.server.nextID++
	fields := frame{
		"id": fmt.Sprintf("answer%d", session.server.nextID), "role": "assistant", "text": "", "status": "streaming",
		"model": session.fields["model"], "created_at": stamp(time.Now()), "reply_to": question.fields["id"],
	}
	if replaces != "" {
		fields["replaces"] = replaces
	}
	turn := &fakeTurn{session: session, message: session.add(fields), cancelled: make(chan struct{})}
	session.turn = turn
	s := session.server
	s.wg.Add(1)
	go func() {
		defer s.wg.Done()
		s.answer(turn, question.fields["text"].(string))
	}()
}

// update changes fields of the session.
func (session *fakeSession) update(changes frame) {
	maps.Copy(session.fields, changes)
	f := frame{"type": "session.updated"}
	maps.Copy(f, changes)
	session.append(f)
}

// delta adds to the answer's text.
func (turn *fakeTurn) delta(text string) { turn.grow("text", text) }

// think adds to the answer's reasoning.
func (turn *fakeTurn) think(text string) { turn.grow("reasoning", text) }

func (turn *fakeTurn) grow(kind, text string) {
	turn.session.server.mu.Lock()
	defer turn.session.server.mu.Unlock()
	held, _ := turn.message.fields[kind].(string)
	turn.message.fields[kind] = held + text
	f := frame{"type": "message.delta", "message_id": turn.message.fields["id"], "text": text}
	if kind != "text" {
		f["kind"] = kind
	}
	turn.message.lastSeq = turn.session.append(f)
}

// title gives the session a title.
func (turn *fakeTurn) title(title string) {
	turn.session.server.mu.Lock()
	defer turn.session.server.mu.Unlock()
	turn.session.update(frame{"title": title})
}

// end completes the answer.
func (turn *fakeTurn) end(status string) { turn.endAs(frame{"status": status}) }

// fail ends the answer with an error.
func (turn *fakeTurn) fail(code string) {
	turn.endAs(frame{"status": "failed", "error": frame{
		"code": code, "message": code, "retryable": chat.Code(code).Retryable(),
	}})
}

// endAs completes the answer with fields of message.completed. The length is that of the text, unless it is given.
func (turn *fakeTurn) endAs(end frame) {
	turn.session.server.mu.Lock()
	defer turn.session.server.mu.Unlock()
	turn.session.turn = nil
	maps.Copy(turn.message.fields, end)
	f := frame{
		"type": "message.completed", "message_id": turn.message.fields["id"],
		"length": len(turn.message.fields["text"].(string)),
	}
	maps.Copy(f, end)
	turn.message.lastSeq = turn.session.append(f)
}
