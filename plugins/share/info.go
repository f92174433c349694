package share

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"parley/core/cluster"
	"parley/core/cluster/objects"
	"parley/plugins"
)

// InfoKey is under which a node tells the others about its plugins.
const InfoKey = "plugin_share"

// Info is what a node says of its plugins in its record.
type Info struct {
	// Digest is plugins.Catalog.Digest: nodes with the same judge alike.
	Digest string `json:"digest"`
	// Problems are what stands in the way of judging as the others do, or of
	// sharing what is in this node's folder.
	Problems []string `json:"problems,omitempty"`
	// Diverged counts the versions that the nodes share and this one cannot judge with.
	Diverged int `json:"diverged,omitempty"`
	// Unjudged says that the node does not know yet how many those are: it has not
	// looked, or there are versions that it has not judged.
	Unjudged bool `json:"unjudged,omitempty"`
	// Wants are versions that Redis should have and has not, or not whole.
	Wants []string `json:"wants,omitempty"`
}

// Bounds of an Info.
const (
	maxProblems     = 16
	maxProblemBytes = 400
	maxWants        = 16
)

// state is what a pass found.
type state struct {
	looked   bool // there was a pass, after the catalog was opened
	unjudged int  // versions that are shared and that this node has neither taken nor refused
	problems []string
	wants    []string
	diverged []string
}

// problems are what a pass meets.
type problems struct {
	all      map[string]string // by what it is about
	wants    map[string]bool
	missing  map[string]bool // plugins, of diverged
	unjudged int
	diverged []string
}

func newProblems() *problems {
	return &problems{all: make(map[string]string), wants: make(map[string]bool), missing: make(map[string]bool)}
}

func (p *problems) add(what string, err error) {
	if !errors.Is(err, errNotYet) {
		p.all[what] = err.Error()
	}
}

// want notes a version that should be here and is not.
func (p *problems) want(name, source string, err error) {
	p.add("plugin "+name, err)
	p.missing[name] = true
	p.diverged = append(p.diverged, fmt.Sprintf("plugin %s: %v", name, err))
	if source != "" && (errors.Is(err, objects.ErrMissing) || errors.Is(err, objects.ErrDamaged)) {
		p.wants[source] = true
	}
}

// conclude notes what a pass found, logs what is new of it, and tells the other
// nodes.
func (s *Share) conclude(standing standings, opening bool, p *problems) {
	if !opening {
		s.compare(standing, p)
	}
	next := state{looked: !opening, unjudged: p.unjudged, diverged: p.diverged, wants: slices.Sorted(maps.Keys(p.wants))}
	next.wants = next.wants[:min(len(next.wants), maxWants)]
	for _, what := range slices.Sorted(maps.Keys(p.all)) {
		text := what + ": " + p.all[what]
		if len(next.problems) < maxProblems {
			next.problems = append(next.problems, strings.ToValidUTF8(text[:min(len(text), maxProblemBytes)], ""))
		}
		if s.said[what] != p.all[what] {
			s.log.Error("plugins are not the same on all nodes", "what", what, "err", p.all[what])
		}
	}
	s.said = p.all
	s.mu.Lock()
	told := slices.Equal(s.state.problems, next.problems) && slices.Equal(s.state.wants, next.wants) && len(s.state.diverged) == len(next.diverged) &&
		s.state.undecided() == next.undecided()
	s.state = next
	s.ripe = s.ripe || !next.undecided()
	digest := s.catalog.Digest()
	told = told && s.digest == digest
	s.digest = digest
	s.mu.Unlock()
	if !told {
		s.nodes.Touch()
	}
}

// undecided reports whether it is not known yet what this node cannot judge with.
func (s *state) undecided() bool { return !s.looked || s.unjudged > 0 }

// compare finds the versions that are in the folder and that this node's catalog
// refuses, while other nodes judge with them, and counts those that it has not
// judged yet.
func (s *Share) compare(standing standings, p *problems) {
	s.mu.Lock()
	living := s.living
	s.mu.Unlock()
	for name, v := range living {
		st, ok := s.status(name)
		at := standing.Plugins[name]
		switch {
		case at.Source == v.Source && at.Stage == plugins.StageOut:
			continue
		case s.telling(name):
			continue // it was rolled back here, as it soon will be elsewhere
		case p.missing[name]:
			continue // it could not be had
		case ok && (st.Source == v.Source || st.Candidate != nil && st.Candidate.Source == v.Source):
			continue
		case !ok || st.ErrorSource != v.Source || !st.RetryAt.IsZero() && st.Tries == 0: // its trial is to begin
			p.unjudged++
			continue
		}
		what := cmp.Or(st.Version, "the version before")
		if st.Source == "" {
			what = "nothing"
		}
		p.want(name, "", fmt.Errorf("this node cannot judge with version %.12s and has %s in its place: %s", v.Source, what, st.Error))
	}
}

// Info returns what the node's record says.
func (s *Share) Info() Info {
	digest := s.catalog.Digest()
	s.mu.Lock()
	defer s.mu.Unlock()
	return Info{Digest: digest, Problems: s.state.problems, Diverged: len(s.state.diverged), Unjudged: s.state.undecided(), Wants: s.state.wants}
}

// NotReady says why this node should get no clients, a sentence for each reason: it
// has begun a moment ago and not judged everything that is shared yet, or there are
// versions that it cannot judge with, and another node can.
func (s *Share) NotReady() []string {
	why := s.diverged(true)
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ripe && !s.overdueLocked() {
		why = append(why, s.undecidedLocked())
	}
	return why
}

