// Package codec is the binary form of a journal.Entry, and of what its author
// was answered, that every store writes.
//
// It gives the body of a record only. What goes around a body is the store's:
// a version, a checksum, the place where the seq is kept. With the same
// pieces a store writes records of its own.
//
// # Layout
//
//	answer  id, outcome, reasons
//	entry   answer, kind, time, from, nonce, text, changes, and erases where there are any
//
//	text    uvarint length, bytes
//	id      text; at most journal.MaxID bytes, so that its length is one byte
//	time    zigzag varint, Unix ms
//	reasons uvarint count, each code, text, source: three texts
//	changes uvarint count, each key: text, then value: uvarint 0 to delete,
//	        or length+1 and bytes
//	erases  uvarint count, each seq as its distance from the one before
//	review  entry as a text, flags (1: appeal), record, by: texts, decided: varint
//	kind, outcome
//	        one byte for a word that nearly every entry uses, or 0 and a text
//
// An id stands first and as it is, where a script in a database can read it,
// and where decoding can cut it out: 16 bytes for a UUID would be 20 fewer,
// but its text would have to be made, and allocated, at every read.
//
// # Memory
//
// Decoding makes no copy of a text: all texts of an entry are parts of the
// one string that was decoded. A length or count beyond what is there is
// ErrMalformed and asks for no memory.
//
// Functions keep nothing and may be called from any goroutine; a Decoder
// belongs to one.
package codec

import (
	"encoding/binary"
	"fmt"

	"parley/core/chat"
	"parley/core/journal"
)

// The words with a byte of their own; 0 says that a text follows. Numbers are
// part of the format: add, never change.
var (
	kinds    = [...]string{1: string(journal.KindMessage), 2: string(journal.KindSettings), 3: string(journal.KindRole), 4: string(journal.KindBan)}
	outcomes = [...]string{1: "", 2: string(chat.Accepted), 3: string(chat.Redacted),
		4: string(chat.Held), 5: string(chat.Rejected)}
)

// AppendEntry appends the body of e, which lacks its Seq. An entry beyond the
// bounds of package journal is journal.ErrTooLarge, with b as it was.
func AppendEntry(b []byte, e *journal.Entry) ([]byte, error) {
	if err := check(e); err != nil {
		return b, err
	}
	body := AppendAnswer(b, e.ID, e.Outcome, e.Reasons)
	body = appendWord(body, kinds[:], string(e.Kind))
	body = binary.AppendVarint(body, e.Time)
	body = AppendText(body, string(e.From))
	body = AppendText(body, e.Nonce)
	body = AppendText(body, e.Text)
	body = appendChanges(body, e.Changes)
	body = appendErases(body, e.Erases)
	if n := len(body) - len(b); n > journal.MaxEntryBytes {
		return b, tooLarge("bytes encoded", n, journal.MaxEntryBytes)
	}
	return body, nil
}

// reviewAppeal is the flag of a review that its author asked for.
const reviewAppeal = 1

// AppendReview appends the body of a review. One beyond the bounds of package
// journal is journal.ErrTooLarge, with b as it was.
func AppendReview(b []byte, r *journal.Review) ([]byte, error) {
	for _, s := range []string{r.Record, string(r.By)} {
		if len(s) > journal.MaxID {
			return b, tooLarge("bytes in a digest or name", len(s), journal.MaxID)
		}
	}
	entry, err := AppendEntry(nil, &r.Entry)
	if err != nil {
		return b, err
	}
	b = append(binary.AppendUvarint(b, uint64(len(entry))), entry...)
	flags := uint64(0)
	if r.Appeal {
		flags = reviewAppeal
	}
	b = binary.AppendUvarint(b, flags)
	b = AppendText(b, r.Record)
	b = AppendText(b, string(r.By))
	return binary.AppendVarint(b, r.Decided), nil
}

// AppendAnswer appends what the author of an entry was told.
func AppendAnswer(b []byte, id chat.MessageID, outcome chat.Outcome, reasons []chat.Reason) []byte {
	b = AppendText(b, string(id))
	b = appendWord(b, outcomes[:], string(outcome))
	b = binary.AppendUvarint(b, uint64(len(reasons)))
	for i := range reasons {
		b = AppendText(b, reasons[i].Code)
		b = AppendText(b, reasons[i].Text)
		b = AppendText(b, reasons[i].Source)
	}
	return b
}

// AppendText appends the length of s and s.
func AppendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendWord(b []byte, words []string, s string) []byte {
	for i := 1; i < len(words); i++ {
		if words[i] == s {
			return append(b, byte(i))
		}
	}
	return AppendText(append(b, 0), s)
}

func appendChanges(b []byte, cs []journal.Change) []byte {
	b = binary.AppendUvarint(b, uint64(len(cs)))
	for i := range cs {
		b = AppendText(b, cs[i].Key)
		if cs[i].Value == nil {
			b = append(b, 0)
			continue
		}
		b = binary.AppendUvarint(b, uint64(len(cs[i].Value))+1)
		b = append(b, cs[i].Value...)
	}
	return b
}

// appendErases appends nothing where there are none, as in nearly every entry.
func appendErases(b []byte, seqs []uint64) []byte {
	if len(seqs) == 0 {
		return b
	}
	b = binary.AppendUvarint(b, uint64(len(seqs)))
	last := uint64(0)
	for _, seq := range seqs {
		b = binary.AppendUvarint(b, seq-last)
		last = seq
	}
	return b
}

// check enforces the bounds that need no encoding.
func check(e *journal.Entry) error {
	switch {
	case len(e.ID) > journal.MaxID:
		return tooLarge("bytes of id", len(e.ID), journal.MaxID)
	case len(e.Reasons) > journal.MaxReasons:
		return tooLarge("reasons", len(e.Reasons), journal.MaxReasons)
	case len(e.Changes) > journal.MaxChanges:
		return tooLarge("changes", len(e.Changes), journal.MaxChanges)
	case len(e.Erases) > journal.MaxErases:
		return tooLarge("erased entries", len(e.Erases), journal.MaxErases)
	}
	for i := range e.Changes {
		if n := len(e.Changes[i].Key); n > journal.MaxChangeKey {
			return tooLarge("bytes of a change's key", n, journal.MaxChangeKey)
		}
		if n := len(e.Changes[i].Value); n > journal.MaxChangeValue {
			return tooLarge("bytes of a change's value", n, journal.MaxChangeValue)
		}
	}
	return nil
}

func tooLarge(what string, got, limit int) error {
	return fmt.Errorf("%w: it has %d %s, at most %d are allowed", journal.ErrTooLarge, got, what, limit)
}
