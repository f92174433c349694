//go:build linux

package experiments

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"parley/core/bench"
	"parley/core/bench/load"
	"parley/core/bench/report"
	"parley/core/liveness"
	"parley/core/liveness/netlab"
)

// What befalls the clients.
const (
	cutLink = "link cut"    // nothing passes any more
	flash   = "flash cut"   // nothing passes for flashTime, then all is well again
	oneWay  = "one way"     // the server is heard, the clients are not
	frozen  = "frozen peer" // the program stands still, its kernel goes on
)

// flashTime is how long a flash cut takes: less than the user timeout, more
// than the ladder needs.
const flashTime = 5 * time.Second

// crowdSize is how many connections each case has: heartbeats are spread over
// their interval, and so is what they find.
const crowdSize = 20

// detection measures how long dead connections go unnoticed, with a real
// server and real clients in two network namespaces.
func detection(ctx context.Context, l *Lab) ([]report.Section, error) {
	modes := some(l, []string{"ladder", "keepalive", "ping", "both"}, 2)
	faults := some(l, []string{cutLink, frozen, flash, oneWay}, 3)
	var cases []*found
	for _, fault := range faults {
		for _, mode := range modes {
			cases = append(cases, &found{fault: fault, mode: mode})
		}
	}
	for round := range max(l.Runs, 1) {
		errs := make([]error, len(cases))
		var running sync.WaitGroup
		for i, c := range cases { // they only wait, each in namespaces of its own
			running.Go(func() { errs[i] = l.detect(ctx, uint64(round*len(cases)+i), c) })
		}
		running.Wait()
		if err := errors.Join(errs...); err != nil {
			return nil, err
		}
	}
	t := &report.Table{Columns: []string{"what happened", "liveness.mode", "found", "median", "longest", "evidence"}}
	for _, c := range cases {
		t.Rows = append(t.Rows, c.cells())
	}
	text := paragraphs(
		"Claimed: TCP KeepAlive and application heartbeats together find dead connections best, when a connection is closed only once both agree.",
		fmt.Sprintf("Each row is %d connections in each of %d runs; time counts from the moment of the fault and so includes the wait for the next heartbeat. Where not all were found, they had been watched for %v. TCP_USER_TIMEOUT is set in all of them: it ends what the kernel has sent in vain, whatever the mode.", crowdSize, max(l.Runs, 1), l.watch()),
		agreed(cases), unfound(cases), l.flashed(cases),
		"A heartbeat that is not acknowledged keeps the kernel from probing (tcp(7): KeepAlive probes an idle connection), and a frozen program's kernel answers every probe. A NAT that forgets is an experiment of its own, below.",
	)
	return []report.Section{{Title: "How long a dead connection goes unnoticed", Text: text, Table: t}}, nil
}

// agreed says what the rule of the claim came to, taken literally.
func agreed(cases []*found) string {
	by, ended, all := 0, 0, 0
	for _, c := range cases {
		if c.mode == string(liveness.ModeBoth) {
			by += c.evidence[string(liveness.CauseKeepAlive)]
			ended += len(c.after)
			all += c.all
		}
	}
	if all == 0 {
		return ""
	}
	return fmt.Sprintf("Taken literally (mode both), heartbeat and KeepAlive agreed about %d of %d dead connections; %d ended at all.", by, all, ended)
}

// unfound names the rows that did not find everything.
func unfound(cases []*found) string {
	var rows []string
	for _, c := range cases {
		if n := len(c.after); n < c.all && c.fault != flash { // who lives through that has nothing to be found
			rows = append(rows, fmt.Sprintf("%s with %s (%d)", c.fault, c.mode, n))
		}
	}
	if rows == nil {
		return "Every row of a fault that stays found all."
	}
	return listed("Not all were found in: ", rows)
}

// flashed says how many connections a cut ended that was over soon.
func (l *Lab) flashed(cases []*found) string {
	var rows []string
	for _, c := range cases {
		if c.fault == flash {
			rows = append(rows, fmt.Sprintf("%s %d of %d", c.mode, len(c.after), c.all))
		}
	}
	if rows == nil {
		return ""
	}
	return listed(fmt.Sprintf("A flash cut is over after %v, so that whoever was not asked meanwhile, or is given the time to answer late, keeps the connection. Connections ended by it: ", l.flashFor()), rows) +
		"What their clients do about it is the experiment on survival, below."
}

func (l *Lab) flashFor() time.Duration { return l.divided(flashTime, 2*time.Second) }

// found is one case and what came of it.
type found struct {
	fault, mode string
	all         int             // connections
	after       []time.Duration // how long each of those found lived on
	evidence    map[string]int  // of the closes
}

func (f *found) cells() []string {
	row := []string{f.fault, f.mode, fmt.Sprintf("%d of %d", len(f.after), f.all), "", "", ""}
	if n := len(f.after); n > 0 {
		times := slices.Sorted(slices.Values(f.after))
		row[3], row[4] = seconds(times[n/2]), seconds(times[n-1])
	}
	row[5] = reasons(f.evidence)
	return row
}

