package plugins

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"parley/core/chat"
)

// A canary falls on the share of people it should, always on the same, and a
// larger one falls on all of a smaller one's.
func TestPicked(t *testing.T) {
	const people = 20_000
	rng := rand.New(rand.NewPCG(1, 1))
	both := 0
	for _, percent := range []int{1, 5, 20, 50, 99} {
		n := 0
		for i := range people {
			room, user := chat.RoomID(fmt.Sprintf("room-%d", i%97)), chat.UserID(fmt.Sprintf("user%d", i))
			in := picked("links", room, user, percent)
			if in {
				n++
			}
			if in != picked("links", room, user, percent) {
				t.Fatal("the same person fell on both sides")
			}
			if more := percent + rng.IntN(101-percent); in && !picked("links", room, user, more) {
				t.Fatalf("%s in %s is in %d percent and not in %d", user, room, percent, more)
			}
			if percent == 20 && in && picked("words", room, user, 20) {
				both++
			}
		}
		want, sigma := float64(percent)/100*people, math.Sqrt(people*float64(percent)/100*(1-float64(percent)/100))
		if math.Abs(float64(n)-want) > 5*sigma {
			t.Errorf("%d percent: got %d of %d people, want about %.0f", percent, n, people, want)
		}
	}
	if want := 0.04 * people; math.Abs(float64(both)-want) > want/4 {
		t.Errorf("got %d people in two canaries of 20 percent, want about %.0f: they should not be the same people", both, want)
	}
	for _, user := range []chat.UserID{"ann", "bob"} {
		if !picked("links", "lobby", user, 100) || picked("links", "lobby", user, 0) {
			t.Error("100 percent is not everybody, or 0 not nobody")
		}
	}
}

func TestGuards(t *testing.T) {
	rules := func(g Guards) Rollout { g.MinDecisions = 100; return Rollout{Guards: g} }
	ok := sample{fuel: 10, time: time.Millisecond, compared: true}
	tests := []struct {
		name  string
		rules Rollout
		bad   sample
		good  int // before the bad ones
		after int // bad ones it takes, 0: any number of them is fine
		want  string
	}{
		{"errors, certain early", rules(Guards{ErrorRate: 0.01}), sample{failed: true}, 0, 2, "error_rate: 2 of 2 decisions failed; at most 1 % of 100 may"},
		{"errors, late", rules(Guards{ErrorRate: 0.01}), sample{failed: true}, 400, 5, "error_rate: 5 of 405 decisions failed; at most 1 % of 405 may"},
		{"denials", rules(Guards{DenyRate: 0.2}), sample{denied: true}, 50, 21, "deny_rate: 21 of 71 decisions were denials; at most 20 % of 100 may"},
		{"disagreement", rules(Guards{Disagreement: 0.5}), sample{compared: true, disagreed: true}, 0, 51, "disagreement: 51 of 51 decisions differed from the version in force; at most 50 % of 100 may"},
		{"disagreement with nobody", rules(Guards{Disagreement: 0.5}), sample{disagreed: true}, 0, 0, ""},
		{"fuel", rules(Guards{P99Fuel: 1000}), sample{fuel: 1001}, 0, 2, "p99_fuel: 2 of 2 decisions used more fuel than 1000; at most 1 % of 100 may"},
		{"fuel, just so", rules(Guards{P99Fuel: 1000}), sample{fuel: 1000}, 0, 0, ""},
		{"time", rules(Guards{P99Time: time.Second}), sample{time: 2 * time.Second}, 300, 4, "p99_time: 4 of 304 decisions took longer than 1s; at most 1 % of 304 may"},
		{"nothing is watched", rules(Guards{}), sample{failed: true, denied: true, compared: true, disagreed: true, fuel: 1 << 40, time: time.Hour}, 0, 0, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tr := newTrial(tt.rules, time.Time{})
			for range tt.good {
				if why := tr.add(ok); why != "" {
					t.Fatalf("a good decision crossed %s", why)
				}
			}
			for i := range 500 {
				why := tr.add(tt.bad)
				if crossed := i+1 == tt.after; (why != "") != crossed || crossed && why != tt.want {
					t.Fatalf("bad decision %d: got %q, want %q at the %dth", i+1, why, tt.want, tt.after)
				}
				if why != "" {
					return
				}
			}
		})
	}
}

