package disk

import (
	"parley/core/chat"
	"parley/core/journal"
)

// decoder reads a body. After the first thing that does not fit it returns
// zero values only and end reports errMalformed.
type decoder struct {
	s   string
	at  int
	uid string // the id, when the body begins with a UUID
	bad bool
}

// newDecoder turns a body into one string, of which every field becomes a
// part. The text of a UUID is put in front, so that it needs no allocation of
// its own.
func newDecoder(body, scratch []byte) (decoder, []byte) {
	if len(body) < 17 || body[0] != idUUID {
		return decoder{s: string(body)}, scratch
	}
	scratch = append(appendUUIDText(scratch[:0], body[1:17]), body...)
	s := string(scratch)
	return decoder{s: s[uuidText:], uid: s[:uuidText]}, scratch
}

func (d *decoder) fail() {
	d.bad = true
	d.at = len(d.s)
}

func (d *decoder) end() error {
	if d.bad || d.at != len(d.s) {
		return errMalformed
	}
	return nil
}

func (d *decoder) byte() byte {
	if d.at >= len(d.s) {
		d.fail()
		return 0
	}
	d.at++
	return d.s[d.at-1]
}

// uvarint reads what binary.AppendUvarint wrote.
func (d *decoder) uvarint() uint64 {
	var v uint64
	for shift := uint(0); shift < 64; shift += 7 {
		c := d.byte()
		if shift == 63 && c > 1 {
			break
		}
		v |= uint64(c&0x7f) << shift
		if c < 0x80 {
			return v
		}
	}
	d.fail()
	return 0
}

func (d *decoder) varint() int64 {
	u := d.uvarint()
	return int64(u>>1) ^ -int64(u&1)
}

func (d *decoder) take(n uint64) string {
	if n > uint64(len(d.s)-d.at) {
		d.fail()
		return ""
	}
	s := d.s[d.at : d.at+int(n)]
	d.at += int(n)
	return s
}

func (d *decoder) str() string { return d.take(d.uvarint()) }

// count reads the length of a list whose items take at least size bytes each,
// so that a damaged length cannot ask for more memory than the record is long.
func (d *decoder) count(size int) int {
	n := d.uvarint()
	if n > uint64((len(d.s)-d.at)/size) {
		d.fail()
		return 0
	}
	return int(n)
}

func (d *decoder) word(words []string) string {
	switch i := int(d.byte()); {
	case i == 0:
		return d.str()
	case i < len(words):
		return words[i]
	default:
		d.fail()
		return ""
	}
}

func (d *decoder) id() chat.MessageID {
	switch d.byte() {
	case idText:
		return chat.MessageID(d.str())
	case idUUID:
		d.take(16)
		if d.bad {
			return ""
		}
		return chat.MessageID(d.uid)
	default:
		d.fail()
		return ""
	}
}

func (d *decoder) reasons() []chat.Reason {
	n := d.count(3)
	if n == 0 {
		return nil
	}
	rs := make([]chat.Reason, n)
	for i := range rs {
		rs[i] = chat.Reason{Code: d.str(), Text: d.str(), Source: d.str()}
	}
	return rs
}

func (d *decoder) changes() []journal.Change {
	n := d.count(2)
	if n == 0 {
		return nil
	}
	cs := make([]journal.Change, n)
	for i := range cs {
		cs[i].Key = d.str()
		if size := d.uvarint(); size > 0 {
			cs[i].Value = []byte(d.take(size - 1))
		}
	}
	return cs
}
