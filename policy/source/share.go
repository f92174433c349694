package source

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"parley/core/cluster/objects"
	"parley/policy/decisionlog"
	"parley/policy/gitsync"
)

// share keeps the policy of this node and that of the others the same: it hands
// over what this node has brought in, and takes what others have, after this
// node's own checks.
type share struct {
	// Set at construction.
	s     *Source
	store *objects.Store
	self  string
	wake  chan struct{} // holds a token when there is something to look at

	mu      sync.Mutex
	head    objects.Head // as seen last; guarded by mu
	known   bool         // it was seen; guarded by mu
	accepts objects.Head // guarded by mu
	fresh   bool         // accepts was not looked at yet; guarded by mu
	again   bool         // what was refused is to be judged anew; guarded by mu
	words   []accepted   // of operators of this node, not shared yet; guarded by mu
	trouble *Trouble     // nil: this node is where the head is, or on its way; guarded by mu

	// Owned by run.
	refused struct { // what was refused last
		version objects.Version
		turn    uint64 // of this node's own state then
		unsound bool
		damaged bool // it may be repaired
	}
	given   time.Time       // when this node last handed something over
	heard   map[string]bool // accepts that were recorded here
	checked time.Time       // when the object of the head was last read
}

func newShare(s *Source, c Cluster) *share {
	x := &share{s: s, store: c.Objects, self: c.Self, wake: make(chan struct{}, 1), heard: map[string]bool{}}
	// In this order: an operator's word must be there before what it lets pass.
	c.Objects.OnHead(acceptsHead, func(h objects.Head) {
		x.mu.Lock()
		x.accepts, x.fresh = h, true
		x.mu.Unlock()
		x.poke()
	})
	c.Objects.OnHead(policyHead, x.saw)
	return x
}

func (x *share) saw(h objects.Head) {
	x.mu.Lock()
	x.head, x.known = h, true
	x.mu.Unlock()
	x.poke()
}

func (x *share) poke() {
	select {
	case x.wake <- struct{}{}:
	default:
	}
}

// Times of the loop.
const (
	retryAfter = time.Second      // what Redis did not answer is tried again
	restAfter  = time.Second / 5  // between two revisions that one node hands over
	checkEvery = 30 * time.Second // an object that every node may need is looked at
)

// errRest says that this node has handed over another revision a moment ago: two
// nodes that contradict each other must not do so without pause.
var errRest = errors.New("a revision was handed over a moment ago")

// run shares until ctx ends.
func (x *share) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-x.wake:
		case <-timer.C:
		}
		pause := checkEvery/2 + rand.N(checkEvery)
		switch err := x.reconcile(ctx); {
		case err == nil || ctx.Err() != nil:
		case errors.Is(err, errRest):
			pause = restAfter
		default:
			x.s.log.Debug("the policy is not shared yet", "err", err)
			pause = retryAfter/2 + rand.N(retryAfter)
		}
		timer.Reset(pause)
	}
}

// reconcile does one step towards one policy on all nodes. An error means that
// it is worth trying again soon.
func (x *share) reconcile(ctx context.Context) error {
	if err := x.tellAccepts(ctx); err != nil {
		return err
	}
	x.hearAccepts()
	x.mu.Lock()
	head, known, again := x.head, x.known, x.again
	x.mu.Unlock()
	if !known {
		return nil
	}
	own := x.s.git.Shared()
	if head.Version == 0 && head.Value == nil {
		x.settled()
		return x.hand(ctx, head, own)
	}
	v, err := decodeHanded(head)
	at := x.s.git.Status()
	switch {
	case errors.Is(err, errFormat), errors.Is(err, objects.ErrSeal): // of a later version, or of nodes with another secret
		return x.cannot(head, own, handed{}, err, false)
	case err != nil: // it helps nobody, so whoever has something better replaces it
		if err := x.cannot(head, own, handed{}, err, true); err != nil || own.Parcel == nil {
			return err
		}
		return x.hand(ctx, head, own)
	case v.Ref != at.Ref || v.Path != at.Path:
		return x.cannot(head, own, v, fmt.Errorf("the other nodes follow the ref %q and the path %q, and this one %q and %q", v.Ref, v.Path, at.Ref, at.Path), false)
	case own.Untold:
		return x.hand(ctx, head, own)
	case v.Commit == own.Commit && samePin(v.Pin, own.Pin):
		x.settled()
		return x.look(ctx, v, own)
	case v.Pin == nil && own.Pin == nil && own.Newer(v.Commit):
		return x.hand(ctx, head, own)
	case head.Version == x.refused.version && !again:
		if x.refused.unsound && own.Turn != x.refused.turn && !own.Begun.IsZero() {
			return x.hand(ctx, head, own) // what nobody could take gives way to what this node has brought in
		}
		if !x.refused.damaged {
			return nil
		}
	}
	return x.take(ctx, head, own, v)
}

