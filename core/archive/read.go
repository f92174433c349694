package archive

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"

	"parley/core/absent"
	"parley/core/chat"
	"parley/core/journal"
	"parley/core/journal/codec"
)

// Error says what is wrong with an archive, and where.
type Error struct {
	Offset int64 // of the frame, in bytes from the beginning
	What   string
}

// Error implements error.
func (e *Error) Error() string {
	return fmt.Sprintf("the archive is damaged or cut off at byte %d: %s", e.Offset, e.What)
}

// Verify reads an archive to its end and says what is in it, or where it is
// damaged.
func Verify(r io.Reader) (Header, Summary, error) { return read(r, nowhere{}) }

// nowhere is a sink that keeps nothing.
type nowhere struct{}

func (nowhere) room(Room) error               { return nil }
func (nowhere) state(string, []byte) error    { return nil }
func (nowhere) review(*journal.Review) error  { return nil }
func (nowhere) entries([]journal.Entry) error { return nil }
func (nowhere) missing(uint64) error          { return nil }
func (nowhere) void() error                   { return nil }
func (nowhere) end() error                    { return nil }
func (nowhere) note(*absent.Note) error       { return nil }

// reader takes frames off an archive.
type reader struct {
	in      *bufio.Reader
	sum     hash.Hash // of all frames before the one under way
	at      int64     // where the frame under way begins
	pos     int64
	version uint16
	raw     []byte // the frame under way, for the sum
}

// Bounds of a room in an archive that no store has, so that a made-up one cannot
// ask for all memory.
const maxStateBytes = 256 << 20

func (r *reader) fail(format string, args ...any) error {
	return &Error{Offset: r.at, What: fmt.Sprintf(format, args...)}
}

// broken is what reading on has met: the end, which comes too early, or an error
// of the source.
func (r *reader) broken(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return r.fail("it ends in the middle, after byte %d", r.pos)
	}
	return fmt.Errorf("read an archive: %w", err)
}

func (r *reader) take(n int) ([]byte, error) {
	start := len(r.raw)
	// In steps: a length is a claim until the bytes are here.
	for left := n; left > 0; {
		step := min(left, 64<<10)
		at := len(r.raw)
		r.raw = append(r.raw, make([]byte, step)...)
		got, err := io.ReadFull(r.in, r.raw[at:])
		r.pos += int64(got)
		if err != nil {
			return nil, r.broken(err)
		}
		left -= step
	}
	return r.raw[start:], nil
}

// start checks what an archive begins with.
func (r *reader) start() error {
	b, err := r.take(len(Magic) + 2)
	if err != nil {
		return err
	}
	if string(b[:len(Magic)]) != Magic {
		return r.fail("it does not begin as an archive of Parley does")
	}
	r.version = binary.LittleEndian.Uint16(b[len(Magic):])
	if v := r.version; v < 1 || v > Version {
		return r.fail("its format is version %d and this binary knows versions 1 to %d", v, Version)
	}
	r.sum.Write(r.raw)
	return nil
}

// next takes one frame. The payload is good until the next call. Everything
// before the frame is in sum, and the frame with the call after this.
func (r *reader) next() (kind byte, payload []byte, err error) {
	r.at, r.raw = r.pos, r.raw[:0]
	b, err := r.take(1)
	if err != nil {
		return 0, nil, err
	}
	kind = b[0]
	size := uint64(0)
	for shift := 0; ; shift += 7 {
		if shift > 28 {
			return 0, nil, r.fail("its length is no number")
		}
		b, err := r.take(1)
		if err != nil {
			return 0, nil, err
		}
		size |= uint64(b[0]&0x7f) << shift
		if b[0] < 0x80 {
			break
		}
	}
	if size > maxPayload {
		return 0, nil, r.fail("a frame of %d bytes, at most %d are allowed", size, maxPayload)
	}
	if _, err = r.take(int(size)); err != nil {
		return 0, nil, err
	}
	want, err := r.take(4)
	if err != nil {
		return 0, nil, err
	}
	head := len(r.raw) - 4 - int(size)
	payload = r.raw[head : head+int(size)] // once nothing moves any more
	got := crc32.Update(crc32.Checksum([]byte{kind}, castagnoli), castagnoli, payload)
	if binary.LittleEndian.Uint32(want) != got {
		return 0, nil, r.fail("the checksum of a frame of kind %q does not match", kind)
	}
	return kind, payload, nil
}