// Notes says the same where no other node can either: what nobody takes must not
// stop everybody.
func (s *Share) Notes() []string {
	why := s.diverged(false)
	s.mu.Lock()
	defer s.mu.Unlock()
	if (s.ripe || s.overdueLocked()) && s.state.undecided() {
		why = append(why, s.undecidedLocked())
	}
	return why
}

// overdueLocked reports whether this node has had time enough to judge what is shared.
func (s *Share) overdueLocked() bool { return !s.begun.IsZero() && time.Since(s.begun) > s.cfg.Judge }

// undecidedLocked says what this node does not know yet.
func (s *Share) undecidedLocked() string {
	if !s.state.looked {
		return fmt.Sprintf("node %s has not looked yet at the plugins that the nodes share", s.node)
	}
	return fmt.Sprintf("node %s has not judged %d of the plugins that the nodes share yet", s.node, s.state.unjudged)
}

func (s *Share) diverged(others bool) (why []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if others != s.others {
		return nil
	}
	for _, d := range s.state.diverged {
		why = append(why, fmt.Sprintf("cannot converge: node %s does not judge with the plugins that the nodes share: %s", s.node, d))
	}
	return why
}

// Stats describe a Share, for metrics.
type Stats struct {
	Problems, Diverged int // see Info and NotReady
	Pending            int // rollbacks that the others do not know of yet
	Stuck              int // of them, those of which the others could not be told in many attempts
	// Judged says that Problems and Diverged are known, and Unjudged how many of the
	// shared versions this node has neither taken nor refused yet.
	Judged   bool
	Unjudged int
}

// Stats returns the present state.
func (s *Share) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Stats{
		Problems: len(s.state.problems), Diverged: len(s.state.diverged), Pending: len(s.pending), Judged: s.state.looked, Unjudged: s.state.unjudged,
	}
	for _, t := range s.pending {
		if t.stuck() {
			st.Stuck++
		}
	}
	return st
}

// trouble reports whether something is to be asked for again soon.
func (s *Share) trouble() bool {
	for source, f := range s.failed {
		if time.Since(f.at) > time.Minute { // nobody has asked since
			delete(s.failed, source)
		}
	}
	return len(s.failed) > 0
}

// heed notes what other nodes want.
func (s *Share) heed(v cluster.View) {
	wanted, others := make(map[string]bool), false
	for i := range v.Nodes {
		n := &v.Nodes[i]
		var info Info
		if n.ID == s.nodes.Self() {
			continue
		}
		if ok, err := n.Decode(InfoKey, &info); !ok || err != nil {
			continue
		}
		others = others || info.Diverged == 0 && !info.Unjudged
		for _, source := range info.Wants[:min(len(info.Wants), maxWants)] {
			if objects.Digest(source).Valid() && len(wanted) < maxLive {
				wanted[source] = true
			}
		}
	}
	s.mu.Lock()
	s.wanted, s.others = wanted, others
	s.mu.Unlock()
	if len(wanted) > 0 {
		s.poke()
	}
}

// Problems returns what another node says stands in the way of its plugins being
// those of the others, within bounds.
func Problems(n *cluster.Node) []string {
	var info Info
	if ok, err := n.Decode(InfoKey, &info); !ok || err != nil {
		return nil
	}
	out := info.Problems[:min(len(info.Problems), maxProblems)]
	for i := range out {
		out[i] = "plugins: " + strings.ToValidUTF8(out[i][:min(len(out[i]), maxProblemBytes)], "")
	}
	if info.Unjudged {
		out = append(out, "plugins: not judged yet: it cannot say whether it judges as the others do")
	}
	return out
}

// repairEvery is how often an object is written anew at most.
const repairEvery = 30 * time.Second

// repair writes anew what Redis has lost or damaged and other nodes want, where this
// node has it.
func (s *Share) repair(ctx context.Context) {
	s.mu.Lock()
	wanted := s.wanted
	s.mu.Unlock()
	for source := range wanted {
		if t, ok := s.repaired[source]; ok && time.Since(t) < repairEvery {
			continue
		}
		bundle := s.holds(source)
		if bundle == nil {
			continue
		}
		if len(s.repaired) > maxNames {
			clear(s.repaired)
		}
		s.repaired[source] = time.Now()
		if _, err := s.store.Repair(ctx, "plugin", bundle); err == nil {
			s.log.Warn("redis had lost or damaged a plugin, it has been written anew", "source", source[:12])
		}
	}
}

// holds returns the files of a version that this node has, nil if it has not.
func (s *Share) holds(source string) []byte {
	for name, has := range s.base.Plugins {
		if has == source {
			if b, err := s.folder.bundle(name, source); err == nil {
				return b
			}
		}
	}
	b, _ := s.catalog.Kept(source)
	return b
}

// keepLast writes anew what the newest set names that was to be believed, so that it
// can be put back in place of what is not.
func (s *Share) keepLast(ctx context.Context) {
	if last, ok := s.store.Last(setHead); ok {
		if set, err := decodeSet(last.Value); err == nil {
			s.wantAll(ctx, set)
		}
	}
}

// wantAll writes anew what the set names and this node has: Redis has lost something of
// it.
func (s *Share) wantAll(ctx context.Context, head set) {
	for _, d := range head.objects() {
		if b := s.holds(string(d)); b != nil {
			if _, err := s.store.Put(ctx, "plugin", b); err != nil {
				return
			}
		}
	}
}
