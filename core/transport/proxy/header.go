package proxy

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
)

// Bounds of a header. Version 1 is a line of at most 107 bytes (section 2.1);
// version 2 says its length, of which extensions may be ignored but must be
// read (section 2.2).
const (
	maxLine      = 107
	maxExtension = 4 << 10
	shortest     = len("PROXY UNKNOWN\r\n") // of both versions
)

const (
	lineStart = "PROXY "
	signature = "\r\n\r\n\x00\r\nQUIT\n"
)

// ErrNoHeader says that a connection began with something else.
var ErrNoHeader = errors.New("the connection does not begin with a PROXY header")

// ReadHeader reads a header of version 1 or 2 and not one byte more. It
// returns the client's address, or the zero value where the header names
// none: the proxy speaks for itself (a health check) or does not know.
func ReadHeader(r io.Reader) (netip.AddrPort, error) {
	var buf [maxLine]byte
	if _, err := io.ReadFull(r, buf[:shortest]); err != nil {
		return netip.AddrPort{}, fmt.Errorf("read a PROXY header: %w", err)
	}
	switch {
	case string(buf[:len(lineStart)]) == lineStart:
		return readLine(r, &buf)
	case string(buf[:len(signature)]) == signature:
		return readBinary(r, buf[len(signature):shortest])
	}
	return netip.AddrPort{}, ErrNoHeader
}

// readLine reads the rest of a header of version 1 byte by byte: what follows
// it is not ours.
func readLine(r io.Reader, buf *[maxLine]byte) (netip.AddrPort, error) {
	n := shortest
	for string(buf[n-2:n]) != "\r\n" {
		if n == maxLine {
			return netip.AddrPort{}, fmt.Errorf("a PROXY line has more than %d bytes", maxLine)
		}
		if _, err := io.ReadFull(r, buf[n:n+1]); err != nil {
			return netip.AddrPort{}, fmt.Errorf("read a PROXY header: %w", err)
		}
		n++
	}
	return parseLine(string(buf[:n-2]))
}

func parseLine(line string) (none netip.AddrPort, err error) {
	words := strings.Split(line, " ")
	if words[1] == "UNKNOWN" { // whatever follows is to be ignored
		return none, nil
	}
	if len(words) != 6 || words[1] != "TCP4" && words[1] != "TCP6" {
		return none, fmt.Errorf("the PROXY line %q is not understood", line)
	}
	addr, err := netip.ParseAddr(words[2])
	if err != nil || addr.Is4() != (words[1] == "TCP4") || addr.Zone() != "" {
		return none, fmt.Errorf("the PROXY line %q has a bad client address", line)
	}
	port, err := strconv.ParseUint(words[4], 10, 16)
	if err != nil {
		return none, fmt.Errorf("the PROXY line %q has a bad client port", line)
	}
	return netip.AddrPortFrom(addr.Unmap(), uint16(port)), nil
}

// readBinary reads the rest of a header of version 2. begun are the bytes
// after the signature that were read already: version and command, family,
// and half of the length.
func readBinary(r io.Reader, begun []byte) (none netip.AddrPort, err error) {
	var head [4]byte
	copy(head[:], begun)
	if _, err := io.ReadFull(r, head[len(begun):]); err != nil {
		return none, fmt.Errorf("read a PROXY header: %w", err)
	}
	length := int(binary.BigEndian.Uint16(head[2:]))
	switch {
	case head[0]>>4 != 2:
		return none, fmt.Errorf("a PROXY header has version %d", head[0]>>4)
	case head[0]&0xf > 1:
		return none, fmt.Errorf("a PROXY header has command %d", head[0]&0xf)
	case length > maxExtension:
		return none, fmt.Errorf("a PROXY header has %d bytes, at most %d are read", length, maxExtension)
	}
	body := make([]byte, length)
	if _, err := io.ReadFull(r, body); err != nil {
		return none, fmt.Errorf("read a PROXY header: %w", err)
	}
	if head[0]&0xf == 0 { // LOCAL: the proxy speaks for itself
		return none, nil
	}
	return parseAddresses(head[1], body)
}

// Families and transports of version 2 that carry a client's address.
const (
	tcp4 = 0x11
	tcp6 = 0x21
)

func parseAddresses(family byte, body []byte) (none netip.AddrPort, err error) {
	size := 4
	switch family {
	case tcp6:
		size = 16
	case tcp4:
	default: // unspecified, UDP, Unix sockets: "accept the connection", with its real addresses
		return none, nil
	}
	if len(body) < 2*size+4 {
		return none, fmt.Errorf("a PROXY header has %d bytes of addresses, want %d", len(body), 2*size+4)
	}
	addr, _ := netip.AddrFromSlice(body[:size])
	return netip.AddrPortFrom(addr.Unmap(), binary.BigEndian.Uint16(body[2*size:])), nil
}
