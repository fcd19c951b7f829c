package storetest

import (
	"fmt"
	"reflect"
	"time"

	"github.com/parley-chat/parley/chat"
)

// filledSession returns an active session with a value in every other field that no other seed gives, so that a
// field which a store forgets, or takes for another one, is seen.
func filledSession(id string, seed int) chat.Session {
	var session chat.Session
	fillWith(seededText(seed), seed, &session)
	session.ID, session.Status = id, chat.SessionStatusActive
	return session
}

// filledMessage does for a message what [filledSession] does for a session. An error has no cause, as it is
// not stored.
func filledMessage(n int64, id string, seed int) chat.Message {
	var m chat.Message
	fillWith(seededText(seed), seed, &m)
	m.ID, m.N = id, n
	return m
}

// filledUsage does for a usage record what [filledSession] does for a session.
func filledUsage(seed int) chat.UsageRecord {
	var record chat.UsageRecord
	fillWith(seededText(seed), seed, &record)
	return record
}

// filledRevocation does for a revocation what [filledSession] does for a session.
func filledRevocation(seed int) (r chat.Revocation) {
	fillWith(seededText(seed), seed, &r)
	return r
}

// filledAudit does for an audit record what [filledSession] does for a session.
func filledAudit(seed int) (r chat.AuditRecord) {
	fillWith(seededText(seed), seed, &r)
	return r
}

func seededText(seed int) func(field string) string {
	return func(field string) string { return fmt.Sprintf("%s %d", field, seed) }
}

// fillWith gives every field of the structs, and of those they point to, a value: text makes the strings, seed
// selects the rest. It panics at a kind of field that it does not know, so that a new one is not forgotten.
func fillWith(text func(field string) string, seed int, structs ...any) {
	f := filler{text: text, next: int64(seed) * 1000}
	for _, s := range structs {
		f.fill("", reflect.ValueOf(s).Elem())
	}
}

type filler struct {
	text func(field string) string
	next int64
}

func (f *filler) fill(field string, v reflect.Value) {
	f.next++
	switch v.Type() {
	case reflect.TypeFor[time.Time]():
		v.Set(reflect.ValueOf(someTime.Add(time.Duration(f.next) * time.Millisecond)))
		return
	case reflect.TypeFor[time.Duration]():
		v.SetInt(f.next * int64(time.Millisecond))
		return
	case reflect.TypeFor[error](): // the cause of a chat.Error: not stored
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(f.text(field))
	case reflect.Int, reflect.Int64:
		v.SetInt(f.next)
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		f.fill(field, v.Elem())
	case reflect.Map:
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		f.fill(field+" key", key)
		f.fill(field+" value", value)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, value)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2)) // two have an order
		for i := range v.Len() {
			f.fill(fmt.Sprint(field, " ", i), v.Index(i))
		}
	case reflect.Struct:
		for i := range v.NumField() {
			f.fill(v.Type().Field(i).Name, v.Field(i))
		}
	default:
		panic(fmt.Sprintf("storetest: fill field %s: unknown kind %s", field, v.Type()))
	}
}
