package meter

import "encoding/binary"

func appendU32(b []byte, v uint32) []byte { return binary.AppendUvarint(b, uint64(v)) }

// appendS64 appends a signed LEB128 (WebAssembly 2.0, section 5.2.2).
func appendS64(b []byte, v int64) []byte {
	for {
		c := byte(v & 0x7f)
		v >>= 7
		if v == 0 && c&0x40 == 0 || v == -1 && c&0x40 != 0 {
			return append(b, c)
		}
		b = append(b, c|0x80)
	}
}

// extend returns the section body old, a vector of n items, with more items
// at its end. A nil old stands for a section the module does not have.
func extend(old []byte, n int, more []byte, added int) []byte {
	_, size := binary.Uvarint(old) // the count may be padded
	b := appendU32(nil, uint32(n+added))
	b = append(b, old[max(size, 0):]...)
	return append(b, more...)
}
