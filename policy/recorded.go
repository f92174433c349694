package policy

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"parley/core/gate"
)

// A record of a decision has the names that the data gave to an address and to
// the age of an account, and neither address nor age. The names are exact for
// every policy whose data gives the same ones. For another, what cannot be known
// is tried: where each possibility gets the same answer, that is the answer.

// Recorded is a question as a decision log has it.
type Recorded struct {
	Input    *gate.Input // with nothing masked that the policy reads
	At       time.Time
	Revision string // that answered it
	Named    string // as Engine.Named of that revision
}

// Replay is what a policy answers to a recorded question.
type Replay struct {
	Decision gate.Decision
	Input    *gate.Input // as it was asked: by this policy's own names
	// Sure is false where the answer hangs on an address or an age that is not
	// recorded. Decision is then one of several.
	Sure bool
}

// Named identifies what the data calls networks and new accounts; "" is nothing.
func (e *Engine) Named() string { return e.facts.named }

// Replay asks a recorded question again, without the cache. peers are other
// policies that may know the names in the record. It stops early, unsure, when
// ctx ends.
func (e *Engine) Replay(ctx context.Context, r Recorded, peers ...*Engine) Replay {
	var out Replay
	for i, in := range e.possible(r, peers) {
		d, _ := e.Evaluate(ctx, in)
		if i == 0 {
			out = Replay{Decision: d, Input: in, Sure: ctx.Err() == nil}
		}
		if ctx.Err() != nil || !Same(&d, &out.Decision) {
			out.Sure = false
			break
		}
	}
	return out
}

// possible returns the questions that a record may stand for under the names of
// e, one at least.
func (e *Engine) possible(r Recorded, peers []*Engine) []*gate.Input {
	in := *r.Input
	if r.Revision == e.revision {
		return []*gate.Input{&in} // exactly what it was asked
	}
	in.Raw.Now = r.At
	if r.Named == e.facts.named {
		return []*gate.Input{&in}
	}
	then := new(facts) // which knows no names
	if i := slices.IndexFunc(peers, func(p *Engine) bool { return p.facts.named == r.Named }); i >= 0 {
		then = peers[i].facts
	}
	ages, nets := []bool{in.Subject.NewAccount}, [][]string{in.Context.Networks}
	if slices.Contains(e.reads, subjectNewAccount) {
		ages = e.facts.agesSince(&in, then)
	}
	if slices.Contains(e.reads, contextNetworks) {
		nets = e.facts.networksSince(&in, then)
	}
	var out []*gate.Input
	for _, isNew := range ages {
		for _, n := range nets {
			q := in
			q.Subject.NewAccount, q.Context.Networks = isNew, n
			out = append(out, &q)
		}
	}
	return out
}

// agesSince returns what new_account of a question may be by f that then
// answered.
func (f *facts) agesSince(in *gate.Input, then *facts) []bool {
	isNew := in.Subject.NewAccount
	switch {
	case f.newFor == 0 || in.Subject.Type == "guest":
		return []bool{false}
	case isNew && then.newFor > 0 && f.newFor >= then.newFor, !isNew && f.newFor <= then.newFor:
		return []bool{isNew}
	}
	return []bool{false, true}
}

// networksSince returns what networks of a question may be by f that then
// answered: those that stayed as they were are known, of the others the address
// may be in none, in each, or in all that have addresses in common.
func (f *facts) networksSince(in *gate.Input, then *facts) [][]string {
	known := []string{}
	var open []network
	for _, n := range f.nets {
		i := slices.IndexFunc(then.nets, func(o network) bool { return o.name == n.name && slices.Equal(o.prefixes, n.prefixes) })
		switch {
		case i < 0:
			open = append(open, n)
		case slices.Contains(in.Context.Networks, n.name):
			known = append(known, n.name)
		}
	}
	with := func(more ...network) []string {
		out := slices.Clone(known)
		for _, n := range more {
			out = append(out, n.name)
		}
		slices.Sort(out)
		return out
	}
	out := [][]string{known}
	for _, n := range open {
		out = append(out, with(n))
	}
	if len(open) > 1 && !slices.ContainsFunc(open[1:], func(n network) bool { return !n.meets(open[0]) }) {
		out = append(out, with(open...))
	}
	return out
}

// meets reports whether an address may be in both.
func (n network) meets(other network) bool {
	return slices.ContainsFunc(n.prefixes, func(p netip.Prefix) bool { return slices.ContainsFunc(other.prefixes, p.Overlaps) })
}

// name sets the identity of the names; f is complete then.
func (f *facts) name() {
	if len(f.nets) == 0 && f.newFor == 0 {
		return
	}
	h := sha256.New()
	fmt.Fprintln(h, f.newFor)
	for _, n := range f.nets {
		fmt.Fprintln(h, n.name, n.prefixes)
	}
	f.named = hex.EncodeToString(h.Sum(nil)[:8])
}
