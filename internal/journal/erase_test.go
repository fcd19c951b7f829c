package journal_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parley-chat/parley/internal/journal"
)

// afterCrash opens what a kill would leave at this moment.
func afterCrash(t *testing.T, d *disk, cfg journal.Config) opened {
	t.Helper()
	cfg.Path = copyFolder(t, cfg.Path)
	return d.openJournal(t, cfg)
}

func erase(t testing.TB, j opened, id string) {
	t.Helper()
	if err := j.Erase(t.Context(), id); err != nil {
		t.Fatal(err)
	}
}

func TestWhatIsErasedDoesNotComeBack(t *testing.T) {
	for _, sync := range []bool{false, true} {
		cfg, d := config(t), newDisk()
		cfg.Sync = sync
		j := d.openJournal(t, cfg)
		<-begin(j, "other", "e", 0).append(streaming("m"), delta("m", "stays"))
		begin(j, "s", "e", 0).append(streaming("m"), delta("m", "goes"))
		syncs := d.count("sync")
		erase(t, j, "s")
		if n := d.count("sync") - syncs; n < 2 { // the segment's and the mark's
			t.Errorf("sync is %t: there were %d syncs", sync, n)
		}
		if r := afterCrash(t, d, cfg).Recovered(); r["s"] != nil || len(events(t, r["other"])) != 2 || len(r) != 1 {
			t.Errorf("recovered %v", r)
		}
		again := begin(j, "s", "another epoch", 0)
		<-again.append(streaming("m"), delta("m", "is new"))
		recovered := afterCrash(t, d, cfg).Recovered()
		if got := events(t, recovered["s"]); len(recovered) != 2 || len(got) != 2 || got[1] != delta("m", "is new") {
			t.Errorf("recovered %v, and of the session that is there again %+v", recovered, got)
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}

		j = d.openJournal(t, cfg)
		erase(t, j, "other") // before anybody has begun it again
		if r := j.Recovered(); r["other"] != nil || len(r) != 1 {
			t.Errorf("recovered %v", r)
		}
		reopened := afterCrash(t, d, cfg)
		if r := reopened.Recovered(); r["other"] != nil || len(events(t, r["s"])) != 2 || reopened.ID() != j.ID() {
			t.Errorf("recovered %v of journal %s, was %s", r, reopened.ID(), j.ID())
		}
	}
}

func TestErasureOfWhatIsNotThereCostsNothing(t *testing.T) {
	cfg, d := config(t), newDisk()
	j := d.openJournal(t, cfg)
	<-begin(j, "other", "e", 0).append(delta("m", "x"))
	before := j.Stats()
	d.hook(func(op, path string) error { return fmt.Errorf("%s of %s", op, path) })
	erase(t, j, "s")
	begin(j, "only begun", "e", 0)
	erase(t, j, "only begun")
	d.hook(nil)
	if after := j.Stats(); after != before || len(afterCrash(t, d, cfg).Recovered()) != 1 {
		t.Errorf("there were %+v and are %+v", before, after)
	}
}

// TestErasureIsInItsPlace among what the sessions append meanwhile, all in one write.
func TestErasureIsInItsPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg, d := config(t), newDisk()
		j := d.openJournal(t, cfg)
		w, other := begin(j, "s", "e", 0), begin(j, "other", "e", 0)
		<-w.append(delta("m", "goes"))
		goOn := make(chan struct{})
		d.hook(func(op, _ string) error {
			if op == "write" {
				<-goOn
			}
			return nil
		})
		other.append(delta("m", "a"))
		synctest.Wait() // that is being written
		w.append(delta("m", "goes, too"))
		other.append(delta("m", "b"))
		erased := make(chan error)
		go func() { erased <- j.Erase(t.Context(), "s") }()
		synctest.Wait()
		done := other.append(delta("m", "c"))
		select {
		case err := <-erased:
			t.Errorf("before it is written it is told to be erased, with the error %v", err)
		default:
		}
		close(goOn)
		if err := <-erased; err != nil {
			t.Error(err)
		}
		<-done
		if r := afterCrash(t, d, cfg).Recovered(); r["s"] != nil || len(events(t, r["other"])) != 3 {
			t.Errorf("recovered %v", r)
		}
	})
}

