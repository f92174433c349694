package intake

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// lot is the epoll set of parked connections. A descriptor is added when its
// connection is parked first, and armed again each time after that. Closing it
// takes it out, unless a child process that is just being started holds it for
// a moment longer (epoll(7), question 6): then its event may come when the
// connection has left, and finds nobody.
type lot struct {
	file   *os.File // the epoll set, itself waited for by Go's poller
	fd     int      // valid as long as there are connections
	parked atomic.Int64
	stage  atomic.Uint32

	mu    sync.Mutex
	spots []place
	free  []uint32
}

// The stages of a lot. Connections are parked while it is open.
const (
	before = iota
	open
	ended // nobody would wake what is parked now
)

// place is a connection's entry in the lot. The generation tells an event of
// an earlier holder.
type place struct {
	r   *Reader
	gen uint32
}

// spot is where a Reader is in the lot.
type spot struct {
	index uint32
	gen   uint32 // 0 = nowhere
}

func newLot() (*lot, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err == nil {
		err = unix.SetNonblock(fd, true) // so that os.NewFile hands it to Go's poller
	}
	if err != nil {
		return nil, fmt.Errorf("make an epoll set for parked connections: %w", err)
	}
	l := &lot{file: os.NewFile(uintptr(fd), "epoll"), fd: fd}
	if err := l.file.SetReadDeadline(time.Time{}); err != nil { // it must be possible, to end run
		l.close()
		return nil, fmt.Errorf("have Go wait for an epoll set: %w", err)
	}
	return l, nil
}

// close closes the set, when there are no connections any more.
func (l *lot) close() {
	l.stage.Store(ended)
	_ = l.file.Close()
}

// events is how many events one look takes.
const events = 256

// run wakes connections until ctx ends, and then all that are left.
func (l *lot) run(ctx context.Context) error {
	if !l.stage.CompareAndSwap(before, open) {
		return nil
	}
	defer l.wakeAll()
	stop := context.AfterFunc(ctx, func() {
		l.stage.Store(ended)
		_ = l.file.SetReadDeadline(time.Now()) // wakes the wait below
	})
	defer stop()
	raw, err := l.file.SyscallConn()
	if err != nil {
		return fmt.Errorf("wait for events: %w", err)
	}
	var buf [events]unix.EpollEvent
	for {
		n, failed := 0, error(nil)
		err := raw.Read(func(fd uintptr) bool {
			n, failed = look(int(fd), buf[:])
			return n > 0 || failed != nil
		})
		switch err = errors.Join(err, failed); {
		case l.stage.Load() == ended:
			return nil
		case err != nil:
			return fmt.Errorf("wait for events: %w", err)
		}
		for i := range buf[:n] {
			if r := l.at(uint32(buf[i].Fd), uint32(buf[i].Pad)); r != nil {
				r.ready()
			}
		}
	}
}

// look takes the events that are there. It does not wait.
func look(fd int, buf []unix.EpollEvent) (int, error) {
	for {
		n, err := unix.EpollWait(fd, buf, 0)
		if !errors.Is(err, unix.EINTR) {
			return n, os.NewSyscallError("epoll_wait", err)
		}
	}
}

// at returns the holder of a place in a generation, or nil.
func (l *lot) at(index, gen uint32) *Reader {
	l.mu.Lock()
	defer l.mu.Unlock()
	if int(index) < len(l.spots) && l.spots[index].gen == gen {
		return l.spots[index].r
	}
	return nil
}

// wakeAll makes every parked connection wait by itself.
func (l *lot) wakeAll() {
	l.stage.Store(ended) // before looking for them: arm looks at it afterwards
	l.mu.Lock()
	all := make([]*Reader, 0, len(l.spots))
	for _, p := range l.spots {
		if p.r != nil {
			all = append(all, p.r)
		}
	}
	l.mu.Unlock()
	for _, r := range all {
		r.Wake()
	}
}

// arm asks for the event that wakes r; false where none would come. It is
// called by r's owner.
func (l *lot) arm(r *Reader) bool {
	if l.stage.Load() != open {
		return false
	}
	op := unix.EPOLL_CTL_MOD
	if r.spot.gen == 0 {
		l.enter(r)
		op = unix.EPOLL_CTL_ADD
	}
	c := controls.Get().(*control)
	c.epoll, c.op = l.fd, op
	c.ev = unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLONESHOT, Fd: int32(r.spot.index), Pad: int32(r.spot.gen)}
	err := r.raw.Control(c.do)
	if err == nil {
		err = c.err
	}
	c.err = nil
	controls.Put(c)
	if err != nil { // closed, or the kernel watches as many as it may (epoll(7), max_user_watches)
		l.leave(r)
		return false
	}
	return l.stage.Load() == open // wakeAll may have looked before r had entered
}

// control is one call of epoll_ctl, pooled with its closure.
type control struct {
	epoll, op int
	ev        unix.EpollEvent
	err       error
	do        func(fd uintptr)
}

var controls = sync.Pool{New: func() any {
	c := new(control)
	c.do = func(fd uintptr) { c.err = unix.EpollCtl(c.epoll, c.op, int(fd), &c.ev) }
	return c
}}

// enter gives r a place.
func (l *lot) enter(r *Reader) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := len(l.free); n > 0 {
		r.spot.index = l.free[n-1]
		l.free = l.free[:n-1]
	} else {
		r.spot.index = uint32(len(l.spots))
		l.spots = append(l.spots, place{})
	}
	p := &l.spots[r.spot.index]
	p.gen++
	if p.gen == 0 {
		p.gen = 1
	}
	p.r, r.spot.gen = r, p.gen
}

// leave gives the place of r back: its descriptor is about to be closed. Its
// owner calls it.
func (l *lot) leave(r *Reader) {
	if r.spot.gen == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.spots[r.spot.index].r = nil
	l.spots[r.spot.index].gen++ // an event under way finds nobody
	l.free = append(l.free, r.spot.index)
	r.spot.gen = 0
}
