package decisionlog

import (
	"math/rand/v2"
	"time"
)

// An id is 16 characters that a person can read out: 48 bits of milliseconds
// and 32 bits that differ between nodes and within a millisecond. Its alphabet
// (Crockford's base 32, lower case) sorts as the numbers do.
const (
	idAlphabet = "0123456789abcdefghjkmnpqrstvwxyz"
	idLen      = 16
	idTailBits = 32
)

// ids makes ids that only grow. The owner synchronises.
type ids struct {
	ms   int64
	tail uint32
}

// next returns the id of a record of that time. When a clock goes back, or a
// millisecond has used up its tails, the last millisecond goes on.
func (g *ids) next(now time.Time) string {
	ms := now.UnixMilli()
	switch {
	case ms > g.ms:
		g.ms, g.tail = ms, rand.Uint32()>>1 // room to count up
	case g.tail == 1<<32-1:
		g.ms, g.tail = g.ms+1, 0
	default:
		g.tail++
	}
	return format(g.ms, g.tail)
}

func format(ms int64, tail uint32) string {
	var out [idLen]byte
	hi, lo := uint64(ms)>>8, uint64(ms)&0xff<<idTailBits|uint64(tail) // two halves of 40 bits
	for i := idLen/2 - 1; i >= 0; i-- {
		out[i], out[i+idLen/2] = idAlphabet[hi&31], idAlphabet[lo&31]
		hi, lo = hi>>5, lo>>5
	}
	return string(out[:])
}

// firstID is the least id that a record of that time or later can have.
func firstID(t time.Time) string {
	if t.UnixMilli() < 0 {
		return format(0, 0)
	}
	return format(t.UnixMilli(), 0)
}

// validID reports whether s has the form of an id.
func validID(s string) bool {
	if len(s) != idLen {
		return false
	}
	for i := range idLen {
		c := s[i]
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') || c == 'i' || c == 'l' || c == 'o' || c == 'u' {
			return false
		}
	}
	return true
}
