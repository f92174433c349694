package gitsync

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	git "github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/sideband"
	"github.com/go-git/go-git/v5/plumbing/storer"
	"github.com/go-git/go-git/v5/plumbing/transport"
	githttp "github.com/go-git/go-git/v5/plumbing/transport/http"
	"github.com/go-git/go-git/v5/storage/memory"

	"parley/policy"
)

// tip is the commit a ref pointed to when it was asked for.
type tip struct {
	commit string // hex id
	// read returns the policy files of that commit. Problems mean that the
	// commit itself is at fault; any other error, that asking again may help.
	read func(ctx context.Context) (policy.Files, error)
}

// refNames is what ref may mean, in order of preference.
func refNames(ref string) []plumbing.ReferenceName {
	if ref == "HEAD" || strings.HasPrefix(ref, "refs/") {
		return []plumbing.ReferenceName{plumbing.ReferenceName(ref)}
	}
	return []plumbing.ReferenceName{plumbing.NewBranchReferenceName(ref), plumbing.NewTagReferenceName(ref)}
}

// head asks for the tip of the followed ref.
func (c Config) head(ctx context.Context) (*tip, error) {
	ep, err := c.endpoint()
	if err != nil {
		return nil, err
	}
	if ep.url == nil {
		return c.localHead(ep.path)
	}
	t, err := c.httpHead(ctx)
	return t, c.redact(err)
}

// localHead opens the repository at dir, bare or with a work tree, and reads it
// in place. It is opened anew each time: packs come and go under a repack.
func (c Config) localHead(dir string) (*tip, error) {
	repo, err := git.PlainOpenWithOptions(dir, &git.PlainOpenOptions{EnableDotGitCommonDir: true})
	if err != nil {
		return nil, fmt.Errorf("open repository %s: %w", dir, err)
	}
	for _, name := range refNames(c.Ref) {
		ref, err := repo.Reference(name, true)
		if errors.Is(err, plumbing.ErrReferenceNotFound) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read %s of %s: %w", name, dir, err)
		}
		commit, err := peel(repo.Storer, ref.Hash())
		if err != nil {
			return nil, fmt.Errorf("read %s of %s: %w", name, dir, err)
		}
		return &tip{commit: commit.Hash.String(), read: func(ctx context.Context) (policy.Files, error) {
			return filesOf(ctx, repo.Storer, commit, c.dir())
		}}, nil
	}
	return nil, fmt.Errorf("repository %s has no branch or tag %s", dir, c.Ref)
}

// peel follows annotated tags to the commit.
func peel(s storer.EncodedObjectStorer, h plumbing.Hash) (*object.Commit, error) {
	const most = 8 // tags of tags; git itself makes one
	for range most {
		tag, err := object.GetTag(s, h)
		if errors.Is(err, plumbing.ErrObjectNotFound) {
			return object.GetCommit(s, h)
		}
		if err != nil {
			return nil, err
		}
		h = tag.Target
	}
	return nil, fmt.Errorf("the tag is nested more than %d times", most)
}

// httpHead asks a smart HTTP server for its refs. The tip's read downloads that
// one commit in the same session, so the ref cannot move in between.
func (c Config) httpHead(ctx context.Context) (*tip, error) {
	ep, err := transport.NewEndpoint(c.URL)
	if err != nil {
		return nil, fmt.Errorf("parse policy.git.url: %w", err)
	}
	capped := &cappedTransport{base: http.DefaultTransport, left: c.MaxFetchBytes, limit: c.MaxFetchBytes}
	session, err := githttp.NewClient(&http.Client{Transport: capped}).NewUploadPackSession(ep, nil)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", c.display(), err)
	}
	adv, err := session.AdvertisedReferencesContext(ctx)
	if err != nil {
		return nil, fmt.Errorf("list refs of %s: %w", c.display(), err)
	}
	for _, name := range refNames(c.Ref) {
		want, ok := adv.References[name.String()]
		if name == plumbing.HEAD && adv.Head != nil {
			want, ok = *adv.Head, true
		}
		if !ok {
			continue
		}
		commit := want
		if peeled, ok := adv.Peeled[name.String()]; ok {
			commit = peeled
		}
		return &tip{commit: commit.String(), read: func(ctx context.Context) (policy.Files, error) {
			files, err := c.fetch(ctx, session, adv, want)
			return files, c.redact(err)
		}}, nil
	}
	return nil, fmt.Errorf("repository %s has no branch or tag %s", c.display(), c.Ref)
}

