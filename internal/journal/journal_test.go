package journal_test

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/parley-chat/parley/chat"
	"github.com/parley-chat/parley/internal/journal"
	"github.com/parley-chat/parley/internal/seal"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// writer appends to a log and keeps what it is told.
type writer struct {
	id string

	mu  sync.Mutex // guards the fields below; the session's lock
	log *journal.Log
	end int64
	ok  []int64
	err []error
}

func begin(j opened, id, epoch string, end int64) *writer {
	w := &writer{id: id, end: end}
	w.log = j.Begin(id, epoch, end, func(seq int64, err error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		if err != nil {
			w.err = append(w.err, err)
			return
		}
		w.ok = append(w.ok, seq)
	})
	return w
}

func (w *writer) append(bodies ...chat.EventBody) (done <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, body := range bodies {
		w.end++
		done = w.log.Append(chat.Event{SessionID: w.id, From: w.end, Seq: w.end, Body: body})
	}
	return done
}

// told gives the last seq that the log was told of, and the errors.
func (w *writer) told() (seq int64, errs []error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if n := len(w.ok); n > 0 {
		seq = w.ok[n-1]
	}
	return seq, slices.Clone(w.err)
}

func delta(id, text string) chat.EventBody {
	return chat.MessageDelta{MessageID: id, Kind: chat.DeltaText, Text: text}
}

func streaming(id string) chat.EventBody {
	return chat.MessageCreated{Message: chat.Message{ID: id, Role: chat.RoleAssistant, Status: chat.StatusStreaming}}
}

// events gives a session's recovered events' bodies.
func events(t testing.TB, r *journal.Recovered) (bodies []chat.EventBody) {
	t.Helper()
	if r == nil {
		t.Fatal("the session was not recovered")
	}
	seq := r.From
	for e, err := range r.Events() {
		if err != nil {
			t.Fatal(err)
		}
		seq++
		if e.Seq != seq || e.From != seq || e.SessionID == "" || e.Repeat {
			t.Fatalf("event %+v comes in the place of seq %d", e, seq)
		}
		bodies = append(bodies, e.Body)
	}
	if seq != r.End {
		t.Fatalf("the events end at %d, want %d", seq, r.End)
	}
	return bodies
}

// fill gives every field a value of its own.
func fill(v reflect.Value, next *int64) {
	*next++
	switch {
	case v.Type() == reflect.TypeFor[time.Time]():
		v.Set(reflect.ValueOf(chat.Now().Add(time.Duration(*next) * time.Millisecond)))
		return
	case v.Type() == reflect.TypeFor[error](): // the cause of a chat.Error: not written
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(fmt.Sprintf("<ünicode> & %d", *next))
	case reflect.Int, reflect.Int64:
		v.SetInt(*next)
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), next)
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), next)
		}
	default:
		panic("fill: unknown kind " + v.Type().String())
	}
}

func filled[T any]() T {
	var v T
	next := int64(0)
	fill(reflect.ValueOf(&v).Elem(), &next)
	return v
}

func TestEveryEventComesBack(t *testing.T) {
	t.Run("in the clear", func(t *testing.T) { comesBack(t, nil) })
	t.Run("sealed", func(t *testing.T) { comesBack(t, newKeys(t)) })
}

