package share

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"parley/core/cluster"
	"parley/core/cluster/objects"
	"parley/plugins"
)

// Config says what is shared.
type Config struct {
	Plugins plugins.Config // with Dir and StateDir
	// Start is how long Open waits for Redis before the node begins with what
	// it has.
	Start time.Duration
	// Retry is how long to wait after something failed.
	Retry time.Duration
	// Look is how often everything is compared without a hint.
	Look time.Duration
	// Judge is how long after the start this node is not ready because it has not
	// judged all that is shared.
	Judge time.Duration
}

// Defaults returns a Config with everything but Plugins set.
func Defaults() Config {
	return Config{Start: 2 * time.Second, Retry: 2 * time.Second, Look: 30 * time.Second, Judge: 30 * time.Second}
}

// Share is one node's part. Make one with New. It satisfies plugins.Board.
type Share struct {
	// Set at construction.
	cfg     Config
	catalog *plugins.Catalog
	store   *objects.Store
	nodes   *cluster.Registry
	log     *slog.Logger
	node    string
	wake    chan struct{} // holds a token when there may be something to do

	// Owned by Open, then by Run.
	folder   folder
	base     base
	known    bool                 // there was one
	disputes map[string]dispute   // by name
	repaired map[string]time.Time // when an object was last written anew, by source
	failed   map[string]failure   // of an object that was asked for in vain, by source
	said     map[string]string    // problems as logged last
	retell   time.Time            // when what could not be told is due; zero: nothing is

	mu       sync.Mutex
	pending  []*telling         // guarded by mu; what the others are to be told
	standing standings          // guarded by mu; as last read
	living   map[string]version // guarded by mu; what is shared
	state    state              // guarded by mu
	digest   string             // guarded by mu; as told last
	wanted   map[string]bool    // guarded by mu; what other nodes want
	others   bool               // guarded by mu; another node judges with everything that is shared
	ripe     bool               // guarded by mu; this node has judged whatever is shared, once
	begun    time.Time          // guarded by mu; when Run began
}

// failure is a version that could not be read.
type failure struct {
	at  time.Time
	err error
}

// New returns a Share for a catalog that has not been opened, and joins it. It starts
// nothing.
func New(cfg Config, c *plugins.Catalog, store *objects.Store, nodes *cluster.Registry, log *slog.Logger) (*Share, error) {
	switch {
	case cfg.Plugins.Dir == "" || cfg.Plugins.StateDir == "":
		return nil, errors.New("share plugins: there is no plugin folder or none to remember it in")
	case cfg.Start <= 0 || cfg.Retry <= 0 || cfg.Look <= 0:
		return nil, fmt.Errorf("share plugins: start %v, retry %v and look %v must be above zero", cfg.Start, cfg.Retry, cfg.Look)
	}
	s := &Share{
		cfg: cfg, catalog: c, store: store, nodes: nodes, log: log, node: string(nodes.Self()), wake: make(chan struct{}, 1),
		folder:   folder{node: string(nodes.Self()), dir: cfg.Plugins.Dir, aside: filepath.Join(cfg.Plugins.StateDir, "aside"), cfg: cfg.Plugins, seen: make(map[string]seen)},
		repaired: make(map[string]time.Time), failed: make(map[string]failure), said: make(map[string]string), disputes: make(map[string]dispute),
	}
	c.Join(s)
	c.OnChange(s.poke)
	store.OnHead(setHead, func(objects.Head) { s.poke() })
	store.OnHead(rolloutsHead, func(objects.Head) { s.poke() })
	nodes.SetInfo(InfoKey, func() any { return s.Info() })
	nodes.OnView(s.heed)
	return s, nil
}

func (s *Share) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Open takes what changed while this node was down, opens the catalog, and brings
// its rollouts to where those of the others stand. Without Redis it opens the
// catalog with what is there. The error is open's.
func (s *Share) Open(ctx context.Context, open func(context.Context) error) error {
	s.folder.sweep()
	limited, cancel := context.WithTimeout(ctx, s.cfg.Start)
	if err := s.pass(limited, true); err != nil && ctx.Err() == nil {
		s.log.Warn("the plugins of the other nodes cannot be read yet; this node begins with its own", "err", err)
	}
	cancel()
	err := open(ctx)
	s.mu.Lock()
	standing := s.standing.Plugins
	s.mu.Unlock()
	s.catalog.Follow(s.following(standing))
	return err
}

