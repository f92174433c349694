package liveness

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Config says when to ask and how long to wait. See also KeepAlive.
type Config struct {
	Ping time.Duration // between two heartbeats of a connection; 0 = no heartbeats
	Pong time.Duration // a peer's time to answer; shorter than Ping
	Tick time.Duration // the wheel's step and precision; 0 = DefaultTick

	KeepAliveIdle     time.Duration // silence before the kernel's first probe; 0 = KeepAlive off
	KeepAliveInterval time.Duration // between two probes
	KeepAliveCount    int           // unanswered probes that end a connection
	UserTimeout       time.Duration // TCP_USER_TIMEOUT; 0 = the system's own
}

// DefaultTick finds an overdue pong at most half a second late.
const DefaultTick = 250 * time.Millisecond

// maxSlots bounds a wheel: an hour of ticks of 250 ms has 14,400.
const maxSlots = 1 << 16

// Peer is a connection as the wheel sees it. Both methods are called from the
// wheel's goroutine with no lock held, must not block, and may be called once
// more by a step already under way when Remove returns.
type Peer interface {
	// Ping sends a heartbeat. seq counts this connection's heartbeats from 1.
	Ping(seq uint32)
	// Overdue says that the peer is taken for dead and why. It is called at
	// most once; the wheel has already forgotten the connection.
	Overdue(evidence string)
}

// State is where a connection stands.
type State uint8

// The states. The zero State is that of a Beat before Add.
const (
	StateNew     State = iota
	StateQuiet         // nothing is expected of the peer
	StateProbed        // a ping is out
	StateSuspect       // the pong is overdue; evidence is being weighed
	StateOverdue       // taken for dead and out of the wheel
	StateGone          // removed
)

// String names the state for logs.
func (s State) String() string {
	names := [...]string{"new", "quiet", "probed", "suspect", "overdue", "gone"}
	if int(s) < len(names) {
		return names[s]
	}
	return fmt.Sprintf("state(%d)", uint8(s))
}

// Beat is a connection's place in a Wheel, to be embedded in the connection.
// It serves one connection once and must not be copied.
type Beat struct {
	// Guarded by Wheel.mu.
	next, prev *Beat
	peer       Peer
	seq        uint32
	slot       uint16
	state      State

	enforced atomic.Bool
	pinged   atomic.Int64 // Wheel.now of the last ping
	ponged   atomic.Int64 // Wheel.now of the last pong; 0 = none yet
	heard    atomic.Int64 // Wheel.now of the last bytes of any kind
}

// Enforce makes pongs a duty from the start, as for WebSocket clients, whose
// libraries answer by themselves (RFC 6455 section 5.5.2). Without it they
// become one with the first pong, so that a person with nc is left alone.
func (b *Beat) Enforce() { b.enforced.Store(true) }

// Wheel is a timing wheel. Its slots pass once per Config.Ping; a connection
// stays in one slot, given out in turn, so that pings are spread evenly however
// connections arrive. All methods may be called from any goroutine.
type Wheel struct {
	// Set at construction.
	cfg    Config
	base   time.Time
	stride int // slots from one new connection to the next
	trail  int // slots by which judging follows pinging

	mu       sync.Mutex // never held while a Peer's method runs
	slots    []Beat     // heads of circular lists; len 0 = off
	suspects Beat       // head of the circular list of StateSuspect
	cursor   int64      // ticks done since base
	turn     int        // the slot the next connection gets
	count    int        // connections in the wheel
	nsuspect int
	lastLate int64 // now when the wheel last found itself late; 0 = never

	pings, overdue, postponed, late atomic.Uint64
	rtt                             histogram

	// Owned by Run: reused between ticks.
	probes []probe
	dead   []verdict
}

// probe and verdict are calls to make once the lock is released.
type probe struct {
	beat *Beat
	peer Peer
	seq  uint32
}

type verdict struct {
	peer     Peer
	evidence string
}