func comesBack(t *testing.T, keys *seal.Keyset) {
	created := filled[chat.MessageCreated]()
	created.Message.Status = chat.StatusStreaming
	created.Message.Sealed = false // which is the store's
	id := created.Message.ID
	stored := filled[chat.MessageCreated]()
	caused := filled[chat.MessageCompleted]()
	caused.Error = caused.Error.WithCause(errors.New("for the log"))
	nobody := (*chat.Author)(nil)
	bodies := []chat.EventBody{
		created,
		chat.MessageDelta{MessageID: id, Kind: chat.DeltaText, Text: "a \x00 and \xff"},
		chat.MessageDelta{MessageID: id, Kind: chat.DeltaReasoning, Text: ""},
		stored,
		chat.MessageDelta{MessageID: id, Kind: chat.DeltaText, Text: strings.Repeat("b", 100_000)},
		caused,
		chat.MessageCompleted{MessageID: "bare"},
		filled[chat.SessionUpdated](),
		chat.SessionUpdated{},
		chat.SessionUpdated{Title: new(string), HelpRequested: new(bool), AssistedBy: &nobody},
		filled[chat.AgentJoined](),
		filled[chat.AgentLeft](),
		streaming("next"),
		delta("another", "out of place, and kept as it is"),
		delta("next", "c"),
		filled[chat.SessionEnded](),
	}
	want := slices.Clone(bodies)
	want[3] = chat.MessageCreated{Message: chat.Message{ID: stored.Message.ID, N: stored.Message.N}}
	want[5] = filled[chat.MessageCompleted]()

	cfg, d := config(t), newDisk()
	cfg.Keys = keys
	j := d.openJournal(t, cfg)
	w := begin(j, "s", "epoch", 41)
	<-w.append(bodies...)
	if seq, errs := w.told(); seq != 41+int64(len(bodies)) || errs != nil {
		t.Fatalf("told %d, %v", seq, errs)
	}
	cfg.Path = copyFolder(t, cfg.Path)
	again := d.openJournal(t, cfg)
	r := again.Recovered()["s"]
	if got := events(t, r); !reflect.DeepEqual(got, want) {
		for i := range got {
			if !reflect.DeepEqual(got[i], want[i]) {
				t.Errorf("event %d:\n got %+v\nwant %+v", i, got[i], want[i])
			}
		}
	}
	if r.Epoch != "epoch" || r.From != 41 || again.ID() != j.ID() {
		t.Errorf("recovered epoch %q from %d of journal %s, want that of %s", r.Epoch, r.From, again.ID(), j.ID())
	}
	if text := again.logged.String(); text != "" {
		t.Errorf("the log says: %s", text)
	}
}

func TestEpochsAndGoingOn(t *testing.T) {
	cfg, d := config(t), newDisk()
	j := d.openJournal(t, cfg)
	<-begin(j, "goes on", "1", 0).append(streaming("m"), delta("m", "a"))
	<-begin(j, "goes on", "1", 2).append(delta("m", "b"))
	<-begin(j, "new epoch", "1", 0).append(delta("m", "a"), delta("m", "b"))
	<-begin(j, "new epoch", "2", 7).append(delta("m", "c"))
	<-begin(j, "gap", "1", 0).append(delta("m", "a"))
	<-begin(j, "gap", "1", 5).append(delta("m", "b"))
	begin(j, "nothing", "1", 0)
	cfg.Path = copyFolder(t, cfg.Path)
	j = d.openJournal(t, cfg)
	recovered := j.Recovered()
	for _, want := range []struct {
		id, epoch string
		from, end int64
	}{{"goes on", "1", 0, 3}, {"new epoch", "2", 7, 8}, {"gap", "1", 5, 6}} {
		r := recovered[want.id]
		events(t, r)
		if r.Epoch != want.epoch || r.From != want.from || r.End != want.end {
			t.Errorf("%s: recovered %s %d-%d, want %+v", want.id, r.Epoch, r.From, r.End, want)
		}
	}
	if len(recovered) != 3 {
		t.Errorf("recovered %v", recovered)
	}
	begin(j, "goes on", "1", 3)
	j.Forget("gap")
	if recovered = j.Recovered(); len(recovered) != 1 {
		t.Errorf("after one was begun and one forgotten: recovered %v", recovered)
	}
}

// TestASessionWithAHoleIsToldAsSuch writes what the journal itself never does. Nobody must take such a session for one of
// which there is nothing.
func TestASessionWithAHoleIsToldAsSuch(t *testing.T) {
	text := func(handle, seq byte) []byte { return []byte{3, handle, seq, 'x'} }
	data := journal.EncodeSegment("id", "a store", "first boot", 1,
		[]byte("\x01\x01\x00\x01e\x00s"), []byte("\x01\x02\x00\x01e\x00other"), text(1, 1), text(2, 1), text(1, 3), text(2, 2))
	cfg, d := config(t), newDisk()
	put(t, cfg, data, journal.EncodeMark("id", 1, int64(len(data))))
	j := d.openJournal(t, cfg)
	r := j.Recovered()
	if len(r) != 2 || r["other"] == nil || r["other"].End != 2 || j.ID() != "id" {
		t.Errorf("recovered %v of journal %s", r, j.ID())
	}
	if r["s"] == nil || r["s"].End != 3 {
		t.Fatalf("of the session with a hole recovered is %+v", r["s"])
	}
	for e, err := range r["s"].Events() {
		if err == nil {
			t.Errorf("of the session with a hole comes %+v", e)
		}
	}
	if !strings.Contains(j.logged.String(), "level=WARN") || !strings.Contains(j.logged.String(), "session=s") {
		t.Errorf("the log says: %s", j.logged)
	}
}