// take fetches what the head names and puts it to this node's own checks.
func (x *share) take(ctx context.Context, head objects.Head, own gitsync.Shared, v handed) error {
	pack, err := x.store.GetUpTo(ctx, v.Object, gitsync.MaxParcelBytes)
	switch {
	case errors.Is(err, objects.ErrMissing), errors.Is(err, objects.ErrDamaged):
		_ = x.cannot(head, own, v, err, true)
		x.refused.damaged = true // until it is repaired
		return err
	case err != nil:
		return err
	}
	revision := gitsync.Revision(v.Commit)
	x.mu.Lock()
	again := x.again
	x.again = false
	x.mu.Unlock()
	if r := x.s.live.Status().Refused; r != nil && r.Revision == revision && v.Pin == nil && !again { // the ref has brought it here before
		return x.cannot(head, own, v, r, false)
	}
	if v.Pin != nil { // who pins a commit by name means it: see Pin
		x.s.mu.Lock()
		x.s.accepted[revision] = v.Pin.By
		x.s.mu.Unlock()
	}
	before := own.Pin
	err = x.s.git.Accept(ctx, gitsync.Offer{Parcel: gitsync.Parcel{Want: v.Want, Commit: v.Commit, Pack: pack}, Pin: v.Pin})
	if v.Pin != nil {
		x.s.mu.Lock()
		delete(x.s.accepted, revision)
		x.s.mu.Unlock()
	}
	switch {
	case err == nil:
		x.settled()
		x.s.pinned(before, v.Pin, v.Node)
		x.s.log.Info("policy taken from another node", "revision", revision, "node", v.Node)
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, gitsync.ErrBehind), errors.Is(err, gitsync.ErrUntold): // this node has something newer by now
		x.poke()
	default:
		return x.cannot(head, own, v, err, errors.Is(err, gitsync.ErrUnsound))
	}
	return nil
}

// hand puts this node's revision into the head, if it still is what was seen.
func (x *share) hand(ctx context.Context, head objects.Head, own gitsync.Shared) error {
	if own.Parcel == nil {
		return nil
	}
	if time.Since(x.given) < restAfter {
		return errRest
	}
	d, err := x.store.Put(ctx, "policy", own.Parcel.Pack)
	if err != nil {
		return err
	}
	at := x.s.git.Status()
	set, err := x.store.SetHead(ctx, policyHead, head.Version, handed{
		Format: 1, Ref: at.Ref, Path: at.Path, Want: own.Parcel.Want, Commit: own.Commit, Object: d, Pin: own.Pin, Node: x.self, At: time.Now().UTC(),
	}, d)
	if errors.Is(err, objects.ErrConflict) {
		if set, err = x.store.Head(ctx, policyHead); err != nil && !errors.Is(err, objects.ErrBadHead) {
			return err
		}
		x.saw(set)
		return nil
	}
	if errors.Is(err, objects.ErrNoSecret) {
		return x.cannot(head, own, handed{}, err, false)
	}
	if err != nil {
		return err
	}
	x.given = time.Now()
	x.saw(set)
	x.s.log.Info("policy handed to the other nodes", "revision", gitsync.Revision(own.Commit), "pinned", own.Pin != nil)
	return x.s.git.Told(ctx, own.Pin)
}

// look repairs the object that the other nodes may need.
func (x *share) look(ctx context.Context, v handed, own gitsync.Shared) error {
	if own.Parcel == nil || objects.Sum(own.Parcel.Pack) != v.Object || time.Since(x.checked) < checkEvery/2 {
		return nil
	}
	x.checked = time.Now()
	_, err := x.store.GetUpTo(ctx, v.Object, gitsync.MaxParcelBytes)
	if !errors.Is(err, objects.ErrMissing) && !errors.Is(err, objects.ErrDamaged) {
		return nil
	}
	x.s.log.Error("the policy that the nodes share is not what this node has handed over; it is written again", "revision", gitsync.Revision(v.Commit), "err", err)
	_, err = x.store.Repair(ctx, "policy", own.Parcel.Pack)
	return err
}

