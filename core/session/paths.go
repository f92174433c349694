package session

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"parley/core/chat"
)

// Path is what the kernel knows of one session's connection, for operators.
type Path struct {
	Session     string      `json:"session"`
	User        chat.UserID `json:"user"`
	Transport   string      `json:"transport"`
	Network     string      `json:"network"` // "loopback", "private" or "public"
	Device      string      `json:"device"`  // client name and version, as it said in hello
	Retransmits uint32      `json:"retransmits"`
	LossPercent float64     `json:"loss_percent"` // segments sent again, of all sent
	RTTMS       float64     `json:"rtt_ms"`       // smoothed, of the kernel
	RTTVarMS    float64     `json:"rttvar_ms"`
	Unacked     int         `json:"unacked"`      // segments in flight
	QueuedBytes int         `json:"queued_bytes"` // written and not acknowledged
	Timeouts    int         `json:"timeouts"`     // in a row, without progress
	LastAckMS   int64       `json:"last_ack_ms"`  // since the other end last acknowledged

	badness float64
}

// Paths is the answer to which connections have the worst paths.
type Paths struct {
	At     time.Time `json:"at"`
	Looked int       `json:"looked"` // connections the kernel was asked about
	Worst  []Path    `json:"worst"`  // the worst first
}

// pathsAge is how long an answer is given again: looking at every connection
// costs three system calls each.
const pathsAge = time.Second

// pathsOnce holds the last answer.
type pathsOnce struct {
	mu   sync.Mutex // held while looking, so that one looks at a time
	last Paths
}

// WorstPaths asks the kernel about every connection and returns the ten with
// the worst paths. Where there is no evidence (no Linux) Looked is 0.
func (s *Server) WorstPaths() Paths {
	const most = 10
	s.worst.mu.Lock()
	defer s.worst.mu.Unlock()
	if time.Since(s.worst.last.At) < pathsAge {
		return s.worst.last
	}
	p := Paths{At: time.Now(), Worst: []Path{}}
	worse := func(a, b Path) int { return cmp.Compare(b.badness, a.badness) }
	for _, x := range s.sessions() {
		path, ok := x.path()
		if !ok {
			continue
		}
		p.Looked++
		at, _ := slices.BinarySearchFunc(p.Worst, path, worse)
		if at < most {
			p.Worst = slices.Insert(p.Worst, at, path)
			p.Worst = p.Worst[:min(most, len(p.Worst))]
		}
	}
	s.worst.last = p
	return p
}

// path looks at a session that said hello.
func (x *Session) path() (Path, bool) {
	if !x.Greeted() {
		return Path{}, false
	}
	e, err := x.look()
	if err != nil || !e.Known {
		return Path{}, false
	}
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	return Path{
		Session: x.id, User: x.who.User, Transport: x.transport, Network: x.network, Device: x.device,
		Retransmits: e.Retransmits, LossPercent: e.LossShare() * 100, RTTMS: ms(e.RTT), RTTVarMS: ms(e.RTTVar),
		Unacked: e.Unacked, QueuedBytes: e.Queued, Timeouts: e.Timeouts, LastAckMS: e.LastAck.Milliseconds(),
		badness: e.Badness(),
	}, true
}
