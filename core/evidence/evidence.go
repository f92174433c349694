// Package evidence keeps what plugins decided. Of every message they judged it
// keeps the decision: a hash of the text, who judged it with which module,
// configuration and policy, and how. Of those that matter (see Mode) it keeps
// the original too for a short time, the bytes the plugins saw. With it a
// decision can be explained, replayed and disputed, and a new plugin be tried
// on what people really wrote. It is for moderators only, and everything in it
// can be erased: by message, by user, by room.
//
// A Keeper takes records off the path of messages: Keep and Note never block
// and never fail a send. Their queues are bounded, and what does not fit is
// dropped and counted. Evidence stays on the node that judged;
// core/evidence/disk stores it.
package evidence

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"parley/core/chat"
	"parley/core/moderation"
	"parley/sdk/abi"
)

// Mode says which judged messages are kept.
type Mode string

// The modes.
const (
	KeepFlagged Mode = "flagged" // those whose verdict is not plain allow
	KeepAll     Mode = "all"
	KeepNone    Mode = "none"
)

// Modes lists every mode, for messages and schemas.
var Modes = []Mode{KeepFlagged, KeepAll, KeepNone}

// Wants reports whether a message of that verdict is kept.
func (m Mode) Wants(v abi.Verdict) bool {
	return m == KeepAll || m == KeepFlagged && v != abi.Allow
}

// Record is one judged message.
type Record struct {
	moderation.Decision
	// Input is what the plugins saw, encoded by abi.AppendInput; empty where
	// only the decision is kept.
	Input []byte `json:"input"`
	// Context is what else than text and author the plugins were told. It is
	// set where Input is not.
	Context *Context `json:"context,omitempty"`
}

// Query selects records by time.
type Query struct {
	Room  chat.RoomID // "" for all
	Since int64       // Unix ms; older ones are left out
	After string      // the cursor an earlier page gave, "" to begin
	Limit int         // at most that many, MaxPage at most
}

// MaxPage bounds one page.
const MaxPage = 1000

// Page is what a query found, the oldest first.
type Page struct {
	Records []Record
	// Next is where to go on, "" at the end. A page may hold fewer records
	// than asked for, or none, and still have a Next.
	Next string
}

// Selection names what to erase: the records that have every part that is set.
type Selection struct {
	ID     chat.MessageID
	User   chat.UserID
	Room   chat.RoomID
	Before int64 // Unix ms; records judged earlier
	Only   Kind  // of record
}

// Kind is a kind of record.
type Kind uint8

// The kinds. Of one message there may be one of each.
const (
	Everything Kind = iota
	Originals       // with the input
	Decisions       // without
)

// Empty reports whether nothing is set, which selects nothing.
func (s Selection) Empty() bool {
	s.Only = Everything
	return s == Selection{}
}

// Matches reports whether d is selected.
func (s Selection) Matches(d *moderation.Decision) bool {
	return !s.Empty() && (s.ID == "" || s.ID == d.ID) && (s.User == "" || s.User == d.User) &&
		(s.Room == "" || s.Room == d.Room) && (s.Before == 0 || d.Time < s.Before)
}

// Errors that callers branch on.
var (
	ErrNotFound = errors.New("evidence: no such record")
	ErrCursor   = errors.New("evidence: not a cursor of this store")
)

// Store keeps records. Any goroutine may call any method.
type Store interface {
	// Put stores originals in one step and erases the oldest above the bound.
	Put(rs []Record) error
	// PutDecisions does so with records that have no input; they have a bound
	// of their own.
	PutDecisions(rs []Record) error
	// Get returns the record of a message, the original where there is one, or
	// ErrNotFound.
	Get(id chat.MessageID) (Record, error)
	// List answers a query about originals, or ErrCursor. Records that fail
	// their checksum are left out and logged.
	List(q Query) (Page, error)
	// Erase erases what is selected and says how many records that were.
	Erase(s Selection) (int, error)
	// EraseMessages erases everything about some messages together.
	EraseMessages(ids []chat.MessageID) (int, error)
	// Size returns how many originals there are and their encoded size together.
	Size() (records int, bytes int64)
	// DecisionSize returns the same of decisions.
	DecisionSize() (records int, bytes int64)
	Close() error
}