func put(t testing.TB, cfg journal.Config, segment, mark []byte) {
	t.Helper()
	err := errors.Join(os.MkdirAll(cfg.Path, 0o700),
		os.WriteFile(filepath.Join(cfg.Path, "00000001.segment"), segment, 0o600),
		os.WriteFile(filepath.Join(cfg.Path, journal.MarkName), mark, 0o600))
	if err != nil {
		t.Fatal(err)
	}
}

func TestOneWriteForAllThatWait(t *testing.T) {
	cfg, d := config(t), newDisk()
	j := d.openJournal(t, cfg)
	writing, goOn := make(chan struct{}), make(chan struct{})
	d.hook(func(op, _ string) error {
		if op == "write" {
			writing <- struct{}{}
			<-goOn
		}
		return nil
	})
	first := begin(j, "first", "e", 0)
	done := first.append(delta("m", "x"))
	<-writing
	before := d.count("write")
	waiting := make([]*writer, 10)
	var last <-chan struct{}
	for i := range waiting {
		waiting[i] = begin(j, fmt.Sprint(i), "e", 0)
	}
	for i := range 1000 {
		last = waiting[i%len(waiting)].append(delta("m", "y"))
	}
	d.hook(nil)
	goOn <- struct{}{}
	<-done
	<-last
	if n := d.count("write") - before; n != 1 {
		t.Errorf("1000 appends took %d writes, want 1", n)
	}
	for _, w := range waiting {
		if !slices.Equal(w.ok, []int64{100}) || w.err != nil {
			t.Errorf("a log was told %v and %v, want 100 once", w.ok, w.err)
		}
	}
}

func TestAWrongSeqEndsItsLogAlone(t *testing.T) {
	j := newDisk().openJournal(t, config(t))
	w, other := begin(j, "s", "e", 0), begin(j, "other", "e", 0)
	w.append(delta("m", "x"))
	w.end++
	<-w.append(delta("m", "y"))
	<-w.append(delta("m", "z"))
	<-other.append(delta("m", "x"))
	if seq, errs := w.told(); seq > 1 || len(errs) != 1 {
		t.Errorf("told %d and %v", seq, errs)
	}
	if seq, errs := other.told(); seq != 1 || errs != nil || j.Err() != nil {
		t.Errorf("another log was told %d and %v; the journal says %v", seq, errs, j.Err())
	}
}

func TestTheFolderIsLocked(t *testing.T) {
	cfg := config(t)
	log := slog.New(slog.DiscardHandler)
	j, err := journal.Open(cfg, log)
	if err != nil {
		t.Fatal(err)
	}
	_, err = journal.Open(cfg, log)
	if err == nil || !strings.Contains(err.Error(), "in use") || !strings.Contains(err.Error(), cfg.Path) {
		t.Errorf("a second Open gives %v", err)
	}
	id := j.ID()
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if j, err = journal.Open(cfg, log); err != nil {
		t.Fatal(err)
	}
	if j.ID() != id && journal.BootID() != "" {
		t.Errorf("the ID is %s after a restart, was %s", j.ID(), id)
	}
	if err := j.Close(); err != nil {
		t.Error(err)
	}
	for name, want := range map[string]os.FileMode{".": 0o700, journal.MarkName: 0o600, "00000000.lock": 0o600} {
		if info, err := os.Stat(filepath.Join(cfg.Path, name)); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v; want %v", name, info.Mode().Perm(), err, want)
		}
	}
}

