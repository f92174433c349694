package bench

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	"parley/core/bench/load"
	"parley/core/bench/proc"
)

// Load is what clients do to the server.
type Load struct {
	Members    int           // connections in rooms
	RoomSize   int           // members of one room
	Stalled    int           // connections more in the first room that read nothing once they have joined
	Publishers int           // connections that send
	Rate       float64       // messages a second of all publishers; 0: closed loop
	InFlight   int           // closed loop: messages of each publisher that are unanswered, or on their way
	ByArrival  bool          // closed loop: a message is on its way until every member of its room has read it; otherwise its answer is waited for
	TextBytes  int           // of a message
	Warmup     time.Duration // sending before measuring
	Duration   time.Duration // measured
	Parallel   int           // connections being opened at once
	PerSecond  int           // connections opened in a second; 0: no limit
	Arrivals   int           // mode storm: connections that arrive at once
	Merges     int           // mode policy: changes merged in each way
	Returns    bool          // connections that are refused come back when the server says

	onMeasure func(context.Context) // called when measuring begins, on a goroutine of its own; may be nil
	meet      *meeting              // where runs side by side wait for each other; may be nil
}

// stalledBuffer is the receive buffer of those who stall, so that they are
// full soon.
const stalledBuffer = 16 << 10

func (l Load) rooms() int { return (l.Members + l.RoomSize - 1) / max(l.RoomSize, 1) }

// specs divides a load among client processes: the publishers have one to
// themselves, so that reading does not keep them from sending in time, but
// where their loop is closed by arrival: then they are where the members are.
func (l Load) specs(server *Server, run string) (all []load.Spec) {
	base := load.Spec{
		Server: server.Addr, Path: server.Path, TLS: server.TLS, TCP: server.TCP, Run: run, RoomSize: l.RoomSize, Rooms: l.rooms(), TextBytes: l.TextBytes,
		Parallel: max(l.Parallel, 1), ConnectPerSec: l.PerSecond, Returns: l.Returns,
	}
	homes := server.homes()
	for i, home := range homes { // a node has the members after those of the node before
		first, end := l.Members*i/len(homes), l.Members*(i+1)/len(homes)
		perProcess := max(load.MaxConnections/max(l.RoomSize, 1), 1) * l.RoomSize // whole rooms, where they fit
		perProcess = min(perProcess, load.MaxConnections)
		for ; first < end; first += perProcess {
			s := base
			s.Server, s.First, s.Members = home.Addr, first, min(perProcess, end-first)
			all = append(all, s)
		}
	}
	for i := range all {
		all[i].ConnectPerSec = (l.PerSecond + len(all) - 1) / len(all)
		if server.loopback() {
			all[i].Bind = fmt.Sprintf("127.0.0.%d", 2+i%250)
		}
	}
	if l.Stalled > 0 {
		s := base
		s.Members, s.RoomSize, s.Stalls, s.ReceiveBuffer = l.Stalled, l.Stalled, true, stalledBuffer
		all = append(all, s)
	}
	byArrival := l.ByArrival && l.Rate == 0
	switch {
	case l.Publishers > 0 && l.Members > 0 && byArrival:
		all[0].Publishers, all[0].PublishTo, all[0].ByArrival = l.Publishers, server.Addr, true
	case l.Publishers > 0:
		s := base
		s.Publishers, s.ByArrival = l.Publishers, byArrival
		all = append(all, s)
	}
	return all
}

// Measured is one run of a load.
type Measured struct {
	load.Stats
	Begun   int64         // when measuring began, load.Monotonic
	Took    time.Duration // measured time
	CPU     time.Duration // of the server, measured time
	RSS     int64         // of the server, at the end of the measured time
	Parts   []PartUsage   // of the server, measured time; empty: it is one process
	Before  Counters      // of the server, beginning of the measured time
	After   Counters      // end of it
	Samples []Sample      // of the server, whole run
}

// Sample is the server's use of the machine at a moment.
type Sample struct {
	At  time.Duration // since the beginning of the traffic
	CPU time.Duration // since the sample before
	RSS int64
}

// PartUsage is what one process of the server used in the measured time.
type PartUsage struct {
	Name string
	CPU  time.Duration
	RSS  int64 // at its end
}

// sampleEvery is the time between two samples.
const sampleEvery = 250 * time.Millisecond

// newRun returns a name that no other run has.
func newRun() string { return rand.Text()[:8] }

// fleet starts the client processes of a load.
func (b *Bench) fleet(ctx context.Context, server *Server, l Load) (*load.Fleet, error) {
	return load.NewFleet(ctx, l.specs(server, lower(newRun())), b.Start)
}

// connect opens a load's connections and demands that all of them are.
func (b *Bench) connect(ctx context.Context, fleet *load.Fleet, l Load) (*load.Stats, error) {
	want := l.Members + l.Stalled + l.Publishers
	stop := b.progress("connecting", func() (float64, string) {
		p := fleet.Progress()
		return float64(p.Open) / float64(want), fmt.Sprintf("%d of %d", p.Open, want)
	})
	defer stop()
	st, err := fleet.Connect(ctx)
	if err != nil {
		return nil, err
	}
	if st.Open != want {
		return st, fmt.Errorf("%d of %d connections came about; refused: %v, closed: %v", st.Open, want, st.Refused, st.Closed)
	}
	return st, nil
}

// run connects a load to the server, sends, and measures.
func (b *Bench) run(ctx context.Context, server *Server, l Load) (m *Measured, err error) {
	fleet, err := b.fleet(ctx, server, l)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, fleet.Close()) }()
	if _, err := b.connect(ctx, fleet, l); err != nil {
		return nil, err
	}
	if err := l.meet.all(ctx); err != nil {
		return nil, err
	}
	return b.traffic(ctx, server, fleet, l)
}

