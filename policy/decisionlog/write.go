package decisionlog

import (
	"context"
	"time"
)

const (
	// gather is how long a record may wait for others to be written with.
	gather = 200 * time.Millisecond
	// batch is how many records are written at once.
	batch = 512
	// complainEvery bounds how often a disk that does not take records is
	// spoken of.
	complainEvery = time.Minute
)

// Run writes what is added until ctx ends, then the rest, and returns nil. The
// files are not synced: a power cut may take the last seconds.
func (l *Log) Run(ctx context.Context) error {
	minute := time.NewTicker(time.Minute)
	defer minute.Stop()
	var complained time.Time
	write := func() {
		for l.writeBatch(&complained) {
		}
	}
	for {
		select {
		case <-l.bell:
			timer := time.NewTimer(gather)
			select {
			case <-timer.C:
			case <-ctx.Done():
				timer.Stop()
			}
			write()
		case now := <-minute.C:
			l.sampler.refill()
			if l.files != nil {
				l.files.sweep(now)
			}
		case <-ctx.Done():
			write()
			if l.files != nil {
				l.files.close()
			}
			l.EndFollowers()
			return nil
		}
	}
}

// writeBatch writes the next records and reports whether there may be more.
// What the disk does not take is lost to it, and stays in memory.
func (l *Log) writeBatch(complained *time.Time) bool {
	if l.files == nil {
		return false
	}
	l.mu.Lock()
	var records []*Record
	for at := l.disk; at < l.next && len(records) < batch; at++ {
		records = append(records, l.ring[at%uint64(len(l.ring))])
	}
	l.mu.Unlock()
	if len(records) == 0 {
		return false
	}
	now := time.Now()
	written, err := l.files.write(records, now)
	l.written.Add(uint64(written))
	if err != nil {
		l.failed.Add(uint64(len(records) - written))
		if now.Sub(*complained) >= complainEvery {
			*complained = now
			l.log.Error("the decision log cannot be written, decisions go on", "err", err, "lost", l.failed.Load())
		}
	}
	l.mu.Lock()
	l.disk += uint64(len(records))
	l.mu.Unlock()
	return true
}
