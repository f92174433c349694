package disk

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash/crc32"

	"parley/core/chat"
	"parley/core/journal"
)

// A record is [version byte][body][CRC32C, 4 bytes little-endian]. The sum is
// over the key, the version and the body, so a record that turns up under
// another key (a flipped bit in the key, a page in the wrong place) fails too.
//
// In a body, numbers are varints, strings are a length and bytes, and the
// words that nearly every entry uses are one byte.
const recordVersion = 1

const sumBytes = 4

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// What can be wrong with a record; the texts reach the log.
var (
	errMissing   = errors.New("it is missing")
	errShort     = errors.New("it is too short to be a record")
	errSum       = errors.New("its checksum does not match")
	errVersion   = errors.New("its version is unknown")
	errMalformed = errors.New("its body cannot be decoded")
)

// seal appends the checksum to a record that so far is version and body.
func seal(key, rec []byte) []byte {
	sum := crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, rec)
	return binary.LittleEndian.AppendUint32(rec, sum)
}

// unseal checks a record and returns its body, which aliases rec.
func unseal(key, rec []byte) ([]byte, error) {
	if rec == nil {
		return nil, errMissing
	}
	if len(rec) < 1+sumBytes {
		return nil, errShort
	}
	body := rec[:len(rec)-sumBytes]
	sum := crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, body)
	if binary.LittleEndian.Uint32(rec[len(body):]) != sum {
		return nil, errSum
	}
	if body[0] != recordVersion {
		return nil, errVersion
	}
	return body[1:], nil
}

// The words with a byte of their own; 0 says that a string follows. Numbers
// are part of the file format: add, never change.
var (
	kinds    = [...]string{1: string(journal.KindMessage), 2: string(journal.KindSettings), 3: string(journal.KindRole), 4: string(journal.KindBan)}
	outcomes = [...]string{1: "", 2: string(chat.Accepted), 3: string(chat.Redacted)}
)

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendWord(b []byte, words []string, s string) []byte {
	for i := 1; i < len(words); i++ {
		if words[i] == s {
			return append(b, byte(i))
		}
	}
	return appendString(append(b, 0), s)
}

// The forms of an id.
const (
	idText = 0 // any string
	idUUID = 1 // 16 bytes, for the canonical text form of RFC 9562 section 4
)

func appendID(b []byte, id chat.MessageID) []byte {
	var raw [16]byte
	if !parseUUID(&raw, string(id)) {
		return appendString(append(b, idText), string(id))
	}
	return append(append(b, idUUID), raw[:]...)
}

const uuidText = 36

// parseUUID reads the canonical lower-case form only, so that decoding gives
// the same text again.
func parseUUID(raw *[16]byte, s string) bool {
	if len(s) != uuidText || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return false
	}
	n := 0
	for i := 0; i < uuidText; i++ {
		c := s[i]
		switch {
		case i == 8 || i == 13 || i == 18 || i == 23:
			continue
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		default:
			return false
		}
		raw[n/2] |= c << (4 * (1 - n%2))
		n++
	}
	return true
}

func appendUUIDText(b, raw []byte) []byte {
	for i, part := range [...][]byte{raw[:4], raw[4:6], raw[6:8], raw[8:10], raw[10:16]} {
		if i > 0 {
			b = append(b, '-')
		}
		b = hex.AppendEncode(b, part)
	}
	return b
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

// appendEntry encodes version and body of an entry; seq lives in the key.
func appendEntry(b []byte, e *journal.Entry) []byte {
	b = append(b, recordVersion)
	b = appendID(b, e.ID)
	b = appendWord(b, kinds[:], string(e.Kind))
	b = appendWord(b, outcomes[:], string(e.Outcome))
	b = binary.AppendVarint(b, e.Time)
	b = appendString(b, string(e.From))
	b = appendString(b, e.Nonce)
	b = appendString(b, e.Text)
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
	return b
}

// decodeEntry decodes a body. All strings of the entry share one allocation;
// scratch is working space that is returned for the next call.
func decodeEntry(e *journal.Entry, seq uint64, body, scratch []byte) ([]byte, error) {
	d, scratch := newDecoder(body, scratch)
	e.Seq = seq
	e.ID = d.id()
	e.Kind = journal.Kind(d.word(kinds[:]))
	e.Outcome = chat.Outcome(d.word(outcomes[:]))
	e.Time = d.varint()
	e.From = chat.UserID(d.str())
	e.Nonce = d.str()
	e.Text = d.str()
	e.Reasons = d.reasons()
	e.Changes = d.changes()
	return scratch, d.end()
}

// receipt is a record of the nonce window.
type receipt struct {
	at    int64 // Unix ms of the commit
	room  chat.RoomID
	gen   uint32
	user  chat.UserID
	nonce string
	seq   uint64
	id    chat.MessageID

	outcome chat.Outcome
	reasons []chat.Reason
}

func appendReceipt(b []byte, r *receipt) []byte {
	b = append(b, recordVersion)
	b = appendID(b, r.id)
	b = binary.AppendVarint(b, r.at)
	b = appendString(b, string(r.room))
	b = binary.AppendUvarint(b, uint64(r.gen))
	b = appendString(b, string(r.user))
	b = appendString(b, r.nonce)
	b = binary.AppendUvarint(b, r.seq)
	b = appendWord(b, outcomes[:], string(r.outcome))
	return appendReasons(b, r.reasons)
}

func decodeReceipt(r *receipt, body, scratch []byte) ([]byte, error) {
	d, scratch := newDecoder(body, scratch)
	r.id = d.id()
	r.at = d.varint()
	r.room = chat.RoomID(d.str())
	r.gen = uint32(d.uvarint())
	r.user = chat.UserID(d.str())
	r.nonce = d.str()
	r.seq = d.uvarint()
	r.outcome = chat.Outcome(d.word(outcomes[:]))
	r.reasons = d.reasons()
	return scratch, d.end()
}

// A head is two records, so that one of them survives damage to the other:
// the span, written with every commit to the room, and the lineage, written
// when an epoch begins.

func appendSpan(b []byte, h *head) []byte {
	b = append(b, recordVersion)
	b = appendID(b, h.topID)
	b = binary.AppendUvarint(b, uint64(h.gen))
	b = binary.AppendUvarint(b, h.top)
	return binary.AppendUvarint(b, h.first)
}

func decodeSpan(h *head, body []byte) error {
	d, _ := newDecoder(body, nil)
	h.topID = d.id()
	h.gen = uint32(d.uvarint())
	h.top = d.uvarint()
	h.first = d.uvarint()
	return d.end()
}

func appendLineage(b []byte, h *head) []byte {
	b = append(b, recordVersion)
	b = appendID(b, "")
	b = binary.AppendUvarint(b, uint64(h.gen))
	b = appendString(b, h.epoch)
	b = binary.AppendUvarint(b, uint64(len(h.past)))
	for _, p := range h.past {
		b = appendString(b, p)
	}
	return b
}

func decodeLineage(h *head, body []byte) error {
	d, _ := newDecoder(body, nil)
	d.id()
	h.gen = uint32(d.uvarint())
	h.epoch = d.str()
	h.past = nil
	for range d.count(1) {
		h.past = append(h.past, d.str())
	}
	return d.end()
}
