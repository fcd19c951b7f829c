package journal

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"time"

	"github.com/parley-chat/parley/chat"
)

// A record is the length of its payload and the payload's CRC-32C, four bytes each and little-endian, and the payload:
// a byte for its kind and what that kind has. Numbers there are uvarints; a text has its length before it, unless it is
// the last.
const frameSize = 8

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// recordKind is the first byte of a payload. The kinds are part of the format: they keep their numbers. A version that
// does not know one takes its record for damaged, and the journal for one that is not to be trusted.
type recordKind byte

const (
	kindBegin     recordKind = 1 // handle, end, epoch, response, session ID
	kindRemoved   recordKind = 2 // the number of a segment that is no longer needed
	kindText      recordKind = 3 // this one and those below: handle, seq, body; here the text
	kindReasoning recordKind = 4
	kindMessage   recordKind = 5 // a message that the store has
	kindResponse  recordKind = 6 // a message that begins to stream
	kindCompleted recordKind = 7
	kindUpdated   recordKind = 8
	kindJoined    recordKind = 9
	kindLeft      recordKind = 10
	kindEnded     recordKind = 11
	kindErased    recordKind = 12 // a segment's number, session ID: what is up to there of the session counts for nothing

	// sealedFlag is added to the kind of an event whose body is encrypted.
	sealedFlag recordKind = 0x80
)

// isEvent reports whether records of a kind are a log's events.
func (k recordKind) isEvent() bool {
	k &^= sealedFlag
	return k >= kindText && k <= kindEnded
}

// openRecord leaves room for a record's frame; sealRecord fills it in when the payload is there.
func openRecord(buf []byte) (longer []byte, start int) {
	return append(buf, make([]byte, frameSize)...), len(buf)
}

func sealRecord(buf []byte, start int) []byte {
	payload := buf[start+frameSize:]
	binary.LittleEndian.PutUint32(buf[start:], uint32(len(payload)))
	binary.LittleEndian.PutUint32(buf[start+4:], crc32.Checksum(payload, castagnoli))
	return buf
}

// nextRecord takes the first record's payload off the data. It is not ok where there is no whole and sound record.
func nextRecord(data []byte) (payload, rest []byte, ok bool) {
	if len(data) < frameSize {
		return nil, data, false
	}
	length := uint64(binary.LittleEndian.Uint32(data))
	sum := binary.LittleEndian.Uint32(data[4:])
	// A payload is never empty: zeros, which a crash may leave at a file's end, are no records.
	if length == 0 || length > uint64(len(data)-frameSize) {
		return nil, data, false
	}
	payload = data[frameSize:][:length]
	if crc32.Checksum(payload, castagnoli) != sum {
		return nil, data, false
	}
	return payload, data[frameSize+length:], true
}

// beginRecord says which log a handle stands for in a segment, and where that log has come to.
type beginRecord struct {
	handle    uint64
	end       int64 // the log's end before the events that follow
	epoch     string
	response  string // the ID of the message that deltas belong to until another begins; may be empty
	sessionID string
}

func appendBegin(buf []byte, r beginRecord) []byte {
	buf, start := openRecord(buf)
	buf = append(buf, byte(kindBegin))
	buf = binary.AppendUvarint(buf, r.handle)
	buf = binary.AppendUvarint(buf, uint64(r.end))
	buf = appendText(buf, r.epoch)
	buf = appendText(buf, r.response)
	buf = append(buf, r.sessionID...)
	return sealRecord(buf, start)
}

func appendText(buf []byte, s string) []byte {
	return append(binary.AppendUvarint(buf, uint64(len(s))), s...)
}

func appendRemoved(buf []byte, segment uint64) []byte {
	buf, start := openRecord(buf)
	return sealRecord(binary.AppendUvarint(append(buf, byte(kindRemoved)), segment), start)
}

func appendErased(buf []byte, upTo uint64, sessionID string) []byte {
	buf, start := openRecord(buf)
	buf = binary.AppendUvarint(append(buf, byte(kindErased)), upTo)
	return sealRecord(append(buf, sessionID...), start)
}

func decodeErased(payload []byte) (upTo uint64, sessionID string, ok bool) {
	f := fields{data: payload[1:]}
	upTo = f.uvarint()
	return upTo, string(f.data), !f.bad
}

