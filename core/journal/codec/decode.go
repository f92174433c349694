package codec

import (
	"errors"

	"parley/core/chat"
	"parley/core/journal"
)

// ErrMalformed says that a body does not have the form it should; the text
// reaches the log.
var ErrMalformed = errors.New("its body cannot be decoded")

// DecodeEntry sets e to the entry that AppendEntry made body of, and its Seq to
// seq. The entry shares body's memory, save for the values of its changes. On
// ErrMalformed e is of no use.
func DecodeEntry(e *journal.Entry, seq uint64, body string) error {
	if len(body) > journal.MaxEntryBytes {
		return ErrMalformed
	}
	d := NewDecoder(body)
	e.Seq = seq
	e.ID, e.Outcome, e.Reasons = d.Answer()
	e.Kind = journal.Kind(d.word(kinds[:]))
	e.Time = d.Varint()
	e.From = chat.UserID(d.Text())
	e.Nonce = d.Text()
	e.Text = d.Text()
	e.Changes = d.changes()
	e.Erases = nil
	if d.More() {
		e.Erases = d.erases()
	}
	return d.End()
}

// DecodeReview sets r to the review that AppendReview made body of. On
// ErrMalformed r is of no use.
func DecodeReview(r *journal.Review, body string) error {
	d := NewDecoder(body)
	entry := d.Text()
	r.Appeal = d.Uvarint()&reviewAppeal != 0
	r.Record = d.Text()
	r.By = chat.UserID(d.Text())
	r.Decided = d.Varint()
	if err := d.End(); err != nil {
		return err
	}
	return DecodeEntry(&r.Entry, 0, entry)
}

// Decoder takes values off the front of a body. After one that is not there
// it gives zero values only, and End reports ErrMalformed.
type Decoder struct {
	rest string
	bad  bool
}

// NewDecoder returns a decoder of body. What it gives shares body's memory.
func NewDecoder(body string) Decoder { return Decoder{rest: body} }

// End returns ErrMalformed unless every value was there and nothing is left.
func (d *Decoder) End() error {
	if d.bad || d.rest != "" {
		return ErrMalformed
	}
	return nil
}

// More reports whether something is left to take.
func (d *Decoder) More() bool { return d.rest != "" }

// Answer takes what AppendAnswer appended.
func (d *Decoder) Answer() (chat.MessageID, chat.Outcome, []chat.Reason) {
	id := chat.MessageID(d.Text())
	outcome := chat.Outcome(d.word(outcomes[:]))
	return id, outcome, d.reasons()
}

// Text takes what AppendText appended.
func (d *Decoder) Text() string { return d.take(d.Uvarint()) }

// Varint takes what binary.AppendVarint appended.
func (d *Decoder) Varint() int64 {
	u := d.Uvarint()
	return int64(u>>1) ^ -int64(u&1) // zigzag
}

// Uvarint takes what binary.AppendUvarint appended.
func (d *Decoder) Uvarint() uint64 {
	if len(d.rest) > 0 && d.rest[0] < 0x80 { // as nearly every one is
		v := uint64(d.rest[0])
		d.rest = d.rest[1:]
		return v
	}
	return d.longUvarint()
}

func (d *Decoder) longUvarint() uint64 {
	var v uint64
	for i := 0; i < len(d.rest) && i < 10; i++ { // 10 bytes hold 64 bits
		c := d.rest[i]
		if i == 9 && c > 1 {
			break
		}
		v |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			d.rest = d.rest[i+1:]
			return v
		}
	}
	d.fail()
	return 0
}

// Count takes the length of a list of at most limit items, each of at least
// size bytes, so that a damaged one cannot ask for more memory than the body
// is long.
func (d *Decoder) Count(limit, size int) int {
	n := d.Uvarint()
	if n > uint64(min(limit, len(d.rest)/size)) {
		d.fail()
		return 0
	}
	return int(n)
}

// fail leaves nothing to take, so that all that follows fails too.
func (d *Decoder) fail() { d.rest, d.bad = "", true }

func (d *Decoder) take(n uint64) string {
	if n > uint64(len(d.rest)) {
		d.fail()
		return ""
	}
	s := d.rest[:n]
	d.rest = d.rest[n:]
	return s
}

func (d *Decoder) word(words []string) string {
	if d.rest == "" || int(d.rest[0]) >= len(words) {
		d.fail()
		return ""
	}
	i := d.rest[0]
	d.rest = d.rest[1:]
	if i == 0 {
		return d.Text()
	}
	return words[i]
}

func (d *Decoder) reasons() []chat.Reason {
	n := d.Count(journal.MaxReasons, 3)
	if n == 0 {
		return nil
	}
	rs := make([]chat.Reason, n)
	for i := range rs {
		rs[i] = chat.Reason{Code: d.Text(), Text: d.Text(), Source: d.Text()}
	}
	return rs
}

func (d *Decoder) changes() []journal.Change {
	n := d.Count(journal.MaxChanges, 2)
	if n == 0 {
		return nil
	}
	cs := make([]journal.Change, n)
	for i := range cs {
		cs[i].Key = d.Text()
		if size := d.Uvarint(); size > 0 {
			cs[i].Value = []byte(d.take(size - 1))
		}
	}
	return cs
}

// erases takes a list that is not empty.
func (d *Decoder) erases() []uint64 {
	n := d.Count(journal.MaxErases, 1)
	if n == 0 {
		d.fail()
		return nil
	}
	seqs, last := make([]uint64, n), uint64(0)
	for i := range seqs {
		last += d.Uvarint()
		seqs[i] = last
	}
	return seqs
}
