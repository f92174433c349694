package plugins

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"
)

// Where several nodes run the same plugins, what is decided about a rollout holds on
// all of them. What takes a version further is agreed on first and carried out
// then, here as everywhere else; without agreement nothing moves. A rollback is
// carried out at once and told to the others: it must not wait for anything.

// Board is where nodes agree on how rollouts stand. Its methods may be called
// from any goroutine.
type Board interface {
	// Agree gives the plugin the standing that change makes of the present one,
	// on all nodes, and returns it. change may be called more than once; its
	// error is returned as it is. Any other error wraps ErrNoAgreement.
	Agree(ctx context.Context, name string, change func(Standing) (Standing, error)) (Standing, error)
	// Tell is Agree for what is in force here already. It does not wait.
	Tell(name string, change func(Standing) (Standing, error))
	// Node is this node's name.
	Node() string
}

// ErrNoAgreement says that the other nodes cannot be asked.
var ErrNoAgreement = errors.New("the other nodes cannot be told")

// StageOut is where a version stands that was rolled back.
const StageOut = "out"

// Standing is how the rollout of one plugin stands on all nodes.
type Standing struct {
	Rev uint64 `json:"rev"` // counts decisions
	// Source is the version that was decided about last (see SourceDigest).
	Source   string    `json:"source"`
	Identity string    `json:"identity"`        // of the same: its module and configuration
	Stage    string    `json:"stage,omitempty"` // it is in; "" where its manifest says
	Percent  int       `json:"percent,omitempty"`
	Since    time.Time `json:"since"`
	By       string    `json:"by"`
	Node     string    `json:"node"` // where it was decided
	Reason   string    `json:"reason,omitempty"`
	Lift     uint64    `json:"lift,omitempty"` // the Rev of the last order that ended quarantines
	// Rollbacks are those that keep a version out, the newest last.
	Rollbacks []Rollback `json:"rollbacks,omitempty"`
}

// MaxSharedRollbacks bounds Standing.Rollbacks.
const MaxSharedRollbacks = 4

// Check says what of a standing cannot be: it may come from anybody.
func (s *Standing) Check() error {
	switch {
	case s.Rev == 0 || s.Lift > s.Rev:
		return fmt.Errorf("rev %d and lift %d cannot be", s.Rev, s.Lift)
	case !isDigest(s.Source) || !isDigest(s.Identity):
		return errors.New("source or identity is no digest")
	case !slices.Contains([]string{"", StageShadow, StageCanary, StageEnforce, StageOut}, s.Stage):
		return fmt.Errorf("stage is %.40q", s.Stage)
	case s.Percent < 0 || s.Percent > 100 || s.Stage == StageCanary && s.Percent == 0:
		return fmt.Errorf("percent is %d, want 1 to 100", s.Percent)
	case len(s.By) > maxOperatorBytes || len(s.Node) > maxOperatorBytes || len(s.Reason) > maxReasonBytes:
		return errors.New("a text of it is too long")
	case len(s.Rollbacks) > MaxSharedRollbacks:
		return fmt.Errorf("%d rollbacks, at most %d", len(s.Rollbacks), MaxSharedRollbacks)
	}
	for i := range s.Rollbacks {
		if err := s.Rollbacks[i].check(); err != nil || !s.Rollbacks[i].Blocked {
			return errors.New("a rollback is out of bounds")
		}
	}
	return nil
}

// Same reports whether nothing differs.
func (s Standing) Same(o Standing) bool { return reflect.DeepEqual(s, o) }

// of reports whether the decision is about that version.
func (s *Standing) of(p *Plugin) bool { return s.Source == p.source.String() }

// without returns the rollbacks that are not of the identity.
func without(all []Rollback, identity string) []Rollback {
	return slices.DeleteFunc(slices.Clone(all), func(r Rollback) bool { return r.Identity == identity })
}

// Join has the board decide about rollouts from now on. Call it before Open.
func (c *Catalog) Join(b Board) { c.board = b }

