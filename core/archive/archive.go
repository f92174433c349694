package archive

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"slices"
	"time"

	"parley/core/absent"
	"parley/core/chat"
	"parley/core/journal"
	"parley/core/journal/codec"
)

// Magic begins every archive.
const Magic = "PARLEYAR"

// Version is that of the format. A reader takes it and earlier ones.
const Version = 2

const (
	kindHeader  = 'H'
	kindRoom    = 'R'
	kindState   = 'S'
	kindOpen    = 'O'
	kindDecided = 'D'
	kindEntry   = 'E'
	kindMissing = 'M'
	kindVoid    = 'X'
	kindEnd     = 'Z'
	kindNote    = 'N'
	kindTrailer = 'T'
)

// maxPayload bounds a frame: an entry with its seq, a review around one, or a note
// in JSON, which is the largest.
const maxPayload = absent.MaxNote

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Header says where an archive is from.
type Header struct {
	Created time.Time `json:"created"`
	Server  string    `json:"server"` // its version
}

// Summary counts what is in an archive, or was copied.
type Summary struct {
	Rooms   int    `json:"rooms"`
	Entries uint64 `json:"entries"`
	Missing uint64 `json:"missing"`         // entries that the store could not read
	Reviews int    `json:"reviews"`         // open ones
	Notes   int    `json:"notes,omitempty"` // for absent people; of a restore: that were put back
}

// trailer ends an archive.
type trailer struct {
	Summary
	SHA256 string `json:"sha256"`
}

// Room is what a room is besides its state, reviews and entries.
type Room struct {
	ID    chat.RoomID
	Top   journal.Position
	First uint64 // the oldest entry held; Top.Seq+1 when none is
}

// sink takes rooms, one after the other, in the order of the format.
type sink interface {
	room(r Room) error
	state(key string, value []byte) error
	review(r *journal.Review) error
	entries(es []journal.Entry) error // dense
	missing(seq uint64) error
	void() error
	end() error
	note(n *absent.Note) error // after all rooms
}

// Notes is where messages for absent people wait (package absent/redis).
type Notes interface {
	// EachNote calls f for each that is not delivered. It must not keep the note.
	EachNote(ctx context.Context, f func(*absent.Note) error) error
	// PutNotes has them delivered, or puts them among those that cannot be.
	PutNotes(ctx context.Context, notes []absent.Note) error
}

// Write writes an archive of every room of the journal to w, and of what waits
// for absent people, where notes is not nil. It reads in batches, between which
// others go on. What it returns with an error is what was complete before.
func Write(ctx context.Context, j journal.Journal, notes Notes, w io.Writer, h Header) (Summary, error) {
	out := &writer{w: w, sum: sha256.New()}
	if err := out.begin(h); err != nil {
		return out.total, err
	}
	err := eachRoom(ctx, j, func(id chat.RoomID) error { return walk(ctx, j, id, out) })
	if err == nil && notes != nil {
		err = notes.EachNote(ctx, out.note)
	}
	if err != nil {
		return out.total, err
	}
	return out.total, out.finish()
}

// eachRoom calls f for every room of the journal.
func eachRoom(ctx context.Context, j journal.Journal, f func(chat.RoomID) error) error {
	for after := chat.RoomID(""); ; {
		ids, err := j.Rooms(ctx, after, 256)
		if err != nil {
			return fmt.Errorf("list the rooms: %w", err)
		}
		if len(ids) == 0 {
			return nil
		}
		for _, id := range ids {
			if err := f(id); err != nil {
				return fmt.Errorf("room %s: %w", id, err)
			}
		}
		after = ids[len(ids)-1]
	}
}

const (
	// batch is how many entries are read at a time.
	batch = 256
	// attempts is how often a room is begun anew whose log is replaced, or trimmed
	// faster than it is read.
	attempts = 5
)

var errMoved = errors.New("its log changes faster than it can be read")

// walk takes one room to the sink.
func walk(ctx context.Context, j journal.Journal, id chat.RoomID, to sink) error {
	for range attempts {
		err := walkOnce(ctx, j, id, to)
		if !errors.Is(err, errMoved) {
			return err
		}
		if err := to.void(); err != nil {
			return err
		}
	}
	return errMoved
}

