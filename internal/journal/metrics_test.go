package journal_test

import (
	"errors"
	"testing"
	"testing/synctest"

	"github.com/prometheus/client_golang/prometheus"
)

// figures gives what a journal tells as metrics: a histogram's number of values.
func figures(t *testing.T, j opened) map[string]float64 {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(j.Journal)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	told := make(map[string]float64)
	for _, f := range families {
		m := f.GetMetric()[0]
		told[f.GetName()] = m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
	}
	return told
}

func wantFigures(t *testing.T, when string, j opened, want map[string]float64) {
	t.Helper()
	got := figures(t, j)
	for name, value := range want {
		if got["parley_journal_"+name] != value {
			t.Errorf("%s: %s is %v, want %v", when, name, got["parley_journal_"+name], value)
		}
	}
}

func TestMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg, d := config(t), newDisk()
		j := d.openJournal(t, cfg)
		wantFigures(t, "at first", j, map[string]float64{
			"waiting_events": 0, "events_written_total": 0, "failures_total": 0, "down": 0, "limit_bytes": 1 << 20,
		})
		goOn := make(chan struct{})
		d.hook(func(op, _ string) error {
			if op == "write" {
				<-goOn
			}
			return nil
		})
		w, v := begin(j, "s", "e", 0), begin(j, "v", "e", 0)
		w.append(delta("m", "x"))
		synctest.Wait()
		for range 10 {
			w.append(delta("m", "x"))
			v.append(delta("m", "x"))
		}
		wantFigures(t, "while the disk hangs", j, map[string]float64{"waiting_events": 21, "events_written_total": 0})
		writes := figures(t, j)["parley_journal_write_seconds"]
		close(goOn)
		synctest.Wait()
		wantFigures(t, "afterwards", j, map[string]float64{
			"waiting_events": 0, "events_written_total": 21, "write_seconds": writes + 2, "down": 0,
		})

		d.hook(func(string, string) error { return errors.New("input/output error") })
		w.append(delta("m", "x"))
		synctest.Wait()
		wantFigures(t, "when the disk fails", j, map[string]float64{
			"waiting_events": 0, "events_written_total": 21, "failures_total": 1, "down": 1,
		})
		d.hook(nil)
	})
}
