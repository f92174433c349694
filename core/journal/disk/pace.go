package disk

import "time"

// pace decides how long to gather. An append that finds the committer idle is
// committed at once. Under load a commit begins when the window since the last
// one is over, or earlier when as many wait as ever waited lately: then every
// writer is waiting, and nobody is left to wait for.
type pace struct {
	last    time.Time // end of the last commit
	peak    int       // most appends in one of the last commits
	peakOld int       // the same for the commits before those
	commits int
}

// peakSpan is how many commits one peak covers.
const peakSpan = 32

func (p *pace) ended(n int) {
	p.last = time.Now()
	p.peak = max(p.peak, n)
	if p.commits++; p.commits%peakSpan == 0 {
		p.peakOld, p.peak = p.peak, 0
	}
}

func (p *pace) wait(window time.Duration, n int) (wait time.Duration, target int) {
	target = max(p.peak, p.peakOld, 1)
	if window <= 0 || n >= target {
		return 0, target
	}
	return window - time.Since(p.last), target
}
