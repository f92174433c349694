package gitsync

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/plumbing/storer"

	"parley/policy"
	"parley/policy/gitsync/signers"
)

// revision is one commit that may be taken.
type revision struct {
	commit    string // hex id
	committed time.Time
	signedBy  string // "" where signers are not asked for
	files     policy.Files
	// Where nodes share revisions:
	parcel  *Parcel
	lineage lineage
}

// request is what to read of a remote.
type request struct {
	want  plumbing.Hash   // an annotated tag or a commit
	tag   string          // short name of the tag that the ref is, "" for none
	bases []plumbing.Hash // the commit must descend from one of them; nil: from none
	who   *signers.Set    // nil: signatures are not looked at
}

// read reads and judges one commit. Problems mean that the commit itself is at
// fault; any other error, that asking again may help.
func (c Config) read(ctx context.Context, r remote, req request) (*revision, error) {
	store, err := r.objects(ctx, req.want)
	if err != nil {
		return nil, err
	}
	tag, commit, err := peel(store, req.want)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", req.want, err)
	}
	rev := &revision{commit: commit.Hash.String(), committed: commit.Committer.When}
	if req.who != nil {
		if rev.signedBy, err = signedBy(store, tag, commit, req); err != nil {
			return nil, err
		}
	}
	if err := c.descended(ctx, r, store, commit.Hash, req); err != nil {
		return nil, err
	}
	rev.files, err = filesOf(ctx, store, commit, c.dir())
	return rev, err
}

// signedBy judges the signature of the tag, or of the commit where there is no
// tag.
func signedBy(store storer.EncodedObjectStorer, tag *object.Tag, commit *object.Commit, req request) (string, error) {
	what, id, at := "commit", commit.Hash, commit.Committer.When
	if tag != nil {
		what, id, at = "tag", tag.Hash, tag.Tagger.When
	}
	raw, err := rawOf(store, id)
	if err != nil {
		return "", fmt.Errorf("read %s %s: %w", what, id, err)
	}
	refused := func(why error) (string, error) {
		return "", policy.Problems{{Reason: fmt.Sprintf("the %s %s is refused: %v", what, id, why)}}
	}
	payload, signature := raw, ""
	if tag == nil {
		if payload, signature, err = signers.SplitCommit(raw); err != nil {
			return refused(err)
		}
	} else {
		payload, signature = signers.SplitTag(raw)
		if req.tag != "" && tag.Name != req.tag { // an old signed tag under a new name
			return refused(fmt.Errorf("it was signed as the tag %q, not %q", tag.Name, req.tag))
		}
	}
	by, err := req.who.Verify(payload, signature, at, time.Now())
	if err != nil {
		return refused(err)
	}
	return by, nil
}

// maxSigned bounds a commit or tag that is looked at for its signature.
const maxSigned = 1 << 20

func rawOf(store storer.EncodedObjectStorer, id plumbing.Hash) ([]byte, error) {
	o, err := store.EncodedObject(plumbing.AnyObject, id)
	if err != nil {
		return nil, err
	}
	if o.Size() > maxSigned {
		return nil, policy.Problems{{Reason: fmt.Sprintf("%s has %d bytes, at most %d are allowed", id, o.Size(), maxSigned)}}
	}
	r, err := o.Reader()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(io.LimitReader(r, maxSigned+1))
}

// descended refuses a commit that does not descend from one of the bases. Most
// commits have one for a parent, which they name themselves; for the others the
// history in between is read.
func (c Config) descended(ctx context.Context, r remote, store storer.EncodedObjectStorer, commit plumbing.Hash, req request) error {
	if len(req.bases) == 0 {
		return nil
	}
	ok, err := descends(ctx, store, commit, req.bases)
	if err == nil && !ok {
		store, err = r.history(ctx, req.want, req.bases)
		if err == nil {
			ok, err = descends(ctx, store, commit, req.bases)
		}
	}
	var problems policy.Problems
	switch {
	case errors.As(err, &problems), errors.Is(err, errTooLarge):
		return policy.Problems{{Reason: fmt.Sprintf("that %s descends from %s could not be shown: %v; `platform policy pin %s` takes it without", commit, short(req.bases), err, commit)}}
	case err != nil:
		return err
	case !ok:
		return policy.Problems{{Reason: fmt.Sprintf("%s does not descend from %s, which is in use: the ref was moved back or its history was rewritten; `platform policy pin %s` takes it all the same",
			commit, short(req.bases), commit)}}
	}
	return nil
}

// short names commits for people.
func short(ids []plumbing.Hash) string {
	names := make([]string, len(ids))
	for i, id := range ids {
		names[i] = id.String()[:12]
	}
	return strings.Join(names, " or ")
}