// OnChange has f called after every change of a plugin's state or files, from
// the goroutine that brought it about. f must not block. Call it before Open.
func (c *Catalog) OnChange(f func()) { c.onChange = f }

func (c *Catalog) changed() {
	if c.onChange != nil {
		c.onChange()
	}
}

// now is the time of a decision or a rollback, which are compared.
func now() time.Time { return time.Now().UTC().Truncate(time.Millisecond) }

// agree has a move of k agreed on, where there is a board.
func (c *Catalog) agree(ctx context.Context, name string, k *candidate, stage string, percent int, by, why string) (Standing, error) {
	next := Standing{
		Source: k.plugin.source.String(), Identity: k.plugin.identity, Stage: stage, Percent: percent,
		Since: now(), By: by, Reason: clipped(why, maxReasonBytes),
	}
	if c.board == nil {
		return next, nil
	}
	return c.board.Agree(ctx, name, func(s Standing) (Standing, error) {
		if s.Source == next.Source && s.Stage != "" && (s.Stage != k.stage || s.Percent != 0 && s.Percent != k.percent) || blocked(s.Rollbacks, next.Identity) != nil {
			return s, fmt.Errorf("%w: %w: on node %s %s put it to %q", ErrNotNow, errMoved, s.Node, s.By, s.Stage)
		}
		next.Rev, next.Lift, next.Rollbacks = s.Rev, s.Lift, s.Rollbacks
		return next, nil
	})
}

// tellRollback has the others take the version back as well.
func (c *Catalog) tellRollback(name, source string, r Rollback) {
	if c.board == nil {
		return
	}
	c.board.Tell(name, func(s Standing) (Standing, error) {
		if blocked(s.Rollbacks, r.Identity) != nil {
			return s, nil // another node was faster
		}
		if s.Source == source && s.Stage == StageEnforce {
			return s, nil // so was who brought it into force
		}
		s.Source, s.Identity, s.Stage, s.Percent, s.Since, s.By, s.Reason = source, r.Identity, StageOut, 0, r.At, r.By, r.Reason
		s.Rollbacks = append(slices.Clone(s.Rollbacks), r)
		s.Rollbacks = s.Rollbacks[max(0, len(s.Rollbacks)-MaxSharedRollbacks):]
		return s, nil
	})
}

// agreeRetry has an order to retry agreed on. Without the others what holds
// here alone is still done: a quarantine ended, the machine's troubles tried again.
func (c *Catalog) agreeRetry(ctx context.Context, e *entry, o Order) error {
	if c.board == nil || e.identity == "" { // of files that nobody could read
		return nil
	}
	_, err := c.board.Agree(ctx, e.name, func(s Standing) (Standing, error) {
		s.Since, s.By, s.Reason, s.Lift = now(), o.By, o.Reason, s.Rev+1
		r := blocked(e.rollbacks, e.identity)
		if r != nil || s.Source == "" {
			s.Source, s.Identity, s.Stage, s.Percent = e.source.String(), e.identity, "", 0
			s.Rollbacks = without(s.Rollbacks, e.identity)
		}
		if r != nil && !s.Since.After(r.At) { // by the clock of another node
			s.Since = r.At.Add(time.Millisecond)
		}
		return s, nil
	})
	if errors.Is(err, ErrNoAgreement) && blocked(e.rollbacks, e.identity) == nil {
		c.log.Warn("a retry holds on this node alone", "plugin", e.name, "err", err)
		return nil
	}
	return err
}