// order is where in an archive a frame may stand.
type order int

const (
	outside order = iota // before a room, or the trailer
	inState
	inOpen
	inDecided
	inLog
)

// progress is what has been read of a room.
type progress struct {
	order   order
	noted   bool // a note has come: no room follows
	room    Room
	now     Summary
	next    uint64 // the seq that must come; 0 for any
	decided int
	bytes   int // of state
	pending []journal.Entry
	size    int
}

// read takes an archive to the sink.
func read(in io.Reader, to sink) (h Header, total Summary, err error) {
	r := &reader{in: bufio.NewReaderSize(in, 64<<10), sum: sha256.New()}
	if err := r.start(); err != nil {
		return h, total, err
	}
	kind, payload, err := r.next()
	switch {
	case err != nil:
		return h, total, err
	case kind != kindHeader || json.Unmarshal(payload, &h) != nil:
		return h, total, r.fail("the first frame is no header")
	}
	r.sum.Write(r.raw)
	p := &progress{}
	for {
		kind, payload, err := r.next()
		if err != nil {
			return h, total, err
		}
		if kind == kindTrailer {
			return h, total, r.finish(p, payload, total)
		}
		if err := r.frame(p, kind, payload, to, &total); err != nil {
			return h, total, err
		}
		r.sum.Write(r.raw)
	}
}

// finish checks the trailer and that nothing follows.
func (r *reader) finish(p *progress, payload []byte, total Summary) error {
	var t trailer
	switch {
	case p.order != outside:
		return r.fail("room %s has no end", p.room.ID)
	case json.Unmarshal(payload, &t) != nil:
		return r.fail("the trailer cannot be decoded")
	case t.Summary != total:
		return r.fail("the trailer counts %+v, and %+v was read", t.Summary, total)
	case t.SHA256 != hex.EncodeToString(r.sum.Sum(nil)):
		return r.fail("the digest of the whole does not match")
	}
	r.at = r.pos
	if _, err := r.in.ReadByte(); err == nil {
		return r.fail("something follows the trailer")
	} else if !errors.Is(err, io.EOF) {
		return r.broken(err)
	}
	return nil
}

// frame takes one frame that is neither header nor trailer.
func (r *reader) frame(p *progress, kind byte, payload []byte, to sink, total *Summary) error {
	if kind == kindRoom {
		switch {
		case p.order != outside:
			return r.fail("a room begins within room %s", p.room.ID)
		case p.noted:
			return r.fail("a room begins behind messages for absent people")
		}
		room, err := decodeRoom(payload)
		if err != nil {
			return r.fail("a room cannot be decoded: %v", err)
		}
		*p = progress{order: inState, room: room, pending: p.pending[:0]}
		return to.room(room)
	}
	if kind == kindNote && r.version > 1 {
		if p.order != outside {
			return r.fail("a message for somebody absent within room %s", p.room.ID)
		}
		n, err := absent.ParseNote(payload)
		if err != nil {
			return r.fail("a message for somebody absent cannot be decoded: %v", err)
		}
		p.noted = true
		total.Notes++
		return to.note(&n)
	}
	if p.order == outside {
		return r.fail("a frame of kind %q outside of a room", kind)
	}
	if kind != kindEntry {
		if err := p.flush(to); err != nil {
			return err
		}
	}
	switch kind {
	case kindState:
		d := codec.NewDecoder(string(payload))
		key, value := d.Text(), d.Text()
		if p.bytes += len(payload); d.End() != nil || p.order != inState || p.bytes > maxStateBytes {
			return r.fail("a key of the state of room %s is not in its place, or cannot be decoded", p.room.ID)
		}
		return to.state(key, []byte(value))
	case kindOpen, kindDecided:
		return r.review(p, kind, payload, to)
	case kindEntry:
		return r.entry(p, payload, to)
	case kindMissing:
		d := codec.NewDecoder(string(payload))
		seq := d.Uvarint()
		if d.End() != nil || !p.follows(seq) {
			return r.fail("a missing entry of room %s is not in its place", p.room.ID)
		}
		p.now.Missing++
		return to.missing(seq)
	case kindVoid:
		p.order = outside
		return to.void()
	case kindEnd:
		d := codec.NewDecoder(string(payload))
		n := d.Uvarint()
		switch {
		case d.End() != nil || n != p.now.Entries+p.now.Missing:
			return r.fail("room %s ends with %d entries, and %d were read", p.room.ID, n, p.now.Entries+p.now.Missing)
		case n > 0 && p.next != p.room.Top.Seq+1:
			return r.fail("room %s ends before entry %d", p.room.ID, p.room.Top.Seq)
		}
		p.order = outside
		total.add(p.now)
		return to.end()
	}
	return r.fail("a frame of the unknown kind %q", kind)
}

