package plugins

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/tetratelabs/wazero"

	"parley/core/chat"
	"parley/sdk/abi"
)

// Plugin is one loaded version of one plugin. It satisfies moderation.Judge.
type Plugin struct {
	// Set at construction.
	host     *Host
	runtime  wazero.Runtime // the host's, but while engines are compared
	log      *slog.Logger
	name     string
	digest   string
	manifest Manifest

	configDigest string // see ConfigDigest
	limits       Limits
	prep         *prepared
	code         wazero.CompiledModule
	stderr       *stderrLog
	loadedAt     time.Time
	snap         *snapshot // set by setUp
	pool         pool
	source       sourceID // of its files; set by the catalog, like the next two
	identity     string   // of its module and configuration, see identityOf
	stats        *stats   // those of its name

	// Counters.
	decisions, faults, fuel atomic.Uint64
	logged                  allowance // of faults
	ward                    ward
}

func newPlugin(h *Host, name, digest string, m Manifest, prep *prepared, code wazero.CompiledModule) *Plugin {
	p := &Plugin{
		host:     h,
		runtime:  h.runtime,
		log:      h.log.With("plugin", name),
		name:     name,
		digest:   digest,
		manifest: m,

		configDigest: digestConfig(m.Config),
		limits:       h.cfg.limits(m.Limits, prep.WASI),
		prep:         prep,
		code:         code,
		stats:        newStats(),
	}
	if m.OnError == abi.Error { // not said
		p.manifest.OnError = h.cfg.OnError
	}
	p.stderr = &stderrLog{log: p.log, limit: &allowance{every: h.cfg.StderrEvery}}
	p.logged.every = 10 * time.Second
	p.pool.init(h.cfg.PoolSize)
	return p
}

// Name returns the plugin's name.
func (p *Plugin) Name() string { return p.name }

// Digest returns the SHA-256 of the module file, in hex.
func (p *Plugin) Digest() string { return p.digest }

// OnError says what a failure of the plugin means: abi.Allow, abi.Deny or
// abi.Hold.
func (p *Plugin) OnError() abi.Verdict { return p.manifest.OnError }

// Wants reports whether the plugin judges that kind of text in that room.
func (p *Plugin) Wants(room chat.RoomID, kind string) bool {
	return p.manifest.wants(room, kind)
}

// Decide judges one input that abi.AppendInput encoded; text and normalized
// are the two of its fields that spans may name. It returns the verdict, its
// result (zero for Allow) and the fuel used. On an error the verdict is
// abi.Error and the plugin's OnError applies; the plugin itself is as good as
// before. It waits while PoolSize decisions of this plugin are running. In
// quarantine the error wraps moderation.ErrQuarantined, and the guest is asked
// only when a probe is due, which changes nothing about the answer.
func (p *Plugin) Decide(input, text, normalized []byte) (abi.Verdict, abi.Result, uint64, error) {
	if err := p.fits(input); err != nil {
		return abi.Error, abi.Result{}, 0, err // not the guest's fault: it never saw the input
	}
	if p.ward.on.Load() {
		if err := p.quarantined(input, text, normalized); err != nil {
			return abi.Error, abi.Result{}, 0, err
		}
	}
	v, r, fuel, err := p.run(input, text, normalized)
	if err != nil {
		p.fault(err, author(input))
	}
	return v, r, fuel, err
}

// Rehearse judges as Decide does and changes nothing: it is asked in
// quarantine too, counts nowhere, and takes no instance from live messages,
// but makes one of its own. It satisfies moderation.Rehearser.
func (p *Plugin) Rehearse(input, text, normalized []byte) (v abi.Verdict, r abi.Result, fuel uint64, err error) {
	if err := p.fits(input); err != nil {
		return abi.Error, abi.Result{}, 0, err
	}
	in, err := p.another()
	if err != nil {
		return abi.Error, abi.Result{}, 0, fmt.Errorf("plugin %s: make another instance: %w", p.name, err)
	}
	defer func() {
		_ = in.close()
		runtime.KeepAlive(p)
	}()
	return p.ask(in, input, text, normalized)
}

