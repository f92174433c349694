package cluster

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	rds "parley/core/redis"
)

// renew tells this node's record, learns the others', and calls who wants to
// know. It reports whether Redis answered.
func (r *Registry) renew(ctx context.Context) bool {
	told := false
	select {
	case <-r.touch:
		told = true
	default:
	}
	rec := record{Started: r.started}
	own, err := rec.encode(r.infos)
	if err != nil {
		r.report("this node cannot say all of itself", err)
	}
	reply, err := r.client.Eval(ctx, renewScript, []string{r.keys.nodes, r.keys.leases, r.keys.beat},
		string(r.self), own, r.cfg.Lease.Milliseconds(), r.cfg.Renew.Milliseconds(), maxNodes, maxRecordBytes)
	var got answer
	if err == nil {
		got, err = readAnswer(reply)
	}
	if err != nil {
		if ctx.Err() == nil {
			r.failed.Add(1)
			r.report("the lease could not be renewed; the last view of the cluster stays", err)
		}
		if told {
			poke(r.touch)
		}
		return false
	}
	r.ok.Add(1)
	r.lastOK.Store(time.Now().UnixNano())
	for _, err := range got.bad {
		r.bad.Add(1)
		r.report("the record of a node cannot be read", err)
	}
	if len(got.bad) == 0 {
		r.reported = ""
	}
	r.accept(ctx, got, Node{ID: r.self, Started: r.started, Lease: r.cfg.Lease, Info: rec.Info}, told)
	return true
}

// accept makes what Redis answered the view.
func (r *Registry) accept(ctx context.Context, got answer, own Node, told bool) {
	next := View{Nodes: got.nodes, Rewrite: !got.known}
	if i, ok := slices.BinarySearchFunc(next.Nodes, r.self, byID); ok {
		next.Nodes[i] = own // what it says of itself needs no decoding
	} else {
		next.Nodes = slices.Insert(next.Nodes, i, own)
	}
	before := r.view.Load()
	if before == nil {
		before = &View{}
	}
	r.await(&next, before, time.Now())
	next.Joined, next.Gone = differ(before.Nodes, next.Nodes)
	next.Left = r.left(ctx, next.Gone)
	r.view.Store(&next)
	select {
	case <-r.first:
	default:
		close(r.first)
	}
	for _, id := range next.Joined {
		if id != r.self {
			r.log.Info("a node has joined", "other", id, "nodes", len(next.Nodes))
		}
	}
	for _, id := range next.Gone {
		if slices.Contains(next.Left, id) {
			r.log.Info("a node has left", "other", id, "nodes", len(next.Nodes))
		} else {
			r.log.Warn("a node is gone: its lease ran out", "other", id, "nodes", len(next.Nodes))
		}
	}
	if len(next.Joined)+len(next.Gone) > 0 || next.Rewrite {
		for _, f := range r.onChange {
			f(next)
		}
	}
	for _, f := range r.onView {
		f(next)
	}
	if told || next.Rewrite || got.removed > 0 {
		r.tell(ctx)
	}
}

// left asks which of the nodes took leave. Where that cannot be asked none did.
func (r *Registry) left(ctx context.Context, gone []NodeID) (left []NodeID) {
	if len(gone) == 0 {
		return nil
	}
	cmds := make([]rds.Command, len(gone))
	for i, id := range gone {
		cmds[i].Args = []any{"exists", r.keys.left + string(id)}
	}
	for i, reply := range r.client.Pipeline(ctx, cmds) {
		if reply.Err == nil && reply.Value == int64(1) {
			left = append(left, gone[i])
		}
	}
	return left
}

// awaits is a node that is given time to come back, and how long.
type awaits struct {
	node  Node
	until time.Time
}

// await keeps nodes in the view that the table does not hold because it was
// lost: it has no record of this node either, so whoever else was there may not
// have come back to it yet. They get a whole lease to do so.
func (r *Registry) await(next, before *View, now time.Time) {
	if next.Rewrite {
		for _, n := range before.Nodes {
			if n.ID == r.self || next.Has(n.ID) {
				continue
			}
			if r.awaited == nil {
				r.awaited = make(map[NodeID]awaits)
			}
			r.awaited[n.ID] = awaits{n, now.Add(r.cfg.Lease)}
		}
	}
	for id, a := range r.awaited {
		i, back := slices.BinarySearchFunc(next.Nodes, id, byID)
		left := a.until.Sub(now)
		if back || left <= 0 {
			delete(r.awaited, id)
			continue
		}
		a.node.Lease = left
		next.Nodes = slices.Insert(next.Nodes, i, a.node)
	}
}

func byID(n Node, id NodeID) int { return cmp.Compare(n.ID, id) }

// differ returns who is in after alone, and who in before alone. Both are sorted.
func differ(before, after []Node) (joined, gone []NodeID) {
	for _, n := range after {
		if _, ok := slices.BinarySearchFunc(before, n.ID, byID); !ok {
			joined = append(joined, n.ID)
		}
	}
	for _, n := range before {
		if _, ok := slices.BinarySearchFunc(after, n.ID, byID); !ok {
			gone = append(gone, n.ID)
		}
	}
	return joined, gone
}

// answer is what renew.lua says.
type answer struct {
	known   bool   // the table had this node before
	removed int64  // nodes whose lease had ended
	nodes   []Node // by ID
	bad     []error
}

// readAnswer reads renew.lua's reply. A record that cannot be read costs that
// node's infos alone: its lease says that it lives.
func readAnswer(reply any) (a answer, err error) {
	list, ok := reply.([]any)
	if !ok || len(list) < 2 || (len(list)-2)%3 != 0 {
		return a, fmt.Errorf("renew lease: redis answered %T", reply)
	}
	known, ok1 := list[0].(int64)
	a.removed, ok = list[1].(int64)
	if !ok || !ok1 {
		return a, fmt.Errorf("renew lease: redis answered %T, %T", list[0], list[1])
	}
	a.known = known == 1
	for i := 2; i < len(list); i += 3 {
		id, ok1 := list[i].(string)
		ms, ok2 := list[i+1].(int64)
		text, ok3 := list[i+2].(string)
		if !ok1 || !ok2 || !ok3 {
			return a, fmt.Errorf("renew lease: redis answered %T, %T, %T for a node", list[i], list[i+1], list[i+2])
		}
		lease := time.Duration(ms) * time.Millisecond
		n, err := decodeNode(id, []byte(text), lease)
		if err != nil {
			a.bad = append(a.bad, err)
			if !validID(NodeID(id)) {
				continue
			}
			n = Node{ID: NodeID(id), Lease: lease}
		}
		a.nodes = append(a.nodes, n)
	}
	slices.SortFunc(a.nodes, func(x, y Node) int { return cmp.Compare(x.ID, y.ID) })
	a.nodes = slices.CompactFunc(a.nodes, func(x, y Node) bool { return x.ID == y.ID })
	return a, nil
}

// report logs a trouble when it begins or changes.
func (r *Registry) report(what string, err error) {
	text := what + ": " + err.Error()
	if text == r.reported {
		return
	}
	r.reported = text
	r.log.Warn(what, "error", err)
}
