package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"parley/policy/source"
)

// waitEvery is how often a server is asked what the nodes decide by.
const waitEvery = 50 * time.Millisecond

// waitLive waits until every node decides by rev, which may be the beginning of a
// commit, and prints how long it took since the revision was asked for by a
// webhook, a poll or an operator.
func waitLive(ctx context.Context, out io.Writer, admin *adminFlags, rev string, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(waitEvery)
	defer tick.Stop()
	var p progress
	for {
		var st source.Status
		switch err := admin.ask(ctx, http.MethodGet, "/v1/policy/status", nil, &st); {
		case err == nil:
			p = progressOf(&st, rev)
		case ctx.Err() == nil:
			return err
		}
		if p.nodes > 0 && p.live == p.nodes && (p.known || p.since == 0) {
			_, err := fmt.Fprintln(out, p)
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			text := fmt.Sprintf("not live everywhere after %v: %d of %d nodes decide by %s", patience, p.live, p.nodes, rev)
			if len(p.others) > 0 {
				text += "; " + printable(strings.Join(p.others, "; "))
			}
			return errors.New(text)
		}
	}
}

// progress is how far a revision has come.
type progress struct {
	live, nodes int
	took        int64 // ms
	known       bool  // took is
	since       time.Duration
	others      []string // what the other nodes decide by, and why
}

func (p progress) String() string {
	if !p.known {
		return fmt.Sprintf("live on %d/%d", p.live, p.nodes)
	}
	return fmt.Sprintf("live on %d/%d in %d ms", p.live, p.nodes, p.took)
}

// untimed is how long a revision may be in use everywhere before a missing time
// is not waited for: whoever brought it in has ended, or it was there before.
const untimed = 2 * time.Second

func progressOf(st *source.Status, rev string) (p progress) {
	if st.Nodes == nil { // no cluster
		p.nodes = 1
		if source.Names(rev, st.Revision) {
			p.live = 1
			if st.Git != nil && st.Git.TookMS > 0 {
				p.took, p.known = st.Git.TookMS, true
			}
		} else {
			p.others = append(p.others, "the server decides by "+st.Revision)
		}
		return p
	}
	p.nodes = len(st.Nodes)
	newest := time.Time{}
	for i := range st.Nodes {
		n := &st.Nodes[i]
		if n.LoadedAt.After(newest) {
			newest = n.LoadedAt
		}
		if l := n.Live; l != nil && source.Names(rev, l.Revision) {
			p.took, p.known = l.TookMS, true
		}
		switch {
		case source.Names(rev, n.Revision):
			p.live++
		case n.Refused != nil:
			p.others = append(p.others, fmt.Sprintf("%s decides by %s and refuses %s: %s", n.Node, n.Revision, n.Refused.Revision, n.Refused.Why))
		default:
			p.others = append(p.others, fmt.Sprintf("%s decides by %s", n.Node, n.Revision))
		}
	}
	if p.since = time.Since(newest); p.since > untimed {
		p.since = 0
	}
	return p
}