// Quarantined reports whether the plugin is not asked for the time being.
func (p *Plugin) Quarantined() bool { return p.ward.on.Load() }

// fits refuses an input that the guest's buffer does not hold.
func (p *Plugin) fits(input []byte) error {
	if len(input) > p.limits.InputBytes {
		return fmt.Errorf("plugin %s: input of %d bytes, at most %d (limits.input_bytes)", p.name, len(input), p.limits.InputBytes)
	}
	return nil
}

// run has an instance of the pool decide.
func (p *Plugin) run(input, text, normalized []byte) (abi.Verdict, abi.Result, uint64, error) {
	in, err := p.pool.get(p)
	if err != nil {
		return abi.Error, abi.Result{}, 0, err
	}
	clean := false
	defer func() { // however it ends: a slot that is not given back is lost for ever
		p.pool.put(in, clean)
		runtime.KeepAlive(p) // its code must outlive the call
	}()
	v, r, fuel, err := p.ask(in, input, text, normalized)
	clean = err == nil && in.reset()
	p.decisions.Add(1)
	p.fuel.Add(fuel)
	return v, r, fuel, err
}

// ask has one instance decide. What fails, the host's own code included, is an
// error.
func (p *Plugin) ask(in *instance, input, text, normalized []byte) (v abi.Verdict, r abi.Result, fuel uint64, err error) {
	defer func() {
		if bad := recover(); bad != nil {
			err = fmt.Errorf("%w: the host failed: %v\n%s", ErrTrap, bad, debug.Stack())
		}
		if err != nil {
			v, r, err = abi.Error, abi.Result{}, fmt.Errorf("plugin %s: %w", p.name, err)
		}
	}()
	return in.decide(input, text, normalized)
}

// fault counts a failure at a message of who and logs it, though not each of a
// flood.
func (p *Plugin) fault(err error, who person) {
	faults, decisions := p.faults.Add(1), p.decisions.Load()
	first, began := p.ward.fault(p, err, who, decisions-min(decisions, faults), time.Now())
	if began {
		p.stats.quarantines.Add(1)
		p.log.Error("plugin quarantined", "digest", p.digest[:12], "on_error", onErrorName(p.OnError()), "first_probe", first, "err", err)
	} else if p.logged.take() {
		p.log.Error("plugin failed", "digest", p.digest[:12], "faults", faults, "err", err)
	}
}

// quarantined returns the error of a decision in quarantine, nil if that is
// over. If a probe is due the guest judges the neutral message, and this one
// as well.
func (p *Plugin) quarantined(input, text, normalized []byte) error {
	who := author(input)
	t, err := p.ward.probe(time.Now(), who)
	if t == (probe{}) {
		return err
	}
	var bad error
	if t.neutral {
		_, _, _, bad = p.run(abi.AppendInput(nil, &neutral), neutral.Text, neutral.Normalized)
	}
	passed := bad == nil
	if passed && t.live {
		_, _, _, bad = p.run(input, text, normalized)
	}
	if bad != nil {
		p.faults.Add(1)
	}
	if p.ward.probed(time.Now(), who, t, passed, bad) {
		p.log.Info("plugin is back from quarantine", "digest", p.digest[:12])
	}
	return err
}

// setUp brings up the first instance, tests it and takes the snapshot that
// every decision begins with.
func (p *Plugin) setUp() error {
	in, err := p.instantiate()
	if err != nil {
		return err
	}
	snap, err := in.initialize(p)
	if err != nil {
		return errors.Join(err, in.close())
	}
	p.snap = snap
	in.snap = snap
	in.reset()
	p.pool.add(in)
	return nil
}

// retire frees the idle instances and those in use as their decisions end. The
// plugin still decides for who holds it, with an instance for each decision.
func (p *Plugin) retire() { p.pool.retire() }

// allowance lets one through in each period.
type allowance struct {
	every time.Duration
	last  atomic.Int64 // Unix ns
}

func (a *allowance) take() bool {
	now, last := time.Now().UnixNano(), a.last.Load()
	return now-last >= int64(a.every) && a.last.CompareAndSwap(last, now)
}
