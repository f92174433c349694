package names_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"parley/core/auth/names"
)

// A server that runs for a week remembers those who came lately, and nobody else.
func TestRecentForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const keep = 10 * time.Minute
		r := names.NewRecent(keep, 1000)
		since := time.Unix(1000, 0)
		most := 0
		for i := range 7 * 24 * 60 { // a newcomer a minute, and one who keeps coming
			name := fmt.Sprint("user", i)
			r.Put(name, since)
			if got, ok := r.Since(name); !ok || !got.Equal(since) {
				t.Fatalf("%s: got %v, %v", name, got, ok)
			}
			if _, ok := r.Since("ann"); !ok {
				r.Put("ann", since)
			}
			most = max(most, r.Len())
			time.Sleep(time.Minute)
		}
		if most > 2*11+2 {
			t.Errorf("it remembered %d names at once, want those of two times %v", most, keep)
		}
		time.Sleep(3 * keep)
		if n := r.Len(); n != 0 {
			t.Errorf("nobody came for long: got %d names", n)
		}
	})
}

// What is remembered is so for its time to the moment, whenever a generation ends.
func TestRecentKeeps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const keep = 10 * time.Minute
		for offset := time.Duration(0); offset < keep; offset += 90 * time.Second {
			r := names.NewRecent(keep, 1000)
			time.Sleep(offset)
			r.Put("ann", time.Time{})
			time.Sleep(keep - time.Second)
			if _, ok := r.Since("ann"); !ok {
				t.Errorf("put after %v, it is forgotten a second too early", offset)
			}
			time.Sleep(time.Second)
			if _, ok := r.Since("ann"); ok {
				t.Errorf("put after %v, it is remembered for too long", offset)
			}
		}
	})
}

// A crowd that comes at once costs no more than it may, and the newest are remembered.
func TestRecentIsBounded(t *testing.T) {
	r := names.NewRecent(time.Hour, 100)
	for i := range 10_000 {
		name := fmt.Sprint("user", i)
		r.Put(name, time.Time{})
		if n := r.Len(); n > 100 {
			t.Fatalf("got %d names, at most 100 are to be remembered", n)
		}
		for j := max(0, i-49); j <= i; j++ {
			if _, ok := r.Since(fmt.Sprint("user", j)); !ok {
				t.Fatalf("after %d: %d is forgotten", i, j)
			}
		}
	}
}
