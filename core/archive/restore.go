package archive

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"parley/core/absent"
	"parley/core/chat"
	"parley/core/journal"
)

// Options say how rooms are put into a store.
type Options struct {
	// KeepEpoch keeps a room's epoch, so that clients go on from where they are.
	// Without it each room begins a new one, and they are told to reset.
	KeepEpoch bool
	// Fresh refuses rooms that the store has.
	Fresh bool
	// Notes has what waited for absent people delivered; without it that is
	// passed over.
	Notes Notes
}

// Restore puts the rooms of an archive into the journal. A room is replaced in
// one step, when all of it has been read; rooms that the archive does not have
// stay. An error that the archive is to blame for is an *Error.
func Restore(ctx context.Context, r io.Reader, j journal.Journal, o Options) (Summary, error) {
	to := &importer{ctx: ctx, j: j, o: o}
	_, sum, err := read(r, to)
	if err == nil {
		err = to.putNotes()
	}
	sum.Notes = to.put
	return sum, errors.Join(err, to.close())
}

// importer is a sink that puts rooms into a journal.
type importer struct {
	ctx context.Context // of the one call that it lives for
	j   journal.Journal
	o   Options

	in    journal.Import // nil between rooms
	now   Room
	img   journal.Image
	bytes int
	time  int64 // of the last entry

	// Where notes are put back:
	places map[chat.RoomID]place // every room
	notes  []absent.Note         // not put yet
	size   int                   // of their texts
	put    int
}

// place is a room's log as it was, and the epoch that it has now.
type place struct {
	was journal.Position
	now string
}

func (w *importer) room(r Room) (err error) {
	w.now, w.bytes, w.time = r, 0, 0
	w.img = journal.Image{Top: r.Top, Fresh: w.o.Fresh, State: map[string][]byte{}}
	if w.o.KeepEpoch {
		w.img.Epoch = r.Top.Epoch
	} else {
		w.img.Past = []string{r.Top.Epoch}
	}
	w.in, err = w.j.Import(w.ctx, r.ID)
	return err
}

func (w *importer) state(key string, value []byte) error {
	w.img.State[key] = bytes.Clone(value)
	return nil
}

func (w *importer) review(r *journal.Review) error {
	if r.Open() {
		w.img.Open = append(w.img.Open, *r)
	} else {
		w.img.Decided = append(w.img.Decided, *r)
	}
	return nil
}

func (w *importer) entries(es []journal.Entry) error {
	for i := range es {
		w.posted(es[i].ID)
	}
	w.time = es[len(es)-1].Time
	return w.in.Put(w.ctx, es)
}

// posted takes an entry out of the queue that was approved while the room was
// read.
func (w *importer) posted(id chat.MessageID) {
	w.img.Open = slices.DeleteFunc(w.img.Open, func(r journal.Review) bool { return r.Entry.ID == id })
}

// missing puts a tombstone where an entry was lost, so that the order stays dense.
func (w *importer) missing(seq uint64) error {
	e := journal.Entry{Seq: seq, ID: chat.MessageID(fmt.Sprintf("lost-%d-%s", seq, w.now.Top.Epoch)), Kind: journal.KindMessage, Time: w.time, Outcome: chat.Erased}
	if seq == w.now.Top.Seq {
		e.ID = w.now.Top.ID
	}
	return w.in.Put(w.ctx, []journal.Entry{e})
}

func (w *importer) void() error { return w.close() }

func (w *importer) end() error {
	at, err := w.in.Commit(w.ctx, w.img)
	if err != nil {
		return err
	}
	w.in = nil
	if w.o.Notes != nil {
		if w.places == nil {
			w.places = make(map[chat.RoomID]place)
		}
		w.places[w.now.ID] = place{was: w.now.Top, now: at.Epoch}
	}
	return nil
}

// Notes are put back some at a time.
const (
	noteBatch = 64
	noteBytes = 1 << 20
)

// note takes a message whose place is in the archive: it gets the epoch that the
// room has now.
func (w *importer) note(n *absent.Note) error {
	at, ok := w.places[n.Room]
	if !ok || n.Epoch == at.was.Epoch && n.Seq > at.was.Seq {
		return nil // it was written after the room was copied
	}
	anew := *n
	if n.Epoch == at.was.Epoch {
		anew.Epoch = at.now
	}
	w.notes = append(w.notes, anew)
	if w.size += len(n.Text); len(w.notes) < noteBatch && w.size < noteBytes {
		return nil
	}
	return w.putNotes()
}

func (w *importer) putNotes() error {
	if len(w.notes) == 0 {
		return nil
	}
	if err := w.o.Notes.PutNotes(w.ctx, w.notes); err != nil {
		return err
	}
	w.put += len(w.notes)
	clear(w.notes)
	w.notes, w.size = w.notes[:0], 0
	return nil
}

// closeTime bounds the cleaning up after an import that was given up.
const closeTime = 5 * time.Second

// close gives up the room under way.
func (w *importer) close() error {
	if w.in == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(w.ctx), closeTime)
	defer cancel()
	err := w.in.Abort(ctx)
	w.in = nil
	return err
}

// Digest is a room's content: its position and SHA-256 sums of its entries and
// of the rest of it.
type Digest struct {
	Top     journal.Position
	Entries uint64
	Missing uint64
	Log     [sha256.Size]byte
	Rest    [sha256.Size]byte
}

// Sum reads a room and returns its digest.
func Sum(ctx context.Context, j journal.Journal, id chat.RoomID) (Digest, error) {
	s := &summer{}
	if err := walk(ctx, j, id, s); err != nil {
		return Digest{}, fmt.Errorf("sum up room %s: %w", id, err)
	}
	return s.d, nil
}
