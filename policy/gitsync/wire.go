package gitsync

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/sideband"
	"github.com/go-git/go-git/v5/plumbing/storer"
	"github.com/go-git/go-git/v5/plumbing/transport"
	githttp "github.com/go-git/go-git/v5/plumbing/transport/http"
)

// wire is a repository behind git's pack protocol, version 0
// (gitprotocol-pack), over https or ssh.
type wire struct {
	where   string // for people
	refs    *packp.AdvRefs
	fetch   func(context.Context, *packp.UploadPackRequest) (*packp.UploadPackResponse, error)
	end     func()
	budget  *budget
	redact  func(error) error
	tip     plumbing.Hash // what find found
	hasFind bool
}

func (w *wire) close() { w.end() }

func (w *wire) find(names []plumbing.ReferenceName) (want, commit plumbing.Hash, err error) {
	for _, name := range names {
		want, ok := w.refs.References[name.String()]
		if name == plumbing.HEAD && w.refs.Head != nil {
			want, ok = *w.refs.Head, true
		}
		if !ok {
			continue
		}
		commit := want
		if peeled, ok := w.refs.Peeled[name.String()]; ok {
			commit = peeled
		}
		w.tip, w.hasFind = want, true
		return want, commit, nil
	}
	return want, commit, errNoRef
}

// advertised reports whether some ref points to h.
func (w *wire) advertised(h plumbing.Hash) bool {
	if w.refs.Head != nil && *w.refs.Head == h {
		return true
	}
	for _, r := range w.refs.References {
		if r == h {
			return true
		}
	}
	for _, r := range w.refs.Peeled {
		if r == h {
			return true
		}
	}
	return false
}

// objects downloads one commit without its history. A commit that no ref points
// to is asked for by name where the server allows it; else it is looked for in
// the whole history of the ref.
func (w *wire) objects(ctx context.Context, want plumbing.Hash) (storer.EncodedObjectStorer, error) {
	caps := w.refs.Capabilities
	byName := caps.Supports(capability.AllowReachableSHA1InWant) || caps.Supports("allow-any-sha1-in-want")
	if w.advertised(want) || byName {
		return w.ask(ctx, func(req *packp.UploadPackRequest) error {
			req.Wants = []plumbing.Hash{want}
			return shallow(req, caps)
		})
	}
	if !w.hasFind {
		return nil, fmt.Errorf("%s gives no commit by its name, and the ref is not there", w.where)
	}
	store, err := w.ask(ctx, func(req *packp.UploadPackRequest) error {
		req.Wants = []plumbing.Hash{w.tip}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look for %s in the history, since the server gives no commit by its name (uploadpack.allowReachableSHA1InWant): %w", want, err)
	}
	return store, nil
}

func shallow(req *packp.UploadPackRequest, caps *capability.List) error {
	if !caps.Supports(capability.Shallow) {
		return nil
	}
	req.Depth = packp.DepthCommits(1)
	return req.Capabilities.Set(capability.Shallow)
}

// history downloads the commits that lie between bases and want, without their
// files where the server can leave them out. The server knows what bases have:
// it sends what is new alone. A base it does not know is as if it were not
// named.
func (w *wire) history(ctx context.Context, want plumbing.Hash, bases []plumbing.Hash) (storer.EncodedObjectStorer, error) {
	caps := w.refs.Capabilities
	return w.ask(ctx, func(req *packp.UploadPackRequest) error {
		req.Wants = []plumbing.Hash{want}
		req.Haves = bases
		if !caps.Supports(capability.Filter) {
			return nil
		}
		req.Filter = packp.FilterTreeDepth(0)
		return req.Capabilities.Set(capability.Filter)
	})
}

// ask sends one request and unpacks what comes.
func (w *wire) ask(ctx context.Context, fill func(*packp.UploadPackRequest) error) (storer.EncodedObjectStorer, error) {
	req := packp.NewUploadPackRequestFromCapabilities(w.refs.Capabilities)
	if err := fill(req); err != nil {
		return nil, fmt.Errorf("ask %s: %w", w.where, err)
	}
	resp, err := w.fetch(ctx, req)
	if err != nil {
		return nil, w.redact(fmt.Errorf("fetch from %s: %w", w.where, w.budget.blame(err)))
	}
	defer resp.Close()
	store, err := unpack(unband(req.Capabilities, resp))
	if err != nil {
		return nil, w.redact(fmt.Errorf("fetch from %s: %w", w.where, w.budget.blame(err)))
	}
	return store, nil
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

// openHTTP asks a smart HTTP server for its refs. What is fetched later is
// fetched in the same session, so that the ref cannot move in between.
func (c Config) openHTTP(ctx context.Context) (remote, error) {
	token, err := c.Auth.token()
	if err != nil {
		return nil, err
	}
	redact := func(err error) error { return c.redact(err, token) }
	ep, err := transport.NewEndpoint(c.URL)
	if err != nil {
		return nil, redact(fmt.Errorf("parse policy.git.url: %w", err))
	}
	base, end, err := c.Auth.transport()
	if err != nil {
		return nil, err
	}
	var auth transport.AuthMethod
	if token != "" {
		auth = &githttp.BasicAuth{Username: c.Auth.user(), Password: token}
	}
	b := newBudget(c.MaxFetchBytes)
	client := &http.Client{Transport: &cappedTransport{base: base, budget: b}}
	session, err := githttp.NewClient(client).NewUploadPackSession(ep, auth)
	if err != nil {
		end()
		return nil, redact(fmt.Errorf("connect to %s: %w", c.display(), err))
	}
	refs, err := session.AdvertisedReferencesContext(ctx)
	if err != nil {
		end()
		return nil, redact(fmt.Errorf("list refs of %s: %w", c.display(), b.blame(err)))
	}
	return &wire{where: c.display(), refs: refs, fetch: session.UploadPack, end: end, budget: b, redact: redact}, nil
}

// errTooLarge says that the remote sent more than it may.
var errTooLarge = errors.New("the remote sent too much")

// budget is the bytes a remote may still send in one poll.
type budget struct {
	left  atomic.Int64
	limit int64
}

func newBudget(limit int64) *budget {
	b := &budget{limit: limit}
	b.left.Store(limit)
	return b
}

func (b *budget) spend(n int) error {
	if b.left.Add(-int64(n)) < 0 {
		return fmt.Errorf("%w: more than %d bytes", errTooLarge, b.limit)
	}
	return nil
}

// blame says that the budget is spent where that is the cause of err: what lies
// between us and the connection may have told less.
func (b *budget) blame(err error) error {
	if errors.Is(err, errTooLarge) || b.left.Load() >= 0 {
		return err
	}
	return b.spend(0)
}

// cappedTransport lets answers through until the budget is spent.
type cappedTransport struct {
	base   http.RoundTripper
	budget *budget
}

// RoundTrip implements http.RoundTripper.
func (t *cappedTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := t.base.RoundTrip(req)
	if err == nil {
		resp.Body = &cappedBody{ReadCloser: resp.Body, budget: t.budget}
	}
	return resp, err
}

type cappedBody struct {
	io.ReadCloser
	budget *budget
}

// Read implements io.Reader.
func (b *cappedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if over := b.budget.spend(n); over != nil {
		return 0, over
	}
	return n, err
}
