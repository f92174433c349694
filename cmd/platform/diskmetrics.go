package main

import (
	"fmt"

	"parley/core/journal/disk"
	"parley/core/metrics"
)

// diskMetrics are those of the embedded store, where that is the store.
func (s *server) diskMetrics() []metrics.Metric {
	j, ok := s.journal.(*disk.Journal)
	if !ok {
		return nil
	}
	return []metrics.Metric{
		metrics.Counter("parley_store_commits_total", "Transactions that the embedded store has committed; each syncs the file.", func() uint64 { return j.Stats().Commits }),
		metrics.Counter("parley_store_failures_total", "Transactions that failed, as on a full disk; whoever waited was answered unavailable.", func() uint64 { return j.Stats().Failures }),
		metrics.Counter("parley_store_damaged_total", "Damaged records of the embedded store that were met since the start; the log names each.", func() uint64 { return j.Stats().Damaged }),
		metrics.Gauge("parley_store_waiting", "Appends that wait for the embedded store's next transaction.", func() float64 { return float64(j.Stats().Pending) }),
	}
}

// diskNotes say what operators should know of the embedded store.
func (s *server) diskNotes() []string {
	j, ok := s.journal.(*disk.Journal)
	if !ok {
		return nil
	}
	if n := j.Stats().Damaged; n > 0 {
		return []string{fmt.Sprintf("the store: damaged records were met: %d since the start; the log names them, the rest is served, a backup has what they held", n)}
	}
	return nil
}
