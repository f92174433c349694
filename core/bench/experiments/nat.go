//go:build linux

package experiments

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"parley/core/bench/report"
	"parley/core/liveness/netlab"
)

// The settings that boxes are tried with. Names hold the times before they are
// divided.
var (
	beating   = setting{name: "heartbeats 15 s, KeepAlive 60/10/3", ping: 15 * time.Second, idle: time.Minute, interval: 10 * time.Second, count: 3}
	probing   = setting{name: "no heartbeats, KeepAlive 60/10/3", idle: time.Minute, interval: 10 * time.Second, count: 3}
	relaxed   = setting{name: "no heartbeats, KeepAlive 7200/75/9", idle: 2 * time.Hour, interval: 75 * time.Second, count: 9}
	beatsSlow = setting{name: "heartbeats 330 s, KeepAlive 7200/75/9", ping: 330 * time.Second, idle: 2 * time.Hour, interval: 75 * time.Second, count: 9}
)

// nat puts clients behind boxes that forget, and looks who keeps the state
// alive and who notices that it is gone.
func nat(ctx context.Context, l *Lab) ([]report.Section, error) {
	modes, ages := l.modeCases(), l.ageCases()
	if err := l.behindBoxes(ctx, append(slices.Clone(modes), ages...)); err != nil {
		return nil, err
	}
	return []report.Section{
		{Title: "A NAT that forgets after 300 s", Table: boxTable(modes), Text: paragraphs(
			"Claimed: heartbeats and KeepAlive together find a connection that a NAT has forgotten.",
			fmt.Sprintf("Each row is %d connections in silence, but for what the setting sends. Times count from the moment a state is dropped. The server's user timeout of %v is set in all rows; the clients have no KeepAlive, and take two and a half heartbeats of silence for the end.", l.boxCrowd(), l.divided(userTimeout, leastUserTimeout)),
			keptAndLost(modes), unnoticed(modes), l.timesDivided(),
		)},
		{Title: "NAT ageing against heartbeats and KeepAlive", Table: boxTable(ages), Text: paragraphs(
			"Claimed: KeepAlive at 60/10/3 carries a connection through the NATs of mobile networks, and at 7200/75/9 it does not.",
			"A state lives as long as some packet passes within its age. The first packet of KeepAlive comes after the idle time (tcp(7)), so that time has to be below the age.",
			keptAndLost(ages), sameLength(ages), oneWayState(ages), unnoticed(ages),
			"The stateless filter lets pass whatever does not open a connection from outside (nftables: SYN without ACK). It knows of no connection and has nothing to forget. "+statelessKept(ages), l.timesDivided(),
		)},
	}, nil
}

// modeCases are the modes at a NAT of 300 s.
func (l *Lab) modeCases() (cases []*boxed) {
	const age = 300 * time.Second
	add := func(mode string, s setting, watch time.Duration) {
		cases = append(cases, &boxed{box: "300 s", age: age, mode: mode, setting: s, watch: watch})
	}
	for _, mode := range []string{"ladder", "keepalive", "ping", "both"} {
		add(mode, beating, age+noticing)
	}
	add("keepalive", probing, age+noticing)
	add("keepalive", relaxed, longestAge+noticing)
	for _, mode := range []string{"ladder", "keepalive", "ping", "both"} {
		add(mode, beatsSlow, longestAge+noticing)
	}
	return some(l, cases, 2)
}

const (
	longestAge = 900 * time.Second
	noticing   = 100 * time.Second // more than KeepAlive at 60/10/3 needs
)

// ageCases are the ages, the two kinds of one-way state and the stateless
// filter, with each setting.
func (l *Lab) ageCases() (cases []*boxed) {
	settings := []setting{relaxed, probing, beating}
	for _, age := range some(l, []time.Duration{60 * time.Second, 180 * time.Second, 300 * time.Second, longestAge}, 1) {
		for _, s := range settings {
			cases = append(cases, &boxed{box: fmt.Sprintf("%.0f s", age.Seconds()), age: age, mode: "ladder", setting: s, watch: age + noticing})
		}
	}
	for _, kind := range some(l, []netlab.Counting{netlab.CountInside, netlab.CountOutside}, 0) {
		for _, s := range settings {
			cases = append(cases, &boxed{box: "180 s (" + string(kind) + " counts)", age: oneWayAge, counts: kind, mode: "ladder", setting: s, watch: oneWayAge + noticing})
		}
	}
	for _, s := range some(l, settings, 1) {
		cases = append(cases, &boxed{box: stateless, mode: "ladder", setting: s, watch: some(l, []time.Duration{noticing, longestAge + noticing}, 1)[0]})
	}
	return cases
}

const (
	oneWayAge = 180 * time.Second // above KeepAlive's idle time, so that its answer is what matters
	stateless = "stateless filter"
)

