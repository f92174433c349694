package room

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestPace drives the pump's clock: a busy room's entries are gathered into
// one write a pace, and a quiet room beside it does not wait.
func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(c *Config) { c.Pace, c.Shards = 50*time.Millisecond, 1 }, nil)
		w.post("busy", 1)
		w.post("quiet", 1)
		busy, quiet := newSink(-1), newSink(-1)
		w.join("busy", busy, nil)
		w.join("quiet", quiet, nil)
		time.Sleep(time.Second)
		synctest.Wait()
		before := busy.writes
		for range 100 { // over a second, one each 10 ms
			w.post("busy", 1)
			time.Sleep(10 * time.Millisecond)
		}
		w.post("quiet", 1)
		time.Sleep(2 * gather)
		synctest.Wait()
		quiet.checkRun(t, 2, 2)
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		busy.checkRun(t, 2, 101)
		if got := busy.writes - before; got < 18 || got > 22 {
			t.Errorf("got %d writes for 100 entries in a second at a pace of 50 ms, want about 20", got)
		}
	})
}
