package crew_test

import (
	"bytes"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"parley/core/crew"
)

// panics has a child process of the tests run a task that panics.
const panics = "PARLEY_TEST_TASK_PANICS"

func TestMain(m *testing.M) {
	if os.Getenv(panics) != "" {
		var c crew.Crew
		c.Do(task(theTaskThatPanics))
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

func theTaskThatPanics() { panic("a fault of ours") }

// A panic ends the process as it would anywhere, and says where it was.
func TestAPanicSaysWhere(t *testing.T) {
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), panics+"=1")
	out, err := child.CombinedOutput()
	if err == nil || !bytes.Contains(out, []byte("panic: a fault of ours")) || !bytes.Contains(out, []byte("theTaskThatPanics")) {
		t.Errorf("got %v: %s; want an end by panic with the stack of the task", err, out)
	}
}

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

func BenchmarkDo(b *testing.B) {
	var c crew.Crew
	defer c.Wait()
	b.ReportAllocs()
	t := task(func() {})
	for b.Loop() {
		c.Do(t)
	}
}
