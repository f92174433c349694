package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"parley/core/bench/report"
)

// meeting is where n runs wait until all have come. A nil meeting lets
// everybody pass at once.
type meeting struct {
	mu   sync.Mutex
	size int
	here int
	open chan struct{} // closed when all have come
}

func newMeeting(size int) *meeting { return &meeting{size: size, open: make(chan struct{})} }

// all waits for the others; then the meeting may be used again.
func (m *meeting) all(ctx context.Context) error {
	if m == nil {
		return nil
	}
	m.mu.Lock()
	open := m.open
	if m.here++; m.here == m.size {
		close(open)
		m.here, m.open = 0, make(chan struct{})
	}
	m.mu.Unlock()
	select {
	case <-open:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// together does the same n times side by side, and ends all when one fails.
func (b *Bench) together(ctx context.Context, n int, l Load, do func(ctx context.Context, b *Bench, l Load, i int) error) error {
	if b.Target != "" {
		return errors.New("several servers side by side are servers of the benchmark's own; there can be no target")
	}
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	quiet := *b
	quiet.Progress = nil // they would draw over each other
	l.meet = newMeeting(n)
	var running sync.WaitGroup
	errs := make([]error, n)
	for i := range n {
		running.Go(func() {
			if err := do(ctx, &quiet, l, i); err != nil {
				errs[i] = fmt.Errorf("server %d of %d: %w", i+1, n, err)
				fail(errs[i])
			}
		})
	}
	running.Wait()
	return errors.Join(errs...)
}

// Crowd measures a load on each of n servers at the same time: their traffic
// begins when all clients of all of them are connected.
func (b *Bench) Crowd(ctx context.Context, n int, l Load, t Tuning) ([]*Tuned, error) {
	all := make([]*Tuned, n)
	err := b.together(ctx, n, l, func(ctx context.Context, b *Bench, l Load, i int) (err error) {
		all[i], err = b.Tuned(ctx, l, t, nil)
		return err
	})
	return all, err
}

// IdleCrowd measures the memory of idle connections on n servers at the same
// time; each section is one server's. The kernel's figures count the
// connections of all n.
func (b *Bench) IdleCrowd(ctx context.Context, n int, l Load) ([]report.Section, error) {
	all := make([]report.Section, n)
	err := b.together(ctx, n, l, func(ctx context.Context, b *Bench, l Load, i int) error {
		sections, err := b.idle(ctx, l)
		if err == nil {
			all[i] = sections[0]
		}
		return err
	})
	return all, err
}
