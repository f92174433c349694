package netlab

import (
	"net/netip"
	"sync"
	"time"
)

// Box is a NAT or a firewall that side B is behind. A connection that B opens
// gets a state, packets of a connection without a state are lost in both
// directions, and nobody is told: some boxes answer with a reset, which is
// found at once and needs no experiment (RFC 5382 section 6 leaves it open).
type Box struct {
	// Ageing is how long a state lives without a packet that counts; 0 is for
	// ever. RFC 5382 REQ-5 asks for 2 h 4 min, and many boxes have less.
	Ageing time.Duration
	Counts Counting
}

// Counting says which packets make a state young again. RFC 4787 REQ-6 asks
// for those from inside, and leaves open whether others count too.
type Counting string

// The kinds of Counting. Inside is side B.
const (
	CountBoth    Counting = "" // whatever passes
	CountInside  Counting = "inside"
	CountOutside Counting = "outside"
)

// states are what a box knows. Locked after way.mu.
type states struct {
	box Box

	mu    sync.Mutex
	young map[ends]time.Time // by inside and outside: when a packet last counted; one entry for each connection B opens
}

// passes reports whether a TCP packet is let through, and takes note of it.
// opens: it is the first of a connection (SYN without ACK).
func (s *states) passes(now time.Time, flow ends, fromInside, opens bool) bool {
	if s == nil {
		return true
	}
	if !fromInside {
		flow.src, flow.dst = flow.dst, flow.src
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if opens && fromInside {
		s.young[flow] = now
		return true
	}
	at, known := s.young[flow]
	if !known || s.old(now, at) {
		return false // it stays in the map, for dropped
	}
	if c := s.box.Counts; c == CountBoth || (c == CountInside) == fromInside {
		s.young[flow] = now
	}
	return true
}

func (s *states) old(now, at time.Time) bool { return s.box.Ageing > 0 && now.Sub(at) >= s.box.Ageing }

func (s *states) dropped(now time.Time) map[netip.AddrPort]time.Time {
	gone := make(map[netip.AddrPort]time.Time)
	if s == nil {
		return gone
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for flow, at := range s.young {
		if s.old(now, at) {
			gone[flow.src] = at.Add(s.box.Ageing)
		}
	}
	return gone
}
