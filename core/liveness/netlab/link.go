package netlab

import (
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"
)

// Path is how one direction of a link treats packets. The zero Path carries
// every packet at once.
type Path struct {
	Down  bool          // every packet is lost
	Loss  float64       // share of packets that are lost, 0 to 1
	Delay time.Duration // added to each packet
	// Spike is the share of packets that are held back by a further time
	// between SpikeMin and SpikeMax. Those behind wait too: packets stay in
	// order, as on a radio link that stalls.
	Spike              float64
	SpikeMin, SpikeMax time.Duration
	// Forgotten are flows whose packets are lost, as a NAT loses those whose
	// state it has dropped. A flow is named by the source of one end.
	Forgotten map[netip.AddrPort]bool
}

// Counts are what became of one direction's packets.
type Counts struct {
	Carried, Lost, Spiked uint64
}

// queueLen bounds the packets under way in one direction; more are lost.
const queueLen = 8192

// maxPacket is above the MTU of the link's ends.
const maxPacket = 2048

// way is one direction of a link.
type way struct {
	mu   sync.Mutex
	path Path
	rng  *rand.Rand
	n    Counts
	last time.Time // when the newest packet under way is due

	queue chan packet
}

type packet struct {
	data []byte
	due  time.Time
}

func newWay(seed uint64) *way {
	return &way{rng: rand.New(rand.NewPCG(seed, 1)), queue: make(chan packet, queueLen)}
}

// set changes the path for packets that come from now on.
func (w *way) set(p Path) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.path = p
}

func (w *way) counts() Counts {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.n
}

// plan decides about a packet: when it is due, or that it is lost.
func (w *way) plan(now time.Time, data []byte) (due time.Time, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := &w.path
	if p.Down || p.Loss > 0 && w.rng.Float64() < p.Loss || p.forgot(data) {
		w.n.Lost++
		return due, false
	}
	due = now.Add(p.Delay)
	if p.Spike > 0 && w.rng.Float64() < p.Spike {
		w.n.Spiked++
		due = due.Add(p.SpikeMin)
		if span := p.SpikeMax - p.SpikeMin; span > 0 {
			due = due.Add(time.Duration(w.rng.Int64N(int64(span))))
		}
	}
	if due.Before(w.last) {
		due = w.last
	}
	w.last = due
	w.n.Carried++
	return due, true
}

// forgot reports whether a packet belongs to a forgotten flow.
func (p *Path) forgot(data []byte) bool {
	if len(p.Forgotten) == 0 {
		return false
	}
	src, dst, ok := flow(data)
	return ok && (p.Forgotten[src] || p.Forgotten[dst])
}

// flow reads the ends of an IPv4 TCP segment (RFC 791 section 3.1).
func flow(data []byte) (src, dst netip.AddrPort, ok bool) {
	const tcp = 6
	if len(data) < 20 || data[0]>>4 != 4 || data[9] != tcp {
		return src, dst, false
	}
	head := int(data[0]&15) * 4
	if head < 20 || len(data) < head+4 {
		return src, dst, false
	}
	from, to := netip.AddrFrom4([4]byte(data[12:16])), netip.AddrFrom4([4]byte(data[16:20]))
	return netip.AddrPortFrom(from, binary.BigEndian.Uint16(data[head:])), netip.AddrPortFrom(to, binary.BigEndian.Uint16(data[head+2:])), true
}

// read takes packets from one end until it is closed.
func (w *way) read(from io.Reader) {
	defer close(w.queue)
	buf := make([]byte, maxPacket)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		if due, ok := w.plan(time.Now(), buf[:n]); ok {
			select {
			case w.queue <- packet{append([]byte(nil), buf[:n]...), due}:
			default: // as a router with a full queue does
			}
		}
	}
}

// write hands packets to the other end when they are due.
func (w *way) write(to io.Writer, stop <-chan struct{}) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for p := range w.queue {
		if wait := time.Until(p.due); wait > 0 {
			timer.Reset(wait)
			select {
			case <-timer.C:
			case <-stop:
			}
		}
		_, _ = to.Write(p.data) // what an interface does not take is lost
	}
}
