package evidence

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"strings"

	"parley/core/chat"
	"parley/core/moderation"
)

// A block holds the decisions about many messages in a small place, about 100
// bytes each: what is said of many of them is said once.
//
//	version     1 byte, 1
//	count       u32, little-endian
//	tags        u32 for each record: a hash of its id, to be found without decoding
//	strings     number of them, then each with its length; the records name
//	            them by their place
//	records     one after another
//
// All other numbers are varints.

const blockVersion = 1

// Bounds of one block.
const (
	MaxBlockRecords = 1024
	MaxBlockBytes   = 8 << 20 // as many records with every plugin's error and reason
)

var errBlock = errors.New("evidence: not a block of decisions")

// AppendBlock appends the records without their inputs.
func AppendBlock(b []byte, rs []Record) ([]byte, error) {
	if len(rs) == 0 || len(rs) > MaxBlockRecords {
		return b, fmt.Errorf("encode decisions: a block of %d, 1 to %d fit", len(rs), MaxBlockRecords)
	}
	start := len(b)
	b = append(b, blockVersion)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(rs)))
	w := blockWriter{places: make(map[string]uint64, 32), b: make([]byte, 0, 96*len(rs))}
	for i := range rs {
		b = binary.LittleEndian.AppendUint32(b, tag(rs[i].ID))
		w.record(&rs[i])
	}
	b = binary.AppendUvarint(b, uint64(len(w.places)))
	b = append(append(b, w.strings...), w.b...)
	if n := len(b) - start; n > MaxBlockBytes {
		return b[:start], fmt.Errorf("encode decisions: %d bytes, at most %d are kept together", n, MaxBlockBytes)
	}
	return b, nil
}

// DecodeBlock reads what AppendBlock wrote. The records share no memory with
// b.
func DecodeBlock(b []byte) ([]Record, error) {
	tags := b
	b, n, err := blockHead(b)
	if err != nil {
		return nil, err
	}
	r := blockReader{b: b}
	r.places = make([]string, r.count(1))
	for i := range r.places {
		r.places[i] = string(r.take(r.count(1)))
	}
	rs := make([]Record, 0, n)
	for i := 0; i < n && !r.bad; i++ {
		rs = append(rs, r.record())
		r.bad = r.bad || binary.LittleEndian.Uint32(tags[5+4*i:]) != tag(rs[i].ID)
	}
	if r.bad || len(r.b) > 0 {
		return nil, errBlock
	}
	return rs, nil
}

// BlockCount returns how many records a block says it has, 0 for what is none.
func BlockCount(b []byte) int {
	_, n, err := blockHead(b)
	if err != nil {
		return 0
	}
	return n
}

// BlockMayHold reports whether a block may have the record of id; if it says
// no, it has not.
func BlockMayHold(b []byte, id chat.MessageID) bool {
	_, n, err := blockHead(b)
	if err != nil {
		return false
	}
	want := tag(id)
	for i := range n {
		if binary.LittleEndian.Uint32(b[5+4*i:]) == want {
			return true
		}
	}
	return false
}

// blockHead returns what follows the tags, and their number.
func blockHead(b []byte) (rest []byte, n int, err error) {
	if len(b) < 5 || len(b) > MaxBlockBytes || b[0] != blockVersion {
		return nil, 0, errBlock
	}
	count := binary.LittleEndian.Uint32(b[1:])
	if count == 0 || count > MaxBlockRecords || uint64(len(b)) < 5+4*uint64(count) {
		return nil, 0, errBlock
	}
	return b[5+4*count:], int(count), nil
}

func tag(id chat.MessageID) uint32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(id)) // it cannot fail
	return h.Sum32()
}

// blockWriter encodes records.
type blockWriter struct {
	places  map[string]uint64
	strings []byte
	b       []byte
	scratch [64]byte
}

func (w *blockWriter) num(n uint64) { w.b = binary.AppendUvarint(w.b, n) }

// str names a string, which is written once.
func (w *blockWriter) str(s string) {
	at, ok := w.places[s]
	if !ok {
		at = uint64(len(w.places))
		w.places[s] = at
		w.strings = binary.AppendUvarint(w.strings, uint64(len(s)))
		w.strings = append(w.strings, s...)
	}
	w.num(at)
}

func (w *blockWriter) record(r *Record) {
	w.id(string(r.ID))
	w.hash(r.Text)
	w.b = binary.AppendVarint(w.b, r.Time)
	w.str(string(r.Room))
	w.str(string(r.User))
	w.str(r.Kind)
	w.str(r.Policy)
	w.str(r.Verdict)
	flags := uint64(0)
	if r.Failed {
		flags |= flagFailed
	}
	if r.Context != nil {
		flags |= flagContext
	}
	w.num(flags)
	if c := r.Context; c != nil {
		w.str(strings.Join(c.Roles, "\n"))
		w.num(uint64(c.Signals.RecentPerMinute))
		w.num(uint64(c.Signals.Repeats))
		w.num(uint64(c.Signals.AccountAgeHours))
	}
	w.num(uint64(len(r.Reasons)))
	for i := range r.Reasons {
		w.str(string(r.Reasons[i].Code))
		w.str(r.Reasons[i].Text)
		w.str(r.Reasons[i].Source)
	}
	w.num(uint64(len(r.Plugins)))
	for i := range r.Plugins {
		v := &r.Plugins[i]
		for _, s := range [...]string{v.Name, v.Version, v.Digest, v.Config, v.Part, v.OnError, v.Verdict, v.Error} {
			w.str(s)
		}
		w.num(uint64(v.Code))
		w.num(uint64(v.Score))
		w.num(v.Fuel)
		w.b = binary.AppendVarint(w.b, v.TimeNS)
	}
}

