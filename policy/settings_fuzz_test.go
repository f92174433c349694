package policy

import (
	"encoding/json"
	"net/netip"
	"slices"
	"testing"
	"time"

	"parley/core/gate"
)

// FuzzSettings reads arbitrary data: what is taken names questions in order and
// within the bounds, at any time and from anywhere.
func FuzzSettings(f *testing.F) {
	for _, s := range []string{
		`{"time_zone":"Europe/Berlin","periods":{"night":[{"days":["mon"],"from":"22:00","to":"06:00"}]},"networks":{"a":["192.0.2.0/24"],"b":["192.0.2.1"]}}`,
		`{"new_accounts":{"younger_than_s":60,"limits":{"rate_limit":{"count":1,"per_s":1}}},"guests":{"open_rooms":false}}`,
		`{"templates":{"t":{"rooms":["a*","b"],"mode":"announce","own":{"x":[1]}}}}`, `{"periods":{"":[null]}}`, `[]`, `{"templates":{"t":null}}`,
	} {
		f.Add([]byte(s), int64(1_780_000_000), "a1")
	}
	f.Fuzz(func(t *testing.T, b []byte, unix int64, room string) {
		var doc any
		if json.Unmarshal(b, &doc) != nil {
			return
		}
		facts, err := factsOf(map[string]any{"parley": doc})
		if err != nil {
			return
		}
		in := gate.Sample(gate.MessageSend)
		in.Resource.ID = room
		in.Raw = gate.Raw{Now: time.Unix(unix%(1<<40), 0), Remote: netip.AddrFrom4([4]byte{192, 0, 2, 1}), Since: time.Unix(1, 0)}
		for range 2 { // the second time from memory
			facts.complete(in)
			for _, names := range [][]string{in.Context.Periods, in.Context.Networks} {
				if names == nil || len(names) > maxNames || !slices.IsSorted(names) || len(slices.Compact(slices.Clone(names))) != len(names) {
					t.Fatalf("got the names %q", names)
				}
			}
			if in.Resource.Template != "" && room == "" {
				t.Fatalf("no room fits %q", in.Resource.Template)
			}
		}
	})
}