// fetch downloads one commit without its history into memory.
func (c Config) fetch(ctx context.Context, session transport.UploadPackSession, adv *packp.AdvRefs, want plumbing.Hash) (policy.Files, error) {
	req := packp.NewUploadPackRequestFromCapabilities(adv.Capabilities)
	req.Wants = []plumbing.Hash{want}
	if adv.Capabilities.Supports(capability.Shallow) {
		req.Depth = packp.DepthCommits(1)
		if err := req.Capabilities.Set(capability.Shallow); err != nil {
			return nil, fmt.Errorf("ask for a shallow copy: %w", err)
		}
	}
	resp, err := session.UploadPack(ctx, req)
	if err != nil {
		return nil, fmt.Errorf("fetch %s from %s: %w", want, c.display(), err)
	}
	defer resp.Close()
	pack, err := io.ReadAll(unband(req.Capabilities, resp))
	if err != nil {
		return nil, fmt.Errorf("fetch %s from %s: %w", want, c.display(), err)
	}
	if err := checkPack(pack); err != nil {
		return nil, err
	}
	store := memory.NewStorage()
	if err := packfile.UpdateObjectStorage(store, bytes.NewReader(pack)); err != nil {
		return nil, fmt.Errorf("unpack %s from %s: %w", want, c.display(), err)
	}
	commit, err := peel(store, want)
	if err != nil {
		return nil, fmt.Errorf("read %s from %s: %w", want, c.display(), err)
	}
	return filesOf(ctx, store, commit, c.dir())
}

// unband takes the pack out of the multiplexed answer, where the server sent one.
func unband(caps *capability.List, r io.Reader) io.Reader {
	switch {
	case caps.Supports(capability.Sideband64k):
		return sideband.NewDemuxer(sideband.Sideband64k, r)
	case caps.Supports(capability.Sideband):
		return sideband.NewDemuxer(sideband.Sideband, r)
	}
	return r
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
func checkPack(pack []byte) error {
	s := packfile.NewScanner(bytes.NewReader(pack))
	_, n, err := s.Header()
	if err != nil {
		return fmt.Errorf("read pack: %w", err)
	}
	if n > maxPackObjects {
		return policy.Problems{{Reason: fmt.Sprintf("the commit has %d objects, at most %d are allowed; keep the policy in a repository of its own", n, maxPackObjects)}}
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
		tooLarge := h.Length < 0 || h.Length > maxPackInflated || made > maxPackInflated
		if !tooLarge {
			total += h.Length + int64(made)
		}
		if tooLarge || total > maxPackInflated {
			return policy.Problems{{Reason: fmt.Sprintf("the commit inflates to more than %d bytes; keep the policy in a repository of its own", maxPackInflated)}}
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

// errTooLarge says that the remote sent more than it may.
var errTooLarge = errors.New("the remote sent too much")

// cappedTransport lets through limit bytes of answers in total.
type cappedTransport struct {
	base        http.RoundTripper
	left, limit int64 // left is owned by the one goroutine that polls
}

// RoundTrip implements http.RoundTripper.
func (t *cappedTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := t.base.RoundTrip(req)
	if err == nil {
		resp.Body = &cappedBody{ReadCloser: resp.Body, t: t}
	}
	return resp, err
}

type cappedBody struct {
	io.ReadCloser
	t *cappedTransport
}

// Read implements io.Reader.
func (b *cappedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.t.left -= int64(n); b.t.left < 0 {
		return 0, fmt.Errorf("%w: more than %d bytes", errTooLarge, b.t.limit)
	}
	return n, err
}