// reasons lists the evidence of closes.
func reasons(evidence map[string]int) string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(evidence)) {
		all = append(all, fmt.Sprintf("%s %d", name, evidence[name]))
	}
	return strings.Join(all, ", ")
}

// span is a time of a whole experiment.
func span(d time.Duration) string { return d.Round(time.Second).String() }

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

// watch is how long a case is watched: KeepAlive by default needs 60 s of
// silence and three probes, 10 s apart.
func (l *Lab) watch() time.Duration {
	if l.Scale < 1 {
		return 12 * time.Second
	}
	return 2 * time.Minute
}

// livenessKeys are the defaults, or shorter times in a scaled run.
func (l *Lab) livenessKeys(mode string) map[string]string {
	keys := map[string]string{"liveness.mode": mode}
	if l.Scale < 1 {
		maps.Copy(keys, map[string]string{
			"liveness.ping": "1s", "liveness.pong": "500ms", "liveness.user_timeout": "3s", "limits.lag_seconds": "2",
			"liveness.keepalive_idle": "2s", "liveness.keepalive_interval": "1s", "liveness.keepalive_count": "2",
		})
	}
	return keys
}

// detect plays one case.
func (l *Lab) detect(ctx context.Context, seed uint64, f *found) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s, mode %s: %w", f.fault, f.mode, err)
		}
	}()
	net, err := netlab.New(seed)
	if err != nil {
		return err
	}
	defer net.Close()
	here := &bench.Place{Addr: net.A.Addr.String(), Start: net.A.Start, Dial: net.A.Dial}
	there := &bench.Place{Start: net.B.Start}
	server, err := bench.StartServer(ctx, bench.Settings{Exe: l.Bench.Exe, Keys: l.livenessKeys(f.mode), Place: here})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Stop()) }()
	pid := 0
	spec := load.Spec{Server: server.Addr, Path: server.Path, Run: "d", Members: crowdSize, RoomSize: crowdSize, Rooms: 1, Parallel: 4}
	fleet, err := load.NewFleet(ctx, []load.Spec{spec}, func(context.Context) (load.Pipe, error) {
		p, err := bench.StartClient(l.Bench.Exe, there)
		pid = p.PID
		return p, err
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, fleet.Close()) }()
	st, err := fleet.Connect(ctx)
	if err != nil {
		return err
	}
	if st.Open != crowdSize {
		return fmt.Errorf("%d of %d connections came about: %v", st.Open, crowdSize, st.Refused)
	}
	mend, err := l.inflict(net, pid, f.fault)
	if err != nil {
		return err
	}
	defer mend()
	return l.count(ctx, server, f)
}

// inflict does what the case is about and returns how to undo it.
func (l *Lab) inflict(net *netlab.Lab, pid int, fault string) (mend func(), err error) {
	back := time.NewTimer(0)
	switch fault {
	case cutLink:
		net.Both(netlab.Path{Down: true})
	case flash:
		net.Both(netlab.Path{Down: true})
		back = time.AfterFunc(l.flashFor(), func() { net.Both(netlab.Path{}) })
	case oneWay:
		net.BtoA(netlab.Path{Down: true})
	case frozen:
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			return nil, fmt.Errorf("freeze the clients: %w", err)
		}
	}
	return func() {
		back.Stop() // what it does is done below as well
		net.Both(netlab.Path{})
		_ = syscall.Kill(pid, syscall.SIGCONT) // does nothing to what was not stopped
	}, nil
}

// count watches the server's number of connections until none is left or the
// time is over.
func (l *Lab) count(ctx context.Context, server *bench.Server, f *found) error {
	const every = 100 * time.Millisecond
	tick := time.NewTicker(every)
	defer tick.Stop()
	began, found := time.Now(), 0
	f.all += crowdSize
	for {
		m, err := server.Metrics(ctx)
		if err != nil {
			return err
		}
		gone := time.Since(began)
		for ; found < crowdSize-int(m["parley_connections"]); found++ {
			f.after = append(f.after, gone)
		}
		if found == crowdSize || gone > l.watch() {
			if m, err = server.Metrics(ctx); err != nil { // in one answer a connection may be missing and its evidence too
				return err
			}
			if f.evidence == nil {
				f.evidence = map[string]int{}
			}
			for name, n := range evidence(m) {
				f.evidence[name] += n
			}
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// evidence reads what the server closed connections for.
func evidence(m map[string]float64) map[string]int {
	all := map[string]int{}
	for series, n := range m {
		if rest, ok := strings.CutPrefix(series, `parley_dead_connections_total{evidence="`); ok && n > 0 {
			all[strings.TrimSuffix(rest, `"}`)] += int(n)
		}
	}
	return all
}