func TestWhatCannotBeReadIsAnError(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	cfg := config(t)
	if err := os.WriteFile(cfg.Path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if j, err := journal.Open(cfg, log); err == nil {
		t.Error("a file is taken for a folder")
		j.Close()
	}
	cfg = config(t)
	put(t, cfg, nil, journal.EncodeMark("id", 2, 1))
	if err := os.Mkdir(filepath.Join(cfg.Path, "00000002.segment"), 0o700); err != nil {
		t.Fatal(err)
	}
	if j, err := journal.Open(cfg, log); err == nil {
		t.Error("a folder is taken for a segment")
		j.Close()
	}
}

func TestClose(t *testing.T) {
	cfg, d := config(t), newDisk()
	j := d.openJournal(t, cfg)
	kept, stored := begin(j, "kept", "e", 0), begin(j, "stored", "e", 0)
	<-stored.append(delta("m", "x"))
	stored.log.Stored(1)
	kept.append(delta("m", "x"), delta("m", "y"))
	if err := errors.Join(j.Close(), j.Close()); err != nil {
		t.Fatal(err)
	}
	if seq, errs := kept.told(); seq != 2 || errs != nil {
		t.Errorf("what waited: told %d and %v", seq, errs)
	}
	<-kept.append(delta("m", "z"))
	if seq, errs := kept.told(); seq != 2 || errs != nil || !errors.Is(j.Err(), journal.ErrClosed) {
		t.Errorf("an append after Close: told %d and %v, the journal says %v", seq, errs, j.Err())
	}
	again := d.openJournal(t, cfg)
	events(t, again.Recovered()["kept"])
	again.Forget("kept")
	again.Forget("stored")
	again.Close()
	again = d.openJournal(t, cfg)
	w := begin(again, "s", "e", 0)
	<-w.append(delta("m", "x"))
	w.log.Stored(1)
	again.Close()
	last := d.openJournal(t, cfg)
	if len(last.Recovered()) != 0 || last.ID() != j.ID() || last.Stats().Segments != 1 {
		t.Errorf("recovered %v, %+v, journal %s, was %s", last.Recovered(), last.Stats(), last.ID(), j.ID())
	}
}

func TestConcurrentLogs(t *testing.T) {
	cfg, d := config(t), newDisk()
	cfg.MaxBytes = 8 << 20
	j := d.openJournal(t, cfg)
	var group sync.WaitGroup
	for i := range 100 {
		w := begin(j, fmt.Sprint(i), "e", 0)
		group.Go(func() {
			for k := range 50 {
				done := w.append(delta("m", strings.Repeat("x", 100)))
				if k%10 == 0 {
					<-done
					w.log.Stored(int64(k / 2))
					j.Stats()
				}
			}
			<-w.append(delta("m", "last"))
			if seq, errs := w.told(); seq != 51 || errs != nil {
				t.Errorf("told %d and %v", seq, errs)
			}
		})
	}
	group.Wait()
	cfg.Path = copyFolder(t, cfg.Path)
	recovered := d.openJournal(t, cfg).Recovered()
	for i := range 100 {
		if r := recovered[fmt.Sprint(i)]; r == nil || r.End != 51 || r.From > 22 {
			t.Errorf("session %d: recovered %+v", i, r)
		}
	}
}

func TestFullAndRoomAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg, d := config(t), newDisk()
		cfg.MaxBytes = 256 << 10
		j := d.openJournal(t, cfg)
		quiet := begin(j, "quiet", "e", 0)
		<-quiet.append(delta("m", "x"))
		w := begin(j, "s", "1", 0)
		text := strings.Repeat("x", 10<<10)
		for range 30 {
			<-w.append(delta("m", text))
		}
		seq, errs := w.told()
		if len(errs) != 1 || !errors.Is(errs[0], journal.ErrFull) || !errors.Is(j.Err(), journal.ErrFull) {
			t.Fatalf("told %d and %v; the journal says %v", seq, errs, j.Err())
		}
		if stats := j.Stats(); stats.Bytes > cfg.MaxBytes || stats.Bytes < cfg.MaxBytes/2 || stats.Segments < 3 {
			t.Errorf("a full journal has %+v", stats)
		}
		late := begin(j, "late", "e", 0)
		<-late.append(delta("m", "x"))
		if _, errs := late.told(); len(errs) != 1 || !errors.Is(errs[0], journal.ErrFull) {
			t.Errorf("while it is full, a log is told %v", errs)
		}

		w.log.Stored(seq * 2 / 3) // one segment has nothing above
		synctest.Wait()
		if err := j.Err(); err != nil {
			t.Fatalf("when segments were removed the journal says %v", err)
		}
		again := begin(j, "s", "2", seq)
		<-again.append(delta("m", text))
		<-quiet.append(delta("m", "y"))
		<-w.append(delta("m", "never"))
		if got, errs := again.told(); got != seq+1 || errs != nil {
			t.Errorf("the new log is told %d and %v", got, errs)
		}
		if got, errs := quiet.told(); got != 2 || errs != nil {
			t.Errorf("a log that did not append when it was full is told %d and %v", got, errs)
		}
		if got, errs := w.told(); got != seq || len(errs) != 1 {
			t.Errorf("a log that ended is told %d and %v", got, errs)
		}
		if text := j.logged.String(); strings.Count(text, "level=ERROR") != 1 || strings.Count(text, "level=INFO") != 1 {
			t.Errorf("the log says: %s", text)
		}
		again.log.Stored(seq + 1)
		quiet.log.Stored(2)
		synctest.Wait()
		if stats := j.Stats(); stats.Segments != 1 {
			t.Errorf("when nothing is needed there are %+v", stats)
		}
	})
}

