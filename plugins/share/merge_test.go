package share

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

func TestMerge(t *testing.T) {
	for _, tt := range []struct {
		name string
		s    sides
		want step
	}{
		{"nothing anywhere", sides{known: true}, settled},
		{"all the same", sides{known: true, base: "a", local: "a", head: "a", said: true}, settled},
		{"both changed alike", sides{known: true, base: "a", local: "b", head: "b", said: true}, settled},
		{"dropped here", sides{known: true, local: "a"}, publish},
		{"changed here", sides{known: true, base: "a", local: "b", head: "a", said: true}, publish},
		{"removed here", sides{known: true, base: "a", head: "a", said: true}, publish},
		{"dropped there", sides{known: true, head: "a", said: true}, take},
		{"changed there", sides{known: true, base: "a", local: "a", head: "b", said: true}, take},
		{"removed there", sides{known: true, base: "a", local: "a", said: true, gone: "a"}, take},
		{"changed on both sides", sides{known: true, base: "a", local: "b", head: "c", said: true}, conflict},
		{"changed here, removed there", sides{known: true, base: "a", local: "b", said: true, gone: "a"}, conflict},
		{"removed here, changed there", sides{known: true, base: "a", head: "b", said: true}, take},
		{"removed on both sides", sides{known: true, base: "a", said: true, gone: "a"}, settled},
		{"redis came back empty", sides{known: true, base: "a", local: "a"}, publish},
		{"a removed one dropped again", sides{known: true, local: "a", said: true, gone: "a"}, publish},
		{"an unknown folder, nothing there yet", sides{head: "a", said: true}, take},
		{"an unknown folder with a version of its own", sides{local: "b", head: "a", said: true}, conflict},
		{"an unknown folder with the same", sides{local: "a", head: "a", said: true}, settled},
		{"an unknown folder with one that was removed", sides{local: "a", said: true, gone: "a"}, conflict},
		{"an unknown folder with another than was removed", sides{local: "b", said: true, gone: "a"}, publish},
		{"an unknown folder and no head", sides{local: "a"}, publish},
	} {
		if got := tt.s.merge(); got != tt.want {
			t.Errorf("%s: got step %d, want %d", tt.name, got, tt.want)
		}
	}
}

// Whatever people do on three nodes, in whatever order the nodes get to merge,
// once they stop all folders are the same, and a version that is in no folder was
// removed, overwritten or kept aside.
func TestMergeConverges(t *testing.T) {
	for seed := range uint64(2000) {
		r := rand.New(rand.NewPCG(seed, 1))
		var head, gone string
		said := false
		type node struct {
			local, base string
			known       bool
		}
		nodes := make([]node, 3)
		merge := func(n *node) {
			s := sides{known: n.known, base: n.base, local: n.local, head: head, said: said, gone: gone}
			switch s.merge() {
			case take, conflict:
				n.local = head
			case publish:
				if n.local == "" {
					gone = head
				}
				head, said = n.local, true
			case settled:
			}
			n.base, n.known = head, true
		}
		for i := range 30 {
			n := &nodes[r.IntN(len(nodes))]
			switch r.IntN(4) {
			case 0:
				n.local = fmt.Sprint("v", i)
			case 1:
				n.local = ""
			default:
				merge(n)
			}
		}
		for range 2 {
			for i := range nodes {
				merge(&nodes[i])
			}
		}
		for i := range nodes {
			if nodes[i].local != head {
				t.Fatalf("seed %d: node %d has %q, the head %q", seed, i, nodes[i].local, head)
			}
		}
	}
}
