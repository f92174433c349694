//go:build linux

package experiments

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"runtime/metrics"
	"slices"
	"strconv"
	"sync"
	"time"

	"parley/core/bench"
	"parley/core/bench/gctrace"
	"parley/core/bench/load"
	"parley/core/bench/report"
)

// procs are the values of GOMAXPROCS to compare: those of the claim, and the
// machine's own.
func procs(l *Lab) []int {
	all := some(l, []int{1, 2, 4, 8, 16, 32}, 2)
	if n := runtime.NumCPU(); !slices.Contains(all, n) {
		all = append(all, n)
	}
	slices.Sort(all)
	return all
}

// procsChat compares GOMAXPROCS under chat.
func procsChat(ctx context.Context, l *Lab) ([]report.Section, error) {
	c := bench.Load{
		Members: l.scaled(2000, 20) / 10 * 10, RoomSize: 10, Publishers: 32, InFlight: 4, TextBytes: 120, Parallel: 64,
		Warmup: l.during(3 * time.Second), Duration: l.during(10 * time.Second),
	}
	var all []*bench.Tuned
	var plot report.Line
	var tails []time.Duration // p99 of each row
	var started []float64     // goroutines for a message
	for _, n := range procs(l) {
		m, err := median(l, deliveryRate, func() (*bench.Tuned, error) {
			return l.Bench.Tuned(ctx, c, bench.Tunings("GOMAXPROCS=" + strconv.Itoa(n))[0], nil)
		})
		if err != nil {
			return nil, err
		}
		all = append(all, m)
		plot.X, plot.Y = append(plot.X, float64(n)), append(plot.Y, deliveryRate(m))
		tails = append(tails, m.Delivery.At(99))
		started = append(started, m.StartRate()*m.Took.Seconds()/max(float64(m.Sent), 1))
	}
	s := bench.SweepSections("GOMAXPROCS under chat", all)[0]
	s.Text = paragraphs(
		"Claimed: throughput peaks at some GOMAXPROCS that must be found by hand.",
		fmt.Sprintf("Measured in a closed loop with %d connections, the clients on the same %d CPUs. %s", c.Members, runtime.NumCPU(), peak(plot, "deliveries", tails)),
		fmt.Sprintf("The server started %s goroutines for a message, over all GOMAXPROCS: each connection keeps the one that waits for it, commands are carried out by workers that are used again, and the shards write.", between(started)),
		"Below the number of CPUs a server cannot use them all; above it threads share them, and wait for each other in the kernel's queue. automaxprocs sets what the machine, or its cgroup, gives.",
		l.medianOf("deliveries a second"),
	)
	s.Plots = append(s.Plots, report.Plot{Title: "Deliveries a second", X: "GOMAXPROCS", Y: "1/s", Lines: []report.Line{plot}})
	return []report.Section{s}, nil
}

func deliveryRate(m *bench.Tuned) float64 { return float64(m.Delivered) / m.Took.Seconds() }

// procsHTTP compares GOMAXPROCS under HTTP with JSON bodies.
func procsHTTP(ctx context.Context, l *Lab) ([]report.Section, error) {
	t := &report.Table{Columns: []string{"GOMAXPROCS", "requests/s", "p50", "p99", "GC/s", "GC pause p99", "goroutines created/s"}}
	var plot report.Line
	var tails []time.Duration // p99 of each row
	var perRequest []float64  // goroutines created
	conns, took := l.scaled(2000, 20), l.during(10*time.Second)
	for _, n := range procs(l) {
		r, err := median(l, (*httpResult).rate, func() (*httpResult, error) { return l.httpRun(ctx, n, conns, took) })
		if err != nil {
			return nil, err
		}
		t.Rows = append(t.Rows, []string{
			strconv.Itoa(n), report.Number(r.rate()), ms(r.P50), ms(r.P99), report.Number(r.gc.Rate), ms(r.gc.PauseP99),
			report.Number(float64(r.created) / r.Took.Seconds()),
		})
		plot.X, plot.Y = append(plot.X, float64(n)), append(plot.Y, r.rate())
		tails = append(tails, r.P99)
		perRequest = append(perRequest, float64(r.created)/float64(max(r.Requests, 1)))
	}
	text := paragraphs(
		"Claimed: queries a second rise with GOMAXPROCS to a peak, and the creation of goroutines is what limits them.",
		fmt.Sprintf("Measured with %d keep-alive connections, one request outstanding on each, and the clients on the same %d CPUs. %s", conns, runtime.NumCPU(), peak(plot, "requests", tails)),
		fmt.Sprintf("net/http keeps one goroutine for a connection and starts another for each request, which watches for the client's hanging up (startBackgroundRead in net/http/server.go). Measured, there were %s goroutines created for a request over all GOMAXPROCS: their number follows the requests, and does not tell one GOMAXPROCS from another.", between(perRequest)),
		l.medianOf("requests a second"),
	)
	return []report.Section{{Title: "GOMAXPROCS under HTTP JSON", Text: text, Table: t,
		Plots: []report.Plot{{Title: "Requests a second", X: "GOMAXPROCS", Y: "1/s", Lines: []report.Line{plot}}}}}, nil
}

// between is the range of some figures.
func between(all []float64) string {
	low, high := report.Number(slices.Min(all)), report.Number(slices.Max(all))
	if low == high {
		return low
	}
	return low + " to " + high
}

