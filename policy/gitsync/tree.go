package gitsync

import (
	"context"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/plumbing/storer"

	"parley/policy"
)

// Bounds of the walk through one commit.
const (
	maxDepth   = 16     // folders in folders
	maxEntries = 20_000 // files and folders looked at
)

// filesOf returns the policy files below dir of a commit.
func filesOf(ctx context.Context, s storer.EncodedObjectStorer, commit *object.Commit, dir string) (policy.Files, error) {
	tree, err := commit.Tree()
	if err != nil {
		return nil, fmt.Errorf("read commit %s: %w", commit.Hash, err)
	}
	if dir != "" {
		if tree, err = tree.Tree(dir); err != nil {
			return nil, policy.Problems{{Reason: fmt.Sprintf("the commit has no folder %q (policy.git.path)", dir)}}
		}
	}
	w := walk{ctx: ctx, store: s, files: policy.Files{}}
	if err := w.tree(tree, "", 0); err != nil {
		return nil, err
	}
	return w.files, nil
}

// walk is one pass over a commit. It lives for one call of filesOf, which is
// why it may keep the context.
type walk struct {
	ctx     context.Context
	store   storer.EncodedObjectStorer
	files   policy.Files
	entries int
	bytes   int64
}

func (w *walk) tree(t *object.Tree, at string, depth int) error {
	if err := w.ctx.Err(); err != nil {
		return fmt.Errorf("read commit: %w", err)
	}
	if depth > maxDepth {
		return policy.Problems{{File: at, Reason: fmt.Sprintf("folders are nested more than %d deep", maxDepth)}}
	}
	for i := range t.Entries {
		e := &t.Entries[i]
		if w.entries++; w.entries > maxEntries {
			return policy.Problems{{Reason: fmt.Sprintf("the commit has more than %d files below the policy's folder; set policy.git.path to a folder of its own", maxEntries)}}
		}
		if trick(e.Name) {
			return policy.Problems{{File: at, Reason: fmt.Sprintf("it has an entry named %.80q, which no file can have; git fsck tells more", e.Name)}}
		}
		if e.Name[0] == '.' {
			continue
		}
		if len(at)+1+len(e.Name) > policy.MaxPathBytes {
			return policy.Problems{{File: at, Reason: fmt.Sprintf("a path in it has more than %d bytes", policy.MaxPathBytes)}}
		}
		if err := w.entry(e, path.Join(at, e.Name), depth); err != nil {
			return err
		}
	}
	return nil
}

// trick reports whether git itself would never write an entry of that name.
func trick(name string) bool {
	return name == "" || name == "." || name == ".." || strings.EqualFold(name, ".git") || strings.ContainsAny(name, "/\x00")
}

func (w *walk) entry(e *object.TreeEntry, p string, depth int) error {
	switch e.Mode {
	case filemode.Dir:
		sub, err := object.GetTree(w.store, e.Hash)
		if err != nil {
			return fmt.Errorf("read folder %s: %w", p, err)
		}
		return w.tree(sub, p, depth+1)
	case filemode.Symlink:
		return policy.Problems{{File: p, Reason: "it is a symbolic link; a policy holds plain files only"}}
	case filemode.Submodule:
		return policy.Problems{{File: p, Reason: "it is a submodule; a policy holds plain files only"}}
	}
	if !policy.Wanted(p) {
		return nil
	}
	if err := policy.CheckPath(p); err != nil {
		return policy.Problems{{File: p, Reason: err.Error()}}
	}
	size, err := w.store.EncodedObjectSize(e.Hash) // before reading: a blob may be larger than memory
	if err != nil {
		return fmt.Errorf("read file %s: %w", p, err)
	}
	w.bytes += size
	switch {
	case len(w.files) == policy.MaxFiles:
		return policy.Problems{{Reason: fmt.Sprintf("the commit has more than %d policy files", policy.MaxFiles)}}
	case size > policy.MaxFileBytes:
		return policy.Problems{{File: p, Reason: fmt.Sprintf("the file has %d bytes, at most %d are allowed", size, policy.MaxFileBytes)}}
	case w.bytes > policy.MaxBytes:
		return policy.Problems{{Reason: fmt.Sprintf("the policy files have more than %d bytes together", policy.MaxBytes)}}
	}
	blob, err := object.GetBlob(w.store, e.Hash)
	if err != nil {
		return fmt.Errorf("read file %s: %w", p, err)
	}
	r, err := blob.Reader()
	if err != nil {
		return fmt.Errorf("read file %s: %w", p, err)
	}
	defer r.Close()
	if w.files[p], err = io.ReadAll(r); err != nil {
		return fmt.Errorf("read file %s: %w", p, err)
	}
	return nil
}
