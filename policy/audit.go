package policy

import (
	"context"
	"reflect"
	"sync"

	"parley/core/chat"
	"parley/core/gate"
	"parley/policy/decisionlog"
)

// audit holds a cached answer against the rules and returns what is right. It
// evaluates over the whole input, so it finds a cache that mixes up its keys,
// and also a field that the rules read and the key lacks. One wrong answer is
// enough: the cache of this engine is switched off, and the operators hear of
// it. An evaluation that fails here says nothing of the cache.
func (l *Live) audit(ctx context.Context, e *Engine, in *gate.Input, cached gate.Decision) gate.Decision {
	fresh, err := e.whole(ctx, in)
	if err != nil {
		return cached
	}
	l.audits.Add(1)
	if Same(&cached, &fresh) {
		return cached
	}
	l.wrong.Add(1)
	if !e.distrusted.Swap(true) {
		l.log.Error("POLICY CACHE SWITCHED OFF: it gave an answer that the rules do not give; please report this with the rules",
			"revision", e.revision, "action", in.Action.Name, "subject", in.Subject.ID, "resource", in.Resource.ID, "cached", cached.Allow, "rules", fresh.Allow)
		l.happened(decisionlog.EventCacheOff, e.revision, "", "the cache gave an answer that the rules do not give")
	}
	return fresh
}

// Same reports whether two answers are equal in all that they ask for:
// revision, id and where they came from do not count.
func Same(a, b *gate.Decision) bool {
	return a.Allow == b.Allow && a.Failed == b.Failed &&
		(len(a.Reasons) == 0 && len(b.Reasons) == 0 || reflect.DeepEqual(a.Reasons, b.Reasons)) &&
		SameObligations(&a.Obligations, &b.Obligations)
}

// SameObligations reports whether two sets of obligations ask for the same.
func SameObligations(a, b *gate.Obligations) bool { return reflect.DeepEqual(a, b) }

// Blocked counts refusals by action and by the code of their first reason.
type Blocked struct {
	Action, Code string
}

// maxBlocked bounds the codes that are counted apart: they are the policy's
// own words, and a metric must not grow without end.
const maxBlocked = 256

// otherCodes stands for the codes above that bound.
const otherCodes = "other"

// blocked counts refusals. Refusing is rare enough for a lock.
type blocked struct {
	mu sync.Mutex
	n  map[Blocked]uint64 // guarded by mu
}

func (b *blocked) add(action string, reasons []chat.Reason) {
	key := Blocked{Action: action, Code: codeDenied}
	if len(reasons) > 0 {
		key.Code = reasons[0].Code
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.n == nil {
		b.n = map[Blocked]uint64{}
	}
	if _, known := b.n[key]; !known && len(b.n) >= maxBlocked {
		key.Code = otherCodes
	}
	b.n[key]++
}

// Blocked returns how many were refused since the start, by action and code.
func (l *Live) Blocked() map[Blocked]uint64 {
	l.blocked.mu.Lock()
	defer l.blocked.mu.Unlock()
	out := make(map[Blocked]uint64, len(l.blocked.n))
	for k, n := range l.blocked.n {
		out[k] = n
	}
	return out
}