// TestFullOfOneSegment: the segment that is written to holds all.
func TestFullOfOneSegment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg, d := config(t), newDisk()
		cfg.MaxBytes = 64 << 10
		j := d.openJournal(t, cfg)
		w := begin(j, "s", "e", 0)
		for range 7 {
			<-w.append(delta("m", strings.Repeat("x", 10<<10)))
		}
		if err := j.Err(); !errors.Is(err, journal.ErrFull) {
			t.Fatalf("the journal says %v", err)
		}
		j.Forget("s")
		synctest.Wait()
		if err := j.Err(); err != nil {
			t.Errorf("when nothing is needed the journal says %v", err)
		}
		checkFiles(t, cfg, j)
	})
}

// TestALittleRoomIsNotEnough: a journal that is full at once again would cost sessions their epoch each time.
func TestALittleRoomIsNotEnough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg, d := config(t), newDisk()
		cfg.MaxBytes = 256 << 10
		j := d.openJournal(t, cfg)
		<-begin(j, "little", "e", 0).append(delta("m", "x"))
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		j = d.openJournal(t, cfg)
		w := begin(j, "s", "e", 0)
		for j.Err() == nil {
			<-w.append(delta("m", strings.Repeat("x", 10<<10)))
		}
		segments := j.Stats().Segments
		j.Forget("little")
		synctest.Wait()
		if n := j.Stats().Segments; n != segments-1 || !errors.Is(j.Err(), journal.ErrFull) {
			t.Errorf("%d segments of %d are left, and the journal says %v", n, segments, j.Err())
		}
		w.log.Stored(12)
		synctest.Wait()
		if err := j.Err(); err != nil {
			t.Errorf("when there was room the journal says %v", err)
		}
	})
}

// TestWhatDidNotFitIsLost although there is room again before anybody was told.
func TestWhatDidNotFitIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg, d := config(t), newDisk()
		cfg.MaxBytes = 256 << 10
		j := d.openJournal(t, cfg)
		stored, w, waits := begin(j, "stored", "e", 0), begin(j, "s", "e", 0), begin(j, "waits", "e", 0)
		text := strings.Repeat("x", 10<<10)
		for range 20 {
			<-stored.append(delta("m", text))
		}
		goOn := make(chan struct{})
		d.hook(func(op, _ string) error {
			if op == "write" {
				<-goOn
			}
			return nil
		})
		stored.log.Stored(20)
		done := waits.append(delta("m", "x"))
		synctest.Wait()
		for j.Err() == nil {
			w.append(delta("m", text))
		}
		last := waits.append(delta("m", "does not fit either"))
		close(goOn)
		<-done
		<-last
		synctest.Wait()
		if seq, errs := w.told(); seq != 0 || len(errs) != 1 || !errors.Is(errs[0], journal.ErrFull) {
			t.Errorf("told %d and %v", seq, errs)
		}
		if seq, errs := waits.told(); seq > 1 || len(errs) != 1 {
			t.Errorf("told %d and %v", seq, errs)
		}
		if err := j.Err(); err != nil {
			t.Errorf("the journal says %v", err)
		}
	})
}

