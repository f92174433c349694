package load

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Times of a client process.
const (
	progressEvery  = 200 * time.Millisecond
	connectGivesUp = 30 * time.Second // without one connection more
	answerGivesUp  = 10 * time.Second // without one answer more
)

// maxOrder bounds one line of orders: a settle order holds what was
// acknowledged, by room and publisher.
const maxOrder = 64 << 20

// Serve runs one client process: it takes orders from in and reports to out,
// until in ends or ctx is cancelled. What goes wrong is
// reported too, so that the controller can say it. Serve returns when in has
// ended, which it closes where it can.
func Serve(ctx context.Context, in io.Reader, out io.Writer) error {
	s := &server{out: json.NewEncoder(out)}
	return s.serve(ctx, in)
}

type server struct {
	out      *json.Encoder
	e        *engine
	cpu      cpuSpan
	progress int64
	opened   int // connections open when something last changed
	changed  int64
	settling *order

	unreadable error // what ended the orders; set before their channel is closed
}

func (s *server) serve(ctx context.Context, in io.Reader) error {
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("make the pipe of orders: %w", err)
	}
	defer r.Close()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	orders := make(chan order)
	var reading sync.WaitGroup
	defer reading.Wait()
	defer closeReader(in)
	defer stop()
	reading.Go(func() {
		defer w.Close()
		defer close(orders)
		s.unreadable = readOrders(ctx, in, w, orders)
	})
	err = s.begin(ctx, r, orders)
	if err != nil {
		_ = s.out.Encode(report{Is: "failed", Error: err.Error()}) // the controller may have gone; then nobody asks
	}
	return err
}

var errNoSpec = errors.New("the first order must be a spec")

func (s *server) begin(ctx context.Context, wake *os.File, orders <-chan order) (err error) {
	first, ok := <-orders
	if !ok {
		return errors.Join(errNoSpec, s.unreadable)
	}
	if first.Spec == nil {
		return errNoSpec
	}
	if s.e, err = newEngine(*first.Spec, int(wake.Fd())); err != nil {
		return err
	}
	defer s.e.close()
	return s.loop(ctx, wake, orders)
}

// closeReader lets a pending read of orders end, where in can be closed.
func closeReader(in io.Reader) {
	if c, ok := in.(io.Closer); ok {
		_ = c.Close()
	}
}

// readOrders passes lines on and wakes the engine by a byte for each. Closing
// wake tells of the end.
func readOrders(ctx context.Context, in io.Reader, wake io.Writer, orders chan<- order) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, maxOrder)
	for n := 0; lines.Scan(); n++ {
		var o order
		if err := json.Unmarshal(lines.Bytes(), &o); err != nil {
			return fmt.Errorf("read an order: %w", err)
		}
		if n > 0 {
			if _, err := wake.Write([]byte{1}); err != nil {
				return err
			}
		}
		select {
		case orders <- o:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return lines.Err()
}

func (s *server) loop(ctx context.Context, wake *os.File, orders <-chan order) error {
	for ctx.Err() == nil {
		ready, err := s.e.turn(int(progressEvery / time.Millisecond))
		if err != nil {
			return err
		}
		if ready {
			var b [1]byte
			if n, _ := unix.Read(int(wake.Fd()), b[:]); n == 0 {
				<-orders            // closed before the pipe is
				return s.unreadable // nil: the controller has gone
			}
			o, ok := <-orders
			if !ok {
				return s.unreadable
			}
			if err := s.obey(o); err != nil {
				return err
			}
		}
		if err := s.tell(); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (s *server) obey(o order) error {
	switch {
	case o.Do == "connect":
		now := s.e.clock.now()
		s.e.begun, s.changed = now, now
		return s.e.dialMore()
	case o.Do == "traffic" && o.Traffic != nil:
		return s.e.traffic(*o.Traffic)
	case o.Do == "settle":
		s.settling = &o
		s.e.news = s.e.clock.now()
		return nil
	}
	return fmt.Errorf("order %q is not known or not complete", o.Do)
}

// tell reports what has come about.
func (s *server) tell() error {
	e := s.e
	now := e.clock.now()
	s.cpu.at(now, &e.plan)
	if now-s.progress > int64(progressEvery) {
		s.progress = now
		if err := s.out.Encode(report{Is: "progress", Open: e.stats.Open, Got: e.got, Sent: uint64(e.plan.index)}); err != nil {
			return err
		}
	}
	if s.connected(now) {
		return s.out.Encode(report{Is: "connected", Open: e.stats.Open, Stats: e.stats})
	}
	if e.sentAll(answerGivesUp) && e.spec.Publishers > 0 {
		return s.out.Encode(report{Is: "sent", Open: e.stats.Open, Sent: uint64(e.plan.index), Acked: e.plan.acked})
	}
	if s.settling != nil && s.settled(now) {
		acked := s.settling.Acked
		s.settling = nil
		return s.out.Encode(report{Is: "settled", Open: e.stats.Open, Stats: e.finish(acked, s.cpu.spent())})
	}
	return nil
}

// connected reports once that every connection is open or has ended, or that
// none has opened for long.
func (s *server) connected(now int64) bool {
	e := s.e
	if e.begun == 0 {
		return false
	}
	if e.stats.Open != s.opened {
		s.opened, s.changed = e.stats.Open, now
	}
	all := e.started == len(e.conns) && e.opening == 0 && len(e.again) == 0
	if !all && now-s.changed < int64(connectGivesUp) {
		return false
	}
	for i := range e.conns {
		if c := &e.conns[i]; c.fd >= 0 && c.state != open {
			e.end(c, "no answer in "+connectGivesUp.String())
		}
	}
	e.begun = 0
	return true
}

// settled reports that every member has everything, or that nothing has come
// for the order's timeout.
func (s *server) settled(now int64) bool {
	return now-s.e.news >= s.settling.Timeout || s.e.missing(s.settling.Acked) == 0
}

// missing is how many acknowledged messages members have not received.
func (e *engine) missing(acked [][]uint64) (n uint64) {
	for i := range e.conns {
		c := &e.conns[i]
		if room := e.firstRoom() + c.room; c.room >= 0 && room < len(acked) && c.view.next > 0 {
			n += c.view.lost(acked[room])
		}
	}
	return n
}

// finish completes the statistics.
func (e *engine) finish(acked [][]uint64, cpu time.Duration) *Stats {
	e.stats.Faults.Lost = e.missing(acked)
	for _, room := range e.plan.acked {
		for _, n := range room {
			e.stats.Answered += n
		}
	}
	e.stats.Pending = uint64(e.plan.inFlight)
	if e.got > 0 {
		e.seconds.turn()
	}
	e.stats.Seconds = e.seconds.done
	e.stats.CPU = cpu
	return e.stats
}

// cpuSpan measures this process's own CPU time between the beginning and the
// end of the measured time.
type cpuSpan struct{ from, to time.Duration }

func (c *cpuSpan) at(now int64, p *plan) {
	switch {
	case !p.on:
	case c.from == 0 && now >= p.Measure:
		c.from = ownCPU()
	case c.to == 0 && now >= p.Until:
		c.to = ownCPU()
	}
}

func (c *cpuSpan) spent() time.Duration { return max(c.to-c.from, 0) }

func ownCPU() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}
