package wire

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"math"
	"sync"
)

// Form is how a connection takes its frames.
type Form uint8

// The forms.
const (
	FormWebSocket Form = iota
	FormLine           // newline-delimited
	FormDeflate        // WebSocket with permessage-deflate (RFC 7692)
)

// Bytes returns the frame in the form. A deflated frame is made anew each
// time, and is not made at all below worthDeflating bytes.
func (f Frame) Bytes(form Form) []byte {
	switch {
	case form == FormLine:
		return f.Line()
	case form == FormDeflate && len(f.buf) >= worthDeflating:
		return f.Deflate()
	}
	return f.WebSocket()
}

// worthDeflating is the size below which an answer is not compressed: a few
// names repeat, and that is all. A welcome, which holds a guest's secret, is
// smaller, so that its length tells nothing.
const worthDeflating = 1 << 10

const (
	rsv1          = 0x40 // "this message is compressed" (RFC 7692 §6)
	deflateHeader = maxHeader
)

// deflateTail is what a flushed stream ends with, and a message leaves out
// (RFC 7692 §7.2.1).
const deflateTail = "\x00\x00\xff\xff"

// deflater is a compressor and what it writes to.
type deflater struct {
	out bytes.Buffer
	w   *flate.Writer
}

// deflaters are kept: each has some hundred KiB of tables.
var deflaters = sync.Pool{New: func() any {
	d := new(deflater)
	d.w, _ = flate.NewWriter(&d.out, flate.BestSpeed) // the level is a valid one
	return d
}}

// keepDeflated is the largest output buffer that goes back to the pool.
const keepDeflated = 64 << 10

// Deflate returns the frame for a connection with permessage-deflate, without
// context takeover: it depends on no frame before it and can be sent to
// everyone who has negotiated that. A frame that would become hardly smaller
// stays as it is: the client need not inflate it then. The result may be
// shared.
func (f Frame) Deflate() []byte {
	d := deflaters.Get().(*deflater)
	defer func() {
		if d.out.Cap() <= keepDeflated {
			deflaters.Put(d)
		}
	}()
	d.out.Reset()
	d.w.Reset(&d.out)
	// A bytes.Buffer takes everything.
	_, _ = d.w.Write(f.Line())
	_ = d.w.Flush()
	payload := bytes.TrimSuffix(d.out.Bytes(), []byte(deflateTail))
	b := appendHeader(make([]byte, 0, deflateHeader+len(payload)), finText|rsv1, len(payload))
	if 8*(len(b)+len(payload)) > 7*len(f.buf) {
		return f.buf
	}
	return append(b, payload...)
}

// appendHeader appends the header of an unmasked frame (RFC 6455 §5.2).
func appendHeader(b []byte, first byte, n int) []byte {
	switch {
	case n <= 125:
		return append(b, first, byte(n))
	case n <= math.MaxUint16:
		return binary.BigEndian.AppendUint16(append(b, first, 126), uint16(n))
	}
	return binary.BigEndian.AppendUint64(append(b, first, 127), uint64(n))
}
