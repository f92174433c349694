package load

import (
	"errors"
	"net"
	"strings"
	"testing"
	"time"
)

// byArrival is a process of three members and the publishers of a loop that is
// closed by arrival.
func byArrival(addr string, publishers int) Spec {
	s := specs(addr)[0]
	s.Publishers, s.ByArrival = publishers, true
	return s
}

// half is a closed loop of half a second, three messages a publisher.
var half = Traffic{InFlight: 3, Until: int64(500 * time.Millisecond)}

func TestLoopClosedByArrival(t *testing.T) {
	for name, lines := range map[string]bool{"WebSocket": false, "TCP": true} {
		t.Run(name, func(t *testing.T) {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			s := talkOn(t, &talker{lines: lines}, ln)
			spec := byArrival(s.addr, 2)
			spec.TCP = lines
			connected, all := runFleet(t, []Spec{spec}, half)
			if connected.Open != 5 {
				t.Errorf("got %d connections, want 3 members and 2 publishers", connected.Open)
			}
			if !all.Faults.None() || all.Answered <= 6 || all.Pending != 0 || len(all.Errors) > 0 {
				t.Errorf("got %+v, want more messages than go at once, without a fault", all)
			}
		})
	}
}

// TestLoopWaitsForTheLastMember holds one member's deliveries back until the
// publishers have sent all they may, then lets it have them: no publisher ever
// has more messages than its window which this member was not given.
func TestLoopWaitsForTheLastMember(t *testing.T) {
	const publishers = 2
	s := startTalker(t)
	var sent, given, most [publishers]int
	var held [][]byte
	s.fault = func(m int, e []byte) [][]byte {
		pub := 0
		if strings.Contains(string(e), `"text":"bench 1 `) {
			pub = 1
		}
		if m != 2 {
			return [][]byte{e}
		}
		sent[pub]++
		most[pub] = max(most[pub], sent[pub]-given[pub])
		if held = append(held, e); len(held) < publishers*half.InFlight {
			return nil
		}
		now := held
		given, held = sent, nil
		return now
	}
	_, all := runFleet(t, []Spec{byArrival(s.addr, publishers)}, half)
	s.mu.Lock()
	defer s.mu.Unlock()
	for pub, n := range most {
		if n != half.InFlight {
			t.Errorf("publisher %d: got %d messages that a member had not been given, want %d at most and at some moment", pub, n, half.InFlight)
		}
	}
	late := uint64(len(held)) // sent when the time was nearly over, and never given
	if all.Answered <= publishers*uint64(half.InFlight) || all.Faults != (Faults{Lost: late}) {
		t.Errorf("got %d answered and %+v, want several windows, and %d lost", all.Answered, all.Faults, late)
	}
}

// TestArrivalsThatNeverCome: a message that some member never reads keeps its
// place, other members' second copies do not stand for it, and the run ends.
func TestArrivalsThatNeverCome(t *testing.T) {
	for name, c := range map[string]struct {
		fault  func(s *talker, m int, e []byte) [][]byte
		want   func(*Stats) bool
		window uint64 // what is sent in all; 0: the loop goes on
	}{
		"nothing reaches one member": {
			fault: func(_ *talker, m int, e []byte) [][]byte {
				if m == 2 {
					return nil
				}
				return [][]byte{e}
			},
			want: func(all *Stats) bool { return all.Faults == Faults{Lost: 3} }, window: 3,
		},
		"nothing reaches one member, another has all twice": {
			fault: func(_ *talker, m int, e []byte) [][]byte {
				return [][][]byte{0: {e, e}, 1: {e}, 2: nil}[m]
			},
			want: func(all *Stats) bool { return all.Faults == Faults{Lost: 3, Duplicate: 3, Holes: 3} }, window: 3,
		},
		"one message is lost": {
			fault: func(_ *talker, m int, e []byte) [][]byte {
				if m == 1 && has(e, 2) {
					return nil
				}
				return [][]byte{e}
			},
			want: func(all *Stats) bool { return all.Faults == Faults{Lost: 1, Holes: 1} },
		},
		"a member is closed": {
			fault: func(s *talker, m int, e []byte) [][]byte {
				if m == 1 && has(e, 1) {
					_, _ = s.members[1].Write(frame(opClose, "\x0f\xa1"))
				}
				return [][]byte{e}
			},
			want: func(all *Stats) bool { return all.Closed["close 4001"] == 1 && all.Faults.Lost == 3 }, window: 3,
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := startTalker(t)
			s.fault = func(m int, e []byte) [][]byte { return c.fault(s, m, e) }
			_, all := runFleet(t, []Spec{byArrival(s.addr, 1)}, half)
			if !c.want(all) || c.window > 0 && all.Answered != c.window || c.window == 0 && all.Answered <= 3 {
				t.Errorf("got %d answered, %+v, closed %v", all.Answered, all.Faults, all.Closed)
			}
		})
	}
}

