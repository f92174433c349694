package liveness

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Config says when to ask and how long to wait. See also KeepAlive.
type Config struct {
	Mode  Mode          // what ends a silent connection; "" = ModeLadder
	Ping  time.Duration // between two heartbeats of a connection; 0 = no heartbeats
	Pong  time.Duration // a peer's time to answer; shorter than Ping
	Tick  time.Duration // the wheel's step and precision; 0 = DefaultTick
	Sweep time.Duration // in which Peer.Swept is called once for each connection; 0 = never

	KeepAliveIdle     time.Duration // silence before the kernel's first probe; 0 = KeepAlive off
	KeepAliveInterval time.Duration // between two probes
	KeepAliveCount    int           // unanswered probes that end a connection
	UserTimeout       time.Duration // TCP_USER_TIMEOUT; 0 = the system's own
}

// DefaultTick finds an overdue pong at most half a second late.
const DefaultTick = 250 * time.Millisecond

// maxSlots bounds a wheel: an hour of ticks of 250 ms has 14,400.
const maxSlots = 1 << 16

// roundWithoutPings is how long the slots of a wheel take that only sweeps.
const roundWithoutPings = 15 * time.Second

// Peer is a connection as the wheel sees it. Its methods are called from the
// wheel's goroutine with no lock held, must not block, and may be called once
// more by a step already under way when Remove returns.
type Peer interface {
	// Ping sends a heartbeat with its number. seq counts this connection's
	// heartbeats; the pong brings it back to Heard.
	Ping(seq uint32)
	// Look asks the kernel (see the function Look); an error stands for no
	// evidence. Only suspects are looked at, and each connection once in
	// Config.Sweep.
	Look() (Evidence, error)
	// Swept tells what the sweep saw.
	Swept(e Evidence)
	// Dead says that the peer is taken for dead and why. It is called at most
	// once; the wheel has already forgotten the connection.
	Dead(v Verdict)
}

// State is where a connection stands.
type State uint8

// The states. The zero State is that of a Beat before Add.
const (
	StateNew     State = iota
	StateQuiet         // nothing is expected of the peer
	StateProbed        // a ping is out
	StateSuspect       // the pong is overdue; evidence is being weighed
	StateDead          // taken for dead and out of the wheel
	StateGone          // removed
)

// String names the state for logs.
func (s State) String() string {
	names := [...]string{"new", "quiet", "probed", "suspect", "dead", "gone"}
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
	turns      uint32 // of the wheel, while it was in it
	slot       uint16
	state      State

	enforced atomic.Bool
	seq      atomic.Uint32 // of the last ping
	pinged   atomic.Int64  // Wheel.now of the round's ping; 0 = none yet
	again    atomic.Int64  // Wheel.now of the round's second ping; 0 = there was none
	ponged   atomic.Int64  // Wheel.now of the last pong; 0 = none yet
	heard    atomic.Int64  // Wheel.now of the last bytes of any kind
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

	ladder ladder
	period time.Duration // of one round of the slots
	rounds uint32        // in which everyone is swept once; 0 = never
	parole int64         // ns after which a suspect that is still kept gets a new ping

	mu       sync.Mutex // never held while a Peer's method runs
	slots    []Beat     // heads of circular lists; len 0 = off
	suspects Beat       // head of the circular list of StateSuspect
	trials   map[*Beat]*trial
	cursor   int64 // ticks done since base
	turn     int   // the slot the next connection gets
	count    int   // connections in the wheel
	lastLate int64 // now when the wheel last found itself late; 0 = never

	counters

	// Owned by Run: reused between ticks.
	probes []probe
	looks  []look
	sweeps []look
	dead   []verdict
}

// probe, look and verdict are calls to make while the lock is released.
type probe struct {
	beat   *Beat
	peer   Peer
	seq    uint32
	second bool
}

type look struct {
	beat  *Beat
	peer  Peer
	trial *trial
}

type verdict struct {
	peer Peer
	Verdict
}

