package source

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"parley/core/cluster/objects"
	"parley/policy/gitsync"
)

// Cluster joins the source to those of other nodes.
type Cluster struct {
	// Self names this node.
	Self string
	// Objects is where revisions are handed over.
	Objects *objects.Store
	// Touch tells the other nodes that NodeInfo has changed.
	Touch func()
}

// The heads of package objects that belong to the policy.
const (
	policyHead  = "policy"
	acceptsHead = "policy-accepts"
)

// handed is the value of the head "policy": which revision decides, as the node
// says that has brought it in. Every node checks the revision for itself; that a node
// said it is vouched for by the head's seal, where there is one.
type handed struct {
	Format int            `json:"format"` // 1
	Ref    string         `json:"ref"`
	Path   string         `json:"path,omitempty"`
	Want   string         `json:"want"`
	Commit string         `json:"commit"`
	Object objects.Digest `json:"object"` // the parcel's pack
	Pin    *gitsync.Pin   `json:"pin,omitempty"`
	Node   string         `json:"node"` // who brought it in
	At     time.Time      `json:"at"`
}

// errFormat says that a head was written by a version that this one does not
// understand, which must not be overwritten.
var errFormat = errors.New("it has a format that this version does not read; update this node")

func decodeHanded(h objects.Head) (v handed, err error) {
	var format struct{ Format int }
	if err := h.Decode(&format); err != nil {
		return v, err
	}
	if format.Format != 1 {
		return v, fmt.Errorf("head %s: %w", h.Name, errFormat)
	}
	if err := h.Decode(&v); err != nil {
		return handed{}, err
	}
	switch {
	case !wholeID(v.Want) || !wholeID(v.Commit):
		return handed{}, fmt.Errorf("head %s: it names no commit", h.Name)
	case !v.Object.Valid():
		return handed{}, fmt.Errorf("head %s: it names no object", h.Name)
	case v.Pin != nil && !wholeID(v.Pin.Revision):
		return handed{}, fmt.Errorf("head %s: it is pinned to what is no commit", h.Name)
	case len(v.Node) > maxName || strings.ContainsFunc(v.Node, control):
		return handed{}, fmt.Errorf("head %s: its node has no name", h.Name)
	}
	return v, nil
}

// wholeID reports whether s is the whole name of a commit, as git prints it.
func wholeID(s string) bool {
	return len(s) == 40 && !strings.ContainsFunc(s, func(c rune) bool { return !('0' <= c && c <= '9' || 'a' <= c && c <= 'f') })
}

func control(c rune) bool { return c < ' ' || c == 0x7f }

// samePin reports whether two nodes are pinned alike.
func samePin(a, b *gitsync.Pin) bool {
	return (a == nil) == (b == nil) && (a == nil || a.Revision == b.Revision)
}

// accepted is an operator's word that lets a revision past policy.guard, on
// every node.
type accepted struct {
	Revision string    `json:"revision"`
	By       string    `json:"by"`
	At       time.Time `json:"at"`
	Node     string    `json:"node"`
}

// maxAccepts is how many of the newest are kept.
const maxAccepts = 32

type acceptList struct {
	Format  int        `json:"format"` // 1
	Accepts []accepted `json:"accepts"`
}

func decodeAccepts(h objects.Head) (acceptList, error) {
	if h.Version == 0 {
		return acceptList{Format: 1}, nil
	}
	var l acceptList
	if err := h.Decode(&l); err != nil {
		return acceptList{}, err
	}
	if l.Format != 1 {
		return acceptList{}, fmt.Errorf("head %s: %w", h.Name, errFormat)
	}
	if len(l.Accepts) > maxAccepts {
		return acceptList{}, fmt.Errorf("head %s: it has %d entries, at most %d are read", h.Name, len(l.Accepts), maxAccepts)
	}
	for _, a := range l.Accepts {
		commit, ok := strings.CutPrefix(a.Revision, "git:")
		if !ok || !wholeID(commit) || checkBy(a.By) != nil || len(a.Node) > maxName || strings.ContainsFunc(a.Node, control) {
			return acceptList{}, fmt.Errorf("head %s: an entry is malformed", h.Name)
		}
	}
	return l, nil
}

// checkBy says why by cannot be a person's name.
func checkBy(by string) error {
	if by == "" || len(by) > maxName || strings.ContainsFunc(by, control) {
		return fmt.Errorf("%w: say who accepts it, in at most %d bytes", ErrAccept, maxName)
	}
	return nil
}

// NodeInfo is what a node tells the others of its policy.
type NodeInfo struct {
	Source   string    `json:"source"` // "git", "dir" or "built-in"
	Revision string    `json:"revision"`
	LoadedAt time.Time `json:"loaded_at"`
	Pinned   bool      `json:"pinned,omitempty"`
	// Refused is what the other nodes were offered and this one does not take.
	Refused *Trouble `json:"refused,omitempty"`
	// Live is how long the revision took to decide everywhere that this node
	// brought in last.
	Live *LiveEverywhere `json:"live,omitempty"`
}

// Trouble is why a node cannot converge.
type Trouble struct {
	Revision    string    `json:"revision,omitempty"`
	From        string    `json:"from,omitempty"` // node that brought it in
	Why         string    `json:"why"`
	At          time.Time `json:"at"`
	Overridable bool      `json:"overridable,omitempty"`
}

// LiveEverywhere says how long a revision took from the webhook, the poll or the
// operator's word that brought it in until the last node decided by it.
type LiveEverywhere struct {
	Revision string `json:"revision"`
	Nodes    int    `json:"nodes"`
	TookMS   int64  `json:"took_ms"`
}

// check bounds what another node says of itself.
func (n *NodeInfo) check() error {
	for _, s := range []string{n.Source, n.Revision} {
		if len(s) > maxName || strings.ContainsFunc(s, control) {
			return errors.New("its policy has no readable name")
		}
	}
	if r := n.Refused; r != nil && (len(r.Revision) > maxName || len(r.From) > maxName || len(r.Why) > 4*maxWhy ||
		strings.ContainsFunc(r.Revision+r.From+r.Why, control)) {
		return errors.New("what it refuses is not readable")
	}
	if l := n.Live; l != nil && (len(l.Revision) > maxName || strings.ContainsFunc(l.Revision, control)) {
		return errors.New("its last revision has no readable name")
	}
	return nil
}

// decodeInfo reads what another node says of its policy.
func decodeInfo(raw json.RawMessage) (n NodeInfo, err error) {
	if err := json.Unmarshal(raw, &n); err != nil {
		return NodeInfo{}, err
	}
	return n, n.check()
}

// maxWhy bounds a reason, in bytes.
const maxWhy = 600

func clipWhy(err error) string {
	text := strings.Map(func(c rune) rune {
		if control(c) {
			return ' '
		}
		return c
	}, err.Error())
	if len(text) > maxWhy {
		text = strings.ToValidUTF8(text[:maxWhy], "") + "…"
	}
	return text
}
