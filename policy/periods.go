package policy

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // for machines without zone files: a period must be the same on every node
)

// FollowPeriods tells those who wait for Changed when a period of the data
// begins or ends, since rules may speak of it, until ctx ends.
func (l *Live) FollowPeriods(ctx context.Context) {
	last := time.Now()
	tick := time.NewTimer(untilMinute(last))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := time.Now()
		f := l.Engine().facts // by these, whether they were in use at last or not
		if !slices.Equal(f.periodsAt(last), f.periodsAt(now)) {
			l.mu.Lock()
			l.tellLocked()
			l.mu.Unlock()
		}
		last = now
		tick.Reset(untilMinute(now))
	}
}

// untilMinute is how long the minute of now still lasts.
func untilMinute(now time.Time) time.Duration {
	return now.Truncate(time.Minute).Add(time.Minute).Sub(now)
}

// zoneOf finds a time zone by its name; "" is UTC. The machine's own zone has
// no name here: nodes would differ by it.
func zoneOf(name string) (*time.Location, error) {
	zone, err := time.LoadLocation(name)
	if err != nil || name == "Local" || len(name) > maxNameBytes {
		return nil, wrong("%q is no time zone; write a name such as Europe/Berlin", clip(name, maxNameBytes))
	}
	return zone, nil
}

var weekdays = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

const everyDay = 1<<7 - 1

func readPeriod(name string, windows []windowSetting) (period, error) {
	p := period{name: name}
	if len(windows) < 1 || len(windows) > maxWindows {
		return p, wrong("it has %d windows, 1 to %d are allowed", len(windows), maxWindows)
	}
	for i, w := range windows {
		from, errFrom := clock(w.From)
		to, errTo := clock(w.To)
		out := window{from: from, to: to}
		switch {
		case errFrom != nil:
			return p, fmt.Errorf("[%d].from%w", i, errFrom)
		case errTo != nil:
			return p, fmt.Errorf("[%d].to%w", i, errTo)
		case from == to || from == 24*60:
			return p, fmt.Errorf("[%d]%w", i, wrong("from %s to %s is no time; a whole day is from 00:00 to 24:00", w.From, w.To))
		}
		for _, day := range w.Days {
			n := slices.Index(weekdays, day)
			if n < 0 {
				return p, fmt.Errorf("[%d].days%w", i, wrong("%q is not one of %s", clip(day, maxNameBytes), strings.Join(weekdays, ", ")))
			}
			out.days |= 1 << n
		}
		switch {
		case w.Days == nil:
			out.days = everyDay
		case len(w.Days) == 0:
			return p, fmt.Errorf("[%d].days%w", i, wrong("it is empty; leave it out for every day"))
		}
		p.windows = append(p.windows, out)
	}
	return p, nil
}

// clock reads "22:30" as minutes since midnight, up to 24:00.
func clock(s string) (int, error) {
	if len(s) == 5 && s[2] == ':' {
		h, errH := strconv.ParseUint(s[:2], 10, 8) // which takes no sign
		m, errM := strconv.ParseUint(s[3:], 10, 8)
		if n := int(h*60 + m); errH == nil && errM == nil && m < 60 && n <= 24*60 {
			return n, nil
		}
	}
	return 0, wrong("%q is no time of day; write it as 22:30, within 00:00 and 24:00", clip(s, maxNameBytes))
}

func readNetwork(name string, prefixes []string) (network, error) {
	n := network{name: name, alone: []string{name}}
	if len(prefixes) < 1 || len(prefixes) > maxPrefixes {
		return n, wrong("it has %d prefixes, 1 to %d are allowed", len(prefixes), maxPrefixes)
	}
	for i, text := range prefixes {
		p, err := netip.ParsePrefix(text)
		if addr, single := netip.ParseAddr(text); err != nil && single == nil && addr.Zone() == "" {
			p, err = netip.PrefixFrom(addr, addr.BitLen()), nil
		}
		if err != nil || p.Addr().Is4In6() {
			return n, fmt.Errorf("[%d]%w", i, wrong("%q is neither a prefix such as 192.0.2.0/24 or 2001:db8::/32 nor an address", clip(text, maxNameBytes)))
		}
		n.prefixes = append(n.prefixes, p.Masked())
	}
	return n, nil
}
