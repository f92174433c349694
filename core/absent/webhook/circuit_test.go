package webhook

import (
	"fmt"
	"testing"
	"time"
)

func TestCircuit(t *testing.T) {
	now := time.Unix(1764000000, 0)
	var c circuit
	for range 50 { // one item alone may be at fault itself
		c.bad("1", 0, false, now)
	}
	if c.open() || !c.may(now) {
		t.Fatal("one item opened it")
	}
	for i := range circuitItems {
		c.bad(fmt.Sprint(i), 0, false, now)
	}
	if !c.open() || c.may(now) {
		t.Fatal("many items did not open it")
	}
	if wait := c.until.Sub(now); wait < circuitFirst/2 || wait > circuitFirst {
		t.Errorf("open for %s", wait)
	}
	until := c.until
	c.bad("9", 0, false, now) // under way when it opened
	if c.until != until {
		t.Error("what was under way made it wait longer")
	}
	last := time.Duration(0)
	for range 12 {
		now = c.until
		if !c.may(now) {
			t.Fatal("its time is over, and nothing may be tried")
		}
		c.try()
		if c.may(now) {
			t.Fatal("two may be tried at once")
		}
		c.bad("1", 0, true, now)
		last = c.until.Sub(now)
	}
	if last < circuitMost/2 || last > circuitMost {
		t.Errorf("open for %s in the end, want up to %s", last, circuitMost)
	}
	now = c.until
	c.try()
	c.good()
	if c.open() || !c.may(now) || c.probing {
		t.Error("a success did not close it")
	}
	// The endpoint asks for a pause.
	c.bad("1", 5*time.Minute, false, now)
	if got := c.until.Sub(now); got != 5*time.Minute {
		t.Errorf("open for %s, want what was asked for", got)
	}
	c.bad("2", 6*time.Minute, false, now)
	if got := c.until.Sub(now); got != 6*time.Minute {
		t.Errorf("open for %s, want what was asked for last", got)
	}
}

func TestBackoff(t *testing.T) {
	for n, most := range map[int]time.Duration{0: time.Second, 1: 2 * time.Second, 5: 32 * time.Second, 6: time.Minute, 39: time.Minute, 1000: time.Minute} {
		for range 100 {
			if got := backoff(n, time.Second, time.Minute); got < most/2 || got > most {
				t.Fatalf("after %d failures: got %s, want %s to %s", n, got, most/2, most)
			}
		}
	}
}
