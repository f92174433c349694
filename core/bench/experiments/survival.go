//go:build linux

package experiments

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"parley/core/bench/report"
)

// survival keeps connections over a bad link and then over a cut, with the two
// KeepAlive settings of the claim, and with heartbeats judged in several ways.
func survival(ctx context.Context, l *Lab) ([]report.Section, error) {
	claimed := setting{idle: time.Minute, interval: 10 * time.Second, count: 3}
	long := setting{idle: 2 * time.Hour, interval: 75 * time.Second, count: 9}
	beats := func(s setting) setting { s.ping = 15 * time.Second; return s }
	var cases []*survived
	for _, c := range some(l, []struct {
		name, mode string
		setting    setting
	}{
		{short, "keepalive", claimed},
		{"60/10/3, ladder (default)", "ladder", beats(claimed)},
		{longer, "keepalive", long},
		{"60/10/3, ping", "ping", beats(claimed)},
		{"60/10/3, keepalive", "keepalive", beats(claimed)},
		{"7200/75/9, keepalive", "keepalive", beats(long)},
	}, 3) {
		cases = append(cases, &survived{name: c.name, mode: c.mode, setting: c.setting})
	}
	for round := range max(l.Runs, 1) {
		errs := make([]error, len(cases))
		rounds := make([]*survived, len(cases))
		var running sync.WaitGroup
		for i, c := range cases {
			rounds[i] = &survived{name: c.name, mode: c.mode, setting: c.setting, clients: l.scaled(100, 4)}
			running.Go(func() { errs[i] = rounds[i].run(ctx, l, uint64(100+round*len(cases)+i)) })
		}
		running.Wait()
		if err := errors.Join(errs...); err != nil {
			return nil, err
		}
		for i, c := range cases {
			c.add(rounds[i])
		}
	}
	return []report.Section{badLinkSection(l, cases), cutSection(l, cases)}, nil
}

// The rows in which KeepAlive alone decides.
const (
	short  = "60/10/3, no heartbeats"
	longer = "7200/75/9, no heartbeats"
)

// The times of a case: on the bad link, without a link, and until everybody
// has had the time to come back.
func (l *Lab) badLink() time.Duration {
	return min(l.during(5*time.Minute), l.divided(5*time.Minute, 0))
}
func (l *Lab) cutFor() time.Duration { return l.divided(2*time.Minute, 7*time.Second) }
func (l *Lab) backIn() time.Duration { return l.divided(90*time.Second, 10*time.Second) }

// spikesNotDivided warns of a trial, where spikes of a second meet timers that
// are divided.
func (l *Lab) spikesNotDivided() string {
	if l.Scale < 1 {
		return "The spikes are not divided: more connections may be given up here than with the times in the names."
	}
	return ""
}

func badLinkSection(l *Lab, cases []*survived) report.Section {
	t := &report.Table{Columns: []string{"KeepAlive, liveness.mode", "survived", "disconnects", "resumed", "without a gap", "resume median", "longest", "evidence"}}
	for _, c := range cases {
		t.Rows = append(t.Rows, append(append([]string{c.name}, c.bad.cells(c.clients)...), reasons(c.evidence)))
	}
	return report.Section{Title: "Survival on a bad link", Table: t, Text: paragraphs(
		"Claimed: on a mobile network 92.7 % of connections survive with KeepAlive at 60/10/3 and 68.3 % at 7200/75/9.",
		fmt.Sprintf("Here the link loses 5 %% of the packets in each direction and holds 2 %% back by 0.8 to 1.2 s, for %s, with %d clients in each of %d runs that reconnect and resume by themselves. Both ends have the row's KeepAlive. Resuming counts from the end of a connection to the rooms joined again.", span(l.badLink()), l.scaled(100, 4), max(l.Runs, 1)),
		badLinkCompared(cases),
		"Loss and spikes cannot favour the shorter setting. KeepAlive repairs nothing: lost segments are sent again by TCP without it, and its probes begin after the idle time without a packet (tcp(7)), so at 7200/75/9 none is sent within two hours. All that a probe can do is to end a connection, or to keep a state on the way from ageing. So where no box on the way forgets, the shorter setting cannot survive more; where one does, what counts is its age against the time between packets, as the experiment on NATs shows.",
		l.timesDivided(), l.spikesNotDivided(),
	)}
}

// badLinkCompared says what the settings of the claim and the ways to judge
// heartbeats came to.
func badLinkCompared(cases []*survived) string {
	a, b := named(cases, short), named(cases, longer)
	var parts []string
	if a != nil && b != nil {
		parts = append(parts, fmt.Sprintf("Measured, with KeepAlive alone: %s survived at 60/10/3 and %s at 7200/75/9.", a.bad.share(a.clients), b.bad.share(b.clients)))
	}
	var ended []string
	for _, c := range cases {
		if n := c.bad.disconnects; n > 0 {
			ended = append(ended, fmt.Sprintf("%s %d", c.name, n))
		}
	}
	if ended == nil {
		return strings.Join(append(parts, "No row had a disconnect."), " ")
	}
	return strings.Join(append(parts, listed("Disconnects: ", ended)), " ")
}

func cutSection(l *Lab, cases []*survived) report.Section {
	t := &report.Table{Columns: []string{"KeepAlive, liveness.mode", "survived", "disconnects", "resumed", "without a gap", "resume median", "longest", "have the message"}}
	for _, c := range cases {
		t.Rows = append(t.Rows, append(append([]string{c.name}, c.cut.cells(c.clients)...), fmt.Sprintf("%d of %d", c.heard, c.clients)))
	}
	return report.Section{Title: "Survival of a cut, and the way back", Table: t, Text: paragraphs(
		"Claimed: as above, more connections survive with the shorter KeepAlive.",
		fmt.Sprintf("The same connections, after that: the link is cut for %s. Before it works again one message is posted into each room; then the clients have %s. Resuming counts from the moment the link works, or from the end of a connection that ends later. A client whose connection has ended at the server and who does not notice misses the message; where neither end has noticed, TCP brings it once the link works.", span(l.cutFor()), span(l.backIn())),
		cutCompared(cases),
		"Who survives a cut is who does not notice it: a connection in silence is alive as long as nobody asks, and KeepAlive, like a heartbeat, asks. The share that survives is therefore no measure of quality. What the users of a chat see is if they get the message and how long they wait for it.",
		l.timesDivided(),
	)}
}

// cutCompared says who lived through the cut and who came back.
func cutCompared(cases []*survived) string {
	var parts []string
	if a, b := named(cases, short), named(cases, longer); a != nil && b != nil {
		kept := func(s *survived) int { return s.clients - len(s.cut.hurt) }
		verdict := "no difference between the two"
		switch x, y := kept(a), kept(b); {
		case x < y:
			verdict = "the other way round than claimed"
		case x > y:
			verdict = "in the direction of the claim"
		}
		parts = append(parts, fmt.Sprintf("Measured, with KeepAlive alone: %s survived at 60/10/3 and %s at 7200/75/9, %s.", a.cut.share(a.clients), b.cut.share(b.clients), verdict))
	}
	disconnects, resumed, missed := 0, 0, 0
	for _, c := range cases {
		disconnects += c.cut.disconnects
		resumed += len(c.cut.resumed)
		missed += c.clients - c.heard
	}
	parts = append(parts, fmt.Sprintf("In all rows together %d of %d disconnects led back to the rooms, and %d clients were without the message at the end.", resumed, disconnects, missed))
	return strings.Join(parts, " ")
}

func named(cases []*survived, name string) *survived {
	for _, c := range cases {
		if c.name == name {
			return c
		}
	}
	return nil
}
