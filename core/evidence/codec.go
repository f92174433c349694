package evidence

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
)

// recordVersion is the form of a stored record: [version][length of the JSON,
// u32 little-endian][JSON of the decision][input].
const recordVersion = 1

// MaxRecordBytes bounds an encoded record: the largest input and as many
// reasons and votes as a room may have.
const MaxRecordBytes = 2 << 20

// Append appends the encoded record to b.
func Append(b []byte, r *Record) ([]byte, error) {
	d, err := json.Marshal(&r.Decision)
	if err != nil {
		return b, fmt.Errorf("encode evidence %s: %w", r.ID, err)
	}
	if n := len(d) + len(r.Input); n > MaxRecordBytes {
		return b, fmt.Errorf("encode evidence %s: %d bytes, at most %d are kept", r.ID, n, MaxRecordBytes)
	}
	b = append(b, recordVersion)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(d)))
	return append(append(b, d...), r.Input...), nil
}

// errRecord says that a record does not have the form it should.
var errRecord = errors.New("evidence: not a record")

// Decode reads what Append wrote. The record shares no memory with b.
func Decode(b []byte) (Record, error) {
	var r Record
	if len(b) < 5 || b[0] != recordVersion || len(b) > MaxRecordBytes+5 {
		return r, errRecord
	}
	n := binary.LittleEndian.Uint32(b[1:])
	if b = b[5:]; uint64(n) > uint64(len(b)) {
		return r, errRecord
	}
	if err := json.Unmarshal(b[:n], &r.Decision); err != nil {
		return Record{}, fmt.Errorf("%w: %w", errRecord, err)
	}
	r.Input = append([]byte{}, b[n:]...)
	return r, nil
}