// appendEvent writes an event whose body is a document or, for a delta that is not sealed, a text.
func appendEvent(buf []byte, kind recordKind, handle uint64, seq int64, document []byte, text string) []byte {
	buf, start := openRecord(buf)
	buf = append(buf, byte(kind))
	buf = binary.AppendUvarint(buf, handle)
	buf = binary.AppendUvarint(buf, uint64(seq))
	buf = append(buf, document...)
	return sealRecord(append(buf, text...), start)
}

// fields reads what a payload has after its kind. Where that is too short, or no such number, it is bad from there on.
type fields struct {
	data []byte
	bad  bool
}

func (f *fields) uvarint() uint64 {
	v, n := binary.Uvarint(f.data)
	if n <= 0 {
		f.data, f.bad = nil, true
		return 0
	}
	f.data = f.data[n:]
	return v
}

func (f *fields) seq() int64 {
	v := f.uvarint()
	if v > math.MaxInt64 {
		f.bad = true
		return 0
	}
	return int64(v)
}

func (f *fields) bytes() []byte {
	length := f.uvarint()
	if length > uint64(len(f.data)) {
		f.data, f.bad = nil, true
		return nil
	}
	b := f.data[:length]
	f.data = f.data[length:]
	return b
}

func (f *fields) text() string { return string(f.bytes()) }

func decodeBegin(payload []byte) (r beginRecord, ok bool) {
	f := fields{data: payload[1:]}
	r = beginRecord{handle: f.uvarint(), end: f.seq(), epoch: f.text(), response: f.text(), sessionID: string(f.data)}
	return r, !f.bad
}

// decodeEvent takes an event's payload apart, but for its body.
func decodeEvent(payload []byte) (handle uint64, seq int64, body []byte, ok bool) {
	f := fields{data: payload[1:]}
	handle, seq = f.uvarint(), f.seq()
	return handle, seq, f.data, !f.bad
}

// The bodies of events as JSON. Each has the fields of its type in package chat, or it does not compile.
type (
	// messageDocument is a message that begins to stream.
	messageDocument struct {
		messageFields
		Error *errorDocument `json:"error,omitempty"`
	}
	messageFields struct {
		ID           string            `json:"id"`
		N            int64             `json:"n"`
		Seq          int64             `json:"seq,omitempty"`
		Role         chat.Role         `json:"role"`
		Text         string            `json:"text,omitempty"`
		Reasoning    string            `json:"reasoning,omitempty"`
		Status       chat.Status       `json:"status"`
		FinishReason chat.FinishReason `json:"finish_reason,omitempty"`
		Error        *chat.Error       `json:"-"`
		CreatedAt    time.Time         `json:"created_at"`
		Author       *chat.Author      `json:"author,omitempty"`
		Model        string            `json:"model,omitempty"`
		Provider     string            `json:"provider,omitempty"`
		ReplyTo      string            `json:"reply_to,omitempty"`
		Replaces     string            `json:"replaces,omitempty"`
		AnswerID     string            `json:"answer_id,omitempty"`
		Usage        *chat.Usage       `json:"usage,omitempty"`
		FirstTokenMS int64             `json:"first_token_ms,omitempty"`
		DurationMS   int64             `json:"duration_ms,omitempty"`
		Sealed       bool              `json:"-"`
	}

	// storedDocument is a message that the store has: what is needed to find it there.
	storedDocument struct {
		ID string `json:"id"`
		N  int64  `json:"n"`
	}

	completedDocument struct {
		completedFields
		Error *errorDocument `json:"error,omitempty"`
	}
	completedFields struct {
		MessageID    string            `json:"message_id"`
		Status       chat.Status       `json:"status"`
		FinishReason chat.FinishReason `json:"finish_reason,omitempty"`
		Usage        *chat.Usage       `json:"usage,omitempty"`
		FirstTokenMS int64             `json:"first_token_ms,omitempty"`
		DurationMS   int64             `json:"duration_ms,omitempty"`
		Length       int               `json:"length,omitempty"`
		Error        *chat.Error       `json:"-"`
	}

	updatedDocument struct {
		updatedFields
		AssistedBy *chat.Author `json:"assisted_by,omitempty"`
		Unassisted bool         `json:"unassisted,omitempty"` // nobody assists any more, where AssistedBy says nothing
	}
	updatedFields struct {
		Title         *string       `json:"title,omitempty"`
		Model         *string       `json:"model,omitempty"`
		HelpRequested *bool         `json:"help_requested,omitempty"`
		AssistedBy    **chat.Author `json:"-"`
	}

	// errorDocument leaves out the cause, which is for the log.
	errorDocument struct {
		Code       chat.Code     `json:"code"`
		Message    string        `json:"message"`
		RetryAfter time.Duration `json:"retry_after,omitempty"` // in nanoseconds
		Field      string        `json:"field,omitempty"`
		TraceID    string        `json:"trace_id,omitempty"`
		Cause      error         `json:"-"`
	}
)