// Standings are how rollouts stand here, as far as the files in the folder do not
// say: what nodes that have lost what they agreed on begin with.
func (c *Catalog) Standings() map[string]Standing {
	out := make(map[string]Standing)
	for _, e := range c.set.Load().entries {
		s := Standing{Rev: 1, Since: now(), By: byState, Node: c.board.Node()}
		for _, r := range e.rollbacks {
			if r.Blocked {
				s.Rollbacks = append(s.Rollbacks, r)
			}
		}
		s.Rollbacks = s.Rollbacks[max(0, len(s.Rollbacks)-MaxSharedRollbacks):]
		switch p := e.plugin; {
		case e.cand != nil:
			s.Source, s.Identity, s.Stage, s.Percent = e.cand.plugin.source.String(), e.cand.plugin.identity, e.cand.stage, e.cand.percent
		case p != nil && (len(s.Rollbacks) > 0 || p.manifest.Rollout != nil && p.manifest.Rollout.Stage != StageEnforce):
			s.Source, s.Identity, s.Stage = p.source.String(), p.identity, StageEnforce
		case len(s.Rollbacks) > 0:
			s.Source, s.Identity, s.Stage = e.source.String(), s.Rollbacks[len(s.Rollbacks)-1].Identity, StageOut
		default:
			continue
		}
		out[e.name] = s
	}
	return out
}

// progress is how far this node has followed a plugin's decisions.
type progress struct {
	heeded uint64 // the Rev up to which versions were taken back, let in again and out of quarantine
	known  uint64 // the highest Rev seen; an older one says nothing any more
}

// Follow brings the rollouts to where all nodes have agreed that they stand, as
// far as the versions are loaded here. Call it again when that has changed.
func (c *Catalog) Follow(all map[string]Standing) {
	c.mu.Lock()
	for name := range c.followed {
		if _, ok := all[name]; !ok { // their count begins anew
			delete(c.followed, name)
		}
	}
	c.mu.Unlock()
	for name, s := range all {
		c.follow(name, s)
	}
}

func (c *Catalog) follow(name string, s Standing) {
	c.mu.Lock()
	at, e := c.followed[name], c.set.Load().find(name)
	if saved := c.absent[name]; e == nil && len(s.Rollbacks) > 0 && len(c.absent) < maxAbsent {
		saved.Rollbacks = s.merged(saved.Rollbacks) // what is dropped under the name later finds them
		c.absent[name] = saved
	}
	c.mu.Unlock()
	if e == nil {
		return
	}
	if at.heeded < s.Rev && c.heed(name, s) {
		at.heeded = s.Rev
	}
	if s.Rev >= c.noted(name, s.Rev) {
		c.moveTo(name, s)
	}
	c.mu.Lock()
	now := c.followed[name]
	now.heeded = max(now.heeded, at.heeded)
	c.followed[name] = now
	c.mu.Unlock()
}

// noted notes that a decision is known here and returns the latest that is.
func (c *Catalog) noted(name string, rev uint64) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	at := c.followed[name]
	at.known = max(at.known, rev)
	c.followed[name] = at
	return at.known
}

// heed takes back what the others took back, lets in what they let in again, and
// ends quarantines. It reports whether that is done.
func (c *Catalog) heed(name string, s Standing) bool {
	if e := c.set.Load().find(name); e != nil && e.cand != nil {
		if r := blocked(s.Rollbacks, e.cand.plugin.identity); r != nil && c.takeBack(name, e.cand, *r) != nil {
			return false // it has moved on meanwhile
		}
	}
	again, untold := false, (*Rollback)(nil)
	err := c.edit(name, func(e entry) (*entry, error) {
		e.rollbacks = slices.Clone(s.merged(e.rollbacks))
		for i := range e.rollbacks {
			r := &e.rollbacks[i]
			if !r.Blocked || r.Identity != s.Identity || s.Stage == StageOut || blocked(s.Rollbacks, r.Identity) != nil {
				continue
			}
			if !r.At.Before(s.Since) && s.Stage != StageEnforce {
				untold = r // this node was ended before it could tell
				continue
			}
			r.Blocked, again = false, again || e.identity == r.Identity
		}
		if again {
			e.source, e.again = sourceID{}, dueNow()
		}
		if s.Lift == s.Rev {
			for _, p := range e.versions() {
				p.ward.lift()
			}
		}
		return &e, nil
	})
	if untold != nil {
		c.tellRollback(name, s.Source, *untold)
	}
	if again {
		c.log.Info("plugin retried", "plugin", name, "by", s.By, "node", s.Node, "reason", s.Reason)
	}
	return err == nil
}