// Run keeps folder and heads the same until ctx ends, and returns nil then.
func (s *Share) Run(ctx context.Context) error {
	failing := false
	s.mu.Lock()
	s.begun = time.Now()
	s.mu.Unlock()
	for {
		err := s.pass(ctx, false)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil && !failing {
			s.log.Warn("plugins cannot be shared at the moment; what judges goes on", "err", err)
		}
		if failing && err == nil {
			s.log.Info("plugins are shared again")
		}
		failing = err != nil
		pause, wake := s.cfg.Look, s.wake
		if err != nil || s.trouble() {
			pause = s.cfg.Retry
		}
		if err != nil {
			wake = nil // Redis is given time
		} else if len(s.disputes) > 0 {
			pause = min(pause, grace)
		}
		if !s.retell.IsZero() {
			pause = max(min(pause, time.Until(s.retell)), shortest)
		}
		t := time.NewTimer(pause)
		select {
		case <-ctx.Done():
		case <-wake:
		case <-t.C:
		}
		t.Stop()
	}
}

// pass does whatever there is to do once. The error is Redis's.
func (s *Share) pass(ctx context.Context, opening bool) error {
	p := newProblems()
	s.retell = s.flush(ctx, p)
	standing, err := s.readStandings(ctx, opening, p)
	if err != nil {
		return err
	}
	if err := s.mergeSet(ctx, opening, p); err != nil {
		return err
	}
	if !opening && standing.Plugins != nil {
		s.catalog.Follow(s.following(standing.Plugins))
		s.bringIntoForce(ctx, standing, p)
	}
	s.repair(ctx)
	s.conclude(standing, opening, p)
	return nil
}

// readStandings reads the head "rollouts". One that cannot be is named and
// leaves what is known.
func (s *Share) readStandings(ctx context.Context, opening bool, p *problems) (standings, error) {
	out, version, err := s.rollouts(ctx)
	if err == nil && version == 0 && !opening {
		out, err = s.begin(ctx)
	}
	if errors.Is(err, errHead) {
		p.add("head "+rolloutsHead, err)
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.standing, nil
	}
	if err != nil {
		return out, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.standing = out
	return out, nil
}

// begin writes how rollouts stand where Redis does not say: for the first time, or
// after it has lost that.
func (s *Share) begin(ctx context.Context) (standings, error) {
	s.mu.Lock()
	all := s.standing
	s.mu.Unlock()
	if len(all.Plugins) == 0 {
		all = standings{Format: format}
		for name, st := range s.catalog.Standings() {
			st.Since = st.Since.UTC().Round(0)
			if next, err := all.with(name, st, func(string) bool { return true }); err == nil && st.Check() == nil {
				all = next
			}
		}
	}
	if len(all.Plugins) == 0 {
		return all, nil
	}
	_, err := s.store.SetHead(ctx, rolloutsHead, 0, all)
	if errors.Is(err, objects.ErrConflict) { // another node was faster
		all, _, err = s.rollouts(ctx)
	}
	return all, err
}

// errHead is of a head that is not what one can be, errStanding of a standing that
// has no place in one.
var (
	errHead     = errors.New("refused")
	errStanding = errors.New("it cannot be written down")
)

// rollouts reads the standings.
func (s *Share) rollouts(ctx context.Context) (standings, objects.Version, error) {
	h, err := s.store.Head(ctx, rolloutsHead)
	if errors.Is(err, objects.ErrBadHead) {
		return standings{}, 0, fmt.Errorf("%w: %w", errHead, err)
	}
	if err != nil {
		return standings{}, 0, err
	}
	out, err := decodeStandings(h.Value)
	if err != nil {
		return out, h.Version, fmt.Errorf("%w: %w", errHead, err)
	}
	return out, h.Version, nil
}

// shortest is the least pause between two passes that nobody has asked for.
const shortest = 10 * time.Millisecond

// tries bounds how often a head is set that others change meanwhile.
const tries = 16

// Node implements plugins.Board.
func (s *Share) Node() string { return s.node }

// Agree implements plugins.Board.
func (s *Share) Agree(ctx context.Context, name string, change func(plugins.Standing) (plugins.Standing, error)) (plugins.Standing, error) {
	no := func(err error) (plugins.Standing, error) {
		return plugins.Standing{}, fmt.Errorf("%w: %w", plugins.ErrNoAgreement, err)
	}
	for range tries {
		all, version, err := s.rollouts(ctx)
		if err != nil {
			return no(err)
		}
		old := all.Plugins[name]
		next, err := change(old)
		if err != nil {
			return old, err
		}
		if next.Same(old) {
			return old, nil
		}
		next.Rev, next.Node, next.Since = old.Rev+1, s.node, next.Since.UTC().Round(0)
		if err := next.Check(); err != nil {
			return no(fmt.Errorf("%w: %w", errStanding, err))
		}
		s.mu.Lock()
		living := s.living
		s.mu.Unlock()
		all, err = all.with(name, next, func(n string) bool { _, ok := living[n]; return ok })
		if err != nil {
			return no(fmt.Errorf("%w: %w", errStanding, err))
		}
		_, err = s.store.SetHead(ctx, rolloutsHead, version, all)
		if errors.Is(err, objects.ErrConflict) {
			continue
		}
		if err != nil {
			return no(err)
		}
		s.poke()
		return next, nil
	}
	return no(objects.ErrConflict)
}
