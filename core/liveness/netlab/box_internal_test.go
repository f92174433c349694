package netlab

import (
	"net/netip"
	"testing"
	"time"
)

func TestBoxForgets(t *testing.T) {
	in, out := netip.MustParseAddrPort("10.77.0.2:40000"), netip.MustParseAddrPort("10.77.0.1:80")
	there, back := ends{in, out}, ends{out, in}
	const opens = true
	type packet struct {
		at     time.Duration // since the first
		flow   ends
		opens  bool
		passes bool
	}
	for name, c := range map[string]struct {
		box     Box
		packets []packet
		dropped time.Duration // when, since the first packet; 0: never
	}{
		"unknown":  {Box{}, []packet{{0, there, false, false}, {1, back, opens, false}}, 0},
		"for ever": {Box{}, []packet{{0, there, opens, true}, {1000 * time.Hour, back, false, true}}, 0},
		"both": {Box{Ageing: time.Minute}, []packet{
			{0, there, opens, true}, {50 * time.Second, back, false, true}, {100 * time.Second, there, false, true},
			{160 * time.Second, there, false, false}, {170 * time.Second, back, false, false}, {180 * time.Second, back, opens, false},
		}, 160 * time.Second},
		"inside": {Box{Ageing: time.Minute, Counts: CountInside}, []packet{
			{0, there, opens, true}, {50 * time.Second, back, false, true}, {70 * time.Second, there, false, false},
		}, 60 * time.Second},
		"outside": {Box{Ageing: time.Minute, Counts: CountOutside}, []packet{
			{0, there, opens, true}, {10 * time.Second, back, false, true}, {65 * time.Second, there, false, true}, {75 * time.Second, there, false, false},
		}, 70 * time.Second},
		"again": {Box{Ageing: time.Minute}, []packet{
			{0, there, opens, true}, {time.Hour, there, opens, true}, {time.Hour + time.Second, back, false, true},
		}, 2*time.Minute + time.Hour - 59*time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			began := time.Unix(1000, 0)
			s := &states{box: c.box, young: map[ends]time.Time{}}
			for i, p := range c.packets {
				if got := s.passes(began.Add(p.at), p.flow, p.flow == there, p.opens); got != p.passes {
					t.Errorf("packet %d: got passes %v, want %v", i, got, p.passes)
				}
			}
			gone := s.dropped(began.Add(24 * time.Hour))
			at, ok := gone[in]
			if ok != (c.dropped > 0) || ok && at.Sub(began) != c.dropped {
				t.Errorf("got dropped %v %v, want %v", ok, at.Sub(began), c.dropped)
			}
		})
	}
	if gone := (*states)(nil).dropped(time.Now()); len(gone) != 0 {
		t.Errorf("without a box: got %v", gone)
	}
}