// The guard is held against one that keeps every sample: the same answer each
// time, whatever comes.
func TestGuardsAgainstTheirDefinition(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	for range 200 {
		least := 1 + rng.IntN(40)
		limit, badness := rng.Float64(), rng.Float64()
		tr := newTrial(Rollout{Guards: Guards{ErrorRate: limit, MinDecisions: least}}, time.Time{})
		var all []bool
		for i := range 15 * least {
			bad := rng.Float64() < badness*limit*1.2
			all = append(all, bad)
			why := tr.add(sample{failed: bad})
			// The window begins with the part that is nine before the present one.
			window := all[max(0, i/least-windowParts+1)*least:]
			hits := 0
			for _, b := range window {
				if b {
					hits++
				}
			}
			if want := float64(hits) > limit*float64(max(len(window), least)); (why != "") != want {
				t.Fatalf("decision %d: got %q, want crossed=%v: %d of %d, limit %v, least %d", i, why, want, hits, len(window), limit, least)
			}
			if why != "" {
				break
			}
			if r := tr.recent; r.failed != uint64(hits) || r.decisions != uint64(len(window)) || tr.all.decisions != uint64(i+1) {
				t.Fatalf("got %+v and %+v, want %d of %d", r, tr.all, hits, len(window))
			}
		}
	}
}

func TestDue(t *testing.T) {
	start := time.Unix(1_000_000, 0)
	tr := newTrial(Rollout{PromoteAfter: time.Hour, Guards: Guards{MinDecisions: 3}}, start)
	for i := range 4 {
		if got, want := tr.due(start.Add(time.Hour)), i >= 3; got != want {
			t.Errorf("after %d decisions: got due=%v, want %v", i, got, want)
		}
		if tr.due(start.Add(time.Hour - 1)) {
			t.Error("due before its time")
		}
		tr.add(sample{})
	}
	never := newTrial(Rollout{}, start)
	never.add(sample{})
	if never.due(start.Add(1e6 * time.Hour)) {
		t.Error("due without promote_after")
	}
	if nextStage(StageShadow) != StageCanary || nextStage(StageCanary) != StageEnforce {
		t.Error("the stages are out of order")
	}
}

