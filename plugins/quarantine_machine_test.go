package plugins

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// The quarantine is driven at random by a few people and held against what it
// promises.
func TestQuarantineProperties(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	for range 500 {
		rules := quarantineRules{limit: 1 + rng.IntN(5), window: time.Minute, first: time.Second, most: 16 * time.Second, good: 1 + rng.IntN(3)}
		q := quarantine{rules: rules}
		now := time.Unix(1_000_000, 0)
		faults := make(map[person]time.Time) // the last of each, since the last change of state
		var lastProbe time.Time
		good, wait, neutral := 0, rules.first, false
		for range 300 {
			now = now.Add(time.Duration(rng.Int64N(int64(20 * time.Second))))
			who := person(rng.IntN(8))
			if !q.on {
				faults[who] = now
				lately := 0
				for _, at := range faults {
					if now.Sub(at) <= rules.window {
						lately++
					}
				}
				want := lately >= rules.limit
				if got := q.fault(now, who, 0, "why"); got != want || q.on != want {
					t.Fatalf("got quarantine %v after faults %v, want %v", got, faults, want)
				}
				if want {
					lastProbe, good, wait, neutral = now, 0, rules.first, false
				}
				continue
			}
			if q.fault(now, who, 0, "late") {
				t.Fatal("a late fault began a second quarantine")
			}
			due, blamed := lastProbe.Add(wait), q.blamed(who)
			want := probe{neutral: !neutral, live: !blamed || now.Sub(due) >= rules.window}
			if now.Before(due) {
				want = probe{}
			}
			got := q.probe(now, who)
			if got != want {
				t.Fatalf("got probe %+v %v after the last, blamed %v, want %+v at %v", got, now.Sub(lastProbe), blamed, want, wait)
			}
			if got == (probe{}) {
				continue
			}
			if q.probe(now.Add(time.Hour), person(9)) != (probe{}) {
				t.Fatal("two probes at a time")
			}
			now = now.Add(time.Millisecond)
			passed := !got.neutral || rng.IntN(4) > 0
			ok := passed && (!got.live || rng.IntN(2) == 0)
			before := q.every
			back := q.probed(now, who, got, passed, ok)
			neutral = neutral || passed
			switch {
			case ok && got.live:
				lastProbe, good, wait = now, good+1, rules.first
			case ok:
			case passed && blamed:
				if q.every != before {
					t.Fatal("a blamed person's fault moved the interval")
				}
				lastProbe, wait = now, 0
			default:
				lastProbe, good, wait, neutral = now, 0, q.every, false
				if wait != min(2*before, rules.most) {
					t.Fatalf("got interval %v after a bad probe at %v", wait, before)
				}
				if passed && !q.blamed(who) {
					t.Fatal("who made a probe fail is not remembered")
				}
			}
			if back != (good >= rules.good) || back == q.on {
				t.Fatalf("got back=%v on=%v after %d good probes of %d", back, q.on, good, rules.good)
			}
			if q.probed(now, who, got, true, true) {
				t.Fatal("a probe was counted twice")
			}
			if back {
				clear(faults)
			}
		}
	}
}

// The interval doubles with each bad probe up to its bound.
func TestQuarantineIntervals(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	q := quarantine{rules: quarantineRules{limit: 1, window: time.Minute, first: time.Second, most: 10 * time.Second, good: 2}}
	q.fault(now, 0, 0, "why")
	var got []string
	for i := range person(6) {
		got = append(got, q.next.Sub(now).String())
		now = q.next
		try := q.probe(now, i+1)
		if try != (probe{neutral: true, live: true}) {
			t.Fatalf("got probe %+v when it was due", try)
		}
		q.probed(now, i+1, try, i%2 == 0, false)
	}
	if s := strings.Join(got, " "); s != "1s 2s 4s 8s 10s 10s" {
		t.Errorf("got intervals %s", s)
	}
}

// One person, or many names among the messages of others, are not enough.
func TestQuarantineIsNotForOddTexts(t *testing.T) {
	start := time.Unix(1_000_000, 0)
	rules := quarantineRules{limit: 5, window: time.Minute, first: time.Second, most: time.Minute, good: 3}
	fault := func(q *quarantine, at time.Duration, who person, well uint64) bool {
		return q.fault(start.Add(at), who, well, "why")
	}
	t.Run("one person", func(t *testing.T) {
		q := quarantine{rules: rules}
		for i := range 10_000 {
			if fault(&q, time.Duration(i)*time.Millisecond, 1, 0) {
				t.Fatalf("quarantine after %d faults of one person", i)
			}
		}
		if len(q.recent) != 1 {
			t.Errorf("%d are remembered, want one", len(q.recent))
		}
	})
	t.Run("many names", func(t *testing.T) {
		q := quarantine{rules: rules}
		for i := range 1_000 { // each beside a hundred messages that went well
			if fault(&q, time.Duration(i)*time.Second, person(i), uint64(i+1)*100) {
				t.Fatalf("quarantine after %d faults", i)
			}
		}
		if len(q.recent) > maxFaulters {
			t.Errorf("%d are remembered, at most %d may be", len(q.recent), maxFaulters)
		}
	})
	t.Run("a plugin that was well long ago", func(t *testing.T) {
		q := quarantine{rules: rules}
		for i := range 300 {
			if fault(&q, time.Duration(i)*time.Second, person(i), 1_000_000) {
				if at := time.Duration(i) * time.Second; at > 2*rules.window {
					t.Errorf("quarantine after %v of nothing but faults, want it within two windows", at)
				}
				return
			}
		}
		t.Error("no quarantine of a plugin that fails at everybody")
	})
	t.Run("some fail", func(t *testing.T) {
		q := quarantine{rules: rules}
		for i := range person(5) {
			if got := fault(&q, time.Second, i, 49); got != (i == 4) {
				t.Fatalf("person %d: got quarantine %v", i, got)
			}
		}
	})
	t.Run("never", func(t *testing.T) {
		q := quarantine{}
		for i := range person(100) {
			if fault(&q, 0, i, 0) {
				t.Fatal("quarantine without a limit")
			}
		}
	})
}