func TestErasureThatFails(t *testing.T) {
	for _, fails := range []string{"write", "sync", "mark"} {
		synctest.Test(t, func(t *testing.T) {
			errDisk := errors.New("input/output error")
			cfg, d := config(t), newDisk()
			j := d.openJournal(t, cfg)
			<-begin(j, "s", "e", 0).append(delta("m", "x"))
			<-begin(j, "behind", "e", 0).append(delta("m", "x"))
			failing := make(chan struct{})
			d.hook(func(op, _ string) error {
				if op == fails || op == "open" {
					<-failing
					return errDisk
				}
				return nil
			})
			results := make(chan error, 2)
			go func() { results <- j.Erase(t.Context(), "s") }()
			synctest.Wait()
			go func() { results <- j.Erase(t.Context(), "behind") }()
			synctest.Wait()
			close(failing)
			for range 2 {
				if err := <-results; !errors.Is(err, errDisk) || !strings.Contains(err.Error(), "erase session ") {
					t.Errorf("%s fails: got %v", fails, err)
				}
			}
			asked := time.Now()
			if err := j.Erase(t.Context(), "s"); !errors.Is(err, errDisk) || time.Since(asked) > 0 {
				t.Errorf("while it fails: got %v, after %v", err, time.Since(asked))
			}
			d.hook(nil)
			time.Sleep(1500 * time.Millisecond)
			erase(t, j, "s")
			erase(t, j, "behind")
			synctest.Wait()
			if r := afterCrash(t, d, cfg).Recovered(); len(r) != 0 {
				t.Errorf("recovered %v", r)
			}
		})
	}
}

func TestErasureOfAClosedJournal(t *testing.T) {
	j := newDisk().openJournal(t, config(t))
	<-begin(j, "s", "e", 0).append(delta("m", "x"))
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if err := j.Erase(t.Context(), "s"); !errors.Is(err, journal.ErrClosed) {
		t.Errorf("got %v", err)
	}
}

// TestErasureWhileItIsClosed is done, or told that it is not.
func TestErasureWhileItIsClosed(t *testing.T) {
	for range 50 {
		cfg, d := config(t), newDisk()
		j := d.openJournal(t, cfg)
		errs := make([]error, 8)
		var group sync.WaitGroup
		for i := range errs {
			id := fmt.Sprint(i)
			begin(j, id, "e", 0).append(delta("m", "x"))
			group.Go(func() { errs[i] = j.Erase(t.Context(), id) })
		}
		if err := j.Close(); err != nil {
			t.Error(err)
		}
		group.Wait()
		recovered := d.openJournal(t, cfg).Recovered()
		for i, err := range errs {
			if r := recovered[fmt.Sprint(i)]; err == nil && r != nil || err != nil && !errors.Is(err, journal.ErrClosed) {
				t.Errorf("got %v and recovered %v", err, r)
			}
		}
	}
}

func TestErasureIsNotWaitedForLongerThanWanted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg, d := config(t), newDisk()
		j := d.openJournal(t, cfg)
		<-begin(j, "s", "e", 0).append(delta("m", "x"))
		goOn := make(chan struct{})
		d.hook(func(op, _ string) error {
			if op == "sync" {
				<-goOn
			}
			return nil
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := j.Erase(ctx, "s"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		close(goOn)
		synctest.Wait()
		erase(t, j, "s")
	})
}

// TestErasureFindsRoom in a journal that is full, and makes some.
func TestErasureFindsRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg, d := config(t), newDisk()
		cfg.MaxBytes = 256 << 10
		j := d.openJournal(t, cfg)
		<-begin(j, "quiet", "e", 0).append(delta("m", "x"))
		w := begin(j, "s", "e", 0)
		for j.Stats().Bytes < cfg.MaxBytes-20<<10 {
			<-w.append(delta("m", strings.Repeat("x", 10<<10)))
		}
		for j.Err() == nil {
			w.append(delta("m", strings.Repeat("x", 10<<10)))
		}
		erase(t, j, "s") // with what does not fit before it
		synctest.Wait()
		if err := j.Err(); err != nil {
			t.Errorf("the journal says %v", err)
		}
		if r := afterCrash(t, d, cfg).Recovered(); len(events(t, r["quiet"])) != 1 || len(r) != 1 {
			t.Errorf("recovered %v", r)
		}
		// Full of another's, too, with nothing that waits.
		w = begin(j, "another", "e", 0)
		for j.Err() == nil {
			<-w.append(delta("m", strings.Repeat("x", 10<<10)))
		}
		erase(t, j, "quiet")
		synctest.Wait()
		if r := afterCrash(t, d, cfg).Recovered(); r["quiet"] != nil || r["another"] == nil {
			t.Errorf("recovered %v", r)
		}
	})
}

