package load

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"time"
)

// Bounds of one process.
const (
	MaxConnections = 18_000 // a file limit of 20,000 leaves room for the rest
	maxPublishers  = 4096
	maxRooms       = 1 << 20
	maxText        = 4096 // bytes of a message's text
)

// Spec is what one client process is for: a share of the members, of the
// publishers, or of both.
type Spec struct {
	Server string `json:"server"` // host:port, numeric
	Path   string `json:"path"`   // of the WebSocket
	TLS    bool   `json:"tls"`    // whether the listener speaks TLS
	TCP    bool   `json:"tcp"`    // lines over TCP instead of a WebSocket; Path means nothing then
	Bind   string `json:"bind"`   // source address; empty: the kernel's choice
	Run    string `json:"run"`    // makes names distinct from those of earlier runs

	First    int `json:"first"`     // number of the first member
	Members  int `json:"members"`   // connections that join a room
	RoomSize int `json:"room_size"` // member i is in room i/RoomSize
	Rooms    int `json:"rooms"`     // rooms of the whole run

	Stalls bool `json:"stalls"` // members read nothing once they have joined, and are not checked

	Returns bool `json:"returns"` // a connection that is refused with a time to come back comes back then

	Publishers int    `json:"publishers"` // connections that send and join nothing: numbers 0 to Publishers-1
	PublishTo  string `json:"publish_to"` // host:port that they connect to; empty: Server
	ByArrival  bool   `json:"by_arrival"` // a closed loop goes on when every member has a message, not when it is acknowledged
	TextBytes  int    `json:"text_bytes"` // of a message

	Parallel      int `json:"parallel"`       // connections being opened at once
	ConnectPerSec int `json:"connect_per_s"`  // at most this many begin in a second; 0 = no limit
	ReceiveBuffer int `json:"receive_buffer"` // SO_RCVBUF in bytes; 0 = the kernel's own
}

func (s Spec) check() error {
	for _, server := range []string{s.Server, s.publishTo()} {
		addr, err := netip.ParseAddrPort(server)
		if err != nil {
			return fmt.Errorf("server %q: %w", server, err)
		}
		if !addr.Addr().Is4() {
			return fmt.Errorf("server %q: an IPv4 address is needed", server)
		}
	}
	if s.Bind != "" {
		if a, err := netip.ParseAddr(s.Bind); err != nil || !a.Is4() {
			return fmt.Errorf("source address %q is not IPv4", s.Bind)
		}
	}
	switch {
	case s.Members < 0 || s.Publishers < 0 || s.First < 0 || s.Members+s.Publishers == 0 || s.Members+s.Publishers > MaxConnections:
		return fmt.Errorf("%d members and %d publishers: one process holds 1 to %d connections", s.Members, s.Publishers, MaxConnections)
	case s.Publishers > maxPublishers:
		return fmt.Errorf("%d publishers, at most %d are possible", s.Publishers, maxPublishers)
	case s.Members > 0 && s.RoomSize < 1:
		return errors.New("members need a room size")
	case s.Rooms < 0 || s.Rooms > maxRooms || s.Publishers > 0 && s.Rooms < 1:
		return fmt.Errorf("%d rooms, 1 to %d are possible", s.Rooms, maxRooms)
	case s.Members > 0 && (s.First+s.Members-1)/s.RoomSize >= s.Rooms:
		return fmt.Errorf("member %d is in no room: %d rooms of %d", s.First+s.Members-1, s.Rooms, s.RoomSize)
	case s.ByArrival && (s.Publishers == 0 || s.Stalls || s.First > 0 || s.Members <= (s.Rooms-1)*s.RoomSize):
		return errApart
	case s.TextBytes < 0 || s.TextBytes > maxText:
		return fmt.Errorf("%d bytes of text, at most %d are possible", s.TextBytes, maxText)
	case s.Parallel < 1:
		return errors.New("at least one connection must be opened at a time")
	}
	return nil
}

// publishTo is the server of the publishers.
func (s Spec) publishTo() string { return cmp.Or(s.PublishTo, s.Server) }

// roomName is the name of room i.
func (s Spec) roomName(i int) string { return "bench-" + s.Run + "-" + strconv.Itoa(i) }

// Traffic is what publishers send. Times are Monotonic and the same for all
// processes.
type Traffic struct {
	Rate     float64 `json:"rate"`      // open loop: messages a second, of all publishers together
	InFlight int     `json:"in_flight"` // closed loop (Rate 0): messages each publisher has unanswered, or on their way with Spec.ByArrival
	From     int64   `json:"from"`      // ns: sending begins
	Measure  int64   `json:"measure"`   // ns: what is sent from here on is measured
	Until    int64   `json:"until"`     // ns: sending ends
}

func (t Traffic) check() error {
	switch {
	case t.Rate < 0 || t.Rate > 1e6:
		return fmt.Errorf("rate %v is not within 0 and 1000000 a second", t.Rate)
	case t.Rate == 0 && (t.InFlight < 0 || t.InFlight > 1024):
		return fmt.Errorf("%d messages in flight, at most 1024 are possible", t.InFlight)
	case t.Measure < t.From || t.Until < t.Measure || t.Until-t.From > int64(24*time.Hour):
		return errors.New("times are not in order")
	}
	return nil
}

// order is one line from the controller.
type order struct {
	Do      string     `json:"do"` // spec, connect, traffic, settle
	Spec    *Spec      `json:"spec,omitempty"`
	Traffic *Traffic   `json:"traffic,omitempty"`
	Acked   [][]uint64 `json:"acked,omitempty"`   // settle: by room and publisher
	Timeout int64      `json:"timeout,omitempty"` // settle: ns without anything new after which what lacks is lost
}

// report is one line to the controller.
type report struct {
	Is    string     `json:"is"` // progress, connected, sent, settled, failed
	Open  int        `json:"open"`
	Got   uint64     `json:"got"`             // deliveries so far
	Sent  uint64     `json:"sent"`            // messages so far
	Acked [][]uint64 `json:"acked,omitempty"` // sent: by room and publisher
	Stats *Stats     `json:"stats,omitempty"` // connected, settled
	Error string     `json:"error,omitempty"` // failed
}