// encodeBody gives a body's kind and, but for a delta, its document.
func encodeBody(body chat.EventBody) (kind recordKind, document []byte, err error) {
	switch b := body.(type) {
	case chat.MessageDelta:
		if b.Kind == chat.DeltaReasoning {
			return kindReasoning, nil, nil
		}
		return kindText, nil, nil
	case chat.MessageCreated:
		if m := b.Message; m.Status == chat.StatusStreaming {
			return marshal(kindResponse, messageDocument{messageFields(m), (*errorDocument)(m.Error)})
		}
		return marshal(kindMessage, storedDocument{b.Message.ID, b.Message.N})
	case chat.MessageCompleted:
		return marshal(kindCompleted, completedDocument{completedFields(b), (*errorDocument)(b.Error)})
	case chat.SessionUpdated:
		d := updatedDocument{updatedFields: updatedFields(b)}
		if b.AssistedBy != nil {
			d.AssistedBy, d.Unassisted = *b.AssistedBy, *b.AssistedBy == nil
		}
		return marshal(kindUpdated, d)
	case chat.AgentJoined:
		return marshal(kindJoined, b.Author)
	case chat.AgentLeft:
		return marshal(kindLeft, b.Author)
	case chat.SessionEnded:
		return marshal(kindEnded, b.Reason)
	}
	return 0, nil, fmt.Errorf("an event of the unknown type %T was appended", body)
}

func marshal(kind recordKind, document any) (recordKind, []byte, error) {
	text, err := json.Marshal(document)
	return kind, text, err
}

// decodeBody is the inverse of encodeBody; response is the ID of the message that a delta belongs to.
func decodeBody(kind recordKind, body []byte, response string) (chat.EventBody, error) {
	switch kind {
	case kindText:
		return chat.MessageDelta{MessageID: response, Kind: chat.DeltaText, Text: string(body)}, nil
	case kindReasoning:
		return chat.MessageDelta{MessageID: response, Kind: chat.DeltaReasoning, Text: string(body)}, nil
	case kindMessage:
		d, err := unmarshal[storedDocument](body)
		return chat.MessageCreated{Message: chat.Message{ID: d.ID, N: d.N}}, err
	case kindResponse:
		d, err := unmarshal[messageDocument](body)
		m := chat.Message(d.messageFields)
		m.CreatedAt, m.Error = m.CreatedAt.UTC(), (*chat.Error)(d.Error)
		return chat.MessageCreated{Message: m}, err
	case kindCompleted:
		d, err := unmarshal[completedDocument](body)
		completed := chat.MessageCompleted(d.completedFields)
		completed.Error = (*chat.Error)(d.Error)
		return completed, err
	case kindUpdated:
		d, err := unmarshal[updatedDocument](body)
		updated := chat.SessionUpdated(d.updatedFields)
		if d.AssistedBy != nil || d.Unassisted {
			updated.AssistedBy = &d.AssistedBy
		}
		return updated, err
	case kindJoined:
		author, err := unmarshal[chat.Author](body)
		return chat.AgentJoined{Author: author}, err
	case kindLeft:
		author, err := unmarshal[chat.Author](body)
		return chat.AgentLeft{Author: author}, err
	case kindEnded:
		reason, err := unmarshal[chat.EndReason](body)
		return chat.SessionEnded{Reason: reason}, err
	}
	return nil, errors.New("it is of an unknown kind")
}

func unmarshal[T any](body []byte) (v T, err error) {
	err = json.Unmarshal(body, &v)
	return v, err
}
