package checker

import (
	"math/rand/v2"
	"slices"
	"testing"

	"parley/core/chat"
)

// lossy are the seeded faults of runs whose store loses tails.
var lossy = []injection{
	{"one client is not told of a lost tail", SilentEpoch, func(r *rand.Rand, run *Run) bool {
		h := &run.Histories[r.IntN(len(run.Histories))]
		if len(h.Entries) == 0 {
			return false
		}
		h.Entries, h.Epoch = h.Entries[:len(h.Entries)-1], "after"
		run.Losses++
		silent := r.IntN(len(run.Logs))
		for i, l := range run.Logs {
			at := slices.IndexFunc(l.records, func(r Record) bool { return r.Kind == Settled && r.Room == h.Room })
			if i != silent {
				insert(spot{l, at}, Record{Kind: Reset, Room: h.Room, Epoch: h.Epoch, Seq: uint64(len(h.Entries))})
			}
		}
		return true
	}},
	{"an epoch that ended comes back", Splintered, func(r *rand.Rand, run *Run) bool {
		s, ok := pick(r, spots(*run, kind(Reset)))
		if !ok {
			return false
		}
		was := before(s.log, s.at)
		if was == "" {
			return false
		}
		now, back := *s.rec(), *s.rec()
		back.Epoch = was
		insert(spot{s.log, s.at + 1}, now)
		insert(spot{s.log, s.at + 1}, back)
		return true
	}},
	{"more generations than losses", Splintered, func(_ *rand.Rand, run *Run) bool {
		if Check(*run).Generations < 3*len(run.Histories)+1 {
			return false
		}
		run.Losses = 1
		return true
	}},
	{"what is lost is no tail", Lost, func(r *rand.Rand, run *Run) bool {
		h := &run.Histories[r.IntN(len(run.Histories))]
		return forge(r, run, h)
	}},
	{"a later generation is acknowledged before an earlier one is sent", Inverted, func(r *rand.Rand, run *Run) bool {
		s, ok := pick(r, spots(*run, kind(Ack)))
		if !ok {
			return false
		}
		a := s.rec()
		later, ok := pick(r, spots(*run, func(l *Log, i int) bool {
			b := &l.records[i]
			return b.Kind == Ack && b.Room == a.Room && len(b.Epoch) > len(a.Epoch)
		}))
		if !ok {
			return false
		}
		at := later.rec().At + 1
		for i := range s.log.records {
			if rec := &s.log.records[i]; rec.Room == a.Room && rec.Nonce == a.Nonce && rec.Kind != Entry {
				rec.At = at
			}
		}
		return true
	}},
}

// before is the epoch that a client was in before the record at i, "" where it
// had none or the same.
func before(l *Log, i int) string {
	for j := i - 1; j >= 0; j-- {
		switch r := &l.records[j]; {
		case r.Room != l.records[i].Room:
		case r.Kind == Left:
			return ""
		case r.Kind == Joined || r.Kind == Reset:
			if r.Epoch == l.records[i].Epoch {
				return ""
			}
			return r.Epoch
		}
	}
	return ""
}

// forge puts another message in the place of one that only an earlier
// generation saw and whose successor survived.
func forge(r *rand.Rand, run *Run, h *History) bool {
	old := make(map[chat.MessageID]string) // the epoch it was seen in first; "" for one seen in the last
	for _, l := range run.Logs {
		epoch := ""
		for i := range l.records {
			rec := &l.records[i]
			if rec.Room != h.Room {
				continue
			}
			switch rec.Kind {
			case Joined, Reset:
				epoch = rec.Epoch
			case Entry:
				if _, known := old[rec.ID]; !known {
					old[rec.ID] = epoch
				}
				if epoch == h.Epoch {
					old[rec.ID] = ""
				}
			case Ack:
				if rec.Epoch == h.Epoch {
					old[rec.ID] = ""
				}
			}
		}
	}
	var at []int
	for i := range h.Entries[:max(0, len(h.Entries)-1)] {
		if epoch := old[h.Entries[i].ID]; epoch != "" && epoch == old[h.Entries[i+1].ID] {
			at = append(at, i)
		}
	}
	if len(at) == 0 {
		return false
	}
	h.Entries = slices.Clone(h.Entries)
	e := &h.Entries[at[r.IntN(len(at))]]
	e.ID, e.Nonce = "forged", "forged"
	return true
}

func TestEachSeededFaultOfALossyStoreIsFoundAndNothingElse(t *testing.T) { seeded(t, lossy, true) }