// behindBoxes plays all cases side by side: they only wait, each in namespaces
// of its own. The clients come when all servers run.
func (l *Lab) behindBoxes(ctx context.Context, cases []*boxed) error {
	errs := make([]error, len(cases))
	each := func(do func(i int, c *boxed) error) error {
		var running sync.WaitGroup
		for i, c := range cases {
			running.Go(func() {
				if err := do(i, c); err != nil {
					errs[i] = errors.Join(errs[i], fmt.Errorf("NAT %s, %s, mode %s: %w", c.box, c.setting.name, c.mode, err))
				}
			})
		}
		running.Wait()
		return errors.Join(errs...)
	}
	err := each(func(i int, c *boxed) error { return c.prepare(ctx, l, uint64(i)) })
	if err == nil {
		err = each(func(_ int, c *boxed) error { return c.play(ctx, l) })
	}
	return errors.Join(err, each(func(_ int, c *boxed) error { return c.end() }))
}

func boxTable(cases []*boxed) *report.Table {
	t := &report.Table{Columns: []string{"box", "liveness.mode", "sent in silence", "states lost", "server noticed", "median", "client noticed", "median", "evidence"}}
	for _, c := range cases {
		t.Rows = append(t.Rows, c.cells())
	}
	return t
}

// keptAndLost says which settings kept all states and which lost some.
func keptAndLost(cases []*boxed) string {
	kept, lost := map[string][]string{}, map[string][]string{}
	var names []string // in the order of the table
	for _, c := range cases {
		if c.age == 0 {
			continue
		}
		name := fmt.Sprintf("%s (%s)", c.setting.name, c.mode)
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
		if c.gone == 0 {
			kept[name] = append(kept[name], c.box)
		} else {
			lost[name] = append(lost[name], c.box)
		}
	}
	list := func(of map[string][]string) (all []string) {
		for _, name := range names {
			if at := of[name]; at != nil {
				all = append(all, name+" at "+strings.Join(at, ", "))
			}
		}
		return all
	}
	return listed("Every state lived on with: ", list(kept)) + listed("States were lost with: ", list(lost))
}

// sameLength says what became of states as old as KeepAlive's idle time.
func sameLength(cases []*boxed) string {
	i := slices.IndexFunc(cases, func(c *boxed) bool { return c.age == c.setting.idle && c.setting.ping == 0 })
	if i < 0 {
		return ""
	}
	c := cases[i]
	text := fmt.Sprintf("An idle time as long as the age is the limit: %d of %d states were lost with %s at %s", c.gone, c.clients, c.setting.name, c.box)
	if c.gone == 0 {
		return text + "."
	}
	return text + ", since the probe comes at the moment the state ends."
}

// unnoticed says where states were lost and the server did not find all of it.
func unnoticed(cases []*boxed) string {
	var silent []string
	lost, found := 0, 0
	for _, c := range cases {
		lost += c.gone
		found += len(c.server)
		name := fmt.Sprintf("%s (%s)", c.setting.name, c.mode)
		if c.gone > len(c.server) && !slices.Contains(silent, name) {
			silent = append(silent, name)
		}
	}
	switch {
	case lost == 0:
		return "No state was lost."
	case silent == nil:
		return fmt.Sprintf("The server noticed all %d losses.", lost)
	}
	return listed(fmt.Sprintf("The server noticed %d of %d losses while it was watched. Those it did not were with: ", found, lost), silent)
}

// oneWayState compares boxes that count one direction with the one that counts
// both.
func oneWayState(cases []*boxed) string {
	var differ []string
	compared := 0
	for _, c := range cases {
		if c.counts == netlab.CountBoth {
			continue
		}
		i := slices.IndexFunc(cases, func(o *boxed) bool {
			return o.counts == netlab.CountBoth && o.age == c.age && o.setting == c.setting
		})
		if i < 0 {
			continue
		}
		compared++
		if cases[i].gone != c.gone {
			differ = append(differ, fmt.Sprintf("%s: %d lost at %s, %d where both directions count", c.setting.name, c.gone, c.box, cases[i].gone))
		}
	}
	switch {
	case compared == 0:
		return "A heartbeat and a KeepAlive probe are both answered, so each sends a packet in either direction."
	case differ == nil:
		return "Which direction a box counts made no difference to what was lost: a heartbeat and a KeepAlive probe are both answered, so each sends a packet in either direction."
	}
	return listed("It made a difference which direction the box counts: ", differ)
}

func statelessKept(cases []*boxed) string {
	ended, all := 0, 0
	for _, c := range cases {
		if c.box == stateless {
			ended += c.ended
			all += c.clients
		}
	}
	return fmt.Sprintf("Of %d connections through it %d ended.", all, ended)
}

// listed is a sentence that ends in a list, or nothing for an empty one.
func listed(begin string, all []string) string {
	if len(all) == 0 {
		return ""
	}
	return begin + strings.Join(all, "; ") + ". " // another sentence may follow
}
