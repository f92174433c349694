// Package crew runs work that needs a deep stack on goroutines that have one
// already.
//
// A goroutine keeps the stack that its deepest call needed until a garbage
// collection or two. A server in which each connection's goroutine carries
// out commands by itself therefore holds 8 to 32 KiB of stack for every
// connection that ever spoke. With a Crew the connection's own goroutine only
// waits for bytes, on the smallest stack there is, and hands over to a worker
// what comes then. There are as many workers as there is work at the same
// time; the newest to fall idle works first, so that the others can go home.
//
// A worker is a coroutine (iter.Pull): who asks becomes the worker until the
// task is done, and no scheduler comes in between. Handing a task to another
// goroutine would wake one more thread for each, only for it to find nothing
// left to do: see docs/decisions/0026-a-quiet-scheduler.md.
package crew

import (
	"fmt"
	"iter"
	"runtime/debug"
	"sync"
	"time"
)

// Task is what a worker runs. It must not panic: whoever gave the task would, and
// with the message so the stack of the task, which the runtime does not print.
type Task interface{ Run() }

// Idle workers beyond spare end by themselves, and others after rest without
// work.
const (
	spare = 256
	rest  = 10 * time.Second
)

// Crew is a set of workers. The zero Crew is ready to use. Its methods may be
// called from any goroutine; Do and Go not after Wait.
type Crew struct {
	mu   sync.Mutex
	idle []*worker // the newest last
	over bool      // Wait has begun: nobody rests any more
	all  sync.WaitGroup
}

// worker belongs to whoever has taken it, and runs within his calls.
type worker struct {
	task Task                    // nil once it has run to its end
	work func() (struct{}, bool) // runs task
	end  func()
	idle time.Time // since when
}

// Do runs t on a worker and returns when it is done.
func (c *Crew) Do(t Task) {
	w := c.take()
	w.task = t
	defer c.put(w)
	w.work()
}

// Go runs t on a worker and does not wait for it.
func (c *Crew) Go(t Task) { c.all.Go(func() { c.Do(t) }) }

func (c *Crew) take() *worker {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := len(c.idle); n > 0 {
		w := c.idle[n-1]
		c.idle[n-1] = nil
		c.idle = c.idle[:n-1]
		return w
	}
	w := &worker{}
	w.work, w.end = iter.Pull(w.run)
	c.all.Add(1) // until home
	return w
}

// run is the coroutine: one turn of the loop for each call of work.
func (w *worker) run(yield func(struct{}) bool) {
	defer func() {
		if p := recover(); p != nil {
			panic(fmt.Sprintf("%v\n\nin a task of a crew:\n%s", p, debug.Stack()))
		}
	}()
	for {
		w.task.Run()
		w.task = nil
		if !yield(struct{}{}) {
			return
		}
	}
}

// put takes a worker back and sends home who has rested for too long: the
// oldest stand first.
func (c *Crew) put(w *worker) {
	if w.task != nil { // it did not run to its end, and has taken the worker along
		c.all.Done()
		return
	}
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		c.home(w)
		return
	}
	w.idle = now
	c.idle = append(c.idle, w)
	n := 0
	for n < len(c.idle)-1 && (len(c.idle)-n > spare || now.Sub(c.idle[n].idle) > rest) {
		c.home(c.idle[n])
		n++
	}
	if n > 0 {
		m := copy(c.idle, c.idle[n:])
		clear(c.idle[m:])
		c.idle = c.idle[:m]
	}
}

// home ends an idle worker, which takes no longer than a call.
func (c *Crew) home(w *worker) {
	w.end()
	c.all.Done()
}

// Wait ends the workers, each when it has done what is under way, and returns
// when all have ended.
func (c *Crew) Wait() {
	c.mu.Lock()
	c.over = true
	for _, w := range c.idle {
		c.home(w)
	}
	c.idle = nil
	c.mu.Unlock()
	c.all.Wait()
}
