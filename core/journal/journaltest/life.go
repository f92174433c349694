package journaltest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"parley/core/journal"
)

var lifeCases = []testCase{
	{"a new journal is healthy", healthy},
	{"an ended context is answered", ctxEnded},
	{"close may be called twice and ends everything", closed},
	{"appends under way finish or fail when it closes", closeUnderWay},
}

func healthy(t *testing.T, s Store) {
	j := open(t, s)
	if err := j.Healthy(within(t)); err != nil {
		t.Errorf("healthy: got %v, want nil", err)
	}
	fill(t, j, "lobby", 1)
	if err := j.Healthy(within(t)); err != nil {
		t.Errorf("healthy after an append: got %v, want nil", err)
	}
}

func ctxEnded(t *testing.T, s Store) {
	j := open(t, s)
	fill(t, j, "lobby", 2)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for name, err := range allErrors(ctx, j) {
		wantErr(t, name, err, context.Canceled)
	}
	// The outcome of a cancelled append is unknown, but the log stays dense.
	top := mustInfo(t, j, "lobby").Top.Seq
	if rc := mustAppend(t, j, message("lobby", "ann", "next", "hi")); rc.Seq != top+1 && rc.Seq != top+2 {
		t.Errorf("got seq %d after %d, want the next one", rc.Seq, top)
	}
	_, es := readAll(t, j, "lobby", 0, 100)
	wantSeqs(t, "after a cancelled append", es, 1, mustInfo(t, j, "lobby").Top.Seq)
}

// allErrors calls every method that takes a context, but for Healthy and
// Watch, and returns what each answered.
func allErrors(ctx context.Context, j journal.Journal) map[string]error {
	errs := map[string]error{}
	_, errs["append"] = j.Append(ctx, message("lobby", "ann", "cancelled", "hi"))
	_, _, errs["lookup"] = j.Lookup(ctx, "lobby", "ann", "n1")
	_, _, errs["read"] = j.Read(ctx, "lobby", 0, 10)
	_, _, errs["read before"] = j.ReadBefore(ctx, "lobby", 0, 10)
	_, errs["info"] = j.Info(ctx, "lobby")
	_, errs["rooms"] = j.Rooms(ctx, "", 10)
	_, _, errs["reviews"] = j.Reviews(ctx, "lobby")
	_, errs["overdue"] = j.Overdue(ctx, 1, 1)
	return errs
}

func closed(t *testing.T, s Store) {
	j := open(t, s)
	fill(t, j, "lobby", 2)
	cancel := watch(t, j, "lobby", newRecorder())
	for i := range 2 {
		if err := j.Close(); err != nil {
			t.Errorf("close %d: %v", i+1, err)
		}
	}
	ctx := within(t)
	errs := allErrors(ctx, j)
	errs["healthy"] = j.Healthy(ctx)
	_, errs["watch"] = j.Watch(ctx, "lobby", newRecorder())
	for name, err := range errs {
		wantErr(t, name+" after close", err, journal.ErrUnavailable)
	}
	cancel() // cancelling after Close is harmless
}

func closeUnderWay(t *testing.T, s Store) {
	const writers = 8
	j := open(t, s)
	ctx := within(t)
	acked := make([][]journal.Receipt, writers)
	started := make(chan struct{}, writers)
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := 0; ; i++ {
				rc, err := j.Append(ctx, message("lobby", "ann", fmt.Sprintf("%d-%d", w, i), "hi"))
				if errors.Is(err, journal.ErrUnavailable) {
					return
				}
				if err != nil {
					t.Errorf("append while closing: got %v, want success or %v", err, journal.ErrUnavailable)
					return
				}
				acked[w] = append(acked[w], rc)
				if i == 3 {
					started <- struct{}{}
				}
			}
		})
	}
	for range writers {
		select {
		case <-started:
		case <-ctx.Done():
			t.Fatal("the writers did not get going")
		}
	}
	if err := j.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
	wg.Wait()
	j = open(t, s)
	_, es := readAll(t, j, "lobby", 0, 500)
	wantSeqs(t, "after close", es, 1, uint64(len(es)))
	for _, rcs := range acked {
		for _, rc := range rcs {
			if rc.Seq > uint64(len(es)) || es[rc.Seq-1].ID != rc.ID {
				t.Fatalf("acknowledged seq %d (%s) is not there after close", rc.Seq, rc.ID)
			}
		}
	}
}
