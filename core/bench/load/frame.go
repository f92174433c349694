package load

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// Opcodes of RFC 6455 §5.2.
const (
	opText  = 1
	opClose = 8
	opPing  = 9
	opPong  = 10
)

// maxFrame bounds a frame of the server, in bytes: far above any event but a
// history page, which this client never asks for.
const maxFrame = 1 << 20

// errPartial says that a frame is not complete yet.
var errPartial = errors.New("frame is not complete")

// nextFrame splits the first frame off b. Server frames are not masked (RFC
// 6455 §5.1), and this client negotiates no extension, so RSV bits and
// fragments are errors.
func nextFrame(b []byte) (op byte, payload, rest []byte, err error) {
	if len(b) < 2 {
		return 0, nil, b, errPartial
	}
	if b[0]&0xf0 != 0x80 {
		return 0, nil, b, fmt.Errorf("frame begins with %#x: a fragment or an extension that was not negotiated", b[0])
	}
	if b[1]&0x80 != 0 {
		return 0, nil, b, errors.New("frame of the server is masked")
	}
	size, head := uint64(b[1]), 2
	switch size {
	case 126:
		head = 4
		if len(b) < head {
			return 0, nil, b, errPartial
		}
		size = uint64(binary.BigEndian.Uint16(b[2:]))
	case 127:
		head = 10
		if len(b) < head {
			return 0, nil, b, errPartial
		}
		size = binary.BigEndian.Uint64(b[2:])
	}
	if size > maxFrame {
		return 0, nil, b, fmt.Errorf("frame of %d bytes, at most %d are expected", size, maxFrame)
	}
	end := head + int(size)
	if len(b) < end {
		return 0, nil, b, errPartial
	}
	return b[0] & 0x0f, b[head:end], b[end:], nil
}

// nextLine splits the first line off b, for the transport that has no frames:
// every line is an event.
func nextLine(b []byte) (op byte, payload, rest []byte, err error) {
	line, rest, ok := bytes.Cut(b, []byte{'\n'})
	if !ok {
		return 0, nil, b, errPartial
	}
	return opText, line, rest, nil
}

// mask is the masking key of every frame this client sends. RFC 6455 §5.3
// wants an unpredictable one to protect proxies; between a load generator and
// its own server there is none.
var mask = [4]byte{0x9a, 0x3c, 0x51, 0xe7}

// appendFrame appends payload as one masked frame.
func appendFrame(dst []byte, op byte, payload []byte) []byte {
	dst = append(dst, 0x80|op)
	switch n := len(payload); {
	case n < 126:
		dst = append(dst, 0x80|byte(n))
	case n < 1<<16:
		dst = append(dst, 0x80|126, byte(n>>8), byte(n))
	default:
		dst = append(dst, 0x80|127)
		dst = binary.BigEndian.AppendUint64(dst, uint64(n))
	}
	dst = append(dst, mask[:]...)
	for i, c := range payload {
		dst = append(dst, c^mask[i&3])
	}
	return dst
}
