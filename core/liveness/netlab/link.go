package netlab

import (
	"container/heap"
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
	// between SpikeMin and SpikeMax. Those behind in the same flow wait too:
	// each flow stays in order, as if every client had a radio link of its own
	// that stalls now and then.
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
	fromInside bool // from side B; set at construction

	mu     sync.Mutex
	path   Path
	states *states // of the box on the link, shared by both directions; nil: no box
	rng    *rand.Rand
	n      Counts
	last   map[ends]time.Time // when each flow's newest packet is due; at most one entry a flow the kernels can have
	queue  packets            // under way, a heap
	order  uint64             // of the newest packet
	ended  bool

	more chan struct{} // capacity 1: the queue has a new head, or read has ended
}

// ends name a flow.
type ends struct{ src, dst netip.AddrPort }

type packet struct {
	data  []byte
	due   time.Time
	order uint64 // among those due at the same time
}

// packets is a heap, the next due first (container/heap).
type packets []packet

func (p packets) Len() int { return len(p) }
func (p packets) Less(i, j int) bool {
	if !p[i].due.Equal(p[j].due) {
		return p[i].due.Before(p[j].due)
	}
	return p[i].order < p[j].order
}
func (p packets) Swap(i, j int) { p[i], p[j] = p[j], p[i] }
func (p *packets) Push(x any)   { *p = append(*p, x.(packet)) }
func (p *packets) Pop() any {
	last := len(*p) - 1
	x := (*p)[last]
	(*p)[last] = packet{}
	*p = (*p)[:last]
	return x
}

func newWay(seed uint64, fromInside bool) *way {
	return &way{fromInside: fromInside, rng: rand.New(rand.NewPCG(seed, 1)), last: make(map[ends]time.Time), more: make(chan struct{}, 1)}
}

// set changes the path for packets that come from now on.
func (w *way) set(p Path) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.path = p
}

func (w *way) behind(s *states) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.states = s
}

func (w *way) counts() Counts {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.n
}

// take decides about a packet: it is lost, or it is under way.
func (w *way) take(now time.Time, data []byte) {
	src, dst, opens, tcp := flow(data)
	w.mu.Lock()
	defer w.mu.Unlock()
	if tcp && !w.states.passes(now, ends{src, dst}, w.fromInside, opens) {
		w.n.Lost++
		return
	}
	p := &w.path
	if p.Down || p.Loss > 0 && w.rng.Float64() < p.Loss || p.Forgotten[src] || p.Forgotten[dst] || len(w.queue) >= queueLen {
		w.n.Lost++
		return
	}
	due := now.Add(p.Delay)
	if p.Spike > 0 && w.rng.Float64() < p.Spike {
		w.n.Spiked++
		due = due.Add(p.SpikeMin)
		if span := p.SpikeMax - p.SpikeMin; span > 0 {
			due = due.Add(time.Duration(w.rng.Int64N(int64(span))))
		}
	}
	if before := w.last[ends{src, dst}]; due.Before(before) {
		due = before
	}
	w.last[ends{src, dst}] = due
	w.n.Carried++
	w.order++
	heap.Push(&w.queue, packet{append([]byte(nil), data...), due, w.order})
	w.wake()
}

// wake tells write to look again.
func (w *way) wake() {
	select {
	case w.more <- struct{}{}:
	default:
	}
}

// next takes the packet that is due, or says when one will be.
func (w *way) next(now time.Time) (p packet, wait time.Duration, ended bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.ended:
		return p, 0, true
	case len(w.queue) == 0:
		return p, time.Hour, false
	}
	if wait = w.queue[0].due.Sub(now); wait > 0 {
		return p, wait, false
	}
	return heap.Pop(&w.queue).(packet), 0, false
}

// flow reads the ends of an IPv4 TCP segment and whether it opens a
// connection (RFC 791 section 3.1, RFC 9293 section 3.1).
func flow(data []byte) (src, dst netip.AddrPort, opens, ok bool) {
	const tcp, flags, syn, ack = 6, 13, 0x02, 0x10
	if len(data) < 20 || data[0]>>4 != 4 || data[9] != tcp {
		return src, dst, false, false
	}
	head := int(data[0]&15) * 4
	if head < 20 || len(data) <= head+flags {
		return src, dst, false, false
	}
	from, to := netip.AddrFrom4([4]byte(data[12:16])), netip.AddrFrom4([4]byte(data[16:20]))
	src = netip.AddrPortFrom(from, binary.BigEndian.Uint16(data[head:]))
	dst = netip.AddrPortFrom(to, binary.BigEndian.Uint16(data[head+2:]))
	return src, dst, data[head+flags]&(syn|ack) == syn, true
}

// read takes packets from one end until it is closed.
func (w *way) read(from io.Reader) {
	buf := make([]byte, maxPacket)
	for {
		n, err := from.Read(buf)
		if err != nil {
			break
		}
		w.take(time.Now(), buf[:n])
	}
	w.mu.Lock()
	w.ended = true
	w.mu.Unlock()
	w.wake()
}

// write hands packets to the other end when they are due, until read has
// ended.
func (w *way) write(to io.Writer) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		p, wait, ended := w.next(time.Now())
		switch {
		case ended:
			return
		case p.data != nil:
			_, _ = to.Write(p.data) // what an interface does not take is lost
			continue
		}
		timer.Reset(wait)
		select {
		case <-timer.C:
		case <-w.more:
		}
	}
}
