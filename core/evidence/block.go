package evidence

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
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
//	strings     number of them, then each with its length; what follows names
//	            them by their place
//	voters      number of them, then each: what is the same in all votes of one
//	            version of a plugin
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
	records := w.b
	w.b = nil
	w.num(uint64(len(w.voters)))
	for _, v := range w.voters {
		for _, s := range v {
			w.str(s)
		}
	}
	b = binary.AppendUvarint(b, uint64(len(w.places)))
	b = append(append(append(b, w.strings...), w.b...), records...)
	if n := len(b) - start; n > MaxBlockBytes {
		return b[:start], fmt.Errorf("encode decisions: %d bytes, at most %d are kept together", n, MaxBlockBytes)
	}
	return b, nil
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

// voter is a version of a plugin in its part: name, version, module,
// configuration, part and on_error.
type voter [6]string

func voterOf(v *moderation.Vote) voter {
	return voter{v.Name, v.Version, v.Digest, v.Config, v.Part, v.OnError}
}

// blockWriter encodes records.
type blockWriter struct {
	places  map[string]uint64
	strings []byte
	last    [numSlots]place // what each field was the last time: mostly it is that again
	voters  []voter
	b       []byte
	scratch [64]byte
}

type place struct {
	s  string
	at uint64
	ok bool
}

// Slots of blockWriter.last.
const (
	slotRoom = iota
	slotUser
	slotKind
	slotPolicy
	slotVerdict
	slotRoles
	slotVote
	slotError
	numSlots
)

func (w *blockWriter) num(n uint64) { w.b = binary.AppendUvarint(w.b, n) }

// str names a string, which is written once.
func (w *blockWriter) str(s string) { w.num(w.place(s)) }

func (w *blockWriter) place(s string) uint64 {
	at, ok := w.places[s]
	if !ok {
		at = uint64(len(w.places))
		w.places[s] = at
		w.strings = binary.AppendUvarint(w.strings, uint64(len(s)))
		w.strings = append(w.strings, s...)
	}
	return at
}

// again is str for what is often the same many times in a row.
func (w *blockWriter) again(slot int, s string) {
	p := &w.last[slot]
	if !p.ok || p.s != s {
		*p = place{s, w.place(s), true}
	}
	w.num(p.at)
}

// voter names a version, which is written once. There are a few in a block.
func (w *blockWriter) voter(v *moderation.Vote) {
	of := voterOf(v)
	at := slices.Index(w.voters, of)
	if at < 0 {
		at = len(w.voters)
		w.voters = append(w.voters, of)
	}
	w.num(uint64(at))
}

func (w *blockWriter) record(r *Record) {
	w.id(string(r.ID))
	w.hash(r.Text)
	w.b = binary.AppendVarint(w.b, r.Time)
	w.again(slotRoom, string(r.Room))
	w.again(slotUser, string(r.User))
	w.again(slotKind, r.Kind)
	w.again(slotPolicy, r.Policy)
	w.again(slotVerdict, r.Verdict)
	flags := uint64(0)
	if r.Failed {
		flags |= flagFailed
	}
	if r.Context != nil {
		flags |= flagContext
		if r.Context.Idle > 0 {
			flags |= flagIdle
		}
		if r.Context.Exempt {
			flags |= flagExempt
		}
	}
	w.num(flags)
	if c := r.Context; c != nil {
		w.again(slotRoles, strings.Join(c.Roles, "\n"))
		w.num(uint64(c.Signals.RecentPerMinute))
		w.num(uint64(c.Signals.Repeats))
		w.num(uint64(c.Signals.AccountAgeHours))
		if c.Idle > 0 {
			w.num(uint64(c.Idle))
		}
	}
	w.num(uint64(len(r.Reasons)))
	for i := range r.Reasons {
		w.str(r.Reasons[i].Code)
		w.str(r.Reasons[i].Text)
		w.str(r.Reasons[i].Source)
	}
	w.num(uint64(len(r.Plugins)))
	for i := range r.Plugins {
		v := &r.Plugins[i]
		w.voter(v)
		w.again(slotVote, v.Verdict)
		w.again(slotError, v.Error)
		w.num(uint64(v.Code))
		w.num(uint64(v.Score))
		w.num(v.Fuel)
		w.b = binary.AppendVarint(w.b, v.TimeNS)
	}
}

const (
	flagFailed = 1 << iota
	flagContext
	flagIdle // with flagContext, as is the next
	flagExempt
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
