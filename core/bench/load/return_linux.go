package load

import (
	"bufio"
	"bytes"
	"cmp"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// comeback is a connection that was refused, and when it may come back.
type comeback struct {
	at   int64 // Monotonic
	conn int
}

// maxComeback bounds the time a server may ask for.
const maxComeback = 2 * time.Minute

// retryAfter reads when the answer to an upgrade wants it tried again:
// Retry-After in seconds (RFC 9110 §10.2.3).
func retryAfter(head []byte) (after time.Duration, ok bool) {
	full := append(slices.Clone(head), "\r\n\r\n"...)
	answer, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(full)), nil)
	if err != nil {
		return 0, false
	}
	_ = answer.Body.Close()
	secs, err := strconv.Atoi(answer.Header.Get("Retry-After"))
	return time.Duration(secs) * time.Second, err == nil && secs >= 0 && secs <= int(maxComeback.Seconds())
}

// comesBack lets go of a connection that was refused and notes when it is to
// be tried again: a part of a second later than it was told, since
// Retry-After counts in whole ones.
func (e *engine) comesBack(i int, after time.Duration, now int64) bool {
	if !e.spec.Returns || after > maxComeback {
		return false
	}
	spread := int64(i) * 7919 % 1000 * int64(time.Millisecond) // the same for every run
	back := comeback{at: now + int64(after) + spread, conn: i}
	at, _ := slices.BinarySearchFunc(e.again, back, func(a, b comeback) int { return cmp.Compare(a.at, b.at) })
	e.again = slices.Insert(e.again, at, back) // late in the queue: turns are given in their order
	e.conns[i].close()
	e.opening--
	e.stats.Returned++
	return true
}

// dialAgain tries those whose time has come; a turn of the engine takes at most
// progressEvery, which is exact enough for whole seconds.
func (e *engine) dialAgain() error {
	for now := e.clock.now(); len(e.again) > 0 && e.again[0].at <= now && e.opening < e.spec.Parallel; e.again = e.again[1:] {
		if err := e.dial(e.again[0].conn); err != nil {
			return err
		}
	}
	return nil
}
