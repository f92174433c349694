package gitsync

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/plumbing/storer"
	"github.com/go-git/go-git/v5/storage/memory"
)

// Parcel is a revision as one node hands it to another: git's own objects, as a
// pack, so that whoever opens it can check it as if it had come from the
// repository. It holds what reading the revision read and nothing else: the
// annotated tag where there is one, the commit, the folders and files of the
// policy, and some of the commit's history, by which others see that it descends
// from the one they use.
type Parcel struct {
	Want   string `json:"want"`   // hex id of the annotated tag or the commit
	Commit string `json:"commit"` // hex id
	Pack   []byte `json:"pack"`
}

// Bounds of a parcel. The policy's files have at most policy.MaxBytes; folders
// and history come on top.
const (
	MaxParcelBytes    = 24 << 20
	maxParcelObjects  = maxEntries + maxLineage
	maxParcelInflated = 48 << 20
	maxLineage        = 512     // commits of history in a parcel: a node that slept longer needs the repository
	maxLineageBytes   = 2 << 20 // of all of them
)

// lineage is the commits known of the history of the one in use, itself among
// them. It is replaced, never changed.
type lineage map[plumbing.Hash]plumbing.EncodedObject

func (l lineage) has(commit string) bool {
	_, ok := l[plumbing.NewHash(commit)]
	return ok
}

// recorded is a remote that remembers which objects were read.
type recorded struct {
	remote
	seen map[plumbing.Hash]plumbing.EncodedObject
}

func record(r remote) recorded {
	return recorded{r, make(map[plumbing.Hash]plumbing.EncodedObject)}
}

func (r recorded) objects(ctx context.Context, want plumbing.Hash) (storer.EncodedObjectStorer, error) {
	s, err := r.remote.objects(ctx, want)
	return recorder{s, r.seen}, err
}

func (r recorded) history(ctx context.Context, want plumbing.Hash, bases []plumbing.Hash) (storer.EncodedObjectStorer, error) {
	s, err := r.remote.history(ctx, want, bases)
	return recorder{s, r.seen}, err
}

type recorder struct {
	storer.EncodedObjectStorer
	seen map[plumbing.Hash]plumbing.EncodedObject
}

// EncodedObject implements storer.EncodedObjectStorer.
func (r recorder) EncodedObject(t plumbing.ObjectType, h plumbing.Hash) (plumbing.EncodedObject, error) {
	o, err := r.EncodedObjectStorer.EncodedObject(t, h)
	if err == nil {
		r.seen[h] = o
	}
	return o, err
}

// parcel makes the parcel of what was read, with as much of its history as is
// known from this reading and those before.
func parcel(want plumbing.Hash, commit string, seen map[plumbing.Hash]plumbing.EncodedObject, known lineage) (*Parcel, lineage, error) {
	store := memory.NewStorage()
	var names []plumbing.Hash
	add := func(o plumbing.EncodedObject) error {
		h, err := store.SetEncodedObject(o)
		names = append(names, h)
		return err
	}
	for _, o := range seen {
		if o.Type() != plumbing.CommitObject {
			if err := add(o); err != nil {
				return nil, nil, fmt.Errorf("make parcel: %w", err)
			}
		}
	}
	line, err := lineageOf(plumbing.NewHash(commit), func(h plumbing.Hash) plumbing.EncodedObject {
		if o, ok := seen[h]; ok {
			return o
		}
		return known[h]
	})
	if err != nil {
		return nil, nil, fmt.Errorf("make parcel: %w", err)
	}
	for _, o := range line {
		if err := add(o); err != nil {
			return nil, nil, fmt.Errorf("make parcel: %w", err)
		}
	}
	// The same revision makes the same parcel, whoever makes it.
	slices.SortFunc(names, func(a, b plumbing.Hash) int { return bytes.Compare(a[:], b[:]) })
	var pack bytes.Buffer
	if _, err := packfile.NewEncoder(&pack, store, false).Encode(names, 0); err != nil {
		return nil, nil, fmt.Errorf("make parcel: %w", err)
	}
	if pack.Len() > MaxParcelBytes {
		return nil, nil, fmt.Errorf("make parcel: %d bytes of at most %d", pack.Len(), MaxParcelBytes)
	}
	return &Parcel{Want: want.String(), Commit: commit, Pack: pack.Bytes()}, line, nil
}

// lineageOf walks from a commit to what is known of its history, the nearest
// first, within the bounds of a parcel.
func lineageOf(commit plumbing.Hash, get func(plumbing.Hash) plumbing.EncodedObject) (lineage, error) {
	line, queue, size := lineage{}, []plumbing.Hash{commit}, int64(0)
	for len(queue) > 0 && len(line) < maxLineage {
		h := queue[0]
		queue = queue[1:]
		o := get(h)
		if o == nil || o.Type() != plumbing.CommitObject || line[h] != nil {
			continue
		}
		if size += o.Size(); size > maxLineageBytes && h != commit {
			break
		}
		c, err := object.DecodeCommit(nil, o)
		if err != nil {
			return nil, err
		}
		line[h] = o
		queue = append(queue, c.ParentHashes...)
	}
	return line, nil
}

// opened is a parcel that was unpacked: a remote that holds one revision.
type opened struct {
	store        *memory.Storage
	want, commit plumbing.Hash
}

// open unpacks a parcel within its bounds. What is in it is still to be checked.
func (p *Parcel) open() (*opened, error) {
	if len(p.Pack) > MaxParcelBytes {
		return nil, fmt.Errorf("open parcel: it has %d bytes, at most %d are read", len(p.Pack), MaxParcelBytes)
	}
	if !wholeID(p.Want) || !wholeID(p.Commit) {
		return nil, errors.New("open parcel: it does not name a commit")
	}
	store, err := unpackWithin(bytes.NewReader(p.Pack), maxParcelObjects, maxParcelInflated)
	if err != nil {
		return nil, fmt.Errorf("open parcel: %w", err)
	}
	o := &opened{store: store, want: plumbing.NewHash(p.Want)}
	_, commit, err := peel(store, o.want)
	if err != nil {
		return nil, fmt.Errorf("open parcel: read %s: %w", p.Want, err)
	}
	if o.commit = commit.Hash; o.commit.String() != p.Commit {
		return nil, fmt.Errorf("open parcel: %s is the commit %s, not %s", p.Want, o.commit, p.Commit)
	}
	return o, nil
}

// lineage is what the parcel shows of its commit's history.
func (o *opened) lineage() (lineage, error) {
	return lineageOf(o.commit, func(h plumbing.Hash) plumbing.EncodedObject { // the interface must be nil, not hold a nil
		if c, err := o.store.EncodedObject(plumbing.CommitObject, h); err == nil {
			return c
		}
		return nil
	})
}

func (o *opened) find([]plumbing.ReferenceName) (want, commit plumbing.Hash, err error) {
	return o.want, o.commit, nil
}

func (o *opened) objects(context.Context, plumbing.Hash) (storer.EncodedObjectStorer, error) {
	return o.store, nil
}

func (o *opened) history(context.Context, plumbing.Hash, []plumbing.Hash) (storer.EncodedObjectStorer, error) {
	return o.store, nil
}

func (*opened) close() {}

// wholeID reports whether s is the whole name of an object, as git prints it.
func wholeID(s string) bool { return len(s) == 40 && plumbing.NewHash(s).String() == s }
