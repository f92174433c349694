package main

import (
	"context"

	"parley/core/evidence"
	evidencedisk "parley/core/evidence/disk"
	"parley/core/metrics"
)

// openEvidence opens the evidence store, unless nothing is to be kept.
func (s *server) openEvidence(context.Context) error {
	c := s.cfg.Evidence
	if evidence.Mode(c.Keep) == evidence.KeepNone {
		return nil
	}
	store, err := evidencedisk.Open(evidencedisk.Config{Path: s.data("evidence.db"), MaxBytes: int64(c.MaxBytes)}, s.log)
	if err != nil {
		return err
	}
	s.closers = append(s.closers, store.Close)
	kc := evidence.Defaults()
	kc.Keep, kc.Retention = evidence.Mode(c.Keep), c.Retention
	s.evidence, err = evidence.New(kc, store, s.log)
	return err
}

// reviewMetrics are those of held messages and of evidence.
func (s *server) reviewMetrics() []metrics.Metric {
	st := s.sessions.Stats()
	ms := []metrics.Metric{{
		Name: "parley_reviews_total", Help: "Held messages, by what happened on this node; held minus approved, rejected and expired, over all nodes, is what has been added to the queues.",
		Read: func(e metrics.Emit) {
			e(float64(st.Held.Load()), "event", "held")
			e(float64(st.Appeals.Load()), "event", "appealed")
			e(float64(st.Approved.Load()), "event", "approved")
			e(float64(st.Rejected.Load()), "event", "rejected")
			e(float64(st.Expired.Load()), "event", "expired")
		},
	}, metrics.Counter("parley_review_hints_dropped_total", "News of reviews that nobody was told, because too many waited.", s.hub.Stats().HintsDropped.Load)}
	if s.evidence == nil {
		return ms
	}
	stats := s.evidence.Stats
	return append(ms,
		metrics.Gauge("parley_evidence_records", "Judged messages whose evidence is kept.", func() float64 { return float64(stats().Records) }),
		metrics.Gauge("parley_evidence_bytes", "Size of the evidence, encoded.", func() float64 { return float64(stats().Bytes) }),
		metrics.Counter("parley_evidence_judged_total", "Messages that plugins judged, kept or not.", func() uint64 { return stats().Judged }),
		metrics.Counter("parley_evidence_kept_total", "Records of evidence written.", func() uint64 { return stats().Kept }),
		metrics.Metric{Name: "parley_evidence_lost_total", Help: "Records of evidence that were not kept, by reason.", Read: func(e metrics.Emit) {
			v := stats()
			e(float64(v.Dropped), "reason", "queue_full")
			e(float64(v.Failed), "reason", "store")
		}},
		metrics.Counter("parley_evidence_erased_total", "Records of evidence erased, by request, age or size.", func() uint64 { return stats().Erased }),
	)
}
