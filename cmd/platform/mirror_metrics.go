package main

import (
	"parley/core/metrics"
	"parley/core/mirror"
)

// mirrorMetrics are those of a mirror. Their labels are the direction, as the two
// flags name the sides.
func mirrorMetrics(stats func() []mirror.Stats) []metrics.Metric {
	each := func(name, help string, gauge bool, value func(*mirror.Stats) float64) metrics.Metric {
		return metrics.Metric{Name: name, Help: help, Gauge: gauge, Read: func(e metrics.Emit) {
			for _, s := range stats() {
				e(value(&s), "from", s.From, "to", s.To)
			}
		}}
	}
	return []metrics.Metric{
		each("parley_mirror_rooms", "Rooms that are carried.", true, func(s *mirror.Stats) float64 { return float64(s.Rooms) }),
		each("parley_mirror_carried_total", "Entries that the other side has stored.", false, func(s *mirror.Stats) float64 { return float64(s.Stored) }),
		each("parley_mirror_skipped_total", "Entries that the other side had already.", false, func(s *mirror.Stats) float64 { return float64(s.Skipped) }),
		{Name: "parley_mirror_lost_total", Help: "Entries that were not carried, by why: dropped by retention before that, damaged.", Read: func(e metrics.Emit) {
			for _, s := range stats() {
				e(float64(s.Gone), "from", s.From, "to", s.To, "why", "retention")
				e(float64(s.Damaged), "from", s.From, "to", s.To, "why", "damaged")
			}
		}},
		each("parley_mirror_errors_total", "Calls to either side that failed and are made again.", false, func(s *mirror.Stats) float64 { return float64(s.Failed) }),
		each("parley_mirror_resumes_total", "Times a room was gone on with from where the other side says it has come: at the start, after an error, after doubt.", false, func(s *mirror.Stats) float64 { return float64(s.Resumed) }),
		each("parley_mirror_behind_entries", "Entries that were not carried yet when last looked at.", true, func(s *mirror.Stats) float64 { return float64(s.Behind) }),
		each("parley_mirror_behind_seconds", "How long the room has been behind that is so for longest; 0 for none.", true, func(s *mirror.Stats) float64 {
			if len(s.Late) == 0 {
				return 0
			}
			return s.Late[0].For.Seconds()
		}),
		{Name: "parley_mirror_lag_seconds", Help: "Time from a node's accepting an entry until the other side had stored it, by both clocks.", Histograms: func(e metrics.EmitBuckets) {
			for _, s := range stats() {
				e(metrics.Buckets(s.Lags), "from", s.From, "to", s.To)
			}
		}},
	}
}
