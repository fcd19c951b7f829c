package journal_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/journal"
	"github.com/parley-chat/parley/internal/seal"
)

func newKeys(t testing.TB) *seal.Keyset {
	t.Helper()
	data, err := seal.Generate()
	if err != nil {
		t.Fatal(err)
	}
	return parseKeys(t, data)
}

func parseKeys(t testing.TB, data []byte) *seal.Keyset {
	t.Helper()
	keys, err := seal.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// secrets are events that say much.
func secrets() []chat.EventBody {
	title := "a secret title"
	return []chat.EventBody{
		streaming("m"),
		delta("m", "a secret text"),
		chat.MessageDelta{MessageID: "m", Kind: chat.DeltaReasoning, Text: "a secret thought"},
		delta("m", "a secret test"), // as long as the other
		chat.MessageCompleted{MessageID: "m", Status: chat.StatusFailed, Error: chat.NewError(chat.CodeInternal, "a secret reason")},
		chat.SessionUpdated{Title: &title},
		chat.AgentJoined{Author: chat.Author{ID: "a", Name: "a secret agent"}},
	}
}

// sealedJournal writes secrets and gives the only segment.
func sealedJournal(t *testing.T, d *disk, keys *seal.Keyset) (cfg journal.Config, segment []byte) {
	t.Helper()
	cfg = config(t)
	cfg.Keys = keys
	j := d.openJournal(t, cfg)
	<-begin(j, "s", "e", 0).append(secrets()...)
	cfg.Path = copyFolder(t, cfg.Path)
	segment, err := os.ReadFile(filepath.Join(cfg.Path, "00000001.segment"))
	if err != nil {
		t.Fatal(err)
	}
	return cfg, segment
}

func TestNothingIsReadableInTheFiles(t *testing.T) {
	d := newDisk()
	cfg, _ := sealedJournal(t, d, newKeys(t))
	for name, data := range readFiles(t, cfg.Path) {
		if bytes.Contains(data, []byte("secret")) || bytes.Contains(data, []byte("failed")) {
			t.Errorf("%s says %q", name, data)
		}
	}
	plain, _ := sealedJournal(t, d, nil)
	if data := readFiles(t, plain.Path)["00000001.segment"]; bytes.Count(data, []byte("secret")) != 6 {
		t.Errorf("without keys there is %q", data)
	}
}

// given reads what comes back of a session before an error, if there is one.
func given(t *testing.T, j opened) (bodies []chat.EventBody, err error) {
	t.Helper()
	r := j.Recovered()["s"]
	if r == nil {
		t.Fatalf("nothing is recovered; the log says %s", j.logged)
	}
	for e, eventErr := range r.Events() {
		if err != nil {
			t.Errorf("after the error %v comes %+v, %v", err, e, eventErr)
		}
		if err = eventErr; err != nil && e.Body != nil {
			t.Errorf("with the error %v comes %+v", err, e)
		}
		bodies = append(bodies, e.Body)
	}
	if err != nil {
		bodies = bodies[:len(bodies)-1]
		if text := err.Error() + j.logged.String(); strings.Contains(text, "secret") || !strings.Contains(text, "session s") {
			t.Errorf("the error is %v; the log says %s", err, j.logged)
		}
	}
	return bodies, err
}

func TestWithoutTheKeysItCannotBeGiven(t *testing.T) {
	d := newDisk()
	first, err := seal.Generate()
	if err != nil {
		t.Fatal(err)
	}
	second, err := seal.Extend(first)
	if err != nil {
		t.Fatal(err)
	}
	cfg, _ := sealedJournal(t, d, parseKeys(t, first))
	for _, test := range []struct {
		what string
		keys *seal.Keyset
		want string // in the error
	}{
		{"no keys", nil, "it is encrypted, and there is no keyset"},
		{"others", newKeys(t), "the keyset has no key"},
		{"one more", parseKeys(t, second), ""},
	} {
		copied := cfg
		copied.Path, copied.Keys = copyFolder(t, cfg.Path), test.keys
		j := d.openJournal(t, copied)
		bodies, err := given(t, j)
		if test.want == "" {
			if err != nil || !reflect.DeepEqual(bodies, secrets()) {
				t.Errorf("%s: given are %+v, %v", test.what, bodies, err)
			}
			continue
		}
		if len(bodies) > 0 || err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: given are %+v, %v", test.what, bodies, err)
		}
		// The journal itself goes on, and its owner may begin the session anew.
		<-begin(j, "s", "another epoch", 7).append(delta("m", "b"))
		copied.Path = copyFolder(t, copied.Path)
		if r := d.openJournal(t, copied).Recovered()["s"]; r.Epoch != "another epoch" || len(events(t, r)) != 1 {
			t.Errorf("%s: afterwards recovered is %+v", test.what, r)
		}
	}
}

