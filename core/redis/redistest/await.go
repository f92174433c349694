//go:build unix

package redistest

import (
	"testing"
	"time"
)

// Patience bounds every wait of this package. It is far above what a loaded machine
// needs, so that reaching it means that it never will.
const Patience = time.Minute

// Await asks until ok is true, every 2 ms, and ends the test when it has not
// been for Patience. It is for what can be observed only by asking; everything
// else is waited for on a channel.
func Await(t testing.TB, what string, ok func() bool) {
	t.Helper()
	late := time.NewTimer(Patience)
	defer late.Stop()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-late.C:
			t.Fatalf("waited %v and it did not come true: %s", Patience, what)
		}
	}
}
