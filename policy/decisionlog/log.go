package decisionlog

import (
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"parley/core/gate"
)

// Config bounds a Log. Start from Defaults.
type Config struct {
	Entries   int           // records in memory
	Dir       string        // folder of the files; "" keeps none
	MaxBytes  int64         // of all files together; 0 keeps none
	Retention time.Duration // age at which a file is removed; 0 keeps it until MaxBytes
	// Sample says which share of the allowed decisions is recorded, by action;
	// see newSampler. PerMinute of each action are recorded in any case.
	Sample    []string
	PerMinute int
	// Mask names fields of the input that are left out; MaskRead leaves them
	// out even where the policy reads them.
	Mask     []string
	MaskRead bool
}

// Defaults returns a Config without a folder.
func Defaults() Config {
	return Config{
		Entries:   4096, // some 4 MB, and four times what a new revision is tried on
		MaxBytes:  64 << 20,
		Retention: 7 * 24 * time.Hour,
		Sample:    []string{"*=0.01"},
		PerMinute: 60,
	}
}

// Validate names the first field that is out of range.
func (c Config) Validate() error {
	switch {
	case c.Entries < 16 || c.Entries > 1<<20:
		return fmt.Errorf("policy.log.entries %d is not within 16 and %d", c.Entries, 1<<20)
	case c.MaxBytes < 0 || c.MaxBytes > 0 && c.MaxBytes < minBytes:
		return fmt.Errorf("policy.log.max_bytes %d is neither 0 nor at least %d", c.MaxBytes, minBytes)
	case c.Retention < 0:
		return fmt.Errorf("policy.log.retention %v is below 0", c.Retention)
	case c.PerMinute < 0:
		return fmt.Errorf("policy.log.per_minute %d is below 0", c.PerMinute)
	}
	if _, err := newSampler(c.Sample, c.PerMinute); err != nil {
		return err
	}
	return checkMask(c.Mask)
}

// Log is the decision log of one node. Make one with New.
type Log struct {
	cfg     Config // set at construction
	log     *slog.Logger
	sampler *sampler
	files   *files // nil when nothing is written; Run's, but for reading

	dropped, droppedDenied, added, written, failed atomic.Uint64

	bell    chan struct{} // one slot; wakes the writer
	ended   chan struct{} // closed when followers must end
	endOnce sync.Once

	mu        sync.Mutex
	ids       ids           // guarded by mu
	ring      []*Record     // by number modulo its length; guarded by mu
	next      uint64        // number of the next record; guarded by mu
	disk      uint64        // number of the next record to be written; guarded by mu
	followers int           // guarded by mu
	more      chan struct{} // closed, and made anew, when a record is added that somebody waits for; guarded by mu
}

// New returns a log whose memory holds the end of what the folder has.
func New(cfg Config, log *slog.Logger) (*Log, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s, err := newSampler(cfg.Sample, cfg.PerMinute)
	if err != nil {
		return nil, err
	}
	l := &Log{
		cfg: cfg, log: log, sampler: s, ring: make([]*Record, cfg.Entries),
		bell: make(chan struct{}, 1), ended: make(chan struct{}), more: make(chan struct{}),
	}
	if cfg.Dir == "" || cfg.MaxBytes == 0 {
		return l, nil
	}
	if l.files, err = openFiles(cfg, log); err != nil {
		return nil, err
	}
	tail, err := l.files.tail(cfg.Entries)
	if err != nil {
		log.Error("what the decision log holds of earlier cannot be read", "dir", cfg.Dir, "err", err)
	}
	for _, r := range tail {
		l.ring[l.next%uint64(len(l.ring))] = r
		l.next++
		l.ids = ids{max(l.ids.ms, r.Time.UnixMilli()), 1<<32 - 1} // ids go on growing though the clock may have gone back
	}
	l.disk = l.next
	return l, nil
}

// Wants reports whether an allowed decision about action is one of those that
// are recorded. Refusals always are. draw is any evenly distributed number.
func (l *Log) Wants(action string, draw uint32) bool { return l.sampler.wants(action, draw) }

// Made is a decision to record.
type Made struct {
	Input    *gate.Input // copied
	Decision *gate.Decision
	NS       int64
	Mask     Mask   // of the policy that decided
	Named    string // see Record
}

// Decided records a decision and returns its id, also where it is dropped: the
// person refused gets one in any case. It never blocks.
func (l *Log) Decided(m Made) string {
	d := m.Decision
	r := &Record{
		Revision: d.Revision, Input: m.Mask.masked(m.Input), Message: m.Input.Message, Allow: d.Allow, Reasons: d.Reasons,
		Failed: d.Failed, Cached: d.Cached, NS: m.NS, Masked: m.Mask.fields, NotReplayable: m.Mask.beyond,
		Named: m.Named,
	}
	if o := d.Obligations; !o.None() {
		r.Obligations = &o
	}
	return l.add(r)
}

// Happened records an event.
func (l *Log) Happened(e Event, revision, by, detail string) {
	if n := MaxRecordBytes / 8; len(detail) > n { // JSON may need six bytes for one
		detail = detail[:n]
	}
	l.add(&Record{Event: e, Revision: revision, By: by, Detail: detail})
}

func (l *Log) add(r *Record) string {
	r.Time = time.Now()
	l.mu.Lock()
	r.ID = l.ids.next(r.Time)
	lag, most := l.next-l.disk, uint64(len(l.ring))
	if r.IsDecision() && r.Allow {
		most /= 2 // the other half is for what is always kept
	}
	if l.files != nil && lag >= most {
		l.mu.Unlock()
		l.dropped.Add(1)
		if !r.Allow {
			l.droppedDenied.Add(1)
		}
		return r.ID
	}
	l.ring[l.next%uint64(len(l.ring))] = r
	l.next++
	if l.followers > 0 {
		close(l.more)
		l.more = make(chan struct{})
	}
	l.mu.Unlock()
	l.added.Add(1)
	if l.files != nil {
		select {
		case l.bell <- struct{}{}:
		default:
		}
	}
	return r.ID
}

// Recent returns up to n of the newest replayable decisions, the oldest first.
func (l *Log) Recent(n int) []*Record {
	var out []*Record
	l.mu.Lock()
	defer l.mu.Unlock()
	for at := l.next; at > l.oldestLocked() && len(out) < n; at-- {
		if r := l.ring[(at-1)%uint64(len(l.ring))]; r.IsDecision() && !r.NotReplayable {
			out = append(out, r)
		}
	}
	for i, j := 0, len(out)-1; i < j; i, j = i+1, j-1 {
		out[i], out[j] = out[j], out[i]
	}
	return out
}

// oldestLocked is the number of the oldest record in memory.
func (l *Log) oldestLocked() uint64 {
	if n := uint64(len(l.ring)); l.next > n {
		return l.next - n
	}
	return 0
}

// Stats are counters since New.
type Stats struct {
	Added         uint64 `json:"added"`
	Dropped       uint64 `json:"dropped"`        // the writer lagged too far behind
	DroppedDenied uint64 `json:"dropped_denied"` // of those, what should always be kept
	Written       uint64 `json:"written"`
	Failed        uint64 `json:"failed"` // records the disk could not take
	Files         int    `json:"files"`
	Bytes         int64  `json:"bytes"`
}

// Stats returns the counters and the present size of the files.
func (l *Log) Stats() Stats {
	s := Stats{Added: l.added.Load(), Dropped: l.dropped.Load(), DroppedDenied: l.droppedDenied.Load(), Written: l.written.Load(), Failed: l.failed.Load()}
	if l.files != nil {
		s.Files, s.Bytes = l.files.size()
	}
	return s
}