// Config bounds a Keeper.
type Config struct {
	Keep      Mode
	Retention time.Duration // 0 keeps until the store's bound
	// QueueBytes bounds what waits to be written.
	QueueBytes int

	Decisions         bool          // whether they are kept, of every judged message
	DecisionRetention time.Duration // as Retention
	NoteBytes         int           // as QueueBytes
}

// Defaults returns the configuration of an ordinary node.
func Defaults() Config {
	return Config{
		Keep: KeepFlagged, Retention: 72 * time.Hour, QueueBytes: 4 << 20,
		Decisions: true, DecisionRetention: 7 * 24 * time.Hour, NoteBytes: 16 << 20,
	}
}

const (
	// gather is how long a record may wait for others to be written with: a
	// write costs two syncs of the disk that the journal uses too.
	gather = 250 * time.Millisecond
	// gatherNotes is the same for decisions, of which many go into one block.
	gatherNotes = time.Second
	// maxSpare bounds the queue that is kept for the next notes.
	maxSpare = 4096
	// sweepEvery is how often retention is applied.
	sweepEvery = time.Minute
)

// Stats are counters since New, and sizes at present.
type Stats struct {
	Judged  uint64 // messages plugins judged
	Kept    uint64 // records written
	Dropped uint64 // records that did not fit the queue
	Failed  uint64 // records the store could not take
	Erased  uint64 // records erased, by request or by age
	Records int
	Bytes   int64

	// The same of decisions. Noted ones were written.
	Noted, NotesDropped, NotesFailed uint64
	Decisions                        int
	DecisionBytes                    int64
}

// Keeper writes records to a store in the background.
type Keeper struct {
	cfg   Config
	store Store
	log   *slog.Logger
	wake  chan struct{} // one slot

	noted chan struct{} // one slot: the first note waits
	crowd chan struct{} // one slot: so many wait that they are to be written now

	judged, kept, dropped, failed, erased atomic.Uint64
	written, notesDropped, notesFailed    atomic.Uint64 // notes

	writing sync.Mutex // held while the store is written; before mu and notesMu
	spare   []Note     // guarded by writing

	mu    sync.Mutex
	queue []Record
	bytes int

	notesMu   sync.Mutex
	notes     []Note
	noteBytes int
}

// New returns a keeper on the store, which stays the caller's to close. It
// starts nothing; see Run.
func New(cfg Config, store Store, log *slog.Logger) (*Keeper, error) {
	switch {
	case !slices.Contains(Modes, cfg.Keep):
		return nil, fmt.Errorf("evidence: keep %q is not one of flagged, all, none", cfg.Keep)
	case cfg.Retention < 0:
		return nil, fmt.Errorf("evidence: retention %v is below 0", cfg.Retention)
	case cfg.DecisionRetention < 0:
		return nil, fmt.Errorf("evidence: retention of decisions %v is below 0", cfg.DecisionRetention)
	case cfg.QueueBytes < 1 || cfg.NoteBytes < 1:
		return nil, fmt.Errorf("evidence: queues of %d and %d bytes hold nothing", cfg.QueueBytes, cfg.NoteBytes)
	}
	return &Keeper{cfg: cfg, store: store, log: log, wake: make(chan struct{}, 1), noted: make(chan struct{}, 1), crowd: make(chan struct{}, 1)}, nil
}

// Judged counts a message that plugins judged, kept or not.
func (k *Keeper) Judged() { k.judged.Add(1) }

