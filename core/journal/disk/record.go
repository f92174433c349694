package disk

import (
	"encoding/binary"
	"errors"
	"hash/crc32"

	"parley/core/chat"
	"parley/core/journal"
	"parley/core/journal/codec"
)

// A record is [version byte][body][CRC32C, 4 bytes little-endian]. The sum is
// over the key, the version and the body, so a record that turns up under
// another key (a flipped bit in the key, a page in the wrong place) fails too.
//
// The body of an entry is that of package codec, and the other bodies are made
// of the same pieces.
const recordVersion = 1

const sumBytes = 4

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// What can be wrong with a record, besides codec.ErrMalformed; the texts reach
// the log.
var (
	errMissing = errors.New("it is missing")
	errShort   = errors.New("it is too short to be a record")
	errSum     = errors.New("its checksum does not match")
	errVersion = errors.New("its version is unknown")
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

// appendEntry encodes version and body of an entry; seq lives in the key.
func appendEntry(b []byte, e *journal.Entry) ([]byte, error) {
	return codec.AppendEntry(append(b, recordVersion), e)
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
	b = codec.AppendAnswer(append(b, recordVersion), r.id, r.outcome, r.reasons)
	b = binary.AppendVarint(b, r.at)
	b = codec.AppendText(b, string(r.room))
	b = binary.AppendUvarint(b, uint64(r.gen))
	b = codec.AppendText(b, string(r.user))
	b = codec.AppendText(b, r.nonce)
	return binary.AppendUvarint(b, r.seq)
}

func decodeReceipt(r *receipt, body []byte) error {
	d := codec.NewDecoder(string(body))
	r.id, r.outcome, r.reasons = d.Answer()
	r.at = d.Varint()
	r.room = chat.RoomID(d.Text())
	r.gen = uint32(d.Uvarint())
	r.user = chat.UserID(d.Text())
	r.nonce = d.Text()
	r.seq = d.Uvarint()
	return d.End()
}

// A head is two records, so that one of them survives damage to the other:
// the span, written with every commit to the room, and the lineage, written
// when an epoch begins.

func appendSpan(b []byte, h *head) []byte {
	b = codec.AppendText(append(b, recordVersion), string(h.topID))
	b = binary.AppendUvarint(b, uint64(h.gen))
	b = binary.AppendUvarint(b, h.top)
	b = binary.AppendUvarint(b, h.first)
	if h.reviews > 0 { // most rooms never have one, and files of schema 1 have none
		b = binary.AppendUvarint(b, h.reviews)
	}
	return b
}

func decodeSpan(h *head, body []byte) error {
	d := codec.NewDecoder(string(body))
	h.topID = chat.MessageID(d.Text())
	h.gen = uint32(d.Uvarint())
	h.top = d.Uvarint()
	h.first = d.Uvarint()
	h.reviews = 0
	if d.More() {
		h.reviews = d.Uvarint()
	}
	return d.End()
}

func appendLineage(b []byte, h *head) []byte {
	b = binary.AppendUvarint(append(b, recordVersion), uint64(h.gen))
	b = codec.AppendText(b, h.epoch)
	b = binary.AppendUvarint(b, uint64(len(h.past)))
	for _, p := range h.past {
		b = codec.AppendText(b, p)
	}
	return b
}

func decodeLineage(h *head, body []byte) error {
	d := codec.NewDecoder(string(body))
	h.gen = uint32(d.Uvarint())
	h.epoch = d.Text()
	h.past = nil
	for range d.Count(maxPast, 1) {
		h.past = append(h.past, d.Text())
	}
	return d.End()
}
