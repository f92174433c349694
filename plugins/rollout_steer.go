package plugins

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Actions of an Order.
const (
	ActionPromote  = "promote"  // to the next stage
	ActionRollback = "rollback" // take the version on trial back
	ActionRetry    = "retry"    // try a version that was rolled back again, or end a quarantine
	ActionSet      = "set"      // to a stage and a percentage
)

// Order is what an operator wants of one plugin's rollout.
type Order struct {
	Action  string
	Stage   string // of ActionSet; "" stays
	Percent int    // of ActionSet; 0 stays
	By      string // who, for the log; "" is not allowed
	Reason  string // why, for the log
}

// What Steer's errors wrap.
var (
	ErrNoPlugin = errors.New("there is no such plugin")
	ErrOrder    = errors.New("that is no order")
	ErrNotNow   = errors.New("that cannot be done now") // the rest of the error says why
)

// byGuard and byTimer are who moved a rollout when nobody did.
const (
	byGuard = "guard"
	byTimer = "timer"
	byState = "state" // as it was found
)

// errRolledBack is of files that are not tried because they were rolled back.
var errRolledBack = errors.New("it was rolled back")

// errMoved is of a move that came too late: another was faster.
var errMoved = errors.New("the rollout has moved on")

// Steer carries out an order. It returns when the order is in force.
func (c *Catalog) Steer(ctx context.Context, name string, o Order) error {
	if o.By == "" || len(o.By) > maxOperatorBytes || len(o.Reason) > maxReasonBytes {
		return fmt.Errorf("%w: it must say by whom, and the reason has at most %d bytes", ErrOrder, maxReasonBytes)
	}
	e := c.set.Load().find(name)
	if e == nil {
		return fmt.Errorf("%w: %q", ErrNoPlugin, name)
	}
	switch o.Action {
	case ActionRetry:
		return c.retry(ctx, name, o)
	case ActionPromote, ActionRollback, ActionSet:
	default:
		return fmt.Errorf("%w: action %q, want promote, rollback, retry or set", ErrOrder, o.Action)
	}
	k := e.cand
	if k == nil {
		return fmt.Errorf("%w: plugin %s has no version on trial", ErrNotNow, name)
	}
	var err error
	switch stage, percent := o.Stage, o.Percent; o.Action {
	case ActionPromote:
		err = c.advance(ctx, name, k, nextStage(k.stage), k.percent, o.By, o.Reason)
	case ActionRollback:
		reason := "ordered"
		if o.Reason != "" {
			reason = o.Reason
		}
		err = c.rollBack(name, k, o.By, reason)
	case ActionSet:
		if stage == "" {
			stage = k.stage
		}
		if percent == 0 {
			percent = k.percent
		}
		if !slices.Contains([]string{StageShadow, StageCanary, StageEnforce}, stage) || percent < 1 || percent > 100 {
			return fmt.Errorf("%w: stage %q at %d percent, want shadow, canary or enforce, and 1 to 100", ErrOrder, stage, percent)
		}
		err = c.advance(ctx, name, k, stage, percent, o.By, o.Reason)
	}
	if err == nil {
		c.save()
	}
	return err
}

// edit replaces the entry of a name by what change makes of it, in one step.
func (c *Catalog) edit(name string, change func(e entry) (*entry, error)) error {
	c.mu.Lock()
	cur := c.set.Load()
	old := cur.find(name)
	if old == nil {
		c.mu.Unlock()
		return fmt.Errorf("%w: %q", ErrNoPlugin, name)
	}
	e, err := change(*old)
	if err != nil {
		c.mu.Unlock()
		return err
	}
	next := &set{entries: slices.Clone(cur.entries), err: cur.err}
	next.entries[slices.Index(cur.entries, old)] = e.seated(c, old)
	next.seat()
	c.set.Store(next)
	c.mu.Unlock()
	retire(cur, next)
	c.changed()
	for _, told := range []chan struct{}{c.wake, c.placed} {
		select {
		case told <- struct{}{}:
		default:
		}
	}
	return nil
}

// advance is move once all nodes agree.
func (c *Catalog) advance(ctx context.Context, name string, k *candidate, stage string, percent int, by, why string) error {
	s, err := c.agree(ctx, name, k, stage, percent, by, why)
	if err != nil {
		if errors.Is(err, ErrNoAgreement) {
			err = fmt.Errorf("%w: %w; nothing has been changed: try again when they can be reached, or roll back, which works at once", ErrNotNow, err)
		}
		return err
	}
	if c.board != nil {
		c.noted(name, s.Rev)
	}
	err = c.move(name, k, stage, percent, s.Since, by, s.Node, why)
	if err != nil && c.board != nil && c.moveTo(name, s) {
		return nil // Follow was faster
	}
	return err
}

// move takes a candidate to another stage or percentage. Its guards begin
// anew.
func (c *Catalog) move(name string, k *candidate, stage string, percent int, since time.Time, by, node, why string) error {
	err := c.edit(name, func(e entry) (*entry, error) {
		if e.cand != k {
			return nil, fmt.Errorf("%w: %w", ErrNotNow, errMoved)
		}
		if stage == StageEnforce {
			e.plugin, e.cand = k.plugin, nil
		} else {
			e.cand = newCandidate(k.plugin, k.trial.rules, stage, percent, since)
		}
		if stage != k.stage && stage != StageShadow {
			e.stats.promotions.Add(1)
		}
		return &e, nil
	})
	if err == nil {
		c.log.Info("plugin rollout moved", "plugin", name, "digest", k.plugin.digest[:12], "from", k.stage, "to", stage, "percent", percent, "by", by, "reason", why, "node", node)
	}
	return err
}

