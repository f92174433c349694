package cluster

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// NodeID names one start of one process: the node's name, "-", and eight
// hexadecimal digits drawn at that start.
type NodeID string

const idDigits = 8

// Name is the node's name, the same over its restarts.
func (id NodeID) Name() string {
	if i := len(id) - idDigits - 1; i > 0 && id[i] == '-' {
		return string(id[:i])
	}
	return string(id)
}

// MaxNameBytes bounds a node's name.
const MaxNameBytes = 64

// CheckName says why name cannot be that of a node, or nil.
func CheckName(name string) error {
	if name == "" || len(name) > MaxNameBytes || strings.ContainsFunc(name, func(c rune) bool { return !nameRune(c) }) {
		return fmt.Errorf("cluster.node_name %.80q: want 1 to %d letters, digits, '.', '-' or '_'", name, MaxNameBytes)
	}
	return nil
}

func nameRune(c rune) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '.' || c == '-' || c == '_'
}

// HostName is the machine's name in the form of a node's, "node" where it has none.
func HostName() string {
	host, _ := os.Hostname()
	host = strings.Map(func(c rune) rune {
		if nameRune(c) {
			return c
		}
		return -1
	}, host)
	if host = host[:min(len(host), MaxNameBytes)]; host == "" {
		return "node"
	}
	return host
}

// validID reports whether id can have been made by New.
func validID(id NodeID) bool {
	name := id.Name()
	if len(name) == len(id) || CheckName(name) != nil {
		return false
	}
	for _, c := range []byte(id[len(name)+1:]) {
		if !('0' <= c && c <= '9' || 'a' <= c && c <= 'f') {
			return false
		}
	}
	return true
}

// Node is what a node says of itself.
type Node struct {
	ID      NodeID
	Started time.Time // by the node's own clock
	// Lease is how long the node counts as alive without another word, as of
	// when the view was taken.
	Lease time.Duration
	// Info is what SetInfo's contributors of that node said, by key.
	Info map[string]json.RawMessage
}

// Decode reads the node's info of that key into v. Without one it returns
// false and no error. What another node says is outside data: check it.
func (n *Node) Decode(key string, v any) (bool, error) {
	raw, ok := n.Info[key]
	if !ok {
		return false, nil
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return true, fmt.Errorf("info %q of node %s: %w", key, n.ID, err)
	}
	return true, nil
}

// record is a node's entry in the table.
type record struct {
	Format  int                        `json:"format"` // 1
	Started time.Time                  `json:"started"`
	Info    map[string]json.RawMessage `json:"info"`
}

// Bounds of the table. What exceeds them is not read.
const (
	maxNodes       = 512
	maxRecordBytes = 64 << 10
	maxInfoBytes   = 16 << 10 // of one key
	maxInfoKeys    = 64
)

// decodeNode reads one entry of the table.
func decodeNode(id string, b []byte, lease time.Duration) (Node, error) {
	switch {
	case !validID(NodeID(id)):
		return Node{}, fmt.Errorf("%.80q is not the name of a node", id)
	case len(b) > maxRecordBytes:
		return Node{}, fmt.Errorf("record of %s has %d bytes, at most %d are read", id, len(b), maxRecordBytes)
	case len(b) == 0:
		return Node{}, fmt.Errorf("record of %s is missing", id)
	case !utf8.Valid(b):
		return Node{}, fmt.Errorf("record of %s is not UTF-8", id)
	}
	var r record
	if err := json.Unmarshal(b, &r); err != nil {
		return Node{}, fmt.Errorf("record of %s: %w", id, err)
	}
	if r.Format != 1 {
		return Node{}, fmt.Errorf("record of %s has format %d, this version reads 1", id, r.Format)
	}
	if len(r.Info) > maxInfoKeys {
		return Node{}, fmt.Errorf("record of %s has %d infos, at most %d are read", id, len(r.Info), maxInfoKeys)
	}
	return Node{ID: NodeID(id), Started: r.Started, Lease: lease, Info: r.Info}, nil
}

var errInfoTooLarge = errors.New("it is too large")

// encode makes this node's record. An info that cannot be made is left out and
// named in the error.
func (r *record) encode(infos []info) ([]byte, error) {
	r.Format, r.Info = 1, make(map[string]json.RawMessage, len(infos))
	var errs []error
	for _, i := range infos {
		b, err := json.Marshal(i.of())
		if err == nil && len(b) > maxInfoBytes {
			err = fmt.Errorf("%w: %d bytes of at most %d", errInfoTooLarge, len(b), maxInfoBytes)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("info %q: %w", i.key, err))
			continue
		}
		r.Info[i.key] = b
	}
	b, err := json.Marshal(r)
	if err == nil && len(b) > maxRecordBytes {
		err = fmt.Errorf("record: %w: %d bytes of at most %d", errInfoTooLarge, len(b), maxRecordBytes)
		r.Info = nil
		b, _ = json.Marshal(r)
	}
	return b, errors.Join(append(errs, err)...)
}

// View is who is alive.
type View struct {
	Nodes []Node // by ID; this node is among them
	// Joined and Gone are what differs from the view before.
	Joined, Gone []NodeID
	// Left are those of Gone that have ended in order and said so; the lease of
	// the others ran out.
	Left []NodeID
	// Rewrite says that the table had no record of this node until now: this is
	// its first renewal, or Redis came back without its data, or the others
	// have declared this node dead. Whatever the node keeps in Redis under its
	// ID is to be written (again).
	Rewrite bool
}

// Has reports whether id is alive in the view.
func (v *View) Has(id NodeID) bool {
	_, ok := slices.BinarySearchFunc(v.Nodes, id, func(n Node, id NodeID) int { return cmp.Compare(n.ID, id) })
	return ok
}