func TestStateRoundTrip(t *testing.T) {
	id := strings.Repeat("ab", 32)
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	good := map[string]savedState{"links": {
		InForce: id, Candidate: &savedTrial{Source: id, Stage: StageCanary, Percent: 5, Since: at},
		Rollbacks: []Rollback{{Identity: id, Digest: id, Version: "3", Stage: StageCanary, Reason: "deny_rate", By: byGuard, At: at, Blocked: true}},
	}}
	s := &store{dir: t.TempDir()}
	if err := s.save(good, at); err != nil {
		t.Fatal(err)
	}
	got, err := s.load()
	if err != nil || fmt.Sprintf("%+v", got["links"].Rollbacks) != fmt.Sprintf("%+v", good["links"].Rollbacks) || *got["links"].Candidate != *good["links"].Candidate {
		t.Errorf("got %+v, %v, want %+v", got, err, good)
	}
	old := replacedVersion{Name: "links", Source: id, Digest: id, Config: id, Bytes: 5, At: at}
	b, _ := state{Plugins: good, Replaced: []replacedVersion{old}}.encode()
	if s, err := decodeState(b); err != nil || len(s.Replaced) != 1 || s.Replaced[0] != old {
		t.Errorf("got %+v, %v, want %+v", s.Replaced, err, old)
	}
	for i, change := range []func(*replacedVersion){
		func(v *replacedVersion) { v.Name = "../x" }, func(v *replacedVersion) { v.Source = "../x" }, func(v *replacedVersion) { v.Digest = "" },
		func(v *replacedVersion) { v.Config = "x" }, func(v *replacedVersion) { v.Bytes = -1 },
	} {
		bad := old
		change(&bad)
		b, _ := state{Replaced: []replacedVersion{bad}}.encode()
		if _, err := decodeState(b); err == nil {
			t.Errorf("%d: %+v was taken", i, bad)
		}
	}
	if b, _ := (state{Replaced: make([]replacedVersion, maxReplaced+1)}).encode(); b != nil {
		if _, err := decodeState(b); err == nil || !strings.Contains(err.Error(), "1001 replaced versions") {
			t.Errorf("got %v, want the number refused", err)
		}
	}
	b, _ = state{Plugins: good}.encode()
	for _, c := range []struct{ name, from, to, want string }{
		{"a changed letter", `"by": "guard"`, `"by": "guArd"`, "digest"},
		{"unknown key", `"format"`, `"more": 1, "format"`, "unknown field"},
		{"cut", "\n}", "", "EOF"},
		{"more", "\n}", "\n} {}", "something follows"},
		{"another format", `"format": 1`, `"format": 2`, "format 2"},
	} {
		if _, err := decodeState([]byte(strings.Replace(string(b), c.from, c.to, 1))); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
	for name, p := range map[string]savedState{
		"Links": {}, "a": {InForce: "x"}, "b": {Candidate: &savedTrial{Source: "x"}}, "c": {Candidate: &savedTrial{Source: id, Stage: "enforce", Percent: 5}},
		"d": {Candidate: &savedTrial{Source: id, Stage: "shadow"}}, "e": {Rollbacks: make([]Rollback, maxRollbacks+1)}, "f": {Rollbacks: []Rollback{{Identity: id}}},
	} {
		bad, err := state{Plugins: map[string]savedState{name: p}}.encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decodeState(bad); err == nil {
			t.Errorf("plugin %s: %+v was taken", name, p)
		}
	}
	if _, err := decodeState(make([]byte, maxStateBytes+1)); err == nil {
		t.Error("a file above the bound was taken")
	}
}

// Whatever was rolled back for whatever reason, what is saved can be read.
func TestStateFits(t *testing.T) {
	id := strings.Repeat("ab", 32)
	all := make(map[string]savedState)
	for i := range 1_100 {
		p := savedState{InForce: id}
		for n := range maxRollbacks {
			p.Rollbacks = append(p.Rollbacks, Rollback{Identity: id, Digest: id, Version: fmt.Sprint(n), Stage: StageCanary,
				Reason: strings.Repeat("<", maxReasonBytes), By: byGuard, Blocked: true})
		}
		all[fmt.Sprint("plugin-", i)] = p
	}
	all["odd"] = savedState{Rollbacks: []Rollback{{Identity: id, Digest: id, Reason: clipped(strings.Repeat("x", maxReasonBytes-1)+"\xff\xff", maxReasonBytes)}}}
	s := &store{dir: t.TempDir()}
	if err := s.save(all, time.Now()); err != nil {
		t.Fatal(err)
	}
	got, err := s.load()
	if err != nil || len(got) != len(all) {
		t.Fatalf("got %d, %v, want %d", len(got), err, len(all))
	}
	p := got["plugin-7"]
	if p.InForce != id || len(p.Rollbacks) == 0 || p.Rollbacks[len(p.Rollbacks)-1].Version != fmt.Sprint(maxRollbacks-1) {
		t.Errorf("got %+v, want the newest rollback kept", p)
	}
	if n := len(all["plugin-7"].Rollbacks); n != maxRollbacks {
		t.Errorf("%d rollbacks are left in memory, want %d", n, maxRollbacks)
	}
}

// What decodeState takes, encode writes back the same.
func FuzzState(f *testing.F) {
	id := strings.Repeat("0f", 32)
	for _, p := range []map[string]savedState{
		nil, {"a": {}}, {"a": {InForce: id, Candidate: &savedTrial{Source: id, Stage: StageShadow, Percent: 5}}},
		{"a": {Rollbacks: []Rollback{{Identity: id, Digest: id, Reason: "error_rate", By: "ann"}}}},
	} {
		b, err := state{Plugins: p}.encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(b[:len(b)/2])
	}
	b, err := state{Replaced: []replacedVersion{{Name: "a", Source: id, Digest: id, Bytes: 1}}}.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"format":1,"plugins":{"a":{"candidate":{"percent":-1}}},"digest":""}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := decodeState(b)
		if err != nil {
			return
		}
		again, err := s.encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decodeState(again); err != nil {
			t.Fatalf("what was read cannot be read again: %v", err)
		}
	})
}
