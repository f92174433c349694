package load

import (
	"errors"
	"fmt"
)

// flights are the messages of a loop closed by arrival that are on their way:
// sent, and not yet read by every member of their room. A publisher has as many
// places as it may have messages on their way. A message leaves its place when
// the last member has read it, and only then; one that is refused, lost, or sent
// to a room of which a member has gone keeps its place for good.
type flights struct {
	members []int      // of each room
	places  [][]flight // of each publisher
}

// flight is one place.
type flight struct {
	pub, room int
	n         uint64 // number of the message, as its stamp has it; 0: the place is free
	missing   int    // members that have not read it
}

// newFlights returns free places, window of them for each publisher.
func newFlights(pubs, window int, members []int) *flights {
	f := &flights{members: members, places: make([][]flight, pubs)}
	for i := range f.places {
		f.places[i] = make([]flight, window)
	}
	return f
}

// begin puts message n of a publisher to a room into one of its free places.
func (f *flights) begin(pub, room int, n uint64) {
	for i := range f.places[pub] {
		if p := &f.places[pub][i]; p.n == 0 {
			*p = flight{pub: pub, room: room, n: n, missing: f.members[room]}
			return
		}
	}
}

// find returns the place of a message, nil where it has none. f may be nil.
func (f *flights) find(room int, m stamp) *flight {
	if f == nil || m.pub >= len(f.places) {
		return nil
	}
	for i := range f.places[m.pub] {
		if p := &f.places[m.pub][i]; p.n == m.n && p.room == room {
			return p
		}
	}
	return nil
}

// read takes that one member more has read the message, and frees the place
// once all have. Each member may be taken once.
func (p *flight) read() (arrived bool) {
	p.missing--
	if p.missing > 0 {
		return false
	}
	p.n = 0
	return true
}

// errApart says that nobody sees when a message has arrived.
var errApart = errors.New("a loop closed by arrival needs its publishers and every member that reads in one client process, " +
	"so all those members on one server")

// checkArrivals demands that one process sees all arrivals, where a loop is to
// be closed by them.
func checkArrivals(specs []Spec) error {
	closed, with := -1, 0
	for i, s := range specs {
		if s.ByArrival {
			closed = i
		}
		if s.Members > 0 && !s.Stalls || s.Publishers > 0 {
			with++
		}
	}
	if closed >= 0 && with > 1 {
		return fmt.Errorf("%w: they are in %d; one holds at most %d connections", errApart, with, MaxConnections)
	}
	return nil
}
