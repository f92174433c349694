package chat

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"sync/atomic"
	"time"
)

// ServerUser is who the log names as author of what the server did by itself.
const ServerUser UserID = "parley"

// newest is the time in the newest ID, in 4096ths of a millisecond.
var newest atomic.Int64

// NewID returns a new ID for a message, a session or an erasure: a UUIDv7 (RFC
// 9562 §5.7), so that of two the later one sorts behind the other, as far as the
// clocks agree that they were made by. Those of one process sort in the order
// they were made in, also where its clock goes back. Any goroutine may call it.
func NewID() string {
	ns := time.Now().UnixNano()
	now := ns/1e6<<12 | ns%1e6>>8 // the fraction takes the place of rand_a (§6.2, method 3): 1e6>>8 is below 4096
	for last := newest.Load(); ; last = newest.Load() {
		now = max(now, last+1)
		if newest.CompareAndSwap(last, now) {
			break
		}
	}
	var id [16]byte
	binary.BigEndian.PutUint64(id[:], uint64(now)>>12<<16|7<<12|uint64(now)&0xfff)
	_, _ = rand.Read(id[8:]) // it does not fail
	id[8] = id[8]&0x3f | 0x80
	var text [36]byte
	for i, at, from := 0, 0, 0; i < 5; i++ {
		n := [...]int{4, 2, 2, 2, 6}[i]
		if i > 0 {
			text[at] = '-'
			at++
		}
		hex.Encode(text[at:], id[from:from+n])
		at, from = at+2*n, from+n
	}
	return string(text[:])
}