func (r *reader) review(p *progress, kind byte, payload []byte, to sink) error {
	var v journal.Review
	if err := codec.DecodeReview(&v, string(payload)); err != nil {
		return r.fail("a review of room %s cannot be decoded", p.room.ID)
	}
	place := inDecided
	if kind == kindOpen {
		place = inOpen
		p.now.Reviews++
	} else {
		p.decided++
	}
	if v.Open() != (kind == kindOpen) || p.order > place || p.now.Reviews > journal.MaxReviews || p.decided > journal.MaxDecided {
		return r.fail("a review of room %s is not in its place", p.room.ID)
	}
	p.order = place
	return to.review(&v)
}

func (r *reader) entry(p *progress, payload []byte, to sink) error {
	seq, n := binary.Uvarint(payload)
	if n <= 0 {
		return r.fail("an entry of room %s has no seq", p.room.ID)
	}
	var e journal.Entry
	if err := codec.DecodeEntry(&e, seq, string(payload[n:])); err != nil {
		return r.fail("entry %d of room %s cannot be decoded", seq, p.room.ID)
	}
	if !p.follows(seq) {
		return r.fail("entry %d of room %s is not in its place", seq, p.room.ID)
	}
	p.now.Entries++
	p.pending = append(p.pending, e)
	if p.size += len(payload); len(p.pending) < batch && p.size < journal.MaxBatchBytes {
		return nil
	}
	return p.flush(to)
}

// follows takes the next seq of a log, if it is that.
func (p *progress) follows(seq uint64) bool {
	if seq == 0 || p.next != 0 && seq != p.next || seq > p.room.Top.Seq {
		return false
	}
	p.order, p.next = inLog, seq+1
	return true
}

func (p *progress) flush(to sink) error {
	if len(p.pending) == 0 {
		return nil
	}
	err := to.entries(p.pending)
	clear(p.pending)
	p.pending, p.size = p.pending[:0], 0
	return err
}

func decodeRoom(payload []byte) (Room, error) {
	d := codec.NewDecoder(string(payload))
	room := Room{ID: chat.RoomID(d.Text())}
	room.Top.Epoch = d.Text()
	room.Top.ID = chat.MessageID(d.Text())
	room.First = d.Uvarint()
	room.Top.Seq = d.Uvarint()
	switch {
	case d.End() != nil:
		return room, codec.ErrMalformed
	case !chat.ValidRoom(room.ID):
		return room, fmt.Errorf("%.80q is no room name", room.ID)
	case room.Top.Seq >= 1<<62 || len(room.Top.ID) > journal.MaxID || len(room.Top.Epoch) > 64:
		return room, errors.New("its top is out of range")
	}
	return room, nil
}