// TestErasedRecordsGoFromTheDisk once nothing else in their segment is needed, however small that is.
func TestErasedRecordsGoFromTheDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg, d := config(t), newDisk()
		j := d.openJournal(t, cfg)
		other := begin(j, "other", "e", 0)
		<-begin(j, "s", "e", 0).append(delta("m", "goes"))
		<-other.append(delta("m", "x"))
		erase(t, j, "s")
		other.log.Stored(1)
		synctest.Wait()
		for name, data := range readFiles(t, cfg.Path) {
			if strings.Contains(string(data), "goes") {
				t.Errorf("%s says %q", name, data)
			}
		}
		checkFiles(t, cfg, j)
	})
}

// erasures counts the records in a folder that say that something is erased.
func erasures(t *testing.T, folder string) (n int) {
	t.Helper()
	for _, data := range readFiles(t, folder) {
		for _, payload := range journal.Payloads(data) {
			if payload[0] == journal.KindErased {
				n++
			}
		}
	}
	return n
}

// pinned is a journal whose first segment stays, as one session in it needs it, while others go. Sessions "s" and "t"
// have records in the first, "u" has some in a later one.
type pinned struct {
	opened
	cfg           journal.Config
	kept, filling *writer
}

func newPinned(t *testing.T, d *disk, sync bool) *pinned {
	cfg := config(t)
	cfg.MaxBytes, cfg.Sync = 512<<10, sync // segments of 64 KiB
	p := &pinned{opened: d.openJournal(t, cfg), cfg: cfg}
	p.kept = begin(p.opened, "kept", "e", 0)
	<-p.kept.append(delta("m", "needed"))
	<-begin(p.opened, "s", "e", 0).append(streaming("m"), delta("m", "goes"))
	<-begin(p.opened, "t", "e", 0).append(streaming("m"), delta("m", "goes"))
	p.filling = begin(p.opened, "filling", "e", 0)
	p.fill()
	<-begin(p.opened, "u", "e", 0).append(streaming("m"), delta("m", "goes"))
	return p
}

// fill goes to the next segment, and has those go that nobody needs.
func (p *pinned) fill() {
	segments := p.Stats().Segments
	for p.Stats().Segments == segments {
		<-p.filling.append(delta("m", strings.Repeat("x", 10<<10)))
	}
	p.filling.log.Stored(p.filling.end)
	synctest.Wait()
}

func (p *pinned) numbers(t *testing.T) (names []string) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(p.cfg.Path, "*.segment"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		names = append(names, filepath.Base(path))
	}
	return names
}

// TestAnErasureOutlivesItsSegment where an earlier one stays that holds what it erased.
func TestAnErasureOutlivesItsSegment(t *testing.T) { synctest.Test(t, outlivesItsSegment) }

