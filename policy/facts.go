package policy

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"parley/core/gate"
)

// facts is what the data of one revision calls moments, networks, accounts and
// rooms (data.parley, see docs/policy.md). It turns the raw facts of a question
// into those names, so that a policy without a clock has hours, and its answers
// can still be cached: a name changes a few times a day. The zero facts know no
// names. Any goroutine may use it.
type facts struct {
	zone    *time.Location
	periods []period  // by name
	nets    []network // by name
	newFor  time.Duration
	named   string            // identifies nets and newFor
	rooms   map[string]string // whole name -> template
	shapes  []shape           // names with a star, the most exact first

	minute atomic.Pointer[minute] // the newest that was asked about
}

// minute is which periods one minute lies in.
type minute struct {
	unix int64 // minutes since 1970
	open []string
}

// period is hours that have a name.
type period struct {
	name    string
	windows []window
}

// window is hours of some days. One that ends before it begins goes over
// midnight and counts to the day on which it begins.
type window struct {
	days     uint8 // bit 0 is Sunday, as of time.Weekday
	from, to int   // minutes since midnight, by the clock on the wall; to is not part of it
}

func (w window) open(day time.Weekday, at int) bool {
	today := w.days&(1<<day) != 0
	if w.from < w.to {
		return today && w.from <= at && at < w.to
	}
	before := w.days&(1<<((day+6)%7)) != 0
	return today && at >= w.from || before && at < w.to
}

// network is addresses that have a name.
type network struct {
	name     string
	prefixes []netip.Prefix
	alone    []string // the name by itself, so that the usual answer is there already
}

// shape is room names that begin and end alike, such as team-*.
type shape struct{ prefix, suffix, template string }

// none is no names: not nil, because a policy must find a list.
var none = []string{}

// complete sets what the data says of in. It writes only what it changes, and
// allocates nothing as a rule: once a minute, and where networks overlap.
func (f *facts) complete(in *gate.Input) {
	if t := f.template(in.Resource.ID); t != in.Resource.Template {
		in.Resource.Template = t
	}
	raw := &in.Raw
	if !raw.Now.IsZero() {
		in.Context.Periods = f.periodsAt(raw.Now)
		if !raw.Since.IsZero() {
			in.Subject.NewAccount = raw.Now.Sub(raw.Since) < f.newFor
		}
	}
	if raw.Remote.IsValid() {
		in.Context.Networks = f.networksOf(raw.Remote)
	}
}

// template returns the name of the template that a room's name fits best.
func (f *facts) template(room string) string {
	if t, ok := f.rooms[room]; ok {
		return t
	}
	for _, s := range f.shapes {
		if len(room) >= len(s.prefix)+len(s.suffix) && strings.HasPrefix(room, s.prefix) && strings.HasSuffix(room, s.suffix) && room != "" {
			return s.template
		}
	}
	return ""
}

// shapesInOrder puts the most exact first, whatever the order in the data: the
// one that leaves the star least, then by letters.
func shapesInOrder(a, b shape) int {
	return cmp.Or(len(b.prefix)+len(b.suffix)-len(a.prefix)-len(a.suffix), cmp.Compare(a.prefix, b.prefix), cmp.Compare(a.suffix, b.suffix))
}

// periodsAt returns the names of the periods that now lies in. The caller must
// not change it.
func (f *facts) periodsAt(now time.Time) []string {
	if len(f.periods) == 0 {
		return none
	}
	unix := now.Unix() / 60
	if m := f.minute.Load(); m != nil && m.unix == unix {
		return m.open
	}
	local := now.In(f.zone)
	day, at := local.Weekday(), local.Hour()*60+local.Minute()
	m := &minute{unix: unix, open: none}
	for _, p := range f.periods {
		if slices.ContainsFunc(p.windows, func(w window) bool { return w.open(day, at) }) {
			m.open = append(m.open, p.name)
		}
	}
	f.minute.Store(m)
	return m.open
}

// networksOf returns the names of the networks that addr is in. The caller must
// not change it.
func (f *facts) networksOf(addr netip.Addr) []string {
	addr = addr.Unmap().WithZone("")
	found := none
	for i := range f.nets {
		n := &f.nets[i]
		switch {
		case !slices.ContainsFunc(n.prefixes, func(p netip.Prefix) bool { return p.Contains(addr) }):
		case len(found) == 0:
			found = n.alone
		default:
			found = append(slices.Clone(found), n.name)
		}
	}
	return found
}
