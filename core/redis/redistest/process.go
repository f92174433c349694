//go:build unix

package redistest

import (
	"strconv"
	"time"
)

// PID is the id of the server's process, for faults that are done to it.
func (s *Server) PID() int { return s.cmd.Process.Pid }

// Ended waits until the server has ended by itself.
func (s *Server) Ended() {
	s.t.Helper()
	select {
	case <-s.ended:
	case <-time.After(startTimeout):
		s.t.Fatalf("redis-server has not ended by itself in %v", startTimeout)
	}
}

// MasterOf is the number of the master that a key belongs to, as long as no
// slot has moved.
func (c *Cluster) MasterOf(key string) int {
	s := c.Masters[0]
	s.t.Helper()
	slot, err := strconv.Atoi(s.Do("CLUSTER", "KEYSLOT", key))
	if err != nil {
		s.t.Fatalf("the slot of %s: %v", key, err)
	}
	for i := range c.Masters {
		if slot < (i+1)*slots/len(c.Masters) {
			return i
		}
	}
	return len(c.Masters) - 1
}