// peak says where the most was done and how the number of CPUs compares.
func peak(line report.Line, what string, tails []time.Duration) string {
	best, own := 0, slices.Index(line.X, float64(runtime.NumCPU()))
	for i, y := range line.Y {
		if y > line.Y[best] {
			best = i
		}
	}
	last := len(line.X) - 1
	text := fmt.Sprintf("The most %s a second came with GOMAXPROCS=%v; p99 was %s there and %s at %v.", what, line.X[best], ms(tails[best]), ms(tails[last]), line.X[last])
	if own >= 0 && own != best {
		text += fmt.Sprintf(" With as many as there are CPUs, %v, it was %s %% of that, and p99 %s.", line.X[own], report.Number(100*line.Y[own]/max(line.Y[best], 1e-9)), ms(tails[own]))
	}
	return text
}

type httpResult struct {
	requestAnswer
	created uint64
	gc      gctrace.Summary
}

func (r *httpResult) rate() float64 { return float64(r.Requests) / r.Took.Seconds() }

// httpRun starts a server with GOMAXPROCS and a client beside it.
func (l *Lab) httpRun(ctx context.Context, procs, conns int, took time.Duration) (_ *httpResult, err error) {
	ctx, cancel := context.WithTimeout(ctx, childTime)
	defer cancel()
	cmd := l.command(ctx, "http")
	cmd.Env = append(plainEnv(), "GOMAXPROCS="+strconv.Itoa(procs), "GODEBUG=gctrace=1")
	var trace bytes.Buffer
	cmd.Stderr = &trace
	quit, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the HTTP server: %w", err)
	}
	said := json.NewDecoder(out)
	var where struct{ Addr string }
	var r httpResult
	err = said.Decode(&where)
	if err == nil {
		_, err = l.child(ctx, "request", nil, requestOrders{Addr: where.Addr, Conns: conns, Duration: took}, &r.requestAnswer)
	}
	_ = quit.Close() // the server ends, and says what it has counted
	var counted struct{ Created uint64 }
	err = errors.Join(err, said.Decode(&counted), cmd.Wait())
	if err != nil {
		return nil, fmt.Errorf("HTTP with GOMAXPROCS=%d: %w", procs, err)
	}
	cycles, err := gctrace.Read(&trace)
	if err != nil {
		return nil, err
	}
	r.created, r.gc = counted.Created, gctrace.Summarize(cycles, 0, r.Took)
	return &r, nil
}

// echo is what the HTTP server decodes and encodes again.
type echo struct {
	Room string   `json:"room"`
	From string   `json:"from"`
	Text string   `json:"text"`
	Tags []string `json:"tags"`
}

// httpChild serves JSON until its input ends: it says where, and then how many
// goroutines were created meanwhile.
func httpChild(ctx context.Context, in io.Reader, out io.Writer) error {
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	const largest = 64 << 10 // bytes of a body
	srv := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var e echo
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, largest)).Decode(&e); err != nil {
			http.Error(w, "not the JSON that is expected", http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(e) // the client has gone
	})}
	before := created()
	say := json.NewEncoder(out)
	if err := say.Encode(map[string]string{"Addr": ln.Addr().String()}); err != nil {
		return err
	}
	var serving sync.WaitGroup
	serving.Go(func() { _ = srv.Serve(ln) }) // ends with Close
	_, err = io.Copy(io.Discard, in)
	_ = srv.Close()
	serving.Wait()
	return errors.Join(err, say.Encode(map[string]uint64{"Created": created() - before}))
}

// created is how many goroutines this process has started.
func created() uint64 {
	s := []metrics.Sample{{Name: "/sched/goroutines-created:goroutines"}}
	metrics.Read(s)
	if s[0].Value.Kind() != metrics.KindUint64 {
		return 0
	}
	return s[0].Value.Uint64()
}

type requestOrders struct {
	Addr     string
	Conns    int
	Duration time.Duration
}

type requestAnswer struct {
	Requests int64
	Took     time.Duration
	P50, P99 time.Duration
}

// requestChild keeps one request outstanding on each connection.
func requestChild(ctx context.Context, in io.Reader, out io.Writer) error {
	var o requestOrders
	if err := ordered(in, &o); err != nil {
		return err
	}
	if o.Conns < 1 || o.Conns > load.MaxConnections {
		return fmt.Errorf("%d connections, 1 to %d are possible", o.Conns, load.MaxConnections)
	}
	begin := time.Now()
	end := begin.Add(o.Duration)
	all := load.NewLatency()
	var mu sync.Mutex
	var asking sync.WaitGroup
	var failed error
	for range o.Conns {
		asking.Go(func() {
			times, err := ask(ctx, o.Addr, end)
			mu.Lock()
			defer mu.Unlock()
			for _, t := range times {
				all.Record(int64(t))
			}
			failed = errors.Join(failed, err)
		})
	}
	asking.Wait()
	if failed != nil {
		return failed
	}
	return json.NewEncoder(out).Encode(requestAnswer{Requests: all.Count(), Took: time.Since(begin), P50: all.At(50), P99: all.At(99)})
}

// ask sends requests on one connection until end and returns how long each
// answer took.
func ask(ctx context.Context, addr string, end time.Time) (times []time.Duration, err error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if err := c.SetDeadline(end.Add(time.Minute)); err != nil {
		return nil, err
	}
	body, err := json.Marshal(echo{Room: "lobby", From: "ann", Text: "and then we went down to the river", Tags: []string{"one", "two", "three"}})
	if err != nil {
		return nil, err
	}
	request := fmt.Appendf(nil, "POST / HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", addr, len(body), body)
	r := bufio.NewReaderSize(c, 1024)
	for time.Now().Before(end) {
		from := time.Now()
		if _, err := c.Write(request); err != nil {
			return times, err
		}
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			return times, err
		}
		_, err = io.Copy(io.Discard, resp.Body)
		if err = errors.Join(err, resp.Body.Close()); err != nil {
			return times, err
		}
		if resp.StatusCode != http.StatusOK {
			return times, fmt.Errorf("the server answered %s", resp.Status)
		}
		times = append(times, time.Since(from))
	}
	return times, nil
}
