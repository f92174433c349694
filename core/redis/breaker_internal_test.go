package redis

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestBreaker(t *testing.T) {
	const timeout = time.Second
	synctest.Test(t, func(t *testing.T) {
		var b breaker
		want := func(open bool, when string) {
			t.Helper()
			if got := b.admit(timeout); got != open {
				t.Errorf("%s: admitted %v, want %v", when, got, open)
			}
		}
		want(true, "at first")

		// A slow call while others are answered.
		began := time.Now()
		time.Sleep(timeout / 2)
		b.answered()
		time.Sleep(timeout / 2)
		b.silent(began)
		want(true, "one call was slow, others were answered")

		began = time.Now()
		time.Sleep(timeout)
		b.silent(began)
		want(false, "nobody was answered")
		time.Sleep(2 * shutFor)
		want(true, "it is time to try")
		want(false, "another tries")
		time.Sleep(timeout + 2*shutFor)
		want(true, "who tried was never heard of again")
		time.Sleep(timeout)
		b.silent(time.Now().Add(-timeout))
		want(false, "tried in vain")
		b.answered()
		want(true, "after an answer")
		want(true, "for everybody")
	})
}
