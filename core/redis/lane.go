package redis

import "time"

// lane is guarded by pipes.mu.
type lane struct {
	p       *pipes
	server  *server
	flights int
	batch   int

	queue  []*call
	calls  int // queued and under way
	bytes  int
	flying int
	idle   int           // goroutines that wait for wake
	wake   chan struct{} // one slot for each that may wait
	// gathering says that a goroutine has yet to take what is queued.
	gathering bool
	pace      pace
	target    int
	full      chan struct{} // one slot; tells the one who gathers that target is reached
}

// startLocked sends somebody for what is queued, if that can leave.
func (l *lane) startLocked() {
	if len(l.queue) > 0 && !l.gathering && l.flying < l.flights {
		l.gathering = true
		if l.idle > 0 {
			l.idle--
			l.wake <- struct{}{}
		} else {
			l.p.flying.Go(l.fly)
		}
	}
}

// fly takes what is queued to the server, again and again, and ends when
// nothing was for a while: a new goroutine for each pipeline would grow a stack
// for each.
func (l *lane) fly() {
	linger := time.NewTimer(lingering)
	defer linger.Stop()
	var batch []*call
	for {
		batch = l.take(batch[:0])
		if len(batch) > 0 {
			l.p.client.exec(l.server, batch)
		}
		more := l.landed(batch)
		clear(batch)
		if more {
			continue
		}
		linger.Reset(lingering)
		select {
		case <-l.wake:
			continue
		case <-linger.C:
		case <-l.p.ending:
		}
		if l.leave() {
			return
		}
	}
}

// leave ends the waiting of one goroutine, unless it has just been woken.
func (l *lane) leave() bool {
	l.p.mu.Lock()
	defer l.p.mu.Unlock()
	if l.idle > 0 {
		l.idle--
		return true
	}
	<-l.wake // sent under the lock, so it is there
	return false
}

// take waits for the pace and takes what fits in one pipeline.
func (l *lane) take(batch []*call) []*call {
	p := l.p
	p.mu.Lock()
	defer p.mu.Unlock()
	for !p.closed && len(l.queue) < l.batch {
		wait, target := l.pace.wait(l.calls)
		if wait <= 0 {
			break
		}
		l.target = target
		p.mu.Unlock()
		t := time.NewTimer(wait)
		select {
		case <-l.full:
		case <-t.C:
		}
		t.Stop()
		p.mu.Lock()
	}
	n, bytes := 0, 0
	for n < len(l.queue) && len(batch) < l.batch {
		x := l.queue[n]
		if len(batch) > 0 && (bytes+x.size > batchBytes || x.alone() || batch[0].alone()) {
			break
		}
		n++
		if x.gone.Load() {
			l.calls--
			l.bytes -= x.size
			continue
		}
		bytes += x.size
		batch = append(batch, x)
	}
	rest := copy(l.queue, l.queue[n:])
	clear(l.queue[rest:])
	l.queue = l.queue[:rest]
	l.gathering = false
	l.flying++
	l.pace.left(l.calls)
	p.stats.Calls += uint64(len(batch))
	if len(batch) > 0 {
		p.stats.Batches++
	}
	l.startLocked()
	return batch
}

// landed ends a pipeline, answers its calls, and reports whether there is more
// to take; else the goroutine waits to be woken.
func (l *lane) landed(batch []*call) bool {
	p := l.p
	p.mu.Lock()
	l.flying--
	for _, x := range batch {
		l.calls--
		l.bytes -= x.size
	}
	more := len(l.queue) > 0 && !l.gathering
	l.gathering = l.gathering || more
	if !more {
		l.idle++
	}
	p.mu.Unlock()
	for _, x := range batch {
		x.done <- struct{}{}
	}
	return more
}

// pace decides how long to gather. A call that finds few others about leaves at
// once. Under load a pipeline leaves when gather has passed since the last one
// left, or earlier when as many calls wait or are under way as ever did lately:
// then every caller is waiting, and nobody is left to wait for.
type pace struct {
	last    time.Time // when the last pipeline left
	peak    int       // most calls about when one of the last pipelines left
	peakOld int       // the same for those before
	count   int
}

// peakSpan is how many pipelines one peak covers.
const peakSpan = 32

func (p *pace) left(calls int) {
	p.last = time.Now()
	p.peak = max(p.peak, calls)
	if p.count++; p.count%peakSpan == 0 {
		p.peakOld, p.peak = p.peak, 0
	}
}

func (p *pace) wait(calls int) (wait time.Duration, target int) {
	target = max(p.peak, p.peakOld, 1)
	if calls >= target {
		return 0, target
	}
	return gather - time.Since(p.last), target
}