// TestSealedRecordsCannotBeChanged nor exchanged, by somebody who gets the sums right.
func TestSealedRecordsCannotBeChanged(t *testing.T) {
	d := newDisk()
	cfg, segment := sealedJournal(t, d, newKeys(t))
	id, _, _, err := journal.ReadMark(cfg.Path)
	if err != nil {
		t.Fatal(err)
	}
	sound := journal.Payloads(segment)
	if len(sound) != 1+len(secrets()) {
		t.Fatalf("there are %d records", len(sound))
	}
	reopen := func(payloads [][]byte) ([]chat.EventBody, error) {
		segment := journal.EncodeSegment(id, cfg.StoreID, d.boot, 1, payloads...)
		all := files{"00000001.segment": segment, journal.MarkName: journal.EncodeMark(id, 1, int64(len(segment)))}
		return given(t, all.reopen(t, d, cfg))
	}
	if bodies, err := reopen(sound); err != nil || len(bodies) != len(secrets()) {
		t.Fatalf("given are %+v, %v", bodies, err)
	}
	const front = 3 // kind, handle, seq
	for i := 1; i < len(sound); i++ {
		for what, change := range map[string]func(payload []byte) []byte{
			"a bit":          func(p []byte) []byte { p[len(p)-1] ^= 1; return p },
			"the first byte": func(p []byte) []byte { p[front] ^= 1; return p },
			"its end":        func(p []byte) []byte { return p[:len(p)-1] },
			"all of it":      func(p []byte) []byte { return p[:front] },
			"its kind":       func(p []byte) []byte { p[0] = otherKind(p[0]); return p },
			"the next one's": func(p []byte) []byte { return append(p[:front], sound[1+i%(len(sound)-1)][front:]...) },
			"one of its kind's": func(p []byte) []byte {
				for j, other := range sound {
					if j != i && other[0] == p[0] {
						return append(p[:front], other[front:]...)
					}
				}
				return nil // there is none
			},
		} {
			changed := slices.Clone(sound)
			if changed[i] = change(bytes.Clone(sound[i])); changed[i] == nil {
				continue
			}
			if bodies, err := reopen(changed); !errors.Is(err, seal.ErrUndecryptable) || len(bodies) != i-1 {
				t.Errorf("%s of event %d: given are %d events and %v", what, i, len(bodies), err)
			}
		}
	}
}

// TestSealedRecordsAreOfTheirLog: they are not another session's, nor another epoch's.
func TestSealedRecordsAreOfTheirLog(t *testing.T) {
	d := newDisk()
	cfg, segment := sealedJournal(t, d, newKeys(t))
	id, _, _, err := journal.ReadMark(cfg.Path)
	if err != nil {
		t.Fatal(err)
	}
	for begin, want := range map[string]int{
		"\x01\x01\x00\x01e\x00s": len(secrets()), // as it was
		"\x01\x01\x00\x01f\x00s": 0,
		"\x01\x01\x00\x01e\x00t": 0,
		"\x01\x01\x01\x01e\x00s": 0,
	} {
		payloads := journal.Payloads(segment)
		payloads[0] = []byte(begin)
		segment := journal.EncodeSegment(id, cfg.StoreID, d.boot, 1, payloads...)
		all := files{"00000001.segment": segment, journal.MarkName: journal.EncodeMark(id, 1, int64(len(segment)))}
		got := 0
		for _, r := range all.reopen(t, d, cfg).Recovered() {
			for e, err := range r.Events() {
				if err == nil {
					got++
				} else if want > 0 || e.Body != nil {
					t.Errorf("%q: %+v, %v", begin, e, err)
				}
			}
		}
		if got != want {
			t.Errorf("%q: given are %d events, want %d", begin, got, want)
		}
	}
}

// otherKind gives a sealed text for reasoning, and anything else for a sealed text.
func otherKind(kind byte) byte {
	if kind == 0x83 {
		return 0x84
	}
	return 0x83
}

// TestKeysComeAndGo: what was written before there were keys is given, whatever follows.
func TestKeysComeAndGo(t *testing.T) {
	cfg, d, keys := config(t), newDisk(), newKeys(t)
	var want []chat.EventBody
	for i, now := range []*seal.Keyset{nil, keys, nil, keys} {
		cfg.Keys = now
		j := d.openJournal(t, cfg)
		w := begin(j, "s", "e", int64(len(want)))
		body := delta("m", strings.Repeat("x", i))
		<-w.append(streaming("m"), body)
		want = append(want, streaming("m"), body)
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	}
	copied := cfg
	copied.Path = copyFolder(t, cfg.Path)
	if bodies, err := given(t, d.openJournal(t, copied)); err != nil || !reflect.DeepEqual(bodies, want) {
		t.Errorf("given are %+v, %v", bodies, err)
	}
	copied.Path, copied.Keys = copyFolder(t, cfg.Path), nil
	if bodies, err := given(t, d.openJournal(t, copied)); err == nil || !reflect.DeepEqual(bodies, want[:2]) {
		t.Errorf("without the keys given are %+v, %v", bodies, err)
	}
}
