//go:build linux

package experiments

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"parley/core/liveness/netlab"
)

// TestBoxSentencesFollowTheFigures holds the texts to what was measured.
func TestBoxSentencesFollowTheFigures(t *testing.T) {
	some := []time.Duration{time.Second}
	c := func(counts netlab.Counting, s setting, gone int, server []time.Duration) *boxed {
		return &boxed{box: "60 s", age: time.Minute, counts: counts, mode: "ladder", setting: s, clients: 1, gone: gone, server: server}
	}
	for name, x := range map[string]struct{ got, want string }{
		"kept":             {keptAndLost([]*boxed{c("", beating, 0, nil)}), "Every state lived on with: " + beating.name},
		"lost":             {keptAndLost([]*boxed{c("", probing, 1, nil)}), "States were lost with: " + probing.name},
		"none lost":        {unnoticed([]*boxed{c("", beating, 0, nil)}), "No state was lost."},
		"all noticed":      {unnoticed([]*boxed{c("", probing, 1, some)}), "noticed all 1 losses"},
		"not noticed":      {unnoticed([]*boxed{c("", relaxed, 1, nil)}), "noticed 0 of 1"},
		"same length":      {sameLength([]*boxed{c("", probing, 1, some)}), "1 of 1 states were lost with " + probing.name + " at 60 s, since"},
		"same length kept": {sameLength([]*boxed{c("", probing, 0, nil)}), "0 of 1 states were lost with " + probing.name + " at 60 s."},
		"no difference":    {oneWayState([]*boxed{c("", probing, 1, nil), c(netlab.CountInside, probing, 1, nil)}), "made no difference"},
		"difference":       {oneWayState([]*boxed{c("", probing, 1, nil), c(netlab.CountInside, probing, 0, nil)}), "It made a difference"},
		"not compared":     {oneWayState([]*boxed{c("", probing, 1, nil)}), "are both answered"},
		"stateless":        {statelessKept([]*boxed{{box: stateless, clients: 3, ended: 2}}), "Of 3 connections through it 2 ended."},
	} {
		if !strings.Contains(x.got, x.want) {
			t.Errorf("%s: got %q, want %q in it", name, x.got, x.want)
		}
	}
	if got := sameLength([]*boxed{c("", beating, 0, nil)}); got != "" {
		t.Errorf("same length with heartbeats: got %q", got)
	}
}

// TestJudgePairsLossesWithEnds has three clients: one lives on, one was lost
// and found by both ends, one ended before its state did.
func TestJudgePairsLossesWithEnds(t *testing.T) {
	began := time.Unix(1000, 0)
	at := func(s int) time.Time { return began.Add(time.Duration(s) * time.Second) }
	addr := func(port uint16) netip.AddrPort { return netip.AddrPortFrom(netip.IPv4Unspecified(), port) }
	silent := []*silentClient{{addr: addr(1)}, {addr: addr(2), ended: at(30)}, {addr: addr(3), ended: at(5)}}
	c := &boxed{clients: 3}
	c.judge(map[netip.AddrPort]time.Time{addr(2): at(10), addr(3): at(10)}, []time.Time{at(5), at(13)}, silent)
	if c.gone != 1 || c.ended != 2 || len(c.server) != 1 || c.server[0] != 3*time.Second || len(c.client) != 1 || c.client[0] != 20*time.Second {
		t.Errorf("got %d lost, server %v, client %v, want 1, [3s], [20s]", c.gone, c.server, c.client)
	}
	if row := c.cells(); row[3] != "1 of 3" || row[5] != "3.0 s" || row[7] != "20.0 s" {
		t.Errorf("got row %q", row)
	}
}

// TestSurvivalSentencesFollowTheFigures holds the texts to what was measured.
func TestSurvivalSentencesFollowTheFigures(t *testing.T) {
	c := func(name string, hurt, back int) *survived {
		s := &survived{name: name, clients: 4, heard: 4 - hurt + back}
		for _, part := range []*tally{&s.bad, &s.cut} {
			part.hurt, part.disconnects = map[int]bool{}, hurt
			for i := range hurt {
				part.hurt[i] = true
			}
			for range back {
				part.back(time.Now().Add(-time.Second), time.Time{}, true)
			}
		}
		return s
	}
	for name, x := range map[string]struct {
		cases    []*survived
		bad, cut []string
	}{
		"nothing happened": {[]*survived{c(short, 0, 0), c(longer, 0, 0)},
			[]string{"100 % survived at 60/10/3 and 100 % at 7200/75/9", "No row had a disconnect"}, []string{"no difference", "0 of 0 disconnects", "0 clients"}},
		"against the claim": {[]*survived{c(short, 2, 1), c(longer, 0, 0)},
			[]string{"50 % survived at 60/10/3 and 100 %", "Disconnects: " + short + " 2."}, []string{"the other way round", "1 of 2 disconnects", "1 clients"}},
		"as claimed": {[]*survived{c(short, 0, 0), c(longer, 4, 4)}, []string{longer + " 4."}, []string{"in the direction", "4 of 4"}},
	} {
		for got, want := range map[string][]string{badLinkCompared(x.cases): x.bad, cutCompared(x.cases): x.cut} {
			for _, w := range want {
				if !strings.Contains(got, w) {
					t.Errorf("%s: got %q, want %q in it", name, got, w)
				}
			}
		}
	}
	if row := c(short, 2, 1).cut.cells(4); row[0] != "50 %" || row[2] != "1 of 2" || row[3] != "1" || row[4] != "1.0 s" {
		t.Errorf("got row %q", row)
	}
}