// New returns a Wheel. Nothing happens until Run.
func New(cfg Config) (*Wheel, error) {
	if cfg.Tick == 0 {
		cfg.Tick = DefaultTick
	}
	if cfg.Mode == "" {
		cfg.Mode = ModeLadder
	}
	if err := cfg.check(); err != nil {
		return nil, err
	}
	w := &Wheel{cfg: cfg, base: time.Now(), trials: make(map[*Beat]*trial), period: cfg.Ping,
		ladder: ladder{mode: cfg.Mode, pong: int64(cfg.Pong), tick: int64(cfg.Tick), keepCount: cfg.KeepAliveCount}}
	w.counters.init()
	w.suspects.init()
	if cfg.Ping == 0 {
		if cfg.Sweep == 0 {
			return w, nil
		}
		w.period = roundWithoutPings
	}
	if cfg.Sweep > 0 {
		w.rounds = uint32(max(1, cfg.Sweep/w.period))
	}
	w.parole = max(int64(w.period), w.ladder.stall()+int64(cfg.Pong)) // who is neither found dead nor kept is found in between
	w.slots = make([]Beat, (w.period+cfg.Tick-1)/cfg.Tick)
	for i := range w.slots {
		w.slots[i].init()
	}
	// at most one round behind: looked at a little early, a connection is a
	// suspect that still has time
	w.trail = min(int((cfg.Pong+cfg.Tick-1)/cfg.Tick), len(w.slots)-1)
	w.stride = strideOf(len(w.slots))
	return w, nil
}

func (cfg *Config) check() error {
	switch cfg.Mode {
	case ModeLadder, ModePing, ModeKeepAlive, ModeBoth:
	default:
		return fmt.Errorf("liveness: there is no mode %q", cfg.Mode)
	}
	switch {
	case cfg.Sweep < 0:
		return fmt.Errorf("liveness: sweep %v must not be negative", cfg.Sweep)
	case cfg.Ping == 0:
		return nil
	case cfg.Ping < 0 || cfg.Pong <= 0 || cfg.Tick < 0:
		return fmt.Errorf("liveness: ping %v, pong %v and tick %v must be positive", cfg.Ping, cfg.Pong, cfg.Tick)
	case cfg.Pong >= cfg.Ping:
		return fmt.Errorf("liveness: pong %v must be shorter than ping %v", cfg.Pong, cfg.Ping)
	case cfg.Tick > cfg.Pong:
		return fmt.Errorf("liveness: tick %v must not be longer than pong %v", cfg.Tick, cfg.Pong)
	case cfg.Ping/cfg.Tick >= maxSlots:
		return fmt.Errorf("liveness: ping %v has more than %d ticks of %v", cfg.Ping, maxSlots, cfg.Tick)
	}
	return nil
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
	case StateDead, StateGone:
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
	case StateNew, StateDead, StateGone:
		b.state = StateGone
		return
	case StateSuspect:
		delete(w.trials, b)
	}
	b.unlink()
	b.peer = nil
	b.state = end
	w.count--
}

// Heard notes the pong to ping seq and makes pongs a duty. It reports false,
// and notes bytes only, where that is no ping that waits for its answer: of an
// earlier round, or none of ours. It takes no lock and allocates nothing.
func (w *Wheel) Heard(b *Beat, seq uint32) bool {
	ping, again, last := b.pinged.Load(), b.again.Load(), b.seq.Load()
	switch {
	case ping == 0:
	case again == 0 && seq == last, again != 0 && seq == last-1:
		w.answer(b, ping)
		return true
	case again != 0 && seq == last:
		w.answer(b, again)
		return true
	}
	w.Active(b)
	return false
}

// HeardAny notes a pong that does not say to which ping, and takes it for the
// answer to the last one. It reports false where there was none.
func (w *Wheel) HeardAny(b *Beat) bool {
	ping := max(b.pinged.Load(), b.again.Load())
	if ping == 0 {
		w.Active(b)
		return false
	}
	w.answer(b, ping)
	return true
}

// answer notes the pong to the ping that went out at the given time.
func (w *Wheel) answer(b *Beat, ping int64) {
	now := w.now()
	if !b.enforced.Load() {
		b.enforced.Store(true)
	}
	if b.ponged.Swap(now) < b.pinged.Load() { // one round trip a round
		w.rtt.Time(time.Duration(now - ping))
	}
}

// Active notes that bytes other than a pong came from the peer: it lives, its
// pong may be waiting behind them. It takes no lock and allocates nothing.
func (w *Wheel) Active(b *Beat) { b.heard.Store(w.now()) }