// New returns a Wheel. Nothing happens until Run.
func New(cfg Config) (*Wheel, error) {
	if cfg.Tick == 0 {
		cfg.Tick = DefaultTick
	}
	w := &Wheel{cfg: cfg, base: time.Now()}
	w.suspects.init()
	if cfg.Ping == 0 {
		return w, nil
	}
	switch {
	case cfg.Ping < 0 || cfg.Pong <= 0 || cfg.Tick < 0:
		return nil, fmt.Errorf("liveness: ping %v, pong %v and tick %v must be positive", cfg.Ping, cfg.Pong, cfg.Tick)
	case cfg.Pong >= cfg.Ping:
		return nil, fmt.Errorf("liveness: pong %v must be shorter than ping %v", cfg.Pong, cfg.Ping)
	case cfg.Tick > cfg.Pong:
		return nil, fmt.Errorf("liveness: tick %v must not be longer than pong %v", cfg.Tick, cfg.Pong)
	case cfg.Ping/cfg.Tick >= maxSlots:
		return nil, fmt.Errorf("liveness: ping %v has more than %d ticks of %v", cfg.Ping, maxSlots, cfg.Tick)
	}
	w.slots = make([]Beat, (cfg.Ping+cfg.Tick-1)/cfg.Tick)
	for i := range w.slots {
		w.slots[i].init()
	}
	// at most one round behind: looked at a little early, a connection is a
	// suspect that still has time
	w.trail = min(int((cfg.Pong+cfg.Tick-1)/cfg.Tick), len(w.slots)-1)
	w.stride = strideOf(len(w.slots))
	return w, nil
}

// now is the time since the wheel was made, in ns, never 0.
func (w *Wheel) now() int64 { return int64(time.Since(w.base)) + 1 }

// Add begins to watch a connection: its first ping goes out within
// Config.Ping. A connection that was removed before, because it ended while it
// was being set up, stays out. A Beat that is in the wheel is refused with a
// panic.
func (w *Wheel) Add(b *Beat, p Peer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch b.state {
	case StateNew:
	case StateOverdue, StateGone:
		return
	default:
		panic("liveness: a Beat was added twice")
	}
	b.peer = p
	b.state = StateQuiet
	w.count++
	if len(w.slots) == 0 {
		b.init()
		return
	}
	b.slot = uint16(w.turn)
	w.turn = (w.turn + w.stride) % len(w.slots)
	w.slots[b.slot].push(b)
}

// strideOf returns a step that visits all of n slots in turn and is so long
// that connections arriving together do not sit in neighbouring slots.
func strideOf(n int) int {
	s := max(1, n*5/8) // about the golden ratio
	for gcd(s, n) != 1 {
		s++
	}
	return s
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// Remove ends the watch. It may be called twice, and for a Beat that was never
// added.
func (w *Wheel) Remove(b *Beat) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.leaveLocked(b, StateGone)
}

// leaveLocked takes a connection out for good.
func (w *Wheel) leaveLocked(b *Beat, end State) {
	switch b.state {
	case StateNew, StateOverdue, StateGone:
		b.state = StateGone
		return
	case StateSuspect:
		w.nsuspect--
	}
	b.unlink()
	b.peer = nil
	b.state = end
	w.count--
}

// Heard notes a pong. It takes no lock and allocates nothing.
func (w *Wheel) Heard(b *Beat) {
	now := w.now()
	if !b.enforced.Load() {
		b.enforced.Store(true)
	}
	if ping := b.pinged.Load(); ping != 0 && b.ponged.Swap(now) < ping {
		w.rtt.add(time.Duration(now - ping))
	}
}

// Active notes that bytes other than a pong came from the peer: it lives, its
// pong may be waiting behind them. It takes no lock and allocates nothing.
func (w *Wheel) Active(b *Beat) { b.heard.Store(w.now()) }

// Run turns the wheel until ctx ends. It must run once at a time.
func (w *Wheel) Run(ctx context.Context) error {
	if len(w.slots) == 0 {
		<-ctx.Done()
		return nil
	}
	w.mu.Lock()
	w.cursor = w.now() / int64(w.cfg.Tick) // time before Run is not lateness
	w.mu.Unlock()
	ticker := time.NewTicker(w.cfg.Tick)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			w.turnTo(w.now())
		}
	}
}

