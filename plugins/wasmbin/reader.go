package wasmbin

import "unicode/utf8"

// reader walks bytes and keeps the first error; after one every read returns
// zero, so that loops need to look at err only now and then.
type reader struct {
	b   []byte
	at  int
	err error
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = refuse(format, args...)
		r.at = len(r.b)
	}
}

func (r *reader) byte() byte {
	if r.at >= len(r.b) {
		r.fail("unexpected end of bytes")
		return 0
	}
	c := r.b[r.at]
	r.at++
	return c
}

// bytes returns the next n bytes without copying.
func (r *reader) bytes(n int) []byte {
	if n < 0 || n > len(r.b)-r.at {
		r.fail("unexpected end of bytes")
		return nil
	}
	b := r.b[r.at : r.at+n : r.at+n]
	r.at += n
	return b
}

// u32 reads an unsigned LEB128 of at most 32 bits in at most 5 bytes, padding
// allowed (WebAssembly 2.0, section 5.2.2).
func (r *reader) u32() uint32 {
	var v uint32
	for shift := 0; ; shift += 7 {
		c := r.byte()
		if r.err != nil {
			return 0
		}
		if shift == 28 && c > 0x0f {
			r.fail("integer beyond 32 bits")
			return 0
		}
		v |= uint32(c&0x7f) << shift
		if c < 0x80 {
			return v
		}
	}
}

// signed reads a signed LEB128 of at most bits bits. wazero checks the unused
// bits of the last byte; here only the length matters.
func (r *reader) signed(bits int) int64 {
	var v int64
	limit := (bits + 6) / 7
	for i := 0; ; i++ {
		c := r.byte()
		if r.err != nil {
			return 0
		}
		if i == limit {
			r.fail("integer beyond %d bits", bits)
			return 0
		}
		v |= int64(c&0x7f) << (7 * i)
		if c < 0x80 {
			if shift := 7 * (i + 1); c&0x40 != 0 && shift < 64 {
				v |= -1 << shift
			}
			return v
		}
	}
}

// count reads a vector's length and holds it against its limit before anyone
// allocates for it. Each item takes at least one byte.
func (r *reader) count(what string, limit int) int {
	n := r.u32()
	if r.err != nil {
		return 0
	}
	if uint64(n) > uint64(limit) {
		r.fail("%d %s, at most %d", n, what, limit)
		return 0
	}
	if int(n) > len(r.b)-r.at {
		r.fail("%d %s do not fit in the %d bytes left", n, what, len(r.b)-r.at)
		return 0
	}
	return int(n)
}

func (r *reader) name(limit int) string {
	n := r.count("bytes of a name", limit)
	b := r.bytes(n)
	if !utf8.Valid(b) {
		r.fail("a name is not UTF-8")
		return ""
	}
	return string(b)
}