// cannot notes why this node does not take what the head names.
func (x *share) cannot(head objects.Head, own gitsync.Shared, v handed, why error, unsound bool) error {
	x.refused.version, x.refused.unsound, x.refused.damaged = head.Version, unsound, false
	x.refused.turn = x.s.git.Shared().Turn // an offer that ended the pin has changed it
	t := &Trouble{From: v.Node, Why: clipWhy(why), At: time.Now().UTC()}
	if v.Commit != "" {
		t.Revision = gitsync.Revision(v.Commit)
	}
	var o interface{ Overridable() bool }
	t.Overridable = errors.As(why, &o) && o.Overridable()
	x.mu.Lock()
	news := x.trouble == nil || x.trouble.Revision != t.Revision || x.trouble.Why != t.Why
	if news {
		x.trouble = t
	}
	x.mu.Unlock()
	if news {
		x.s.log.Error("THIS NODE CANNOT CONVERGE: it does not take the policy of the other nodes", "revision", t.Revision, "node", t.From, "why", t.Why)
		x.s.touch()
	}
	return nil
}

// settled notes that this node is where the head is.
func (x *share) settled() {
	x.mu.Lock()
	had := x.trouble
	x.trouble = nil
	x.mu.Unlock()
	x.refused.version = 0
	if had != nil {
		x.s.live.Settle(had.Revision)
		x.s.log.Info("this node has converged", "revision", x.s.live.Engine().Revision())
		x.s.touch()
	}
}

// Trouble returns why this node cannot converge, nil where it can.
func (x *share) Trouble() *Trouble {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.trouble
}

// accept shares what an operator of this node has said.
func (x *share) accept(revision, by string) {
	x.mu.Lock()
	x.words = append(x.words, accepted{Revision: revision, By: by, At: time.Now().UTC(), Node: x.self})
	x.words = x.words[max(0, len(x.words)-maxAccepts):]
	x.again = true
	x.mu.Unlock()
	x.poke()
}

// tellAccepts shares what operators of this node have said.
func (x *share) tellAccepts(ctx context.Context) error {
	x.mu.Lock()
	words := x.words
	x.mu.Unlock()
	if len(words) == 0 {
		return nil
	}
	h, err := x.store.Head(ctx, acceptsHead)
	if err != nil && !errors.Is(err, objects.ErrBadHead) {
		return err
	}
	list, err := decodeAccepts(h)
	if errors.Is(err, errFormat) {
		return err
	}
	list.Format = 1 // one that cannot be read is replaced
	list.Accepts = append(list.Accepts, words...)
	list.Accepts = list.Accepts[max(0, len(list.Accepts)-maxAccepts):]
	if _, err := x.store.SetHead(ctx, acceptsHead, h.Version, list); err != nil {
		return err
	}
	x.mu.Lock()
	x.words = x.words[len(words):]
	x.mu.Unlock()
	return nil
}

// hearAccepts lets pass what operators of other nodes have accepted.
func (x *share) hearAccepts() {
	x.mu.Lock()
	head, fresh := x.accepts, x.fresh
	x.fresh = false
	x.mu.Unlock()
	if !fresh {
		return
	}
	list, err := decodeAccepts(head)
	if err != nil {
		x.s.log.Error("what operators have accepted on other nodes cannot be read", "err", err)
		return
	}
	passes, heard := map[string]string{}, map[string]bool{}
	for _, a := range list.Accepts {
		passes[a.Revision] = a.By
		key := a.Revision + " " + a.At.String()
		heard[key] = true
		if a.Node == x.self || x.heard[key] {
			continue
		}
		x.s.log.Warn("policy accepted past policy.guard, on another node", "revision", a.Revision, "by", a.By, "node", a.Node)
		x.s.happened(decisionlog.EventAccepted, a.Revision, a.By, "accepted on node "+a.Node)
		refused := x.s.live.Status().Refused
		if refused == nil || refused.Revision != a.Revision || !refused.Overridable {
			continue
		}
		x.mu.Lock()
		x.again = true // the head is judged anew
		x.mu.Unlock()
		x.s.git.Retry() // and what the ref points to
	}
	x.heard = heard
	x.s.mu.Lock()
	x.s.passes = passes
	x.s.mu.Unlock()
}

// first takes the policy of the other nodes before the source runs: for a start
// without a last good policy, when Git may not answer.
func (x *share) first(ctx context.Context) error {
	head, err := x.store.Head(ctx, policyHead)
	if err != nil {
		return err
	}
	if head.Version == 0 {
		return errors.New("no node has handed over a policy")
	}
	v, err := decodeHanded(head)
	if err != nil {
		return err
	}
	if at := x.s.git.Status(); v.Ref != at.Ref || v.Path != at.Path {
		return fmt.Errorf("the other nodes follow the ref %q and the path %q", v.Ref, v.Path)
	}
	pack, err := x.store.GetUpTo(ctx, v.Object, gitsync.MaxParcelBytes)
	if err != nil {
		return err
	}
	return x.s.git.AcceptFirst(ctx, gitsync.Offer{Parcel: gitsync.Parcel{Want: v.Want, Commit: v.Commit, Pack: pack}, Pin: v.Pin})
}
