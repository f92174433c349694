// Command chainguest is the plugin of the experiment "chain": it looks for one
// word and lets everything pass, and asks its host for the time and for random
// numbers as often as its configuration says. It is a guest, built for wasip1
// by the experiment itself.
package main

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"time"

	"parley/sdk/plugin"
)

func init() { plugin.Register(new(judge)) }

func main() {} // the host calls decide, never main

// judge is the plugin.
type judge struct {
	calls int // of each kind, for every decision
	last  time.Time
	buf   [8]byte
}

// Configure takes {"calls": N}.
func (j *judge) Configure(b []byte) error {
	var c struct{ Calls int }
	err := json.Unmarshal(b, &c)
	j.calls = c.Calls
	return err
}

var word = []byte("no message has this")

// Decide judges one message.
func (j *judge) Decide(m *plugin.Message) plugin.Result {
	for range j.calls {
		j.last = time.Now()
		_, _ = rand.Read(j.buf[:]) // it cannot fail
	}
	if bytes.Contains(m.Normalized, word) {
		return plugin.Deny(1, "It has the word.")
	}
	return plugin.Allow()
}
