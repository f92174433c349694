package netlab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Lab is two namespaces and the link between them.
type Lab struct {
	A, B *Side

	toB, toA *way
	once     sync.Once
	moving   sync.WaitGroup
}

// Side is one namespace with its end of the link.
type Side struct {
	Addr netip.Addr

	calls chan call
	ended chan struct{} // closed when the thread has ended
	tun   *os.File
	ns    *os.File // names the namespace, for further threads to enter it
}

type call struct {
	f    func() error
	done chan error
}

// The addresses of a lab's ends; each lab has them for itself.
var (
	addrA = netip.MustParseAddr("10.77.0.1")
	addrB = netip.MustParseAddr("10.77.0.2")
)

// New makes a lab whose link carries everything at once. The seed fixes which
// packets a lossy path will lose.
func New(seed uint64) (_ *Lab, err error) {
	l := &Lab{toB: newWay(seed, false), toA: newWay(seed+1, true)}
	defer func() {
		if err != nil {
			l.Close()
		}
	}()
	if l.A, err = newSide(addrA); err != nil {
		return nil, err
	}
	if l.B, err = newSide(addrB); err != nil {
		return nil, err
	}
	l.moving.Go(func() { l.toB.read(l.A.tun) })
	l.moving.Go(func() { l.toB.write(l.B.tun) })
	l.moving.Go(func() { l.toA.read(l.B.tun) })
	l.moving.Go(func() { l.toA.write(l.A.tun) })
	return l, nil
}

// AtoB sets how packets from A to B are treated from now on.
func (l *Lab) AtoB(p Path) { l.toB.set(p) }

// BtoA sets how packets from B to A are treated from now on.
func (l *Lab) BtoA(p Path) { l.toA.set(p) }

// Both sets both directions.
func (l *Lab) Both(p Path) { l.AtoB(p); l.BtoA(p) }

// Counts returns what became of the packets so far.
func (l *Lab) Counts() (aToB, bToA Counts) { return l.toB.counts(), l.toA.counts() }

// Behind puts side B behind a box from now on. Connections that are open
// already have no state.
func (l *Lab) Behind(b Box) {
	s := &states{box: b, young: make(map[ends]time.Time)}
	l.toB.behind(s)
	l.toA.behind(s)
}

// Dropped returns the connections whose state the box has dropped by now and
// when it did, by the address that side B's end has.
func (l *Lab) Dropped() map[netip.AddrPort]time.Time {
	l.toB.mu.Lock()
	s := l.toB.states
	l.toB.mu.Unlock()
	return s.dropped(time.Now())
}

// Close takes the link down and leaves the namespaces, which end with the
// last socket and process in them. It may be called twice.
func (l *Lab) Close() {
	l.once.Do(func() {
		for _, s := range []*Side{l.A, l.B} {
			if s != nil {
				s.close()
			}
		}
		l.moving.Wait()
	})
}

func newSide(addr netip.Addr) (*Side, error) {
	s := &Side{Addr: addr, calls: make(chan call), ended: make(chan struct{})}
	entered := make(chan error)
	go s.inhabit(entered)
	if err := <-entered; err != nil {
		return nil, fmt.Errorf("make a network namespace: %w", err)
	}
	err := s.Do(func() (err error) {
		if s.ns, err = os.Open("/proc/thread-self/ns/net"); err != nil {
			return err
		}
		if err := up("lo", netip.Addr{}); err != nil {
			return err
		}
		if s.tun, err = openTUN("lab0"); err != nil {
			return err
		}
		return up("lab0", addr)
	})
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// inhabit is the thread inside the namespace. It stays locked to its
// goroutine, so that it ends with it and nobody else ever runs on it.
func (s *Side) inhabit(entered chan<- error) {
	defer close(s.ended)
	runtime.LockOSThread()
	err := unix.Unshare(unix.CLONE_NEWNET)
	entered <- err
	if err != nil {
		return
	}
	for c := range s.calls {
		c.done <- c.f()
	}
}

func (s *Side) close() {
	if s.tun != nil {
		_ = s.tun.Close()
	}
	if s.ns != nil {
		_ = s.ns.Close()
	}
	close(s.calls)
	<-s.ended
}

// Do runs f on a thread inside the namespace, one at a time. Not after Close.
func (s *Side) Do(f func() error) error {
	c := call{f, make(chan error, 1)}
	s.calls <- c
	return <-c.done
}

// Listen listens on a free TCP port of the namespace.
func (s *Side) Listen() (ln *net.TCPListener, err error) {
	err = s.Do(func() (err error) {
		ln, err = net.ListenTCP("tcp4", &net.TCPAddr{IP: s.Addr.AsSlice()})
		return err
	})
	return ln, err
}

// Dial connects from inside the namespace. Many may dial at a time.
func (s *Side) Dial(ctx context.Context, addr string) (c net.Conn, err error) {
	done := make(chan struct{})
	go func() { // on a thread of its own, which ends with it
		defer close(done)
		runtime.LockOSThread()
		if err = unix.Setns(int(s.ns.Fd()), unix.CLONE_NEWNET); err != nil {
			err = fmt.Errorf("enter a network namespace: %w", err)
			return
		}
		c, err = new(net.Dialer).DialContext(ctx, "tcp4", addr)
	}()
	<-done
	return c, err
}

// Start starts a process inside the namespace.
func (s *Side) Start(cmd *exec.Cmd) error { return s.Do(cmd.Start) }

// NFT runs an nftables script inside the namespace (nft(8), option -f).
func (s *Side) NFT(ctx context.Context, script string) error {
	cmd := exec.CommandContext(ctx, "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(script)
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := s.Start(cmd); err != nil {
		return fmt.Errorf("start nft: %w", err)
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("nft: %w: %s", err, said.String())
	}
	return nil
}

// openTUN makes a TUN interface in the calling thread's namespace
// (Documentation/networking/tuntap.rst of the kernel).
func openTUN(name string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/net/tun: %w", err)
	}
	req, err := unix.NewIfreq(name)
	if err == nil {
		req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("make interface %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil // not blocking, so its reads can be ended by Close
}

// up gives an interface of the calling thread's namespace an address in a /24
// and takes it up (netdevice(7)).
func up(name string, addr netip.Addr) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("set up %s: %w", name, err)
	}
	defer unix.Close(fd)
	do := func(request uint, set func(*unix.Ifreq) error) error {
		req, err := unix.NewIfreq(name)
		if err != nil {
			return err
		}
		if err := set(req); err != nil {
			return err
		}
		return unix.IoctlIfreq(fd, request, req)
	}
	var errs []error
	if addr.IsValid() {
		errs = append(errs,
			do(unix.SIOCSIFADDR, func(r *unix.Ifreq) error { return r.SetInet4Addr(addr.AsSlice()) }),
			do(unix.SIOCSIFNETMASK, func(r *unix.Ifreq) error { return r.SetInet4Addr([]byte{255, 255, 255, 0}) }))
	}
	errs = append(errs, do(unix.SIOCSIFFLAGS, func(r *unix.Ifreq) error {
		r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
		return nil
	}))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("set up %s: %w", name, err)
	}
	return nil
}
