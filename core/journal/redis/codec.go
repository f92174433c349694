package redis

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"
	"unsafe"

	"parley/core/chat"
	"parley/core/journal"
)

// An entry is stored as
//
//	u8 version, u8 length of id, id, varint time,
//	kind, from, nonce, text, outcome: uvarint length and bytes each,
//	uvarint reasons, each code, text, source,
//	uvarint changes, each key, then value or nothing: uvarint length+1 and
//	bytes, or 0 for a delete,
//	u32 CRC32C of all before, little-endian.
//
// The seq is not part of it: Redis gives it, in the stream's id. append.lua
// reads the id at its fixed place.
const (
	codecVersion = 1
	maxIDBytes   = 127  // its length is one byte; a UUID has 36
	maxReasons   = 1024 // more would not fit an entry in any case
	changeBytes  = 2    // least size of an encoded change: empty key, delete
	reasonBytes  = 3    // least size of an encoded reason
	sumBytes     = 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errShape says that bytes do not have the form above.
var errShape = errors.New("not an entry")

// appendEntry encodes e after b.
func appendEntry(b []byte, e *journal.Entry) []byte {
	start := len(b)
	b = append(b, codecVersion, byte(len(e.ID)))
	b = append(b, e.ID...)
	b = binary.AppendVarint(b, e.Time)
	b = appendString(b, string(e.Kind))
	b = appendString(b, string(e.From))
	b = appendString(b, e.Nonce)
	b = appendString(b, e.Text)
	b = appendString(b, string(e.Outcome))
	b = appendReasons(b, e.Reasons)
	b = binary.AppendUvarint(b, uint64(len(e.Changes)))
	for i := range e.Changes {
		c := &e.Changes[i]
		b = appendString(b, c.Key)
		if c.Value == nil {
			b = append(b, 0)
			continue
		}
		b = binary.AppendUvarint(b, uint64(len(c.Value))+1)
		b = append(b, c.Value...)
	}
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b[start:], castagnoli))
}

func appendString(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

func appendReasons(b []byte, rs []chat.Reason) []byte {
	b = binary.AppendUvarint(b, uint64(len(rs)))
	for i := range rs {
		b = appendString(b, rs[i].Code)
		b = appendString(b, rs[i].Text)
		b = appendString(b, rs[i].Source)
	}
	return b
}

// decodeEntry reads what appendEntry wrote. The entry shares s's memory.
func decodeEntry(s string, seq uint64) (journal.Entry, error) {
	if len(s) < 2+sumBytes || len(s) > journal.MaxEntryBytes || s[0] != codecVersion {
		return journal.Entry{}, errShape
	}
	body := s[:len(s)-sumBytes]
	if sum := binary.LittleEndian.Uint32([]byte(s[len(body):])); sum != checksum(body) {
		return journal.Entry{}, fmt.Errorf("%w: its checksum does not match", errShape)
	}
	r := reader{rest: body[2:]}
	e := journal.Entry{Seq: seq}
	e.ID = chat.MessageID(r.take(uint64(body[1])))
	e.Time = r.varint()
	e.Kind = journal.Kind(r.string())
	e.From = chat.UserID(r.string())
	e.Nonce = r.string()
	e.Text = r.string()
	e.Outcome = chat.Outcome(r.string())
	e.Reasons = r.reasons()
	if n := r.count(journal.MaxChanges, changeBytes); n > 0 {
		e.Changes = make([]journal.Change, n)
		for i := range e.Changes {
			e.Changes[i] = r.change()
		}
	}
	if r.failed || r.rest != "" {
		return journal.Entry{}, errShape
	}
	return e, nil
}

// checksum is crc32.Checksum for a string. The bytes are only read, so they
// need no copy.
func checksum(s string) uint32 {
	return crc32.Checksum(unsafe.Slice(unsafe.StringData(s), len(s)), castagnoli)
}

// appendAnswer encodes what Append answers apart from epoch and seq: id,
// outcome, reasons.
func appendAnswer(b []byte, e *journal.Entry) []byte {
	b = appendString(b, string(e.ID))
	b = appendString(b, string(e.Outcome))
	return appendReasons(b, e.Reasons)
}

// decodeReceipt reads "epoch seq answer". The answer may be absent.
func decodeReceipt(s string) (journal.Receipt, error) {
	epoch, seq, answer, err := splitPlace(s)
	if err != nil {
		return journal.Receipt{}, err
	}
	rc := journal.Receipt{Epoch: epoch, Seq: seq}
	if answer == "" {
		return rc, nil
	}
	r := reader{rest: answer}
	rc.ID = chat.MessageID(r.string())
	rc.Outcome = chat.Outcome(r.string())
	rc.Reasons = r.reasons()
	if r.failed || r.rest != "" {
		return journal.Receipt{}, errors.New("not a receipt")
	}
	return rc, nil
}

// maxEpochBytes bounds the name of an epoch; ours have 16 bytes.
const maxEpochBytes = 64

// splitPlace takes "epoch seq rest" apart; "epoch seq" has no rest.
func splitPlace(s string) (epoch string, seq uint64, rest string, err error) {
	epoch, s, ok := strings.Cut(s, " ")
	if !ok || epoch == "" || len(epoch) > maxEpochBytes {
		return "", 0, "", errors.New("no epoch")
	}
	digits, rest, _ := strings.Cut(s, " ")
	if seq, err = strconv.ParseUint(digits, 10, 64); err != nil || seq == 0 {
		return "", 0, "", errors.New("no seq")
	}
	return epoch, seq, rest, nil
}

// reader takes values off the front of rest. After a value that is not there
// it has failed and gives zero values.
type reader struct {
	rest   string
	failed bool
}

func (r *reader) take(n uint64) string {
	if r.failed || n > uint64(len(r.rest)) {
		r.failed = true
		return ""
	}
	s := r.rest[:n]
	r.rest = r.rest[n:]
	return s
}

func (r *reader) uvarint() uint64 {
	var x uint64
	for i := 0; i < len(r.rest) && i < binary.MaxVarintLen64; i++ {
		b := r.rest[i]
		x |= uint64(b&0x7f) << (7 * i)
		if b < 0x80 {
			r.rest = r.rest[i+1:]
			return x
		}
	}
	r.failed = true
	return 0
}

// varint undoes binary.AppendVarint's zig-zag.
func (r *reader) varint() int64 {
	u := r.uvarint()
	return int64(u>>1) ^ -int64(u&1)
}

func (r *reader) string() string { return r.take(r.uvarint()) }

// count reads how many values follow, each of at least size bytes, so that a
// false count cannot ask for memory.
func (r *reader) count(limit, size uint64) uint64 {
	n := r.uvarint()
	if n > limit || n*size > uint64(len(r.rest)) {
		r.failed = true
	}
	if r.failed {
		return 0
	}
	return n
}

func (r *reader) reasons() []chat.Reason {
	n := r.count(maxReasons, reasonBytes)
	if n == 0 {
		return nil
	}
	rs := make([]chat.Reason, n)
	for i := range rs {
		rs[i] = chat.Reason{Code: r.string(), Text: r.string(), Source: r.string()}
	}
	return rs
}

func (r *reader) change() journal.Change {
	c := journal.Change{Key: r.string()}
	if n := r.uvarint(); n > 0 {
		c.Value = append([]byte{}, r.take(n-1)...)
	}
	return c
}
