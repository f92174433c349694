package cluster

import (
	"testing"
	"time"
)

// A node looks again when the first lease of another ends, and never at its
// own or at once for one that is over.
func TestSoonestIsTheFirstLeaseOfAnother(t *testing.T) {
	const self, lease = NodeID("a-00000000"), 15 * time.Second
	for name, tt := range map[string]struct {
		nodes []Node
		want  time.Duration
	}{
		"alone":        {[]Node{{ID: self, Lease: time.Second}}, lease},
		"all renew":    {[]Node{{ID: self, Lease: lease}, {ID: "b-00000000", Lease: 12 * time.Second}, {ID: "c-00000000", Lease: 10 * time.Second}}, 10 * time.Second},
		"one is quiet": {[]Node{{ID: self, Lease: lease}, {ID: "b-00000000", Lease: 2 * time.Second}, {ID: "c-00000000", Lease: lease}}, 2 * time.Second},
		"one is over":  {[]Node{{ID: self, Lease: lease}, {ID: "b-00000000", Lease: -time.Second}}, 0},
		"no view yet":  {nil, lease},
	} {
		r := &Registry{cfg: Config{Lease: lease}, self: self}
		if tt.nodes != nil {
			r.view.Store(&View{Nodes: tt.nodes})
		}
		if got := r.soonest(); got != tt.want+leaseSlack {
			t.Errorf("%s: got %v, want %v and the slack", name, got, tt.want)
		}
	}
}
