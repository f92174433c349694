package main

import (
	"strings"
	"testing"
	"time"

	"parley/plugins"
	"parley/policy/source"
)

func TestShowNodes(t *testing.T) {
	now := time.Date(2026, 11, 26, 15, 0, 0, 0, time.UTC)
	rev := "git:" + strings.Repeat("0123456789", 4)
	rows := []nodeRow{
		{ID: "a-0123abcd", Name: "a", Self: true, Version: "1.0", Started: now.Add(-50 * time.Hour), LeaseMS: 14600,
			Policy:  source.NodePolicy{OnHead: true, NodeInfo: source.NodeInfo{Revision: rev, LoadedAt: now.Add(-90 * time.Minute)}},
			Plugins: pluginSet(strings.Repeat("cd", 32), []plugins.Status{{Name: "flood", Digest: strings.Repeat("ab", 32)}, {Name: "none"}}),
			Load:    loadInfo{Connections: 5, Rooms: 2, PerSecond: 1.25, CPU: 0.5, MemoryBytes: 20 << 20}},
		{ID: "b-00000000", Name: "b", Version: "\x1b[2J", Started: now.Add(time.Second),
			Policy:   source.NodePolicy{NodeInfo: source.NodeInfo{Revision: "default", Refused: &source.Trouble{Revision: rev, Why: "too\x1bmuch"}}, Error: "unread"},
			Problems: []string{"bad load"}},
	}
	var out strings.Builder
	if err := showNodes(&out, rows, now); err != nil {
		t.Fatal(err)
	}
	set := rows[0].Plugins.Set
	for _, want := range []string{
		"a*", "0123abcd", "2d", "git:012345678901 ", "1h30m", set + " (1)", "1.2", "20 MiB", "15s", "default !",
		"b-00000000 cannot converge: it refuses git:012345678901: too much", "b-00000000: unread", "b-00000000: bad load",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("without %q:\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "\x1b") {
		t.Errorf("what a node says steers the terminal:\n%q", out.String())
	}
	if n := pluginSkew(rows); n != 1 {
		t.Errorf("plugin skew: got %d, want 1", n)
	}
	for _, bad := range []nodeRow{{Version: "\x1b"}, {Version: strings.Repeat("v", 101)}, {Plugins: pluginsInfo{Plugins: map[string]string{"\n": "x"}}}} {
		if bad.check() == nil {
			t.Errorf("%+v: got no error", bad)
		}
	}
}

func TestProgress(t *testing.T) {
	commit := strings.Repeat("ab", 20)
	rev := "git:" + commit
	node := func(revision string, live *source.LiveEverywhere, loaded time.Time) source.NodePolicy {
		return source.NodePolicy{Node: "n-00000000", NodeInfo: source.NodeInfo{Revision: revision, Live: live, LoadedAt: loaded}}
	}
	now, before := time.Now(), time.Now().Add(-time.Hour)
	for _, tt := range []struct {
		name        string
		nodes       []source.NodePolicy
		text        string
		done        bool
		live, other int
	}{
		{"on all, timed", []source.NodePolicy{node(rev, &source.LiveEverywhere{Revision: rev, Nodes: 2, TookMS: 306}, now), node(rev, nil, now)}, "live on 2/2 in 306 ms", true, 2, 0},
		{"on all, and the time is under way", []source.NodePolicy{node(rev, nil, now)}, "live on 1/1", false, 1, 0},
		{"on all for long", []source.NodePolicy{node(rev, nil, before)}, "live on 1/1", true, 1, 0},
		{"on one", []source.NodePolicy{node(rev, nil, now), node("default", nil, before)}, "live on 1/2", false, 1, 1},
	} {
		p := progressOf(&source.Status{Nodes: tt.nodes}, commit[:8])
		if p.String() != tt.text || p.live != tt.live || len(p.others) != tt.other || (p.live == p.nodes && (p.known || p.since == 0)) != tt.done {
			t.Errorf("%s: got %+v, %q", tt.name, p, p)
		}
	}
}
