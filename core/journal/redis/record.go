package redis

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"strconv"
	"strings"
	"unsafe"

	"parley/core/journal"
	"parley/core/journal/codec"
)

// An entry is stored as [version byte][body of package codec][CRC32C of both,
// 4 bytes little-endian]. The seq is not part of it: Redis gives it, in the
// stream's id. append.lua reads the id, with which a body begins.
const recordVersion = 1

const sumBytes = 4

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// What can be wrong with a record, besides codec.ErrMalformed; the texts reach
// the log.
var (
	errShort   = errors.New("it is too short to be a record")
	errSum     = errors.New("its checksum does not match")
	errVersion = errors.New("its version is unknown")
)

// appendEntry encodes e after b, or leaves b as it is.
func appendEntry(b []byte, e *journal.Entry) ([]byte, error) {
	start := len(b)
	rec, err := codec.AppendEntry(append(b, recordVersion), e)
	if err != nil {
		return b, err
	}
	return binary.LittleEndian.AppendUint32(rec, crc32.Checksum(rec[start:], castagnoli)), nil
}

// decodeEntry reads what appendEntry wrote. The entry shares s's memory.
func decodeEntry(s string, seq uint64) (journal.Entry, error) {
	body, err := unseal(s)
	if err != nil {
		return journal.Entry{}, err
	}
	var e journal.Entry
	if err := codec.DecodeEntry(&e, seq, body); err != nil {
		return journal.Entry{}, err
	}
	return e, nil
}

// unseal checks a record and returns its body.
func unseal(s string) (string, error) {
	if len(s) < 1+sumBytes {
		return "", errShort
	}
	rec := s[:len(s)-sumBytes]
	if binary.LittleEndian.Uint32([]byte(s[len(rec):])) != checksum(rec) {
		return "", errSum
	}
	if rec[0] != recordVersion {
		return "", errVersion
	}
	return rec[1:], nil
}

// checksum is crc32.Checksum for a string. The bytes are only read, so they
// need no copy.
func checksum(s string) uint32 {
	return crc32.Checksum(unsafe.Slice(unsafe.StringData(s), len(s)), castagnoli)
}

// decodeReceipt reads "epoch seq answer", the answer being that of package
// codec. It may be absent.
func decodeReceipt(s string) (journal.Receipt, error) {
	epoch, seq, answer, err := splitPlace(s)
	if err != nil {
		return journal.Receipt{}, err
	}
	rc := journal.Receipt{Epoch: epoch, Seq: seq}
	if answer == "" {
		return rc, nil
	}
	d := codec.NewDecoder(answer)
	rc.ID, rc.Outcome, rc.Reasons = d.Answer()
	if d.End() != nil {
		return journal.Receipt{}, errors.New("not a receipt")
	}
	return rc, nil
}

// maxEpochBytes bounds the name of an epoch; ours have 16 bytes.
const maxEpochBytes = 64

// splitPlace takes "epoch seq rest" apart; "epoch seq" has no rest. The seq is
// 0 where rest concerns a review that has no entry.
func splitPlace(s string) (epoch string, seq uint64, rest string, err error) {
	epoch, s, ok := strings.Cut(s, " ")
	if !ok || epoch == "" || len(epoch) > maxEpochBytes {
		return "", 0, "", errors.New("no epoch")
	}
	digits, rest, _ := strings.Cut(s, " ")
	if seq, err = strconv.ParseUint(digits, 10, 64); err != nil {
		return "", 0, "", errors.New("no seq")
	}
	return epoch, seq, rest, nil
}
