//go:build unix

package acceptance_test

import (
	"strconv"
	"syscall"
	"time"
)

// figure gives one figure of /metrics.
func (s *server) figure(name string) float64 {
	s.t.Helper()
	v, err := strconv.ParseFloat(s.metrics()[name], 64)
	if err != nil {
		s.t.Fatalf("/metrics has no figure %s: %v", name, err)
	}
	return v
}

// memory gives how many bytes the server has of the system. Under the race detector, which keeps several times as many
// for itself, it is what Go's own figures say.
func (s *server) memory() float64 {
	s.t.Helper()
	if raceEnabled {
		return s.figure("go_memstats_sys_bytes") - s.figure("go_memstats_heap_released_bytes")
	}
	return s.figure("process_resident_memory_bytes")
}

// lowest gives the least that a figure was in a few readings: to gather figures takes goroutines, too.
func (s *server) lowest(name string) float64 {
	s.t.Helper()
	least := s.figure(name)
	for range 20 {
		least = min(least, s.figure(name))
	}
	return least
}

// settles waits until a figure is no higher than it was once.
func (s *server) settles(name string, most float64) {
	s.t.Helper()
	var got float64
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if got = s.figure(name); got <= most {
			return
		}
	}
	s.t.Errorf("%s stays at %v, it was %v", name, got, most)
	if name == "go_goroutines" {
		s.stop(syscall.SIGQUIT) // the log, which is shown now, has them all
	}
}

// rises waits until the lowest reading of a figure is at least so much.
func (s *server) rises(name string, least float64) {
	s.t.Helper()
	var got float64
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if got = s.lowest(name); got >= least {
			return
		}
	}
	s.t.Fatalf("%s stays at %v, it should come to %v", name, got, least)
}