// moveTo moves the version that was decided about to its stage. It reports
// whether that is done; it is not while the version is not loaded here.
func (c *Catalog) moveTo(name string, s Standing) bool {
	e := c.set.Load().find(name)
	switch {
	case s.Stage == "" || s.Stage == StageOut:
		return true
	case e == nil:
		return false
	case e.cand != nil && s.of(e.cand.plugin):
		k := e.cand
		percent := cmp.Or(s.Percent, k.percent)
		return s.Stage == k.stage && percent == k.percent || c.move(name, k, s.Stage, percent, s.Since, s.By, s.Node, s.Reason) == nil
	}
	return e.plugin != nil && s.of(e.plugin)
}

// merged adds the standing's rollbacks to those known here.
func (s *Standing) merged(known []Rollback) []Rollback {
	out := known
	for _, r := range s.Rollbacks {
		if blocked(out, r.Identity) == nil {
			out = append(slices.Clone(out), r)
		}
	}
	return out[max(0, len(out)-maxRollbacks):]
}

// Kept returns the bundle of a version in force or on trial, or that was so lately.
func (c *Catalog) Kept(source string) ([]byte, error) {
	if !isDigest(source) {
		return nil, fmt.Errorf("%.80q is no version", source)
	}
	c.saving.Lock()
	defer c.saving.Unlock()
	file, manifest, err := c.store.kept(source, c.cfg.Module.FileBytes)
	if err != nil {
		return nil, err
	}
	return Bundle(file, manifest), nil
}

// Digest names what judges here, in hex: every plugin's version in force and on
// trial, with its stage and percentage. Where two nodes have the same, they judge the same.
func (c *Catalog) Digest() string {
	h := sha256.New()
	for _, e := range c.set.Load().entries {
		var inForce, onTrial, stage string
		percent := 0
		if e.plugin != nil {
			inForce = e.plugin.source.String()
		}
		if e.cand != nil {
			onTrial, stage, percent = e.cand.plugin.source.String(), e.cand.stage, e.cand.share()
		}
		if inForce+onTrial != "" {
			fmt.Fprintf(h, "%s %s %s %s %d\n", e.name, inForce, onTrial, stage, percent)
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Install brings a version into force beside the files in the folder: what was in
// force elsewhere when they were dropped. It must pass what a file in the folder
// passes.
func (c *Catalog) Install(ctx context.Context, name string, bundle []byte) error {
	file, manifest, err := Unbundle(bundle)
	if err != nil {
		return fmt.Errorf("plugin %s: its version in force: %w", name, err)
	}
	m, err := manifestOf(name, file, manifest)
	if err != nil {
		return fmt.Errorf("plugin %s: its version in force: %w", name, err)
	}
	c.loading.Lock()
	defer c.loading.Unlock()
	if c.closed {
		return errors.New("plugins: the catalog is closed")
	}
	p, err := c.load(ctx, name, file, m, false)
	if err != nil {
		return fmt.Errorf("plugin %s: its version in force: %w", name, err)
	}
	c.enroll(p, sourceDigest(file, manifest), identityOf(file, m))
	err = c.edit(name, func(e entry) (*entry, error) {
		if e.plugin != nil && e.plugin.source == e.source {
			return nil, fmt.Errorf("%w: what is in the folder is in force", ErrNotNow)
		}
		e.plugin = p
		return &e, nil
	})
	if err != nil {
		p.retire()
		return err
	}
	c.log.Info("plugin in force as on the other nodes", "plugin", name, "version", m.Version, "digest", p.digest[:12])
	c.saving.Lock()
	err = c.store.keep(name, p.source, file, manifest)
	c.saving.Unlock()
	if err != nil {
		c.log.Warn("a plugin cannot be kept: after a restart, what is in the folder counts alone", "plugin", name, "err", err)
	}
	c.save()
	return nil
}