// TestPublishersElsewhere lets publishers connect to another address than the
// members.
func TestPublishersElsewhere(t *testing.T) {
	s := startTalker(t)
	first := s.addr
	second, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	talkOn(t, s, second)
	spec := byArrival(s.addr, 1)
	spec.PublishTo = first
	_, all := runFleet(t, []Spec{spec}, half)
	if !all.Faults.None() || all.Answered <= 3 {
		t.Errorf("got %d answered, %+v; want a loop without a fault", all.Answered, all.Faults)
	}
	at := map[string]int{}
	s.mu.Lock()
	for _, c := range s.opened {
		at[c.LocalAddr().String()]++
	}
	s.mu.Unlock()
	if at[first] != 1 || at[spec.Server] != 3 {
		t.Errorf("got connections %v, want the publisher's to %s and 3 to %s", at, first, spec.Server)
	}
}

// TestWhoCanCloseByArrival refuses what would leave somebody unseen.
func TestWhoCanCloseByArrival(t *testing.T) {
	good := byArrival("127.0.0.1:1", 1)
	change := func(do func(*Spec)) Spec {
		s := good
		do(&s)
		return s
	}
	member := specs("127.0.0.1:1")[0]
	for name, all := range map[string][]Spec{
		"no members":                {change(func(s *Spec) { s.Members = 0 })},
		"no publishers":             {change(func(s *Spec) { s.Publishers = 0 })},
		"members that read nothing": {change(func(s *Spec) { s.Stalls = true })},
		"not the first members":     {change(func(s *Spec) { s.First, s.Rooms = 3, 2 })},
		"a room without members":    {change(func(s *Spec) { s.Rooms = 2 })},
		"members elsewhere":         {good, change(func(s *Spec) { *s = member; s.First, s.Rooms = 3, 2 })},
	} {
		if _, err := NewFleet(t.Context(), all, inProcess); !errors.Is(err, errApart) {
			t.Errorf("%s: got %v, want %v", name, err, errApart)
		}
	}
	stalls := member
	stalls.Stalls = true
	if err := checkArrivals([]Spec{good, stalls}); err != nil {
		t.Errorf("with stalled members: got %v", err)
	}
	if err := change(func(s *Spec) { s.PublishTo = "here" }).check(); err == nil || !strings.Contains(err.Error(), `server "here"`) {
		t.Errorf("got %v, want an error about the publishers' server", err)
	}
}

// TestPlaces takes messages of several rooms through a publisher's places.
func TestPlaces(t *testing.T) {
	f := newFlights(2, 2, []int{2, 1})
	f.begin(0, 0, 1)
	f.begin(0, 1, 1)
	f.begin(1, 0, 1)
	a, b := f.find(0, stamp{pub: 0, n: 1}), f.find(1, stamp{pub: 0, n: 1})
	if a == nil || b == nil || a == b {
		t.Fatalf("got %p and %p, want two places", a, b)
	}
	for _, none := range []*flight{f.find(1, stamp{pub: 1, n: 1}), f.find(0, stamp{pub: 0, n: 2}), f.find(0, stamp{pub: 2, n: 1}), (*flights)(nil).find(0, stamp{n: 1})} {
		if none != nil {
			t.Errorf("got a place %+v for a message that has none", *none)
		}
	}
	if a.read() || !b.read() || !a.read() {
		t.Error("got an arrival before the last member, or none with it")
	}
	f.begin(0, 0, 2)
	if got := f.find(0, stamp{pub: 0, n: 2}); got != a && got != b {
		t.Errorf("got %v, want a place that was freed", got)
	}
}