// Keep queues a record, or drops it where too much waits. It never blocks on
// the store. The record must not be modified afterwards.
func (k *Keeper) Keep(r Record) {
	n := size(&r)
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.bytes+n > k.cfg.QueueBytes {
		k.dropped.Add(1)
		return
	}
	k.queue = append(k.queue, r)
	k.bytes += n
	if len(k.queue) == 1 {
		signal(k.wake)
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// size is about what a record takes of memory.
func size(r *Record) int {
	n := len(r.Input) + 512
	for i := range r.Plugins {
		n += 256 + len(r.Plugins[i].Error)
	}
	for i := range r.Reasons {
		n += len(r.Reasons[i].Text) + 64
	}
	return n
}

// Run writes what is kept and erases what is too old until ctx ends; then it
// writes the rest and returns nil.
func (k *Keeper) Run(ctx context.Context) error {
	sweep := time.NewTicker(sweepEvery)
	defer sweep.Stop()
	k.expire()
	var due <-chan time.Time // when the notes are to be written
	for {
		select {
		case <-k.wake:
			select {
			case <-time.After(gather):
			case <-ctx.Done():
			}
			k.flush()
		case <-k.noted:
			if due == nil {
				due = time.After(gatherNotes)
			}
		case <-k.crowd:
			due = nil
			k.flushNotes()
		case <-due:
			due = nil
			k.flushNotes()
		case <-sweep.C:
			k.expire()
		case <-ctx.Done():
			k.flush()
			k.flushNotes()
			return nil
		}
	}
}

// flush writes what waits.
func (k *Keeper) flush() {
	k.writing.Lock()
	defer k.writing.Unlock()
	k.flushLocked()
}

func (k *Keeper) flushLocked() {
	k.mu.Lock()
	rs := k.queue
	k.queue, k.bytes = nil, 0
	k.mu.Unlock()
	if len(rs) == 0 {
		return
	}
	if err := k.store.Put(rs); err != nil {
		k.failed.Add(uint64(len(rs)))
		k.log.Error("evidence could not be written; these records are lost", slog.Int("records", len(rs)), slog.Any("error", err))
		return
	}
	k.kept.Add(uint64(len(rs)))
}

func (k *Keeper) expire() {
	now := time.Now()
	for _, e := range []struct {
		kind Kind
		age  time.Duration
	}{{Originals, k.cfg.Retention}, {Decisions, k.cfg.DecisionRetention}} {
		if e.age == 0 {
			continue
		}
		if _, err := k.Erase(Selection{Only: e.kind, Before: now.Add(-e.age).UnixMilli()}); err != nil {
			k.log.Error("evidence that is too old could not be erased; the next round tries again", slog.Any("error", err))
		}
	}
}

// Erase erases what is selected, what waits to be written included. The
// original of a message and its decision are two records.
func (k *Keeper) Erase(s Selection) (int, error) {
	k.writing.Lock()
	defer k.writing.Unlock()
	k.flushLocked()
	k.flushNotesLocked()
	n, err := k.store.Erase(s)
	k.erased.Add(uint64(n))
	return n, err
}

// EraseMessages erases everything about some messages; it costs less than one
// Erase for each.
func (k *Keeper) EraseMessages(ids []chat.MessageID) (int, error) {
	k.writing.Lock()
	defer k.writing.Unlock()
	k.flushLocked()
	k.flushNotesLocked()
	n, err := k.store.EraseMessages(ids)
	k.erased.Add(uint64(n))
	return n, err
}

// Get returns the record of a message, or ErrNotFound; one that waits to be
// written is written first.
func (k *Keeper) Get(id chat.MessageID) (Record, error) {
	k.flush()
	k.flushNotes()
	return k.store.Get(id)
}

// List answers a query over all originals kept so far.
func (k *Keeper) List(q Query) (Page, error) {
	k.flush()
	return k.store.List(q)
}

// Stats returns the keeper's counters.
func (k *Keeper) Stats() Stats {
	s := Stats{Judged: k.judged.Load(), Kept: k.kept.Load(), Dropped: k.dropped.Load(), Failed: k.failed.Load(), Erased: k.erased.Load()}
	s.Noted, s.NotesDropped, s.NotesFailed = k.written.Load(), k.notesDropped.Load(), k.notesFailed.Load()
	s.Records, s.Bytes = k.store.Size()
	s.Decisions, s.DecisionBytes = k.store.DecisionSize()
	return s
}
