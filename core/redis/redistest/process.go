//go:build unix

package redistest

import "time"

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
