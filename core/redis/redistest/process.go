//go:build unix

package redistest

import (
	"strconv"
	"strings"
	"time"
)

// PID is the id of the server's process, for faults that are done to it.
func (s *Server) PID() int { return s.cmd.Process.Pid }

// Ended waits until the server has ended by itself.
func (s *Server) Ended() {
	s.t.Helper()
	select {
	case <-s.ended:
	case <-time.After(Patience):
		s.t.Fatalf("redis-server has not ended by itself in %v", Patience)
	}
}

// TakeOver has a replica of a cluster take its master's place, which loses
// nothing, and waits until it has. A cluster gives the two five seconds to agree
// on that, which a busy machine may let pass: then it is asked anew.
func (s *Server) TakeOver() {
	s.t.Helper()
	var asked time.Time
	Await(s.t, "the replica has taken over", func() bool {
		if strings.HasPrefix(s.Do("ROLE"), "master") {
			return true
		}
		if time.Since(asked) > takeOverTime {
			s.Do("CLUSTER", "FAILOVER")
			asked = time.Now()
		}
		return false
	})
}

// takeOverTime is when CLUSTER FAILOVER has worked or been given up
// (CLUSTER_MF_TIMEOUT of cluster_legacy.h), and a little.
const takeOverTime = 6 * time.Second

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
