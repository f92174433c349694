package load

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// Pipe is a client process that has been started.
type Pipe struct {
	Orders  io.WriteCloser // closing it ends the process
	Reports io.Reader
	Wait    func() error // returns when the process has ended
	PID     int          // 0 where it is no process of its own
}

// Start begins a client process that runs Serve.
type Start func(ctx context.Context) (Pipe, error)

// Fleet is the client processes of one run. Its methods belong to one
// goroutine.
type Fleet struct {
	procs []*process
}

type process struct {
	spec    Spec
	pipe    Pipe
	reports chan report // all but progress; closed when the process ends or has failed
	failure error       // set before reports is closed
	open    atomic.Int64
	got     atomic.Uint64
	sent    atomic.Uint64
}

// Progress is how far a fleet is.
type Progress struct {
	Open int    // connections
	Got  uint64 // deliveries
	Sent uint64 // messages
}

// NewFleet starts one process for each spec. Close must be called in any case
// where there is no error.
func NewFleet(ctx context.Context, specs []Spec, start Start) (*Fleet, error) {
	if err := checkArrivals(specs); err != nil {
		return nil, err
	}
	f := &Fleet{}
	for i, spec := range specs {
		if err := spec.check(); err != nil {
			return nil, errors.Join(fmt.Errorf("client process %d: %w", i, err), f.Close())
		}
		pipe, err := start(ctx)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("start client process %d: %w", i, err), f.Close())
		}
		p := &process{spec: spec, pipe: pipe, reports: make(chan report, 8)} // one of each kind at most
		f.procs = append(f.procs, p)
		go p.follow() // ends with the process, which Close waits for
		if err := p.order(order{Do: "spec", Spec: &spec}); err != nil {
			return nil, errors.Join(fmt.Errorf("client process %d: %w", i, err), f.Close())
		}
	}
	return f, nil
}

// follow reads a process's reports until it ends or has failed: one that
// failed stays until its orders end, which Close sees to.
func (p *process) follow() {
	defer close(p.reports)
	in := json.NewDecoder(p.pipe.Reports)
	for {
		var r report
		if err := in.Decode(&r); err != nil {
			if p.failure == nil {
				p.failure = errors.New("the client process has ended")
			}
			return
		}
		p.open.Store(int64(r.Open))
		if r.Got > 0 {
			p.got.Store(r.Got)
		}
		if r.Sent > 0 {
			p.sent.Store(r.Sent)
		}
		switch r.Is {
		case "progress":
		case "failed":
			p.failure = errors.New(r.Error)
			return
		default:
			p.reports <- r
		}
	}
}

func (p *process) order(o order) error {
	b, err := json.Marshal(o)
	if err != nil {
		return err
	}
	if _, err := p.pipe.Orders.Write(append(b, '\n')); err != nil {
		return fmt.Errorf("send the order %q: %w", o.Do, err)
	}
	return nil
}

// Progress sums what the processes have reported.
func (f *Fleet) Progress() (all Progress) {
	for _, p := range f.procs {
		all.Open += int(p.open.Load())
		all.Got += p.got.Load()
		all.Sent += p.sent.Load()
	}
	return all
}

// Connect opens every connection and returns what that was like. Connections
// that were refused are in Refused; an error means that the fleet cannot go on.
func (f *Fleet) Connect(ctx context.Context) (*Stats, error) {
	return f.stats(ctx, order{Do: "connect"}, "connected")
}

// Traffic sends and returns what was acknowledged, by room and publisher, once
// everything is answered.
func (f *Fleet) Traffic(ctx context.Context, t Traffic) (acked [][]uint64, err error) {
	if err := t.check(); err != nil {
		return nil, err
	}
	for _, p := range f.procs {
		if err := p.order(order{Do: "traffic", Traffic: &t}); err != nil {
			return nil, err
		}
	}
	for _, p := range f.procs {
		if p.spec.Publishers == 0 {
			continue
		}
		r, err := p.await(ctx, "sent")
		if err != nil {
			return nil, err
		}
		acked = append(acked, r.Acked...)
	}
	return acked, nil
}

// Settle waits until every member that reads has what was acknowledged, or nothing has
// come for the given time, and returns the whole run's statistics.
func (f *Fleet) Settle(ctx context.Context, acked [][]uint64, quiet time.Duration) (*Stats, error) {
	return f.stats(ctx, order{Do: "settle", Acked: acked, Timeout: int64(quiet)}, "settled")
}

// stats gives an order to all and merges the answers.
func (f *Fleet) stats(ctx context.Context, o order, answer string) (*Stats, error) {
	skip := func(p *process) bool { return p.spec.Stalls && o.Do == "settle" }
	for _, p := range f.procs {
		if skip(p) {
			continue
		}
		if err := p.order(o); err != nil {
			return nil, p.because(err)
		}
	}
	all := NewStats()
	for _, p := range f.procs {
		if skip(p) {
			continue
		}
		r, err := p.await(ctx, answer)
		if err != nil {
			return nil, err
		}
		if r.Stats == nil {
			return nil, fmt.Errorf("a client process reported %q without statistics", answer)
		}
		all.Merge(r.Stats)
	}
	return all, nil
}

func (p *process) await(ctx context.Context, is string) (report, error) {
	for {
		select {
		case r, ok := <-p.reports:
			if !ok {
				return report{}, p.failure
			}
			if r.Is == is {
				return r, nil
			}
		case <-ctx.Done():
			return report{}, ctx.Err()
		}
	}
}

// because prefers what the process said before it ended to err.
func (p *process) because(err error) error {
	select {
	case _, ok := <-p.reports:
		if !ok {
			return p.failure
		}
	case <-time.After(time.Second):
	}
	return err
}

// Close ends the processes and waits for them. It may be called twice.
func (f *Fleet) Close() error {
	for _, p := range f.procs {
		_ = p.pipe.Orders.Close() // the process may have ended by itself
	}
	var wg sync.WaitGroup
	errs := make([]error, len(f.procs))
	for i, p := range f.procs {
		wg.Go(func() {
			for range p.reports { // until follow has ended
			}
			errs[i] = p.pipe.Wait()
		})
	}
	wg.Wait()
	f.procs = nil
	return errors.Join(errs...)
}