const (
	flagFailed = 1 << iota
	flagContext
)

// Forms of an id and of a hash: as they are, or the bytes their digits mean.
const (
	formText  = 0
	formBytes = 1
)

// id writes a UUID as its 16 bytes.
func (w *blockWriter) id(s string) {
	if raw := w.scratch[:16]; len(s) == 36 {
		digits := append(w.scratch[16:16], s[:8]...)
		digits = append(append(append(append(digits, s[9:13]...), s[14:18]...), s[19:23]...), s[24:]...)
		if _, err := hex.Decode(raw, digits); err == nil && dashed(raw) == s {
			w.b = append(append(w.b, formBytes), raw...)
			return
		}
	}
	w.b = append(w.b, formText)
	w.num(uint64(len(s)))
	w.b = append(w.b, s...)
}

// dashed writes 16 bytes as a UUID.
func dashed(raw []byte) string {
	d := hex.EncodeToString(raw)
	return d[:8] + "-" + d[8:12] + "-" + d[12:16] + "-" + d[16:20] + "-" + d[20:]
}

// hash writes a SHA-256 as its 32 bytes.
func (w *blockWriter) hash(s string) {
	if raw := w.scratch[:32]; len(s) == 64 && s == strings.ToLower(s) {
		if _, err := hex.Decode(raw, []byte(s)); err == nil {
			w.b = append(append(w.b, formBytes), raw...)
			return
		}
	}
	w.b = append(w.b, formText)
	w.str(s)
}

// blockReader decodes records. Once bad, everything it returns is zero.
type blockReader struct {
	b      []byte
	places []string
	bad    bool
}

func (r *blockReader) num() uint64 {
	n, size := binary.Uvarint(r.b)
	if size <= 0 || r.bad {
		r.bad = true
		return 0
	}
	r.b = r.b[size:]
	return n
}

func (r *blockReader) signed() int64 {
	n, size := binary.Varint(r.b)
	if size <= 0 || r.bad {
		r.bad = true
		return 0
	}
	r.b = r.b[size:]
	return n
}

// within is a number of at most most.
func (r *blockReader) within(most uint64) uint64 {
	n := r.num()
	if n > most {
		r.bad = true
		return 0
	}
	return n
}

// count is the number of things to come, each of at least so many bytes.
func (r *blockReader) count(each int) int { return int(r.within(uint64(len(r.b) / each))) }

func (r *blockReader) take(n int) []byte {
	if r.bad || n > len(r.b) {
		r.bad = true
		return nil
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func (r *blockReader) str() string {
	at := r.num()
	if r.bad || at >= uint64(len(r.places)) {
		r.bad = true
		return ""
	}
	return r.places[at]
}

func (r *blockReader) form() byte {
	if b := r.take(1); len(b) == 1 && b[0] <= formBytes {
		return b[0]
	}
	r.bad = true
	return formText
}

func (r *blockReader) id() chat.MessageID {
	if r.form() == formBytes {
		if raw := r.take(16); raw != nil {
			return chat.MessageID(dashed(raw))
		}
		return ""
	}
	return chat.MessageID(r.take(r.count(1)))
}

func (r *blockReader) hash() string {
	if r.form() == formBytes {
		return hex.EncodeToString(r.take(32))
	}
	return r.str()
}

func (r *blockReader) record() (rec Record) {
	rec.ID, rec.Text, rec.Time = r.id(), r.hash(), r.signed()
	rec.Room, rec.User = chat.RoomID(r.str()), chat.UserID(r.str())
	rec.Kind, rec.Policy, rec.Verdict = r.str(), r.str(), r.str()
	flags := r.within(flagFailed | flagContext)
	rec.Failed = flags&flagFailed != 0
	if flags&flagContext != 0 {
		c := &Context{}
		if roles := r.str(); roles != "" {
			c.Roles = strings.Split(roles, "\n")
		}
		c.Signals.RecentPerMinute = uint32(r.within(math.MaxUint32))
		c.Signals.Repeats = uint32(r.within(math.MaxUint32))
		c.Signals.AccountAgeHours = uint32(r.within(math.MaxUint32))
		rec.Context = c
	}
	if n := r.count(3); n > 0 {
		rec.Reasons = make([]chat.Reason, n)
		for i := range rec.Reasons {
			rec.Reasons[i] = chat.Reason{Code: r.str(), Text: r.str(), Source: r.str()}
		}
	}
	rec.Plugins = make([]moderation.Vote, r.count(12))
	for i := range rec.Plugins {
		rec.Plugins[i] = moderation.Vote{
			Name: r.str(), Version: r.str(), Digest: r.str(), Config: r.str(), Part: r.str(), OnError: r.str(), Verdict: r.str(), Error: r.str(),
			Code: uint16(r.within(math.MaxUint16)), Score: uint16(r.within(math.MaxUint16)), Fuel: r.num(), TimeNS: r.signed(),
		}
	}
	return rec
}
