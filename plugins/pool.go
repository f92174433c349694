package plugins

import (
	"fmt"
	"sync"
)

// pool is a bounded stack of idle instances. Last in, first out keeps the one
// whose memory is in the processor's cache busy.
type pool struct {
	size int // most instances at a time, set by init

	mu      sync.Mutex
	free    sync.Cond // signalled when one comes back
	idle    []*instance
	out     int // instances that are deciding
	retired bool
}

func (l *pool) init(size int) {
	l.size = size
	l.idle = make([]*instance, 0, size)
	l.free.L = &l.mu
}

// get takes an idle instance or makes one. It waits while as many as may be
// are busy.
func (l *pool) get(p *Plugin) (*instance, error) {
	l.mu.Lock()
	for l.out == l.size {
		l.free.Wait()
	}
	l.out++
	if n := len(l.idle); n > 0 {
		in := l.idle[n-1]
		l.idle = l.idle[:n-1]
		l.mu.Unlock()
		return in, nil
	}
	l.mu.Unlock()
	in, err := p.another()
	if err != nil {
		l.put(nil, false)
		return nil, fmt.Errorf("plugin %s: make another instance: %w", p.name, err)
	}
	return in, nil
}

// busy reports whether get would wait just now.
func (l *pool) busy() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.out == l.size
}

// put gives an instance back; one that is not clean is closed.
func (l *pool) put(in *instance, clean bool) {
	l.mu.Lock()
	l.out--
	keep := clean && !l.retired
	if keep {
		l.idle = append(l.idle, in)
	}
	l.mu.Unlock()
	l.free.Signal()
	if in != nil && !keep {
		_ = in.close() // closing memory and tables cannot fail in a way that matters
	}
}

// add makes the first instance idle.
func (l *pool) add(in *instance) {
	l.mu.Lock()
	l.idle = append(l.idle, in)
	l.mu.Unlock()
}

func (l *pool) retire() {
	l.mu.Lock()
	l.retired = true
	idle := l.idle
	l.idle = nil
	l.mu.Unlock()
	for _, in := range idle {
		_ = in.close()
	}
}
