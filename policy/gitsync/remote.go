package gitsync

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	git "github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/plumbing/storer"
)

// remote is a repository that was reached, for one poll. Its methods are called
// from one goroutine.
type remote interface {
	// find returns what the ref of the first name there is points to: want, an
	// annotated tag or a commit, and the commit.
	find(names []plumbing.ReferenceName) (want, commit plumbing.Hash, err error)
	// objects returns a store with want and everything of its commit but its
	// history.
	objects(ctx context.Context, want plumbing.Hash) (storer.EncodedObjectStorer, error)
	// history returns a store with the commits of want's history that those of
	// bases have not.
	history(ctx context.Context, want plumbing.Hash, bases []plumbing.Hash) (storer.EncodedObjectStorer, error)
	close()
}

// errNoRef says that no ref has any of the names.
var errNoRef = errors.New("there is no such ref")

// refNames is what ref may mean, in order of preference.
func refNames(ref string) []plumbing.ReferenceName {
	if ref == "HEAD" || strings.HasPrefix(ref, "refs/") {
		return []plumbing.ReferenceName{plumbing.ReferenceName(ref)}
	}
	return []plumbing.ReferenceName{plumbing.NewBranchReferenceName(ref), plumbing.NewTagReferenceName(ref)}
}

// open reaches the repository. The bound of ctx is that of everything done with
// the remote.
func (c Config) open(ctx context.Context) (remote, error) {
	ep, err := c.endpoint()
	switch {
	case err != nil:
		return nil, err
	case ep.url == nil:
		return openLocal(ep.path)
	case ep.ssh():
		return c.openSSH(ctx, ep)
	}
	return c.openHTTP(ctx)
}

// local is a repository on this machine, bare or with a work tree, read in
// place. It is opened anew for each poll: packs come and go under a repack.
type local struct{ repo *git.Repository }

func openLocal(dir string) (remote, error) {
	repo, err := git.PlainOpenWithOptions(dir, &git.PlainOpenOptions{EnableDotGitCommonDir: true})
	if err != nil {
		return nil, fmt.Errorf("open repository %s: %w", dir, err)
	}
	return local{repo}, nil
}

func (l local) find(names []plumbing.ReferenceName) (want, commit plumbing.Hash, err error) {
	for _, name := range names {
		ref, err := l.repo.Reference(name, true)
		if errors.Is(err, plumbing.ErrReferenceNotFound) {
			continue
		}
		if err != nil {
			return want, commit, fmt.Errorf("read %s: %w", name, err)
		}
		_, c, err := peel(l.repo.Storer, ref.Hash())
		if err != nil {
			return want, commit, fmt.Errorf("read %s: %w", name, err)
		}
		return ref.Hash(), c.Hash, nil
	}
	return want, commit, errNoRef
}

func (l local) objects(context.Context, plumbing.Hash) (storer.EncodedObjectStorer, error) {
	return l.repo.Storer, nil
}

func (l local) history(context.Context, plumbing.Hash, []plumbing.Hash) (storer.EncodedObjectStorer, error) {
	return l.repo.Storer, nil
}

func (local) close() {}

// peel follows annotated tags to the commit. tag is the outermost one, nil
// where h is the commit itself.
func peel(s storer.EncodedObjectStorer, h plumbing.Hash) (tag *object.Tag, commit *object.Commit, err error) {
	const most = 8 // tags of tags; git itself makes one
	for range most {
		t, err := object.GetTag(s, h)
		if errors.Is(err, plumbing.ErrObjectNotFound) {
			commit, err := object.GetCommit(s, h)
			return tag, commit, err
		}
		if err != nil {
			return nil, nil, err
		}
		if tag == nil {
			tag = t
		}
		h = t.Target
	}
	return nil, nil, fmt.Errorf("the tag is nested more than %d times", most)
}

// maxHistory bounds the commits that are looked at to show that a commit
// descends from another.
const maxHistory = 20_000

// descends reports whether commit is one of bases or has one among its
// ancestors, as far as the store has them. Commits are named by what they hold,
// so that it does is proof, whoever filled the store.
func descends(ctx context.Context, s storer.EncodedObjectStorer, commit plumbing.Hash, bases []plumbing.Hash) (bool, error) {
	queue := []plumbing.Hash{commit}
	seen := map[plumbing.Hash]bool{commit: true}
	for len(queue) > 0 {
		h := queue[0]
		queue = queue[1:]
		if slices.Contains(bases, h) {
			return true, nil
		}
		if err := ctx.Err(); err != nil {
			return false, fmt.Errorf("read history: %w", err)
		}
		c, err := object.GetCommit(s, h)
		if errors.Is(err, plumbing.ErrObjectNotFound) {
			continue // the history ends here, or what is left of it
		}
		if err != nil {
			return false, fmt.Errorf("read history at %s: %w", h, err)
		}
		for _, p := range c.ParentHashes {
			if !seen[p] {
				seen[p] = true
				queue = append(queue, p)
			}
		}
		if len(seen) > maxHistory {
			return false, fmt.Errorf("%w: more than %d commits", errTooLarge, maxHistory)
		}
	}
	return false, nil
}