// rollBack takes a candidate out. The version in force decides about everybody
// from the next message on, and the same module with the same configuration is
// not tried again until an operator says so.
func (c *Catalog) rollBack(name string, k *candidate, by, why string) error {
	r := Rollback{
		Identity: k.plugin.identity, Digest: k.plugin.digest, Version: k.plugin.manifest.Version, Stage: k.stage,
		Reason: clipped(why, maxReasonBytes), By: by, At: now(), Blocked: true,
	}
	if c.board != nil {
		r.Node = c.board.Node()
	}
	err := c.takeBack(name, k, r)
	if err == nil {
		c.tellRollback(name, k.plugin.source.String(), r)
	}
	return err
}

// takeBack carries out a rollback, of this node or of another.
func (c *Catalog) takeBack(name string, k *candidate, r Rollback) error {
	err := c.edit(name, func(e entry) (*entry, error) {
		if e.cand != k {
			return nil, fmt.Errorf("%w: %w", ErrNotNow, errMoved)
		}
		e.cand = nil
		e.rollbacks = append(slices.Clone(e.rollbacks), r)
		e.rollbacks = e.rollbacks[max(0, len(e.rollbacks)-maxRollbacks):]
		if e.source == k.plugin.source {
			e.refused, e.tried, e.again = r.refusal(), time.Now(), nil
		}
		e.stats.rollbacks.Add(1)
		return &e, nil
	})
	if err == nil {
		c.log.Error("plugin rolled back", "plugin", name, "version", r.Version, "digest", r.Digest[:12], "stage", r.Stage, "by", r.By, "reason", r.Reason, "node", r.Node)
	}
	return err
}

// refusal is why the version is not tried again.
func (r Rollback) refusal() error {
	by := r.By
	if r.Node != "" {
		by += " on node " + r.Node
	}
	return fmt.Errorf("%w from %s at %s by %s (%s); it is tried again when an operator orders a retry", errRolledBack, r.Stage, r.At.Format(time.RFC3339), by, r.Reason)
}

// clipped cuts s to at most n bytes, between two runes. What is no UTF-8, which
// JSON would change, becomes question marks.
func clipped(s string, n int) string {
	s = strings.ToValidUTF8(s, "?")
	if len(s) <= n {
		return s
	}
	for n > 0 && s[n]&0xc0 == 0x80 {
		n--
	}
	return s[:n]
}

// retry lets what is in the folder be tried again, now, and ends a quarantine.
func (c *Catalog) retry(ctx context.Context, name string, o Order) error {
	again, lifted := false, false
	e := c.set.Load().find(name)
	if e == nil {
		return fmt.Errorf("%w: %q", ErrNoPlugin, name)
	}
	if err := c.agreeRetry(ctx, e, o); err != nil {
		if errors.Is(err, ErrNoAgreement) {
			err = fmt.Errorf("%w: %w", ErrNotNow, err)
		}
		return err
	}
	err := c.edit(name, func(e entry) (*entry, error) {
		e.rollbacks = slices.Clone(e.rollbacks)
		for i := range e.rollbacks {
			if r := &e.rollbacks[i]; r.Blocked && r.Identity == e.identity {
				r.Blocked, again = false, true
			}
		}
		for _, p := range e.versions() {
			lifted = p.ward.lift() || lifted
		}
		again = again || e.again != nil
		if !again && !lifted && c.board == nil { // elsewhere there may be
			return nil, fmt.Errorf("%w: the files of plugin %s were not rolled back and do not wait to be tried again, and it is not in quarantine", ErrNotNow, name)
		}
		if again {
			e.source, e.again = sourceID{}, dueNow()
		}
		return &e, nil
	})
	if err != nil {
		return err
	}
	c.log.Info("plugin retried", "plugin", name, "quarantine_lifted", lifted, "tried_again", again, "by", o.By, "reason", o.Reason)
	if !again {
		return nil
	}
	c.save() // the order is given: if whoever gave it hangs up, Run carries it out
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.life, cancel)()
	_ = c.Load(ctx) // what it says of other plugins is no answer to this order
	if ctx.Err() != nil {
		return fmt.Errorf("%w: plugin %s is tried again as soon as the server runs: %w", ErrNotNow, name, ctx.Err())
	}
	if e := c.set.Load().find(name); e != nil && e.refused != nil {
		return fmt.Errorf("%w: plugin %s: %w", ErrNotNow, name, e.refused)
	}
	return nil
}

// timerTick is how often the timers of rollouts are looked at. It is far below
// any time a version should be on trial.
const timerTick = time.Second

// saveTick is how often the state is saved without a change, so that the copies of
// replaced versions go when their time has come.
const saveTick = 10 * time.Minute

// attend saves what guards did and moves rollouts on by their timers, until
// ctx ends.
func (c *Catalog) attend(ctx context.Context) {
	tick := time.NewTicker(timerTick)
	defer tick.Stop()
	old := time.NewTicker(saveTick)
	defer old.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.wake:
			c.save()
		case <-old.C:
			c.save()
		case now := <-tick.C:
			c.promoteDue(ctx, now)
		}
	}
}

// promoteDue moves on what is due.
func (c *Catalog) promoteDue(ctx context.Context, now time.Time) {
	for _, e := range c.set.Load().entries {
		if k := e.cand; k != nil && k.due(now) {
			_ = c.advance(ctx, e.name, k, nextStage(k.stage), k.percent, byTimer, "promote_after "+k.trial.rules.PromoteAfter.String()) // or a guard was faster, or another node
		}
	}
}