// turnTo does every step that is due.
func (w *Wheel) turnTo(now int64) {
	w.mu.Lock()
	tick := int64(w.cfg.Tick)
	target := now / tick
	if lag := now - (w.cursor+1)*tick; lag > 2*tick {
		// at least one whole tick was missed, whatever the ticker's phase: whoever waits may have been answered and
		// not been read, so their time begins again
		w.lastLate = now
		w.late.Add(1)
		w.postponed.Add(uint64(w.nsuspect))
	}
	// after a long pause each slot still passes once only
	w.cursor = max(w.cursor, target-int64(len(w.slots)))
	for w.cursor < target {
		w.cursor++
		w.pingLocked(w.slotLocked(w.cursor), now)
		w.doubtLocked(w.slotLocked(w.cursor - int64(w.trail)))
	}
	for b := w.suspects.next; b != &w.suspects; {
		next := b.next // judge may unlink b
		w.judgeLocked(b, now)
		b = next
	}
	w.mu.Unlock()
	w.deliver()
}

func (w *Wheel) slotLocked(tick int64) *Beat {
	n := int64(len(w.slots))
	return &w.slots[((tick%n)+n)%n]
}

// pingLocked asks everyone in a slot. deliver notes the exact time again.
func (w *Wheel) pingLocked(head *Beat, now int64) {
	for b := head.next; b != head; b = b.next {
		b.seq++
		b.state = StateProbed
		b.pinged.Store(now)
		w.probes = append(w.probes, probe{b, b.peer, b.seq})
	}
}

// doubtLocked looks at everyone in a slot whose ping is Config.Pong old.
func (w *Wheel) doubtLocked(head *Beat) {
	for b := head.next; b != head; {
		next := b.next
		switch {
		case b.state != StateProbed:
		case b.answered() || !b.enforced.Load():
			b.state = StateQuiet
		default:
			b.unlink()
			w.suspects.push(b)
			b.state = StateSuspect
			w.nsuspect++
			if w.lastLate >= b.pinged.Load() {
				w.postponed.Add(1)
			}
		}
		b = next
	}
}

// judgeLocked decides about one suspect. The time to answer counts from the
// latest of: the ping, the last bytes of any kind, the last time this server
// was late itself.
func (w *Wheel) judgeLocked(b *Beat, now int64) {
	ping := b.pinged.Load()
	since := max(ping, b.heard.Load(), w.lastLate)
	switch {
	case b.answered():
		b.unlink()
		w.slots[b.slot].push(b)
		b.state = StateQuiet
		w.nsuspect--
	case now-since >= int64(w.cfg.Pong):
		w.dead = append(w.dead, verdict{b.peer, fmt.Sprintf("no pong %v after ping %d",
			time.Duration(now-ping).Round(time.Millisecond), b.seq)})
		w.leaveLocked(b, StateOverdue)
	}
}

// deliver makes the calls that a step decided on.
func (w *Wheel) deliver() {
	for _, p := range w.probes {
		p.beat.pinged.Store(w.now())
		p.peer.Ping(p.seq)
	}
	for _, v := range w.dead {
		v.peer.Overdue(v.evidence)
	}
	w.pings.Add(uint64(len(w.probes)))
	w.overdue.Add(uint64(len(w.dead)))
	clear(w.probes) // keep the memory, not the connections
	clear(w.dead)
	w.probes, w.dead = w.probes[:0], w.dead[:0]
}

// answered reports whether the last ping has its pong.
func (b *Beat) answered() bool { return b.ponged.Load() >= b.pinged.Load() }

// init makes b a list of its own.
func (b *Beat) init() { b.next, b.prev = b, b }

// push puts b at the end of the list that begins at head.
func (head *Beat) push(b *Beat) {
	b.prev, b.next = head.prev, head
	head.prev.next = b
	head.prev = b
}

// unlink takes b out of its list.
func (b *Beat) unlink() {
	b.prev.next, b.next.prev = b.next, b.prev
	b.init()
}
