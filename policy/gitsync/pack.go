package gitsync

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/go-git/go-git/v5/plumbing/format/packfile"
	"github.com/go-git/go-git/v5/plumbing/storer"
	"github.com/go-git/go-git/v5/storage/memory"

	"parley/policy"
)

// unpack reads a pack into memory, after checkPack.
func unpack(r io.Reader) (storer.EncodedObjectStorer, error) {
	return unpackWithin(r, maxPackObjects, maxPackInflated)
}

func unpackWithin(r io.Reader, objects uint32, inflated int64) (*memory.Storage, error) {
	pack, err := io.ReadAll(r) // what it is read from is bounded
	if err != nil {
		return nil, err
	}
	if err := checkPack(pack, objects, inflated); err != nil {
		return nil, err
	}
	store := memory.NewStorage()
	if err := packfile.UpdateObjectStorage(store, bytes.NewReader(pack)); err != nil {
		return nil, fmt.Errorf("unpack: %w", err)
	}
	return store, nil
}

// Bounds of what a downloaded pack says it inflates to. They hold for the
// repository as a whole, since a pack brings all files of the commit.
const (
	maxPackObjects  = 50_000
	maxPackInflated = 256 << 20
)

// checkPack refuses a pack that would take too much memory, by the sizes its
// objects declare; the parser holds every object to its declared size. A delta
// declares two: its own, and that of what it makes of its base, which can be
// millions of times as much (gitformat-pack, "Deltified representation").
func checkPack(pack []byte, objects uint32, inflated int64) error {
	s := packfile.NewScanner(bytes.NewReader(pack))
	_, n, err := s.Header()
	if err != nil {
		return fmt.Errorf("read pack: %w", err)
	}
	if n > objects {
		return policy.Problems{{Reason: fmt.Sprintf("the commit has %d objects, at most %d are allowed; keep the policy in a repository of its own", n, objects)}}
	}
	var total int64
	for range n {
		h, err := s.NextObjectHeader()
		if err != nil {
			return fmt.Errorf("read pack: %w", err)
		}
		made := uint64(0)
		if h.Type.IsDelta() {
			if made, err = deltaTarget(s); err != nil {
				return fmt.Errorf("read pack: %w", err)
			}
		}
		tooLarge := h.Length < 0 || h.Length > inflated || made > uint64(inflated)
		if !tooLarge {
			total += h.Length + int64(made)
		}
		if tooLarge || total > inflated {
			return policy.Problems{{Reason: fmt.Sprintf("the commit inflates to more than %d bytes; keep the policy in a repository of its own", inflated)}}
		}
	}
	return nil
}

// deltaTarget inflates the delta the scanner stands at and returns the size of
// what it makes.
func deltaTarget(s *packfile.Scanner) (uint64, error) {
	var head deltaHead
	if _, _, err := s.NextObject(&head); err != nil {
		return 0, err
	}
	_, n := binary.Uvarint(head.b) // size of the base
	if n <= 0 {
		return 0, packfile.ErrInvalidDelta
	}
	made, m := binary.Uvarint(head.b[n:])
	if m <= 0 {
		return 0, packfile.ErrInvalidDelta
	}
	return made, nil
}

// deltaHead keeps the beginning of a delta: its two sizes.
type deltaHead struct{ b []byte }

// Write implements io.Writer.
func (d *deltaHead) Write(p []byte) (int, error) {
	d.b = append(d.b, p[:min(len(p), 2*binary.MaxVarintLen64-len(d.b))]...)
	return len(p), nil
}
