package load

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
)

// stamp is what a benchmark message says of itself, in its text.
type stamp struct {
	pub int    // number of the publisher
	n   uint64 // its number among this publisher's messages to this room, from 1
	at  int64  // when it was sent, Monotonic
}

// textMark begins the text of every benchmark message. Digits follow, so that
// no word list finds a word in it.
const textMark = "bench "

// filler pads a message to its size: ordinary words, as people type them.
const filler = "and then we went down to the river to see whether the boats had come in from the other side before it was dark "

// appendText appends the text of a message, size bytes where the stamp fits.
func appendText(dst []byte, s stamp, size int) []byte {
	from := len(dst)
	dst = append(dst, textMark...)
	dst = strconv.AppendInt(dst, int64(s.pub), 10)
	dst = append(dst, ' ')
	dst = strconv.AppendUint(dst, s.n, 10)
	dst = append(dst, ' ')
	dst = strconv.AppendInt(dst, s.at, 10)
	dst = append(dst, ' ')
	for len(dst)-from < size {
		dst = append(dst, filler[:min(len(filler), size-(len(dst)-from))]...)
	}
	return dst
}

var (
	keyRoom = []byte(`"room":"`)
	keySeq  = []byte(`"seq":`)
	keyText = []byte(`"text":"` + textMark)
	keyID   = []byte(`"id":"`)
	keyTS   = []byte(`"ts":`)
	keyCode = []byte(`"code":`)
)

// kindOf returns the "type" of an event, which the server writes first.
func kindOf(event []byte) string {
	const lead = `{"type":"`
	if len(event) < len(lead) || string(event[:len(lead)]) != lead {
		return ""
	}
	b := event[len(lead):]
	if end := bytes.IndexByte(b, '"'); end >= 0 {
		return string(b[:end]) // short, and compared at once: not allocated
	}
	return ""
}

// message is a benchmark message as a member receives it.
type message struct {
	room []byte // points into the event
	seq  uint64
	stamp
	place *flight // not in the event: nil as it is parsed
}

var errNotOurs = errors.New("not a message of this benchmark")

// parseMessage reads a message event. It looks for the members it needs by
// name and for nothing else, so that the event may grow.
func parseMessage(event []byte) (m message, err error) {
	var ok bool
	if m.room, ok = textAfter(event, keyRoom); !ok {
		return m, errNotOurs
	}
	if m.seq, ok = numberAfter(event, keySeq); !ok {
		return m, errNotOurs
	}
	at := bytes.Index(event, keyText)
	if at < 0 {
		return m, errNotOurs
	}
	var pub, stampAt uint64
	rest := event[at+len(keyText):]
	for _, field := range []*uint64{&pub, &m.n, &stampAt} {
		if *field, rest, ok = number(rest); !ok || len(rest) == 0 || rest[0] != ' ' {
			return m, errNotOurs
		}
		rest = rest[1:]
	}
	if pub >= maxPublishers || stampAt > 1<<62 {
		return m, errNotOurs
	}
	m.pub, m.at = int(pub), int64(stampAt)
	return m, nil
}

// textAfter returns the JSON string that follows key, which holds no escapes.
func textAfter(b, key []byte) ([]byte, bool) {
	at := bytes.Index(b, key)
	if at < 0 {
		return nil, false
	}
	b = b[at+len(key):]
	end := bytes.IndexByte(b, '"')
	if end < 0 {
		return nil, false
	}
	return b[:end], true
}

// numberAfter returns the number that follows key.
func numberAfter(b, key []byte) (v uint64, ok bool) {
	at := bytes.Index(b, key)
	if at < 0 {
		return 0, false
	}
	v, _, ok = number(b[at+len(key):])
	return v, ok
}

// pongOf answers a ping of the transport without frames.
func pongOf(ping []byte) []byte {
	ts, _ := numberAfter(ping, keyTS)
	return fmt.Appendf(nil, `{"type":"pong","ts":%d}`, ts)
}

// number reads decimal digits; more than 18 are too many.
func number(b []byte) (v uint64, rest []byte, ok bool) {
	i := 0
	for ; i < len(b) && b[i] >= '0' && b[i] <= '9'; i++ {
		if i == 18 {
			return 0, b, false
		}
		v = v*10 + uint64(b[i]-'0')
	}
	return v, b[i:], i > 0
}
