package journal

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/parley-chat/parley/chat"
)

var errNoKeys = errors.New("it is encrypted, and there is no keyset")

// eventRecord is what a record has of an event, beside the handle and the seq.
type eventRecord struct {
	kind     recordKind
	document []byte
	text     string // of a delta that is not sealed
}

// encode gives an event's record, sealed where there are keys for that.
func (l *Log) encode(e chat.Event) (r eventRecord, err error) {
	if r.kind, r.document, err = encodeBody(e.Body); err != nil {
		return r, err
	}
	delta, _ := e.Body.(chat.MessageDelta)
	r.text = delta.Text
	keys := l.journal.cfg.Keys
	if keys == nil {
		return r, nil
	}
	place := sealedAt(l.sessionID, l.epoch, e.Seq, r.kind, delta.MessageID)
	if r.document, err = keys.SealBytes(append(r.document, r.text...), place[:]...); err != nil {
		return r, fmt.Errorf("seal event %d of session %s: %w", e.Seq, l.sessionID, err)
	}
	r.kind, r.text = r.kind|sealedFlag, ""
	return r, nil
}

// sealedAt is what an event's sealing is bound to: its place, so that records cannot be exchanged either. response is
// the ID of the message that a delta belongs to, and empty for other events.
func sealedAt(sessionID, epoch string, seq int64, kind recordKind, response string) [6]string {
	return [...]string{"journal", sessionID, epoch, strconv.FormatInt(seq, 10), strconv.Itoa(int(kind)), response}
}

// body gives what an event's record says, whether it is sealed or not. response is the ID of the message that deltas
// belong to.
func (r *Recovered) body(kind recordKind, seq int64, document []byte, response string) (chat.EventBody, error) {
	if kind&sealedFlag == 0 {
		return decodeBody(kind, document, response)
	}
	if r.keys == nil {
		return nil, errNoKeys
	}
	kind &^= sealedFlag
	if kind != kindText && kind != kindReasoning {
		response = ""
	}
	place := sealedAt(r.sessionID, r.Epoch, seq, kind, response)
	document, err := r.keys.OpenBytes(document, place[:]...)
	if err != nil {
		return nil, err
	}
	return decodeBody(kind, document, response)
}
