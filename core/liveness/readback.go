package liveness

import "time"

// Effective is what the kernel holds for one socket, whoever set it: a value
// that nobody set for the socket is the sysctl's (tcp(7)).
type Effective struct {
	KeepAlive   bool
	Idle        time.Duration
	Interval    time.Duration
	Count       int
	UserTimeout time.Duration // 0 = none
}

// GivesUp is how long after its last packet a peer that is silent, and owes no
// acknowledgement, is given up by KeepAlive; 0 is never. With a user timeout
// the probe count does not matter: the connection ends at the first probe that
// is due when the timeout has passed, one probe at least having gone out
// (net/ipv4/tcp_timer.c, tcp_keepalive_timer).
func (e Effective) GivesUp() time.Duration {
	switch {
	case !e.KeepAlive:
		return 0
	case e.UserTimeout == 0:
		return e.Idle + time.Duration(e.Count)*e.Interval
	}
	after := max(1, (e.UserTimeout-e.Idle+e.Interval-1)/max(1, e.Interval))
	return e.Idle + after*e.Interval
}
