package journal_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/parley-chat/parley/internal/journal"
)

// small writes a journal of a few records and gives its only segment's bytes.
func small(t *testing.T, d *disk) (cfg journal.Config, id string, segment []byte) {
	t.Helper()
	cfg = config(t)
	j := d.openJournal(t, cfg)
	w, other := begin(j, "s", "e", 0), begin(j, "other", "e", 0)
	<-w.append(streaming("m"), delta("m", "one"))
	<-other.append(delta("m", "x"))
	<-w.append(delta("m", "two"))
	id = j.ID()
	cfg.Path = copyFolder(t, cfg.Path)
	segment, err := os.ReadFile(filepath.Join(cfg.Path, "00000001.segment"))
	if err != nil {
		t.Fatal(err)
	}
	return cfg, id, segment
}

// files are a folder's, by name.
type files map[string][]byte

func readFiles(t *testing.T, folder string) files {
	t.Helper()
	all := make(files)
	entries, err := os.ReadDir(folder)
	for _, entry := range entries {
		if err == nil {
			all[entry.Name()], err = os.ReadFile(filepath.Join(folder, entry.Name()))
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// reopen opens a folder with these files, and closes it.
func (f files) reopen(t *testing.T, d *disk, cfg journal.Config) opened {
	t.Helper()
	if err := os.RemoveAll(cfg.Path); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(cfg.Path, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, data := range f {
		if err := os.WriteFile(filepath.Join(cfg.Path, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	j := d.openJournal(t, cfg)
	if err := j.Close(); err != nil {
		t.Error(err)
	}
	return j
}

// checkUntrusted checks that a journal began a new life and told why.
func checkUntrusted(t *testing.T, what string, j opened, id string) {
	t.Helper()
	text := j.logged.String()
	if j.ID() == id || len(j.Recovered()) != 0 {
		t.Errorf("%s: it is trusted: %v", what, j.Recovered())
	}
	if strings.Count(text, "level=WARN") != 1 || !strings.Contains(text, "reason=") {
		t.Errorf("%s: the log says: %s", what, text)
	}
	if n := j.Stats().Segments; n != 1 {
		t.Errorf("%s: %d segments are left", what, n)
	}
}

func TestATornTailIsCutOff(t *testing.T) {
	d := newDisk()
	cfg, id, before := small(t, d)
	all := readFiles(t, cfg.Path)
	j := d.openJournal(t, cfg)
	w := begin(j, "s", "e", 3)
	<-w.append(delta("m", "shown"))
	shown := readFiles(t, cfg.Path)
	<-w.append(streaming("n"), delta("n", "not"), delta("n", "shown"))
	after := readFiles(t, cfg.Path)
	cfg.Path = copyFolder(t, cfg.Path)

	name := "00000002.segment"
	if bytes.Equal(before, all[name]) || len(after[name]) <= len(shown[name]) {
		t.Fatalf("the test's second segment is not there: %d, %d bytes", len(shown[name]), len(after[name]))
	}
	tail := after[name][len(shown[name]):]
	for cut := range len(tail) + 1 {
		for _, garbage := range []string{"", "\x00\x00\x00\x00\x00\x00\x00\x00\x00", "\xff\xff\xff\xff\xff\xff\xff\xff garbage"} {
			shown[name] = slices.Concat(after[name][:len(shown[name])], tail[:cut], []byte(garbage))
			torn := files{journal.MarkName: shown[journal.MarkName], name: shown[name], "00000001.segment": shown["00000001.segment"]}
			j := torn.reopen(t, d, cfg)
			r := j.Recovered()["s"]
			if j.ID() != id || j.logged.String() != "" || r == nil || r.From != 0 || r.End < 4 || r.End > 7 {
				t.Fatalf("cut after %d of %d bytes, with %q: recovered %+v; the log says %s",
					cut, len(tail), garbage, r, j.logged)
			}
			if r.End == 7 && cut < len(tail) || r.End < 7 && cut == len(tail) {
				t.Errorf("cut after %d of %d bytes: recovered up to %d", cut, len(tail), r.End)
			}
			events(t, r)
			shown[name] = after[name][:len(after[name])-len(tail)]
		}
	}
}

func TestWhatIsCutOffBeforeTheMarkIsNotTrusted(t *testing.T) {
	d := newDisk()
	cfg, id, segment := small(t, d)
	all := readFiles(t, cfg.Path)
	for cut := range segment {
		all["00000001.segment"] = segment[:cut]
		checkUntrusted(t, fmt.Sprintf("cut off at %d of %d", cut, len(segment)), all.reopen(t, d, cfg), id)
	}
}

func TestAFlippedBitIsNotTrusted(t *testing.T) {
	d := newDisk()
	cfg, id, _ := small(t, d)
	all := readFiles(t, cfg.Path)
	for _, name := range []string{"00000001.segment", journal.MarkName} {
		sound := all[name]
		for i := range sound {
			all[name] = bytes.Clone(sound)
			all[name][i] ^= 1 << (i % 8)
			checkUntrusted(t, fmt.Sprintf("%s, byte %d", name, i), all.reopen(t, d, cfg), id)
		}
		all[name] = sound
	}
	if j := all.reopen(t, d, cfg); j.ID() != id {
		t.Error("the sound files are not trusted")
	}
}

// TestEarlierSegments: what is damaged in one that was ended long ago, or is missing altogether.
func TestEarlierSegments(t *testing.T) {
	d := newDisk()
	cfg := config(t)
	j := d.openJournal(t, cfg)
	w := begin(j, "s", "e", 0)
	for range 30 {
		<-w.append(delta("m", strings.Repeat("x", 10<<10)))
	}
	id := j.ID()
	cfg.Path = copyFolder(t, cfg.Path)
	sound := readFiles(t, cfg.Path)
	names := []string{"00000001.segment", "00000002.segment", "00000003.segment"}
	record := 10<<10 + 8 + 3 // one of one-byte handle and seq
	for _, name := range names {
		for what, damaged := range map[string][]byte{
			"missing":                 nil,
			"empty":                   {},
			"cut off":                 sound[name][:len(sound[name])-1],
			"cut off at a record":     sound[name][:len(sound[name])-record],
			"damaged":                 append([]byte("x"), sound[name][1:]...),
			"in another one's place":  sound[names[(slices.Index(names, name)+1)%3]],
			"of another journal":      journal.EncodeSegment("another", cfg.StoreID, d.boot, 1),
			"damaged in a record":     append(bytes.Clone(sound[name][:len(sound[name])-5]), "yyyyy"...),
			"with nothing but header": journal.EncodeSegment(id, cfg.StoreID, d.boot, uint64(slices.Index(names, name)+1)),
		} {
			all := make(files)
			for n, data := range sound {
				if n != name {
					all[n] = data
				} else if damaged != nil {
					all[n] = damaged
				}
			}
			checkUntrusted(t, name+" is "+what, all.reopen(t, d, cfg), id)
		}
	}
	if j := sound.reopen(t, d, cfg); j.ID() != id || j.Recovered()["s"].End != 30 {
		t.Error("the sound files are not trusted")
	}
}

func TestWhoseJournalItIs(t *testing.T) {
	for what, change := range map[string]func(files, *journal.Config, *disk){
		"another store":       func(_ files, cfg *journal.Config, _ *disk) { cfg.StoreID = "another store" },
		"another boot":        func(_ files, _ *journal.Config, d *disk) { d.boot = "second boot" },
		"no known boot":       func(_ files, _ *journal.Config, d *disk) { d.boot = "" },
		"no mark":             func(f files, _ *journal.Config, _ *disk) { delete(f, journal.MarkName) },
		"an empty mark":       func(f files, _ *journal.Config, _ *disk) { f[journal.MarkName] = nil },
		"no segments":         func(f files, _ *journal.Config, _ *disk) { delete(f, "00000001.segment") },
		"another one's mark":  func(f files, _ *journal.Config, _ *disk) { f[journal.MarkName] = journal.EncodeMark("other", 1, 9) },
		"a mark far ahead":    func(f files, _ *journal.Config, _ *disk) { f[journal.MarkName] = journal.EncodeMark("id", 7, 9) },
		"a mark of an offset": func(f files, _ *journal.Config, _ *disk) { f[journal.MarkName] = journal.EncodeMark("id", 1, 1<<62) },
	} {
		d := newDisk()
		cfg, id, _ := small(t, d)
		all := readFiles(t, cfg.Path)
		change(all, &cfg, d)
		checkUntrusted(t, what, all.reopen(t, d, cfg), id)
	}
	d := newDisk()
	if j := (files{}).reopen(t, d, config(t)); j.logged.String() != "" {
		t.Errorf("of an empty folder the log says: %s", j.logged)
	}
	// Where no boot is known the journal's own restart is not trusted either.
	d.boot = ""
	cfg, id, _ := small(t, d)
	checkUntrusted(t, "unknown boots", readFiles(t, cfg.Path).reopen(t, d, cfg), id)
}

// FuzzReplay reads any bytes as a segment; where there are payloads, these as records that are sound, each with its
// length before it.
func FuzzReplay(f *testing.F) {
	valid := journal.EncodeSegment("id", "a store", "first boot", 1, []byte("\x01\x01\x00\x01e\x01ms"), []byte("\x03\x01\x01x"))
	f.Add(valid, []byte{}, uint16(len(valid)))
	f.Add(valid[:len(valid)-1], []byte{}, uint16(0))
	f.Add([]byte("parleyj\x01\xff\xff\xff\xff\xff\xff\xff\xff"), []byte{}, uint16(8))
	for kind := range byte(14) {
		f.Add([]byte{}, []byte("\x08\x01\x01\x00\x01e\x01ms\x05"+string(kind)+"\x01\x01{}\x04\x03\x01\x02x"), uint16(0))
	}
	f.Add([]byte{}, []byte("\x08\x01\x01\x00\x01e\x01ms\x04\x83\x01\x01x"), uint16(0))
	f.Add([]byte{}, []byte("\x08\x01\x01\x00\x01e\x01ms\x04\x03\x01\x01x\x03\x0c\x01s\x04\x03\x01\x02x"), uint16(0))
	f.Add([]byte{}, []byte("\x0c\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x02\x02\x09"), uint16(0))
	folder := f.TempDir()
	f.Fuzz(func(t *testing.T, segment, payloads []byte, offset uint16) {
		if len(payloads) > 0 {
			segment = journal.EncodeSegment("id", "a store", "first boot", 1, split(payloads)...)
		}
		d := newDisk()
		cfg := journal.Config{Path: filepath.Join(folder, "events"), MaxBytes: 1 << 20, StoreID: "a store"}
		all := files{"00000001.segment": segment, journal.MarkName: journal.EncodeMark("id", 1, int64(offset))}
		j := all.reopen(t, d, cfg)
		size := 0
		for id, r := range j.Recovered() {
			if r.From < 0 || r.End <= r.From {
				t.Errorf("session %q: recovered %d to %d", id, r.From, r.End)
			}
			for e, err := range r.Events() {
				if err != nil {
					break
				}
				if e.SessionID != id || e.Seq <= r.From || e.Seq > r.End {
					t.Errorf("session %q: recovered %+v", id, e)
				}
				size++
			}
		}
		if size > len(segment) {
			t.Errorf("%d events of %d bytes", size, len(segment))
		}
	})
}

func split(data []byte) (payloads [][]byte) {
	for len(data) > 0 {
		n := min(int(data[0]), len(data)-1)
		payloads = append(payloads, data[1:1+n])
		data = data[1+n:]
	}
	return payloads
}