// TestAnAppendDuringARetryFails: as long as Err says so, whatever the retry comes to.
func TestAnAppendDuringARetryFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDisk()
		j := d.openJournal(t, config(t))
		d.hook(func(string, string) error { return errors.New("input/output error") })
		<-begin(j, "s", "e", 0).append(delta("m", "x"))
		goOn := make(chan struct{})
		d.hook(func(op, _ string) error {
			if op == "open" {
				<-goOn
			}
			return nil
		})
		time.Sleep(1500 * time.Millisecond)
		w := begin(j, "late", "e", 0)
		done := w.append(delta("m", "x"))
		close(goOn)
		<-done
		synctest.Wait()
		if seq, errs := w.told(); seq != 0 || len(errs) != 1 || j.Err() != nil {
			t.Errorf("told %d and %v; the journal says %v", seq, errs, j.Err())
		}
	})
}

// TestStoredIsOfItsEpoch: an earlier log of the session says nothing about the later one.
func TestStoredIsOfItsEpoch(t *testing.T) {
	cfg, d := config(t), newDisk()
	cfg.MaxBytes = 64 << 10
	j := d.openJournal(t, cfg)
	before := begin(j, "s", "1", 0)
	<-before.append(delta("m", "x"))
	w := begin(j, "s", "2", 1)
	<-w.append(delta("m", "y"))
	before.log.Stored(100)
	if err := j.Close(); err != nil { // which removes what is not needed
		t.Fatal(err)
	}
	if got := events(t, d.openJournal(t, cfg).Recovered()["s"]); len(got) != 1 {
		t.Errorf("recovered %v", got)
	}
}

func TestWriteFailure(t *testing.T) {
	errDisk := errors.New("input/output error")
	for _, test := range []struct {
		name, fails string
		sync        bool
		truncates   bool
	}{
		{"write", "write", false, true},
		{"write that cannot be cut off", "write", false, false},
		{"mark", "mark", false, true},
		{"sync", "sync", true, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg, d := config(t), newDisk()
				cfg.Sync = test.sync
				j := d.openJournal(t, cfg)
				quiet, w, behind := begin(j, "quiet", "e", 0), begin(j, "s", "1", 0), begin(j, "behind", "1", 0)
				<-quiet.append(delta("m", "x"))
				<-w.append(streaming("m"), delta("m", "shown"))

				failing := make(chan struct{})
				broken := func(op, _ string) error {
					switch {
					case op == test.fails || op == "open":
						<-failing
						return errDisk
					case op == "truncate" && !test.truncates:
						return errDisk
					}
					return nil
				}
				d.hook(broken)
				done := w.append(delta("m", "never shown"))
				synctest.Wait()
				behind.append(delta("m", "x"))
				w.append(delta("m", "nor this"))
				close(failing)
				<-done
				synctest.Wait()
				for _, log := range []*writer{w, behind} {
					if _, errs := log.told(); len(errs) != 1 || !errors.Is(errs[0], errDisk) {
						t.Errorf("told %v", errs)
					}
				}
				late := begin(j, "late", "1", 0)
				<-late.append(delta("m", "x"))
				if _, errs := late.told(); len(errs) != 1 || !errors.Is(j.Err(), errDisk) {
					t.Errorf("while it fails a log is told %v; the journal says %v", errs, j.Err())
				}
				opens := d.count("open")
				time.Sleep(3500 * time.Millisecond)
				if n := d.count("open") - opens; n != 3 {
					t.Errorf("%d attempts in 3.5 s", n)
				}
				crashed := cfg
				crashed.Path = copyFolder(t, cfg.Path)

				d.hook(nil)
				time.Sleep(time.Second)
				if err := j.Err(); err != nil {
					t.Fatalf("a second after it works again the journal says %v", err)
				}
				again := begin(j, "s", "2", 2)
				<-again.append(delta("m", "y"))
				<-quiet.append(delta("m", "y"))
				<-behind.append(delta("m", "the log has ended"))
				if seq, errs := quiet.told(); seq != 2 || errs != nil {
					t.Errorf("a log that did not append meanwhile is told %d and %v", seq, errs)
				}
				if text := j.logged.String(); strings.Count(text, "level=ERROR") != 1 {
					t.Errorf("the log says: %s", text)
				}

				copied := cfg
				copied.Path = copyFolder(t, cfg.Path)
				recovered := d.openJournal(t, copied).Recovered()
				if got := events(t, recovered["s"]); recovered["s"].Epoch != "2" || len(got) != 1 {
					t.Errorf("recovered %+v", recovered["s"])
				}
				if got := events(t, recovered["quiet"]); len(got) != 2 || len(recovered) != 2 {
					t.Errorf("recovered %v of %v", got, recovered)
				}
				if got := events(t, d.openJournal(t, crashed).Recovered()["s"]); len(got) < 2 {
					t.Errorf("recovered %v from the middle of the failure", got)
				}
				again.log.Stored(3)
				quiet.log.Stored(2)
				synctest.Wait()
				if n := j.Stats().Segments; n != 1 {
					t.Errorf("%d segments when nothing is needed", n)
				}
			})
		})
	}
}

