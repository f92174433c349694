package intake

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// lot is the epoll set of parked connections. A descriptor is added when its
// connection is parked first, and armed again each time after that; closing it
// takes it out (epoll(7), question 6: nobody duplicates it).
type lot struct {
	file   *os.File // the epoll set, itself waited for by Go's poller
	fd     int
	parked atomic.Int64
	ended  atomic.Bool // closed: nobody would wake what is parked now
	once   sync.Once

	mu    sync.Mutex
	spots []place
	free  []uint32
}

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
	if err != nil {
		return nil, fmt.Errorf("make an epoll set: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil { // so that os.NewFile hands it to Go's poller
		_ = unix.Close(fd)
		return nil, fmt.Errorf("make an epoll set: %w", err)
	}
	return &lot{file: os.NewFile(uintptr(fd), "epoll"), fd: fd}, nil
}

func (l *lot) close() {
	l.ended.Store(true)
	l.once.Do(func() { _ = l.file.Close() })
}

// events is how many events one look takes.
const events = 256

// run wakes connections until ctx ends, and then all that are left.
func (l *lot) run(ctx context.Context) error {
	raw, err := l.file.SyscallConn()
	if err != nil {
		return fmt.Errorf("wait for parked connections: %w", err)
	}
	stop := context.AfterFunc(ctx, l.close) // wakes the wait below
	defer stop()
	defer l.wakeAll()
	var buf [events]unix.EpollEvent
	for {
		n, failed := 0, error(nil)
		err := raw.Read(func(fd uintptr) bool {
			n, failed = unix.EpollWait(int(fd), buf[:], 0)
			return n > 0 || failed != nil && !errors.Is(failed, unix.EINTR)
		})
		switch {
		case l.ended.Load():
			return nil
		case err != nil:
			return fmt.Errorf("wait for parked connections: %w", err)
		case failed != nil:
			return fmt.Errorf("wait for parked connections: %w", failed)
		}
		for i := range buf[:n] {
			if r := l.at(uint32(buf[i].Fd), uint32(buf[i].Pad)); r != nil {
				r.ready()
			}
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
	l.ended.Store(true) // before looking: park looks afterwards
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

// park arms the connection; false where it cannot be.
func (l *lot) park(r *Reader) bool {
	if l.ended.Load() {
		return false
	}
	op := unix.EPOLL_CTL_MOD
	if r.spot.gen == 0 {
		l.enter(r)
		op = unix.EPOLL_CTL_ADD
	}
	a := arms.Get().(*arm)
	a.lot, a.op = l, op
	a.ev = unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLONESHOT, Fd: int32(r.spot.index), Pad: int32(r.spot.gen)}
	err := r.raw.Control(a.set)
	if err == nil {
		err = a.err
	}
	a.lot, a.err = nil, nil
	arms.Put(a)
	return err == nil && !l.ended.Load() // wakeAll may have looked already
}

// arm is one call of epoll_ctl, pooled with its closure.
type arm struct {
	lot *lot
	op  int
	ev  unix.EpollEvent
	err error
	set func(fd uintptr)
}

var arms = sync.Pool{New: func() any {
	a := new(arm)
	a.set = func(fd uintptr) { a.err = unix.EpollCtl(a.lot.fd, a.op, int(fd), &a.ev) }
	return a
}}

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

// leave gives the connection's place back. Its descriptor is about to be
// closed.
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