func walkOnce(ctx context.Context, j journal.Journal, id chat.RoomID, to sink) error {
	// Before the log: what is approved in between stands in it.
	open, decided, err := j.Reviews(ctx, id)
	if err != nil {
		return err
	}
	info, err := j.Info(ctx, id)
	if err != nil {
		return err
	}
	if info.Top.Epoch == "" { // no such room
		return nil
	}
	if err := to.room(Room{ID: id, Top: info.Top, First: info.First}); err != nil {
		return err
	}
	keys := make([]string, 0, len(info.State))
	for key := range info.State {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	for _, key := range keys {
		if err := to.state(key, info.State[key]); err != nil {
			return err
		}
	}
	for i := range open {
		if err := to.review(&open[i]); err != nil {
			return err
		}
	}
	for i := range decided {
		if err := to.review(&decided[i]); err != nil {
			return err
		}
	}
	if err := walkLog(ctx, j, id, info, to); err != nil {
		return err
	}
	return to.end()
}

// walkLog takes the entries up to the top to the sink.
func walkLog(ctx context.Context, j journal.Journal, id chat.RoomID, info journal.Info, to sink) error {
	begun := false
	for after := info.First - 1; after < info.Top.Seq; {
		epoch, es, err := j.Read(ctx, id, after, batch)
		var damaged *journal.DamagedError
		if errors.As(err, &damaged) && damaged.Seq > after {
			if begun && damaged.Seq != after+1 {
				return errMoved
			}
			if err := to.missing(damaged.Seq); err != nil {
				return err
			}
			begun, after = true, damaged.Seq
			continue
		}
		if err != nil {
			return err
		}
		if epoch != info.Top.Epoch {
			return errMoved
		}
		for len(es) > 0 && es[len(es)-1].Seq > info.Top.Seq {
			es = es[:len(es)-1]
		}
		if len(es) == 0 {
			if begun {
				return errMoved
			}
			return nil // retention has taken all of it
		}
		if begun && es[0].Seq != after+1 {
			return errMoved
		}
		if err := to.entries(es); err != nil {
			return err
		}
		begun, after = true, es[len(es)-1].Seq
	}
	return nil
}

// writer is a sink that writes frames. Its buffers are its own.
type writer struct {
	w     io.Writer
	sum   hash.Hash
	buf   []byte // frames not written yet
	body  []byte // scratch
	total Summary
	now   Summary // of the room under way
}

// flushAt is how many bytes are written at once.
const flushAt = 64 << 10

func (w *writer) begin(h Header) error {
	w.buf = append(w.buf, Magic...)
	w.buf = binary.LittleEndian.AppendUint16(w.buf, Version)
	text, err := json.Marshal(h)
	if err != nil {
		return fmt.Errorf("write the archive's header: %w", err)
	}
	return w.frame(kindHeader, text)
}

func (w *writer) frame(kind byte, payload []byte) error {
	if len(payload) > maxPayload {
		return fmt.Errorf("write an archive: a frame of %d bytes, at most %d are allowed", len(payload), maxPayload)
	}
	w.buf = append(w.buf, kind)
	w.buf = binary.AppendUvarint(w.buf, uint64(len(payload)))
	w.buf = append(w.buf, payload...)
	sum := crc32.Update(crc32.Checksum([]byte{kind}, castagnoli), castagnoli, payload)
	w.buf = binary.LittleEndian.AppendUint32(w.buf, sum)
	if len(w.buf) < flushAt {
		return nil
	}
	return w.flush()
}

func (w *writer) flush() error {
	w.sum.Write(w.buf) // never fails
	_, err := w.w.Write(w.buf)
	w.buf = w.buf[:0]
	if err != nil {
		return fmt.Errorf("write an archive: %w", err)
	}
	return nil
}

func (w *writer) room(r Room) error {
	b := codec.AppendText(w.body[:0], string(r.ID))
	b = codec.AppendText(b, r.Top.Epoch)
	b = codec.AppendText(b, string(r.Top.ID))
	b = binary.AppendUvarint(b, r.First)
	w.body = binary.AppendUvarint(b, r.Top.Seq)
	w.now = Summary{}
	return w.frame(kindRoom, w.body)
}

func (w *writer) state(key string, value []byte) error {
	b := codec.AppendText(w.body[:0], key)
	w.body = codec.AppendText(b, string(value))
	return w.frame(kindState, w.body)
}

func (w *writer) review(r *journal.Review) error {
	b, err := codec.AppendReview(w.body[:0], r)
	if err != nil {
		return err
	}
	w.body = b
	if !r.Open() {
		return w.frame(kindDecided, b)
	}
	w.now.Reviews++
	return w.frame(kindOpen, b)
}

func (w *writer) entries(es []journal.Entry) error {
	for i := range es {
		b, err := codec.AppendEntry(binary.AppendUvarint(w.body[:0], es[i].Seq), &es[i])
		if err != nil {
			return err
		}
		w.body = b
		w.now.Entries++
		if err := w.frame(kindEntry, b); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) missing(seq uint64) error {
	w.now.Missing++
	return w.frame(kindMissing, binary.AppendUvarint(nil, seq))
}

func (w *writer) void() error { return w.frame(kindVoid, nil) }

func (w *writer) end() error {
	w.total.add(w.now)
	return w.frame(kindEnd, binary.AppendUvarint(nil, w.now.Entries+w.now.Missing))
}

func (w *writer) note(n *absent.Note) error {
	b, err := absent.AppendNote(w.body[:0], n)
	if err != nil {
		return err
	}
	w.body = b
	w.total.Notes++
	return w.frame(kindNote, b)
}

// add counts one room more.
func (s *Summary) add(room Summary) {
	s.Rooms++
	s.Entries += room.Entries
	s.Missing += room.Missing
	s.Reviews += room.Reviews
}

func (w *writer) finish() error {
	if err := w.flush(); err != nil {
		return err
	}
	text, err := json.Marshal(trailer{w.total, hex.EncodeToString(w.sum.Sum(nil))})
	if err != nil {
		return fmt.Errorf("write the archive's trailer: %w", err)
	}
	if err := w.frame(kindTrailer, text); err != nil {
		return err
	}
	return w.flush()
}