func TestSync(t *testing.T) {
	cfg, d := config(t), newDisk()
	cfg.Sync = true
	j := d.openJournal(t, cfg)
	before := d.count("sync")
	w := begin(j, "s", "e", 0)
	for range 5 {
		<-w.append(delta("m", "x"))
	}
	if n := d.count("sync") - before; n != 5 || before != 2 {
		t.Errorf("%d syncs for 5 writes, %d for the segment and its mark", n, before)
	}
	cfg.Path = copyFolder(t, cfg.Path)
	d.boot = "second boot"
	again := d.openJournal(t, cfg)
	if len(events(t, again.Recovered()["s"])) != 5 || again.ID() != j.ID() {
		t.Errorf("after the machine was started again: journal %s, was %s", again.ID(), j.ID())
	}
}

func TestRotationAndRemoval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg, d := config(t), newDisk()
		j := d.openJournal(t, cfg) // of 1 MiB: eight segments of 128 KiB
		text := strings.Repeat("x", 10<<10)
		long, short := begin(j, "long", "e", 0), begin(j, "short", "e", 0)
		<-long.append(streaming("answer"))
		ends := []int64{}
		for i := range 60 {
			<-long.append(delta("answer", text))
			if i%12 == 0 {
				<-short.append(delta("m", "x"))
				ends = append(ends, long.end)
			}
		}
		if stats := j.Stats(); stats.Segments != 5 || stats.Bytes < 600<<10 || stats.Bytes > 620<<10 {
			t.Errorf("60 records of 10 KiB make %+v", stats)
		}
		long.log.Stored(ends[3])
		synctest.Wait()
		if n := j.Stats().Segments; n != 5 {
			t.Errorf("what another session needs was removed: %d segments", n)
		}
		short.log.Stored(2)
		synctest.Wait()
		if n := j.Stats().Segments; n != 3 && n != 4 {
			t.Errorf("%d segments are left", n)
		}
		checkFiles(t, cfg, j)

		// Deltas of a response whose beginning was removed know theirs.
		crashed := cfg
		crashed.Path = copyFolder(t, cfg.Path)
		for _, body := range events(t, d.openJournal(t, crashed).Recovered()["long"]) {
			if body.(chat.MessageDelta).MessageID != "answer" {
				t.Fatalf("recovered %+v", body)
			}
		}

		j.Forget("short")
		begin(j, "long", "another epoch", 61)
		synctest.Wait()
		if n := j.Stats().Segments; n != 1 {
			t.Errorf("%d segments when nothing is needed", n)
		}
		checkFiles(t, cfg, j)
	})
}

// TestALargeSegmentGoesEarly: it is not full, but nobody needs it.
func TestALargeSegmentGoesEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg, d := config(t), newDisk()
		cfg.MaxBytes = 64 << 20
		j := d.openJournal(t, cfg)
		w := begin(j, "s", "e", 0)
		for range 20 {
			<-w.append(delta("m", strings.Repeat("x", 64<<10)))
		}
		w.log.Stored(20)
		synctest.Wait()
		if stats := j.Stats(); stats.Segments != 1 || stats.Bytes > 1000 {
			t.Errorf("left are %+v", stats)
		}
		<-w.append(delta("m", "y"))
		checkFiles(t, cfg, j)
	})
}

func checkFiles(t *testing.T, cfg journal.Config, j opened) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(cfg.Path, "*.segment"))
	size := int64(0)
	for _, name := range names {
		if info, err := os.Stat(name); err == nil {
			size += info.Size()
		}
	}
	if stats := j.Stats(); err != nil || len(names) != stats.Segments || size != stats.Bytes {
		t.Errorf("there are %d bytes in %v, want %+v", size, names, stats)
	}
}