// beforeTraffic lets what connecting stirred up come to rest.
const beforeTraffic = time.Second

// traffic sends a load's messages over connections that are open.
func (b *Bench) traffic(ctx context.Context, server *Server, fleet *load.Fleet, l Load) (*Measured, error) {
	from := load.Monotonic() + int64(beforeTraffic)
	t := load.Traffic{Rate: l.Rate, InFlight: l.InFlight, From: from, Measure: from + int64(l.Warmup), Until: from + int64(l.Warmup+l.Duration)}
	m := &Measured{}
	stop := b.progress("sending", func() (float64, string) {
		p := fleet.Progress()
		return float64(load.Monotonic()-from) / float64(t.Until-from), fmt.Sprintf("%d deliveries", p.Got)
	})
	defer stop()
	var watching sync.WaitGroup
	var watchErr error
	watchCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	watching.Go(func() { watchErr = m.watch(watchCtx, server, t) })
	if l.onMeasure != nil {
		watching.Go(func() {
			if until(watchCtx, t.Measure) == nil {
				l.onMeasure(watchCtx)
			}
		})
	}
	acked, err := fleet.Traffic(ctx, t)
	if err != nil {
		cancel()
		watching.Wait()
		return nil, err
	}
	watching.Wait()
	if watchErr != nil {
		return nil, watchErr
	}
	st, err := fleet.Settle(ctx, acked, settleQuiet)
	if err != nil {
		return nil, err
	}
	m.Stats, m.Begun, m.Took = *st, t.Measure, l.Duration
	return m, nil
}

// settleQuiet is how long nothing may arrive before what lacks is lost.
const settleQuiet = 5 * time.Second

// watch samples the server until the traffic ends.
func (m *Measured) watch(ctx context.Context, server *Server, t load.Traffic) error {
	if err := until(ctx, t.From); err != nil {
		return err
	}
	last, err := server.Usage()
	if err != nil {
		return err
	}
	sampleTo := func(end int64) (proc.Usage, error) {
		for {
			at := min(end, load.Monotonic()+int64(sampleEvery))
			if err := until(ctx, at); err != nil {
				return last, err
			}
			now, err := server.Usage()
			if err != nil {
				return last, err
			}
			m.Samples = append(m.Samples, Sample{At: time.Duration(at - t.From), CPU: now.CPU - last.CPU, RSS: now.RSS})
			last = now
			if at >= end {
				return now, nil
			}
		}
	}
	begin, err := sampleTo(t.Measure)
	if err != nil {
		return err
	}
	m.Before = server.counters(ctx)
	was, err := server.parts()
	if err != nil {
		return err
	}
	end, err := sampleTo(t.Until)
	if err != nil {
		return err
	}
	is, err := server.parts()
	if err != nil {
		return err
	}
	m.After = server.counters(ctx)
	m.CPU, m.RSS = end.CPU-begin.CPU, end.RSS
	for i, p := range server.Parts {
		m.Parts = append(m.Parts, PartUsage{Name: p.Name, CPU: is[i].CPU - was[i].CPU, RSS: is[i].RSS})
	}
	return nil
}

// until sleeps until a moment of the monotonic clock.
func until(ctx context.Context, at int64) error {
	timer := time.NewTimer(time.Duration(at - load.Monotonic()))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Counters is what the server's runtime says of itself; all zero where its
// admin API cannot be asked.
type Counters struct {
	Collections float64 // finished garbage collections
	PauseS      float64 // seconds the program stood still for them
	Allocated   float64 // bytes
	Mallocs     float64 // objects
	HeapLive    float64 // bytes of objects at the moment
	HeapSpans   float64 // bytes of the pages that hold them
	HeapFree    float64 // bytes of free pages that the process keeps
	Stacks      float64 // bytes
	Runtime     float64 // bytes of the runtime's own structures
	Goroutines  float64
	Started     float64 // goroutines ever started
	Messages    float64 // appended
	Writes      float64 // of the pumps
}

func (s *Server) counters(ctx context.Context) Counters {
	m, err := s.Metrics(ctx)
	if err != nil {
		return Counters{} // shown as not known
	}
	return Counters{
		Collections: m["go_gc_duration_seconds_count"], PauseS: m["go_gc_duration_seconds_sum"],
		Allocated: m["go_memstats_alloc_bytes_total"], Mallocs: m["go_memstats_mallocs_total"],
		HeapLive: m["go_memstats_heap_alloc_bytes"], HeapSpans: m["go_memstats_heap_inuse_bytes"],
		HeapFree: m["go_memstats_heap_idle_bytes"] - m["go_memstats_heap_released_bytes"], Stacks: m["go_memstats_stack_inuse_bytes"],
		Runtime: m["go_memstats_mspan_sys_bytes"] + m["go_memstats_mcache_sys_bytes"] + m["go_memstats_buck_hash_sys_bytes"] +
			m["go_memstats_gc_sys_bytes"] + m["go_memstats_other_sys_bytes"],
		Goroutines: m["go_goroutines"], Started: m["go_sched_goroutines_created_goroutines_total"],
		Messages: m["parley_messages_total"], Writes: m["parley_pump_writes_total"],
	}
}

// StartRate is how many goroutines the server started in a second of the
// measured time; 0 where its admin API cannot be asked.
func (m *Measured) StartRate() float64 {
	return (m.After.Started - m.Before.Started) / max(m.Took.Seconds(), 1e-9)
}
