package evidence

import (
	"encoding/binary"
	"encoding/hex"
	"math"
	"strings"

	"parley/core/chat"
	"parley/core/moderation"
)

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
	r.voters = make([]voter, r.count(len(voter{})))
	for i := range r.voters {
		for k := range r.voters[i] {
			r.voters[i][k] = r.str()
		}
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

// blockReader decodes records. Once bad, everything it returns is zero.
type blockReader struct {
	b      []byte
	places []string
	voters []voter
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

func (r *blockReader) voter() voter {
	at := r.num()
	if r.bad || at >= uint64(len(r.voters)) {
		r.bad = true
		return voter{}
	}
	return r.voters[at]
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
	flags := r.within(flagFailed | flagContext | flagIdle | flagExempt)
	r.bad = r.bad || flags&flagContext == 0 && flags&(flagIdle|flagExempt) != 0
	rec.Failed = flags&flagFailed != 0
	if flags&flagContext != 0 {
		c := &Context{}
		if roles := r.str(); roles != "" {
			c.Roles = strings.Split(roles, "\n")
		}
		c.Signals.RecentPerMinute = uint32(r.within(math.MaxUint32))
		c.Signals.Repeats = uint32(r.within(math.MaxUint32))
		c.Signals.AccountAgeHours = uint32(r.within(math.MaxUint32))
		if flags&flagIdle != 0 {
			c.Idle = int(r.within(math.MaxUint16))
		}
		c.Exempt = flags&flagExempt != 0
		rec.Context = c
	}
	if n := r.count(3); n > 0 {
		rec.Reasons = make([]chat.Reason, n)
		for i := range rec.Reasons {
			rec.Reasons[i] = chat.Reason{Code: r.str(), Text: r.str(), Source: r.str()}
		}
	}
	rec.Plugins = make([]moderation.Vote, r.count(7))
	for i := range rec.Plugins {
		v := r.voter()
		rec.Plugins[i] = moderation.Vote{
			Name: v[0], Version: v[1], Digest: v[2], Config: v[3], Part: v[4], OnError: v[5], Verdict: r.str(), Error: r.str(),
			Code: uint16(r.within(math.MaxUint16)), Score: uint16(r.within(math.MaxUint16)), Fuel: r.num(), TimeNS: r.signed(),
		}
	}
	return rec
}
