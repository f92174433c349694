//go:build linux

package experiments

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"runtime/pprof"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"parley/core/bench/load"
	"parley/core/bench/report"
)

// What the fifty goroutines beside the probe do.
const (
	nobody   = "none"     // there are none: what the machine itself keeps the probe waiting
	asleep   = "asleep"   // the program of the claim: time.Sleep in a loop
	looping  = "looping"  // arithmetic without end
	blocking = "blocking" // a system call that blocks the thread, over and over
	untold   = "untold"   // the same without telling the scheduler
)

// starvation runs the program that is said to starve, and two that do.
func starvation(ctx context.Context, l *Lab) ([]report.Section, error) {
	t := &report.Table{Columns: []string{"50 goroutines", "GOMAXPROCS", "probe p50", "p99", "longest", "probes in time", "threads"}}
	worst := map[string]time.Duration{} // p99 of the probe
	threads := map[string]int{}         // most of them
	for _, kind := range []string{nobody, asleep, looping, blocking, untold} {
		for _, procs := range some(l, []int{1, 2, 4}, 1) {
			orders := starveOrders{Kind: kind, Goroutines: fifty, Duration: l.during(5 * time.Second)}
			if kind == nobody {
				orders.Goroutines = 0
			}
			late := func(a starveAnswer) float64 { return float64(a.P99) }
			a, err := median(l, late, func() (a starveAnswer, err error) {
				_, err = l.child(ctx, "starve", []string{"GOMAXPROCS=" + strconv.Itoa(procs)}, orders, &a)
				return a, err
			})
			if err != nil {
				return nil, err
			}
			t.Rows = append(t.Rows, []string{
				kind, strconv.Itoa(procs), ms(a.P50), ms(a.P99), ms(a.Max), report.Number(100*a.InTime) + " %", strconv.Itoa(a.Threads),
			})
			worst[kind] = max(worst[kind], a.P99)
			threads[kind] = max(threads[kind], a.Threads)
		}
	}
	text := paragraphs(
		"Claimed: with too small a GOMAXPROCS, fifty goroutines that sleep starve the others.",
		fmt.Sprintf("A goroutine in time.Sleep holds no processor: it is a timer in a heap. Run literally, the program %s: a probe that asks to be woken each millisecond is late by %s at p99 in the worst of its rows, and by %s where there are no goroutines beside it, on a machine of %d CPUs.", starved(worst[asleep], worst[nobody]), ms(worst[asleep]), ms(worst[nobody]), runtime.NumCPU()),
		fmt.Sprintf("What takes a processor from others is to hold it. A loop is preempted by a signal after 10 ms (since Go 1.14), and fifty of them take turns with the probe: p99 %s. A system call that blocks gives its processor to another thread when the monitor thread notices, 20 µs to 10 ms later (sysmon in runtime/proc.go); with fifty of them the process had started %d threads, %d with the sleepers, and the probe was late by %s at p99. The same call made so that the scheduler is not told, as RawSyscall or a long stretch of assembly does, keeps the processor until it returns: %s.",
			ms(worst[looping]), threads[blocking], threads[asleep], ms(worst[blocking]), ms(worst[untold])),
		l.medianOf("the probe's p99"),
	)
	return []report.Section{{Title: "Fifty sleepers", Text: text, Table: t}}, nil
}

const fifty = 50

// starved says in words if the probe was kept waiting: for longer than a
// goroutine may run before it is preempted, and than a busy machine keeps it
// waiting with no goroutines beside it.
func starved(p99, alone time.Duration) string {
	const slice = 10 * time.Millisecond // forcePreemptNS in runtime/proc.go
	switch {
	case p99 < slice:
		return "starves nobody"
	case p99 < 2*max(alone, slice):
		return "keeps nobody waiting for longer than this busy machine does by itself"
	}
	return "did keep others waiting here, which its sleepers cannot explain"
}

type starveOrders struct {
	Kind       string
	Goroutines int
	Duration   time.Duration
}

type starveAnswer struct {
	P50, P99, Max time.Duration // how late the probe was
	InTime        float64       // share of the probes that were due and came about
	Threads       int
}

// probeEvery is how often the probe asks to be woken.
const probeEvery = time.Millisecond

func starveChild(ctx context.Context, in io.Reader, out io.Writer) error {
	var o starveOrders
	if err := ordered(in, &o); err != nil {
		return err
	}
	work, ok := map[string]func(){nobody: sleepOnce, asleep: sleepOnce, looping: loopOnce, blocking: blockOnce, untold: untoldOnce}[o.Kind]
	if !ok || o.Goroutines < 0 || o.Goroutines > 10_000 {
		return fmt.Errorf("%d goroutines that are %q: not known", o.Goroutines, o.Kind)
	}
	var stop atomic.Bool
	var working sync.WaitGroup
	for range o.Goroutines {
		working.Go(func() {
			for !stop.Load() {
				work()
			}
		})
	}
	late := load.NewLatency()
	begin := time.Now()
	n := 0
	for ; time.Since(begin) < o.Duration && ctx.Err() == nil; n++ {
		asked := time.Now()
		time.Sleep(probeEvery)
		late.Record(int64(time.Since(asked) - probeEvery))
	}
	threads := pprof.Lookup("threadcreate").Count()
	stop.Store(true)
	working.Wait()
	return json.NewEncoder(out).Encode(starveAnswer{
		P50: late.At(50), P99: late.At(99), Max: late.Max(), Threads: threads,
		InTime: float64(n) * float64(probeEvery) / float64(max(o.Duration, 1)),
	})
}

func sleepOnce() { time.Sleep(10 * time.Millisecond) }

var spun atomic.Uint64

func loopOnce() {
	x := uint64(1)
	for i := range uint64(1 << 20) {
		x = x*6364136223846793005 + i
	}
	spun.Store(x)
}

// blockOnce blocks its thread in nanosleep(2), as a call into a C library or a
// read of a file on a slow disk would.
func blockOnce() {
	ts := syscall.NsecToTimespec(int64(blockedFor))
	_ = syscall.Nanosleep(&ts, nil) // EINTR ends it early, which is as good
}

// blockedFor is how long a blocking call takes.
const blockedFor = 5 * time.Millisecond

func untoldOnce() {
	ts := syscall.NsecToTimespec(int64(blockedFor))
	_, _, _ = syscall.RawSyscall(syscall.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&ts)), 0, 0)
}
