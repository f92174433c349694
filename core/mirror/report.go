package mirror

import (
	"cmp"
	"context"
	"math/bits"
	"slices"
	"sync/atomic"
	"time"

	"parley/core/histogram"
)

// lags counts how long entries took, in ms, in buckets of 1/16 of a power of 2.
type lags struct {
	counts [64 * lagSteps]atomic.Uint64
}

const lagSteps = 16

func (l *lags) add(ms int64) { l.counts[lagBucket(uint64(max(ms, 0)))].Add(1) }

func lagBucket(v uint64) int {
	if v < lagSteps {
		return int(v)
	}
	shift := bits.Len64(v) - 5 // 16 <= v>>shift < 32
	return (shift+1)*lagSteps + int(v>>shift) - lagSteps
}

// lagBound is the least value above a bucket.
func lagBound(i int) uint64 {
	if i < 2*lagSteps {
		return uint64(i) + 1
	}
	shift := i/lagSteps - 1
	return uint64(i%lagSteps+lagSteps+1) << shift
}

// percentile returns the lag that the given part of the entries did not exceed.
func (l *lags) percentile(part float64) time.Duration {
	var all uint64
	for i := range l.counts {
		all += l.counts[i].Load()
	}
	want := uint64(part * float64(all))
	var sum uint64
	for i := range l.counts {
		if sum += l.counts[i].Load(); sum > 0 && sum >= want {
			return time.Duration(lagBound(i)-1) * time.Millisecond
		}
	}
	return 0
}

// Stats describe one direction since the mirror was made.
type Stats struct {
	From, To string
	Rooms    int
	Stored   uint64 // entries that the target has stored
	Skipped  uint64 // entries that it had already
	Resumed  uint64 // times a room was gone on with from where the target says it has come
	Gone     uint64 // entries that retention had dropped before they were carried
	Damaged  uint64 // records passed over
	Failed   uint64 // calls that were tried again
	Behind   uint64 // entries that were not carried when last looked at
	// Lags are from the time of the node that accepted an entry to that of the
	// mirror when it was stored at the target: as exact as the clocks are.
	P50, P99, Max time.Duration
	Lags          histogram.Values // the same, in seconds
	Late          []Late           // the rooms that are behind, the latest first, at most 8
}

// Late is a room that is behind.
type Late struct {
	Room   string
	Behind uint64
	For    time.Duration // since it was last at the top
}

// maxLate bounds the rooms that are named.
const maxLate = 8

// Stats describes each direction.
func (m *Mirror) Stats() []Stats {
	now := time.Now().UnixMilli()
	out := make([]Stats, len(m.ways))
	for i, w := range m.ways {
		s := Stats{
			From: w.from.Name, To: w.to.Name, Stored: w.stored.Load(), Gone: w.gone.Load(), Damaged: w.damaged.Load(), Failed: w.failed.Load(),
			P50: w.lags.percentile(0.5), P99: w.lags.percentile(0.99), Max: w.lags.percentile(1),
			Skipped: w.skipped.Load(), Resumed: w.resumed.Load(), Lags: w.times.Read(1e-9),
		}
		w.mu.Lock()
		rooms := slices.Clone(w.rooms)
		w.mu.Unlock()
		s.Rooms = len(rooms)
		for _, t := range rooms {
			if n := t.behind.Load(); n > 0 {
				s.Behind += n
				s.Late = append(s.Late, Late{string(t.room), n, time.Duration(now-t.caught.Load()) * time.Millisecond})
			}
		}
		slices.SortFunc(s.Late, func(a, b Late) int { return cmp.Compare(b.For, a.For) })
		s.Late = s.Late[:min(len(s.Late), maxLate)]
		out[i] = s
	}
	return out
}

// report logs what was carried until ctx ends, and once more then.
func (m *Mirror) report(ctx context.Context) {
	tick := time.NewTicker(m.cfg.ReportEvery)
	defer tick.Stop()
	before := make([]uint64, len(m.ways))
	for done := false; !done; {
		select {
		case <-ctx.Done():
			done = true
		case <-tick.C:
		}
		for i, s := range m.Stats() {
			if s.Stored == before[i] && s.Behind == 0 && !done {
				continue
			}
			before[i] = s.Stored
			m.log.Info("mirror", "from", s.From, "to", s.To, "rooms", s.Rooms, "carried", s.Stored, "behind", s.Behind,
				"lag_p50", s.P50, "lag_p99", s.P99, "lag_max", s.Max, "retries", s.Failed)
			for _, l := range s.Late {
				if l.For >= m.cfg.ReportEvery {
					m.log.Warn("a room is behind", "room", l.Room, "from", s.From, "entries", l.Behind, "for", l.For)
				}
			}
		}
	}
}
