package names

import (
	"sync"
	"time"
)

// Recent remembers for a while since when names belong to their users, so that Redis is
// not asked each time about who keeps coming; who has gone is forgotten. Any goroutine
// may use it.
//
// It keeps two generations and forgets the older whole, when the younger is as old as
// what is remembered may be, or has half of the names: nothing runs beside it, and a
// look costs the same however many there are.
type Recent struct {
	keep time.Duration
	most int

	mu         sync.Mutex
	turned     time.Time            // when now was begun; guarded by mu
	now, older map[string]remembers // guarded by mu
}

// remembers is what is known of a name.
type remembers struct{ told, since time.Time }

// NewRecent returns one that remembers for keep, and at most most names.
func NewRecent(keep time.Duration, most int) *Recent {
	return &Recent{keep: keep, most: most, turned: time.Now(), now: make(map[string]remembers)}
}

// Since returns since when the name belongs to its user; ok is false where that is
// not remembered.
func (r *Recent) Since(folded string) (since time.Time, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.turnLocked()
	m, ok := r.now[folded]
	if !ok {
		m, ok = r.older[folded]
	}
	if !ok || time.Since(m.told) >= r.keep {
		return time.Time{}, false
	}
	return m.since, true
}

// Put remembers a name from now on.
func (r *Recent) Put(folded string, since time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.turnLocked()
	if _, ok := r.now[folded]; !ok && len(r.now) >= max(r.most/2, 1) {
		r.beginLocked()
	}
	r.now[folded] = remembers{time.Now(), since}
}

// Len is how many names are remembered.
func (r *Recent) Len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.turnLocked()
	n := len(r.now)
	for name := range r.older {
		if _, ok := r.now[name]; !ok {
			n++
		}
	}
	return n
}

// turnLocked forgets what is too old.
func (r *Recent) turnLocked() {
	switch age := time.Since(r.turned); {
	case age >= 2*r.keep: // nobody has asked for so long that both are
		r.beginLocked()
		r.older = nil
	case age >= r.keep:
		r.beginLocked()
	}
}

// beginLocked begins a generation and forgets the one before the last.
func (r *Recent) beginLocked() {
	r.older, r.now, r.turned = r.now, make(map[string]remembers), time.Now()
}
