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
// whoever closes it from this side must call: a deadline does not reach it.
package intake

import (
	"context"
	"sync"
	"sync/atomic"
	"syscall"

	"parley/core/crew"
)

// Connection is what an intake reads. All but Closed are called by one
// goroutine at a time.
type Connection interface {
	crew.Task // carries out what has come, and what is on its way where only a part has
	// Fill waits for the first byte, or for the end. Run sees what it returned.
	Fill()
	// Over reports whether Run has seen the end.
	Over() bool
	// Drained reports whether the connection may be parked: nothing is
	// buffered above the socket, and no deadline is to end the wait.
	Drained() bool
	// Closed reports whether this side has closed the connection. Any
	// goroutine may ask.
	Closed() bool
	// Finish ends the connection. It may wait for the other side.
	Finish()
}

// Intake serves the connections of one listener. Make one with New.
type Intake struct {
	crew  crew.Crew
	lot   *lot // nil where connections are not parked
	tasks sync.WaitGroup
}

// New returns an intake that parks connections where park says so and the
// system has epoll. It starts nothing but what Go and Start are given.
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

// Run wakes parked connections until ctx ends. After that connections wait as
// goroutines; those that are parked are woken.
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

// Start reads c until its end. raw is its descriptor; nil, or TLS, is not
// parked. r belongs to c and is used once.
func (in *Intake) Start(r *Reader, c Connection, raw syscall.RawConn) {
	r.in, r.c, r.raw = in, c, raw
	in.tasks.Add(1) // until finish
	go r.wait()     // ends at the latest with the connection
}

// Wait returns when every connection has finished and every goroutine has
// ended.
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

// The states of a Reader. Whoever moves it from parked to reading owns it.
const (
	reading = iota
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
// true the connection belongs to whoever wakes it.
func (r *Reader) park() bool {
	l := r.in.lot
	if l == nil || r.raw == nil || !r.c.Drained() || r.c.Closed() {
		return false
	}
	l.parked.Add(1)
	r.state.Store(parked)
	// From here on Wake wakes it. What was closed before did not.
	if r.c.Closed() || !l.park(r) {
		return !r.take()
	}
	return true
}

// take makes the caller the owner of a parked connection; false where it was
// not parked, or somebody was quicker.
func (r *Reader) take() bool {
	if !r.state.CompareAndSwap(parked, reading) {
		return false
	}
	r.in.lot.parked.Add(-1)
	return true
}

// ready is called by the lot when there is something to read. It does not
// wait.
func (r *Reader) ready() {
	if r.take() {
		r.in.crew.Go((*woken)(r))
	}
}

// Wake makes a parked connection wait as a goroutine, which sees deadlines.
// Any goroutine may call it, at any time after Start; it does not wait.
func (r *Reader) Wake() {
	if r.take() {
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

func (r *Reader) finish() {
	defer r.in.tasks.Done()
	if r.in.lot != nil {
		r.in.lot.leave(r)
	}
	r.c.Finish()
}
