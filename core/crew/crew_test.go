package crew_test

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"parley/core/crew"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type task func()

func (t task) Run() { t() }

func TestDoReturnsWhenTheTaskIsDone(t *testing.T) {
	var c crew.Crew
	defer c.Wait()
	var sum atomic.Int64
	var callers sync.WaitGroup
	for range 50 {
		callers.Go(func() {
			for range 200 {
				mine := false
				c.Do(task(func() { mine = true; sum.Add(1) }))
				if !mine {
					t.Error("Do returned before its task had run")
				}
			}
		})
	}
	callers.Wait()
	if got := sum.Load(); got != 50*200 {
		t.Errorf("got %d tasks run, want %d", got, 50*200)
	}
}

func TestTasksRunSideBySide(t *testing.T) {
	var c crew.Crew
	defer c.Wait()
	const n = 1000 // more than are kept when idle
	var here, callers sync.WaitGroup
	here.Add(n)
	for range n {
		callers.Go(func() {
			c.Do(task(func() {
				here.Done()
				here.Wait() // all must be there at the same time
			}))
		})
	}
	callers.Wait()
}

func TestIdleWorkersGoHome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c crew.Crew
		var here, callers sync.WaitGroup
		here.Add(20)
		for range 20 {
			callers.Go(func() { c.Do(task(func() { here.Done(); here.Wait() })) })
		}
		callers.Wait()
		time.Sleep(time.Minute)
		c.Do(task(func() {})) // whoever asks next sends them home
		c.Wait()              // a worker that is neither idle nor gone would keep this for ever
	})
}

func TestGoDoesNotWait(t *testing.T) {
	var c crew.Crew
	gate := make(chan struct{})
	var done sync.WaitGroup
	for range 300 {
		done.Add(1)
		c.Go(task(func() { <-gate; done.Done() }))
	}
	close(gate) // all were taken before any could end
	done.Wait()
	for range 300 { // and the workers are back, or new ones are
		c.Do(task(func() {}))
	}
	c.Wait()
}

// Wait may come while the last tasks are just ending.
func TestWaitWhileTasksEnd(t *testing.T) {
	for range 200 {
		var c crew.Crew
		var told sync.WaitGroup
		told.Add(8)
		for range 8 {
			c.Go(task(told.Done))
		}
		told.Wait()
		c.Wait()
	}
}

// A task that panics does so with its own stack, and nobody waits for its worker.
func TestAPanicSaysWhere(t *testing.T) {
	var c crew.Crew
	c.Do(task(func() {}))
	var said string
	func() {
		defer func() { said = fmt.Sprint(recover()) }()
		c.Do(task(stumble))
	}()
	if !strings.HasPrefix(said, "over a stone\n") || !strings.Contains(said, "crew_test.stumble") {
		t.Fatalf("got %q, want the message and where it was", said)
	}
	ran := false
	c.Do(task(func() { ran = true }))
	if !ran {
		t.Error("the crew is of no use any more")
	}
	c.Wait()
}

func stumble() { panic("over a stone") }

// A task that ends its goroutine ends that of who gave it, and nothing else.
func TestATaskThatLeaves(t *testing.T) {
	var c crew.Crew
	var callers sync.WaitGroup
	returned := false
	callers.Go(func() {
		c.Do(task(runtime.Goexit))
		returned = true
	})
	callers.Wait()
	if returned {
		t.Error("Do returned")
	}
	c.Wait()
}

func BenchmarkDo(b *testing.B) {
	var c crew.Crew
	defer c.Wait()
	b.ReportAllocs()
	t := task(func() {})
	for b.Loop() {
		c.Do(t)
	}
}