func outlivesItsSegment(t *testing.T) {
	d := newDisk()
	p := newPinned(t, d, false)
	erase(t, p.opened, "s")
	p.fill()
	erase(t, p.opened, "t")
	erase(t, p.opened, "u")
	again := begin(p.opened, "s", "another epoch", 0)
	<-again.append(streaming("m"), delta("m", "is new"))
	for range 5 {
		p.fill()
	}
	names := p.numbers(t)
	if names[0] != "00000001.segment" || slices.Contains(names, "00000002.segment") {
		t.Fatalf("the test's segments are %v", names)
	}
	check := func(what string, j opened) {
		t.Helper()
		r := j.Recovered()
		if r["t"] != nil || r["u"] != nil || len(events(t, r["kept"])) != 1 {
			t.Errorf("%s: recovered %v", what, r)
		}
		if got := events(t, r["s"]); r["s"].Epoch != "another epoch" || len(got) != 2 || got[1] != delta("m", "is new") {
			t.Errorf("%s: of the session that is there again recovered are %v", what, got)
		}
	}
	crashed := p.cfg
	for _, what := range []string{"at a crash", "at another one", "at a third one"} {
		crashed.Path = copyFolder(t, crashed.Path)
		check(what, d.openJournal(t, crashed))
	}
	again.log.Stored(2)
	for range 3 {
		p.fill()
	}
	if r := afterCrash(t, d, p.cfg).Recovered(); r["s"] != nil || r["t"] != nil || r["kept"] == nil {
		t.Errorf("recovered %v", r)
	}
	if n := erasures(t, p.cfg.Path); n < 2 || n > 4 {
		t.Errorf("%d records say that s and t are erased, in %v", n, p.numbers(t))
	}
	for range 3 {
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
		p.opened = d.openJournal(t, p.cfg)
		if r := p.Recovered(); r["s"] != nil || r["t"] != nil || r["u"] != nil || r["kept"] == nil {
			t.Errorf("after it was opened again recovered are %v", r)
		}
	}
	p.Forget("kept")
	p.Forget("filling")
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	p.opened = d.openJournal(t, p.cfg)
	if n := erasures(t, p.cfg.Path); n != 0 || p.Stats().Segments != 1 {
		t.Errorf("when nothing is needed %d records say what is erased, in %v", n, p.numbers(t))
	}
}

// TestACrashAtAnyMomentAfterAnErasure kills the journal after each thing that it does to a file, before, while and after
// sessions are erased and the segments that say so are removed.
func TestACrashAtAnyMomentAfterAnErasure(t *testing.T) { synctest.Test(t, crashesAfterAnErasure) }

func crashesAfterAnErasure(t *testing.T) {
	for _, syncs := range []bool{false, true} {
		d := newDisk()
		p := newPinned(t, d, syncs)
		type kill struct {
			folder string
			erased []string
		}
		var mu sync.Mutex // guards the fields below
		var kills []kill
		var erased []string
		copies := t.TempDir()
		d.watch(func() {
			mu.Lock()
			defer mu.Unlock()
			k := kill{filepath.Join(copies, fmt.Sprint(len(kills))), slices.Clone(erased)}
			if err := os.CopyFS(k.folder, os.DirFS(p.cfg.Path)); err != nil {
				t.Error(err)
			}
			kills = append(kills, k)
		})
		for _, id := range []string{"s", "u", "t"} {
			erase(t, p.opened, id)
			mu.Lock()
			erased = append(erased, id)
			mu.Unlock()
			p.fill()
		}
		p.fill()
		p.fill()
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		p.opened = d.openJournal(t, p.cfg)
		p.Close()
		d.watch(nil)
		if n := d.count("remove"); n < 3 || len(kills) < 80 {
			t.Errorf("only %d kills, %d segments removed", len(kills), n)
		}
		for i, k := range kills {
			cfg := p.cfg
			cfg.Path = k.folder
			for life := range 2 {
				j := d.openJournal(t, cfg)
				r := j.Recovered()
				if j.ID() != p.ID() || r["kept"] == nil {
					t.Fatalf("after kill %d, in life %d, recovered is %v; the log says %s", i, life, r, j.logged)
				}
				for _, id := range k.erased {
					if r[id] != nil {
						t.Fatalf("after kill %d of %d, in life %d, %s is back", i, len(kills), life, id)
					}
				}
				if err := j.Close(); err != nil {
					t.Error(err)
				}
			}
		}
	}
}

// TestAnErasedLogGoesOn although it should not: what it wrote is no reason to trust nothing.
func TestAnErasedLogGoesOn(t *testing.T) {
	cfg, d := config(t), newDisk()
	j := d.openJournal(t, cfg)
	w, other := begin(j, "s", "e", 0), begin(j, "other", "e", 0)
	<-w.append(delta("m", "x"))
	<-other.append(delta("m", "x"))
	erase(t, j, "s")
	<-w.append(delta("m", "y"))
	<-other.append(delta("m", "y"))
	again := afterCrash(t, d, cfg)
	if r := again.Recovered(); r["s"] != nil || len(events(t, r["other"])) != 2 || again.ID() != j.ID() {
		t.Errorf("recovered %v of journal %s, was %s", r, again.ID(), j.ID())
	}
	again.Forget("other")
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
	if n := again.Stats().Segments; n != 1 {
		t.Errorf("%d segments are left", n)
	}
}
