package redis

import "time"

// ledger is what this node says of things with the name K: what is still to be
// written, and when each was written last. Its owner's lock guards it.
type ledger[K comparable] struct {
	m     map[K]*entry
	dirty []K // in the order of the changes, each once
}

// entry is one thing that this node says.
type entry struct {
	dirty   bool
	unsure  bool      // a write without an answer may still arrive
	written time.Time // when an answer came last; zero before the first
}

func newLedger[K comparable]() ledger[K] { return ledger[K]{m: make(map[K]*entry)} }

// mark notes that k is to be written.
func (l *ledger[K]) mark(k K) {
	e := l.m[k]
	if e == nil {
		e = &entry{}
		l.m[k] = e
	}
	if !e.dirty {
		e.dirty = true
		l.dirty = append(l.dirty, k)
	}
}

// markAll notes that everything is.
func (l *ledger[K]) markAll() {
	for k := range l.m {
		l.mark(k)
	}
}

// take returns at most n things to be written, the oldest first.
func (l *ledger[K]) take(n int) []K {
	n = min(n, len(l.dirty))
	out := l.dirty[:n:n]
	l.dirty = l.dirty[n:]
	if len(l.dirty) == 0 {
		l.dirty = nil
	}
	for _, k := range out {
		if e := l.m[k]; e != nil {
			e.dirty = false
		}
	}
	return out
}

// wrote notes how writing k ended. What went unanswered is written again, and
// once more after that: it may arrive in between.
func (l *ledger[K]) wrote(k K, now time.Time, err error) {
	if err != nil {
		l.mark(k)
		l.m[k].unsure = true
	} else if e := l.m[k]; e != nil {
		e.written = now
	}
}

// confirmAfter is when what went unanswered once is written again, later than
// what was on its way then can arrive.
const confirmAfter = 5 * time.Second

// age marks what was written too long ago.
func (l *ledger[K]) age(now time.Time, refresh time.Duration) {
	for k, e := range l.m {
		since := now.Sub(e.written)
		if e.dirty || e.written.IsZero() {
			continue
		}
		if since >= refresh || e.unsure && since >= confirmAfter {
			e.unsure = false
			l.mark(k)
		}
	}
}
