package source

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"time"

	"parley/core/cluster"
	"parley/policy/gitsync"
)

// InfoKey is the key of NodeInfo in a node's record.
const InfoKey = "policy"

// NodePolicy is what one node says of its policy.
type NodePolicy struct {
	Node cluster.NodeID `json:"node"`
	Self bool           `json:"self,omitempty"`
	NodeInfo
	// OnHead says that the node decides by what the nodes have agreed on; without
	// a repository, by what most of them decide by.
	OnHead bool `json:"on_head"`
	// Error says why the node's word cannot be read.
	Error string `json:"error,omitempty"`
}

// nodes is what is known of the policy of every node.
type nodes struct {
	mu   sync.Mutex
	view []NodePolicy    // other nodes among them; guarded by mu
	live *LiveEverywhere // guarded by mu
	turn uint64          // of the revision that live speaks of; guarded by mu
}

// NodeInfo is what this node tells the others. Any goroutine may call it.
func (s *Source) NodeInfo() NodeInfo {
	st := s.live.Status()
	n := NodeInfo{Source: "built-in", Revision: st.Revision, LoadedAt: st.LoadedAt.UTC()}
	switch {
	case s.git != nil:
		n.Source, n.Pinned = "git", s.git.Status().Pin != nil
	case s.dir != nil:
		n.Source = "dir"
	}
	if s.share != nil {
		n.Refused = s.share.Trouble()
	}
	s.nodes.mu.Lock()
	n.Live = s.nodes.live
	s.nodes.mu.Unlock()
	return n
}

// Observe takes what the nodes say of themselves. Give it to the registry's
// OnView, before Run.
func (s *Source) Observe(v cluster.View) {
	view := make([]NodePolicy, 0, len(v.Nodes))
	for i := range v.Nodes {
		n := NodePolicy{Node: v.Nodes[i].ID, Self: s.cfg.Cluster != nil && string(v.Nodes[i].ID) == s.cfg.Cluster.Self}
		raw, ok := v.Nodes[i].Info[InfoKey]
		info, err := decodeInfo(raw)
		switch {
		case !ok:
			n.Error = "it has not said yet what it decides by"
		case err != nil:
			n.Error = clipWhy(err)
		default:
			n.NodeInfo = info
		}
		view = append(view, n)
	}
	target := s.target(view)
	for i := range view {
		view[i].OnHead = view[i].Error == "" && view[i].Revision == target
	}
	s.nodes.mu.Lock()
	s.nodes.view = view
	s.nodes.mu.Unlock()
	s.everywhere(view)
}

// target is the revision that all nodes should decide by.
func (s *Source) target(view []NodePolicy) string {
	if s.share != nil {
		if revision := s.share.target(); revision != "" {
			return revision
		}
	}
	count := map[string]int{}
	for i := range view {
		if view[i].Error == "" {
			count[view[i].Revision]++
		}
	}
	best := ""
	for revision, n := range count {
		if n > count[best] || n == count[best] && revision < best {
			best = revision
		}
	}
	return best
}

// target is the revision that the head names, "" where nobody has named one.
func (x *share) target() string {
	x.mu.Lock()
	head := x.head
	x.mu.Unlock()
	v, err := decodeHanded(head)
	if err != nil {
		return ""
	}
	return gitsync.Revision(v.Commit)
}

// everywhere reports, once for each revision that this node has brought in, how
// long it took until the last node decided by it.
func (s *Source) everywhere(view []NodePolicy) {
	if s.share == nil {
		return
	}
	own := s.git.Shared()
	if own.Begun.IsZero() {
		return
	}
	revision := gitsync.Revision(own.Commit)
	for i := range view {
		if view[i].Error != "" || view[i].Revision != revision {
			return
		}
	}
	s.nodes.mu.Lock()
	if s.nodes.turn >= own.Turn || s.nodes.live != nil && s.nodes.live.Revision == revision {
		s.nodes.mu.Unlock()
		return
	}
	l := &LiveEverywhere{Revision: revision, Nodes: len(view), TookMS: time.Since(own.Begun).Milliseconds()}
	s.nodes.live, s.nodes.turn = l, own.Turn
	s.nodes.mu.Unlock()
	s.log.Info("policy is live on every node", "revision", revision, "live", fmt.Sprintf("%d/%d", l.Nodes, l.Nodes), "took_ms", l.TookMS)
	s.touch()
}

// Nodes returns what each node says of its policy, this one as it is now. It is
// the caller's.
func (s *Source) Nodes() []NodePolicy {
	s.nodes.mu.Lock()
	view := slices.Clone(s.nodes.view)
	s.nodes.mu.Unlock()
	if s.cfg.Cluster == nil {
		return nil
	}
	own := NodePolicy{Node: cluster.NodeID(s.cfg.Cluster.Self), Self: true, NodeInfo: s.NodeInfo()}
	i, ok := slices.BinarySearchFunc(view, own.Node, func(n NodePolicy, id cluster.NodeID) int { return cmp.Compare(n.Node, id) })
	if !ok {
		view = slices.Insert(view, i, own)
	} else {
		view[i] = own
	}
	view[i].OnHead = own.Revision == s.target(view)
	return view
}

// Skew returns how many nodes do not decide by what the nodes have agreed on.
func (s *Source) Skew() (n int) {
	for _, x := range s.Nodes() {
		if !x.OnHead {
			n++
		}
	}
	return n
}

// cannotConverge says why this node does not take the others' policy, "" where
// it does, and whether most nodes have gone on without it.
func (s *Source) cannotConverge() (why string, behind bool) {
	if s.share == nil {
		return "", false
	}
	t := s.share.Trouble()
	if t == nil {
		return "", false
	}
	on, all := 0, s.Nodes()
	for _, x := range all {
		if t.Revision != "" && x.Revision == t.Revision {
			on++
		}
	}
	what := t.Revision
	if what == "" {
		what = "what the nodes share"
	}
	if t.From != "" {
		what += " from node " + t.From
	}
	return fmt.Sprintf("cannot converge: node %s refuses %s: %s", s.cfg.Cluster.Self, what, t.Why), 2*on > len(all)
}

// Behind says why this node should get no clients, "" for no reason: it refuses
// what most nodes decide by.
func (s *Source) Behind() string {
	if why, behind := s.cannotConverge(); behind {
		return why
	}
	return ""
}
