// Package intake reads connections: it waits until something has come for one
// and has a crew (package crew) carry it out.
//
// A connection waits in one of two ways. As a goroutine, on the smallest
// stack, it waits within its own read; that works for every connection. Or it
// is parked: it has no goroutine at all, and its descriptor lies in an epoll
// set until there is something to read (epoll(7), with EPOLLONESHOT). Parking
// is for connections whose unread bytes all lie in the socket; TLS, which may
// hold some above it, waits as a goroutine.
//
// A parked connection is woken by bytes, by its end, and by Wake, which
// whoever closes it from this side must call afterwards: a deadline does not
// reach it.
package intake

import (
	"context"
	"sync"
	"sync/atomic"
	"syscall"

	"parley/core/crew"
)

// Connection is what an intake reads. Its methods are called by one goroutine
// at a time.
type Connection interface {
	crew.Task // carries out what has come, and what is on its way where only a part has
	// Fill waits for the first byte, or for the end. Run sees what it returned.
	Fill()
	// Over reports whether Run has seen the end.
	Over() bool
	// Drained reports whether the connection may be parked: nothing is
	// buffered above the socket, and no deadline is to end the wait.
	Drained() bool
	// Closed reports whether this side has closed the connection, and is true
	// before Wake is called for it.
	Closed() bool
	// Finish ends the connection. It may wait for the other side.
	Finish()
}

// Intake serves the connections of one listener. Make one with New.
// Its methods may be called from any goroutine.
type Intake struct {
	crew  crew.Crew
	lot   *lot // nil where connections are not parked
	tasks sync.WaitGroup
}

// New returns an intake that parks connections where park says so and the
// system has epoll. It starts nothing but what Go and Start are given. The zero
// Intake is one that does not park.
func New(park bool) (*Intake, error) {
	in := &Intake{}
	if park {
		var err error
		if in.lot, err = newLot(); err != nil {
			return nil, err
		}
	}
	return in, nil
}

// Parks reports whether connections are parked.
func (in *Intake) Parks() bool { return in.lot != nil }

// Parked returns how many connections are parked now.
func (in *Intake) Parked() int {
	if in.lot == nil {
		return 0
	}
	return int(in.lot.parked.Load())
}

// Run wakes parked connections until ctx ends; it must run for any to be
// parked. After it, also where it fails, connections wait as goroutines; those
// that were parked are woken.
func (in *Intake) Run(ctx context.Context) error {
	if in.lot == nil {
		<-ctx.Done()
		return nil
	}
	return in.lot.run(ctx)
}

// Do has the crew run t and waits for it.
func (in *Intake) Do(t crew.Task) { in.crew.Do(t) }

// Go runs f in a goroutine that Wait waits for.
func (in *Intake) Go(f func()) { in.tasks.Go(f) }

// Hold makes Wait wait until the returned function is called.
func (in *Intake) Hold() (done func()) {
	in.tasks.Add(1)
	return in.tasks.Done
}

// Start reads c until its end. raw is the descriptor in which all its unread
// bytes lie; nil where that is not so, or there is none: c is not parked then.
// r belongs to c and is used once.
func (in *Intake) Start(r *Reader, c Connection, raw syscall.RawConn) {
	r.in, r.c, r.raw = in, c, raw
	in.tasks.Add(1) // until finish
	go r.wait()     // ends at the latest with the connection
}

// Wait returns when every connection has finished and every goroutine but Run's
// has ended. It ends Run. Nothing may be started any more.
func (in *Intake) Wait() {
	in.tasks.Wait()
	in.crew.Wait()
	if in.lot != nil {
		in.lot.close()
	}
}

// Reader is a connection's place in an intake, to be embedded in it.
type Reader struct {
	in    *Intake
	c     Connection
	raw   syscall.RawConn
	spot  spot
	state atomic.Uint32
}

// The states of a Reader. In the first three it belongs to one goroutine: a
// connection's own, or a worker. Parked, it belongs to whoever calls it first.
const (
	reading = iota
	parking // the lot may have an event for it already
	called  // while parking: it must not be parked
	parked
)

// wait is the connection's goroutine.
func (r *Reader) wait() {
	for {
		r.c.Fill()
		r.in.crew.Do(r.c)
		if r.c.Over() {
			r.finish()
			return
		}
		if r.park() {
			return
		}
	}
}

// park parks the connection; false where it must wait as a goroutine. After
// true the connection belongs to whoever calls it, and may be gone.
func (r *Reader) park() bool {
	l := r.in.lot
	if l == nil || r.raw == nil || !r.c.Drained() {
		return false
	}
	r.state.Store(parking) // from here on Wake is heard; it did not say what had closed before
	if !r.c.Closed() && l.arm(r) {
		l.parked.Add(1)
		if r.state.CompareAndSwap(parking, parked) {
			return true
		}
		l.parked.Add(-1)
	}
	r.state.Store(reading)
	return false
}

// call makes the caller the owner of a parked connection. One that is being
// parked stays with its owner, who is told; one that reads needs no call.
func (r *Reader) call() bool {
	for {
		switch r.state.Load() {
		case parked:
			if r.state.CompareAndSwap(parked, reading) {
				r.in.lot.parked.Add(-1)
				return true
			}
		case parking:
			if r.state.CompareAndSwap(parking, called) {
				return false
			}
		default:
			return false
		}
	}
}

// ready is called by the lot when there is something to read. It does not
// wait.
func (r *Reader) ready() {
	if r.call() {
		r.in.crew.Go((*woken)(r))
	}
}

// Wake makes a parked connection wait as a goroutine, which sees deadlines.
// Any goroutine may call it, at any time; it does not wait.
func (r *Reader) Wake() {
	if r.call() {
		go r.wait() // counted since Start
	}
}

// woken is a Reader whose connection has something to read.
type woken Reader

// Run implements crew.Task.
func (w *woken) Run() {
	r := (*Reader)(w)
	r.c.Fill()
	r.c.Run()
	switch {
	case r.c.Over():
		go r.finish() // it may linger, which is no work for the crew
	case !r.park():
		go r.wait()
	}
}

// finish ends the connection, which its owner calls.
func (r *Reader) finish() {
	defer r.in.tasks.Done()
	if r.in.lot != nil {
		r.in.lot.leave(r)
	}
	r.c.Finish()
}
