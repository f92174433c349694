package gitsync

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/go-git/go-git/v5/plumbing"

	"parley/policy"
)

// sharing is a configuration whose revisions can be handed on.
func sharing(url string) Config {
	cfg := config(url)
	cfg.Share, cfg.Interval = true, time.Hour
	return cfg
}

// cutOff is a node that reaches no repository.
func cutOff(t *testing.T, change func(*Config)) (*Syncer, chan heard) {
	t.Helper()
	cfg := sharing("/nowhere")
	if change != nil {
		change(&cfg)
	}
	s, c := syncer(t, cfg)
	follow(t, s)
	return s, c
}

// offer is what s has to hand over.
func offer(t *testing.T, s *Syncer) Offer {
	t.Helper()
	sh := s.Shared()
	if sh.Parcel == nil {
		t.Fatalf("nothing to hand over: %+v", sh)
	}
	return Offer{Parcel: *sh.Parcel, Pin: sh.Pin}
}

// offerOf waits until s has that commit to hand over: what it has taken is what
// it offers a moment later.
func offerOf(t *testing.T, s *Syncer, commit string) Offer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		if p := s.Shared().Parcel; p != nil && p.Commit == commit {
			return offer(t, s)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s is never offered", commit)
		}
	}
}

// A parcel takes the place of the repository, however it was read.
func TestParcelTravels(t *testing.T) {
	for _, remote := range []string{"local", "http", "http, partial", "ssh"} {
		t.Run(remote, func(t *testing.T) {
			r, bare := bareRepo(t, "1")
			cfg := sharing(bare)
			switch remote {
			case "http":
				cfg = sharing(serve(t, bare))
			case "http, partial":
				cfg = sharing(serveWith(t, bare, func(http.Handler) http.Handler { return backend(t, bare, "uploadpack.allowFilter", "true") }))
			case "ssh":
				cfg = newSSHD(t).config(bare)
				cfg.Share = true
			}
			a, ca := syncer(t, cfg)
			b, cb := cutOff(t, nil)
			late, cl := cutOff(t, nil)
			take := func(s *Syncer, c chan heard, want string) {
				t.Helper()
				if err := s.Accept(t.Context(), offer(t, a)); err != nil {
					t.Fatal(err)
				}
				if h := next(t, c); h.revision != "git:"+want || h.refused != nil {
					t.Fatalf("got %+v, want %s", h, want)
				}
			}
			for i := range 4 {
				last := r.git("rev-parse", "HEAD")
				if i > 0 {
					last = r.grow(i) // more commits than one, so that history is read
				}
				r.git("push", "-q", bare, "main")
				if err := a.Sync(t.Context()); err != nil {
					t.Fatal(err)
				}
				<-ca
				take(b, cb, last)
				if i == 0 {
					take(late, cl, last) // and then sleeps
				}
				if st := b.Status(); st.Commit != last || st.CommittedAt == nil {
					t.Errorf("status: got %+v", st)
				}
			}
			take(late, cl, a.Status().Commit)
			fresh, cf := cutOff(t, nil)
			take(fresh, cf, a.Status().Commit)
			// What was taken can be handed on, and is the same.
			if x, y := offer(t, a), offer(t, b); x.Parcel.Commit != y.Parcel.Commit || !bytes.Equal(x.Parcel.Pack, y.Parcel.Pack) {
				t.Errorf("two parcels of one revision: %d and %d bytes", len(x.Parcel.Pack), len(y.Parcel.Pack))
			}
			if err := a.Sync(t.Context()); err != nil {
				t.Error(err)
			}
			none(t, ca)
			if sa := a.Shared(); sa.Begun.IsZero() || !sa.Newer(r.git("rev-parse", "HEAD~1")) || sa.Newer(sa.Commit) || sa.Newer(strings.Repeat("a", 40)) {
				t.Errorf("got %+v", sa)
			}
			if sb := b.Shared(); !sb.Begun.IsZero() {
				t.Errorf("what came from another node was not asked for here: got %v", sb.Begun)
			}
		})
	}
}

// A parcel is refused for whatever a commit of the repository is refused for,
// and for being damaged; what is in use stays.
func TestParcelsRefused(t *testing.T) {
	r := newRepo(t)
	by := sshSigning(t, r)
	r.write("p.rego", "1")
	by.commit()
	cfg := sharing(r.dir)
	cfg.Signers = []string{by.list}
	a, ca := syncer(t, cfg)
	if err := a.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-ca
	first := offer(t, a)
	r.write("p.rego", "2")
	good := by.commit()
	if err := a.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-ca
	second := offer(t, a)

	// another makes parcels of any repository, which asks nobody for a signature.
	another := func(make func(o *repo)) Offer {
		o := newRepo(t)
		make(o)
		s, c := syncer(t, sharing(o.dir))
		if err := s.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		next(t, c)
		return offer(t, s)
	}
	changed := func(change func(*Offer)) Offer {
		o := second
		o.Parcel.Pack = bytes.Clone(o.Parcel.Pack)
		change(&o)
		return o
	}
	for _, tt := range []struct {
		name  string
		offer Offer
		want  string
	}{
		{"a flipped bit", changed(func(o *Offer) { o.Parcel.Pack[len(o.Parcel.Pack)/2] ^= 4 }), "open parcel"},
		{"cut short", changed(func(o *Offer) { o.Parcel.Pack = o.Parcel.Pack[:len(o.Parcel.Pack)/2] }), "open parcel"},
		{"nothing", changed(func(o *Offer) { o.Parcel.Pack = nil }), "open parcel"},
		{"another commit in it", changed(func(o *Offer) { o.Parcel.Pack = first.Parcel.Pack }), "read " + good},
		{"it names another commit", changed(func(o *Offer) { o.Parcel.Commit = strings.Repeat("a", 40) }), "is the commit"},
		{"no names", changed(func(o *Offer) { o.Parcel.Want = "main" }), "does not name a commit"},
		{"too large", changed(func(o *Offer) { o.Parcel.Pack = make([]byte, MaxParcelBytes+1) }), "at most"},
		{"inflates without end", changed(func(o *Offer) {
			o.Parcel.Pack = packOf(t, packed{kind: plumbing.BlobObject, length: maxParcelInflated + 1, body: []byte("x")})
		}), "inflates to more"},
		{"unsigned", another(func(o *repo) { o.write("p.rego", "3"); o.commit() }), "it is not signed"},
		{"a pin to something else", changed(func(o *Offer) { o.Pin = &Pin{Revision: first.Parcel.Want} }), "its pin names"},
		{"a pin that is none", changed(func(o *Offer) { o.Pin = &Pin{Revision: "main"} }), "malformed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, c := cutOff(t, func(cfg *Config) { cfg.Signers = []string{by.list} })
			if err := s.Accept(t.Context(), first); err != nil {
				t.Fatal(err)
			}
			next(t, c)
			if err := s.Accept(t.Context(), tt.offer); !errors.Is(err, ErrUnsound) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want it unsound: %s", err, tt.want)
			}
			if tt.name != "a pin that is none" {
				if h := next(t, c); h.refused == nil || h.revision != Revision(tt.offer.Parcel.Commit) {
					t.Errorf("got %+v, want the refusal of %s", h, tt.offer.Parcel.Commit)
				}
			}
			if s.Status().Commit != first.Parcel.Commit || s.Status().Pin != nil {
				t.Errorf("something was taken: %+v", s.Status())
			}
			if err := s.Accept(t.Context(), second); err != nil {
				t.Errorf("a good one after that: %v", err)
			}
		})
	}

	// Signed by the right person, and yet not a successor; and an older one again.
	r.git("checkout", "-q", "--orphan", "other")
	by.commit()
	cfg.Ref = "other"
	o, co := syncer(t, cfg)
	if err := o.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-co
	s, c := cutOff(t, func(cfg *Config) { cfg.Signers = []string{by.list} })
	if err := s.Accept(t.Context(), second); err != nil {
		t.Fatal(err)
	}
	next(t, c)
	if err := s.Accept(t.Context(), offer(t, o)); !errors.Is(err, ErrUnsound) || !strings.Contains(err.Error(), "does not descend") {
		t.Errorf("got %v, want that it does not descend", err)
	}
	next(t, c)
	if err := s.Accept(t.Context(), first); !errors.Is(err, ErrBehind) {
		t.Errorf("got %v, want that it is older", err)
	}
	none(t, c)
	// What the gate refuses is sound: only this node may have a reason.
	r.git("checkout", "-q", "main")
	r.write("bad.rego", "")
	by.commit()
	cfg.Ref = "main"
	open, _ := syncer(t, cfg)
	open.hooks.Apply = nil
	rev, _, err := open.news(t.Context(), &question{})
	if err != nil {
		t.Fatal(err)
	}
	var problems policy.Problems
	if err := s.Accept(t.Context(), Offer{Parcel: *rev.parcel}); errors.Is(err, ErrUnsound) || !errors.As(err, &problems) {
		t.Errorf("got %v, want the gate's problems", err)
	}
}

// An operator's pin at one node is one everywhere, and so is its end.
func TestPinsTravel(t *testing.T) {
	r, bare := bareRepo(t, "1")
	first := r.git("rev-parse", "HEAD")
	last := r.grow(3)
	r.git("push", "-q", bare, "main")
	cfg := sharing(bare)
	cfg.StateDir = t.TempDir()
	a, ca := syncer(t, cfg)
	follow(t, a)
	<-ca
	kept := t.TempDir()
	b, cb := cutOff(t, func(cfg *Config) { cfg.StateDir = kept })
	give := func(want string) {
		t.Helper()
		if err := b.Accept(t.Context(), offerOf(t, a, want)); err != nil {
			t.Fatal(err)
		}
		if h := <-cb; h.revision != "git:"+want {
			t.Fatalf("got %+v, want %s", h, want)
		}
	}
	give(last)
	if err := a.Pin(t.Context(), Pin{Revision: first, By: "ann", Reason: "lock-out"}); err != nil {
		t.Fatal(err)
	}
	<-ca
	if sh := a.Shared(); !sh.Untold || sh.Begun.IsZero() {
		t.Errorf("got %+v, want a word that nobody has heard", sh)
	}
	again, _ := syncer(t, cfg)
	if err := again.Restore(t.Context()); err != nil || !again.Shared().Untold {
		t.Errorf("after a restart: got %v, %+v", err, again.Shared())
	}
	if err := a.Told(t.Context(), a.Shared().Pin); err != nil || a.Shared().Untold {
		t.Errorf("told: got %v, %+v", err, a.Shared())
	}
	give(first)
	if p := b.Status().Pin; p == nil || p.By != "ann" || p.Reason != "lock-out" || b.Shared().Untold {
		t.Errorf("got pin %+v", p)
	}
	rebooted, cr := syncer(t, func() Config { c := sharing("/nowhere"); c.StateDir = kept; return c }())
	if err := rebooted.Restore(t.Context()); err != nil || rebooted.Status().Pin == nil {
		t.Errorf("the pin after a restart: got %v, %+v", err, rebooted.Status())
	}
	if h := <-cr; h.revision != "git:"+first {
		t.Errorf("after a restart: got %+v", h)
	}
	if x, y := offer(t, a), offer(t, rebooted); !bytes.Equal(x.Parcel.Pack, y.Parcel.Pack) || len(rebooted.Shared().lineage) == 0 {
		t.Error("after a restart there is nothing to hand on")
	}
	if err := a.Unpin(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-ca // the ref again
	give(last)
	if b.Status().Pin != nil {
		t.Errorf("still pinned: %+v", b.Status().Pin)
	}
	// The end of a pin alone, on the commit in use.
	if err := a.Pin(t.Context(), Pin{Revision: last}); err != nil {
		t.Fatal(err)
	}
	if err := b.Accept(t.Context(), offer(t, a)); err != nil || b.Status().Pin == nil {
		t.Errorf("pinned where it is: got %v, %+v", err, b.Status())
	}
	o := offer(t, a)
	o.Pin = nil
	if err := b.Accept(t.Context(), o); err != nil || b.Status().Pin != nil {
		t.Errorf("unpinned where it is: got %v, %+v", err, b.Status())
	}
	none(t, cb)
}

// A repository that accepts connections and says nothing holds up no offer.
func TestASilentRepositoryHoldsUpNobody(t *testing.T) {
	r, bare := bareRepo(t, "1")
	a, ca := syncer(t, sharing(bare))
	if err := a.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-ca
	asked := make(chan struct{})
	hang := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case asked <- struct{}{}:
		case <-r.Context().Done():
		}
		<-r.Context().Done()
	}))
	t.Cleanup(hang.Close)
	t.Cleanup(hang.CloseClientConnections)
	b, cb := cutOff(t, func(cfg *Config) { cfg.URL, cfg.Timeout = hang.URL+"/policy.git", time.Hour })
	<-asked // the poll is under way, and ends in an hour
	if err := b.Accept(t.Context(), offer(t, a)); err != nil {
		t.Fatal(err)
	}
	if h := <-cb; h.revision != "git:"+r.git("rev-parse", "HEAD") {
		t.Errorf("got %+v", h)
	}
}

// A mirror that lags behind the other nodes is not a ref that was moved back.
func TestALaggingMirror(t *testing.T) {
	r, bare := bareRepo(t, "1")
	a, ca := syncer(t, sharing(bare))
	mirror := t.TempDir() + "/mirror.git"
	r.git("clone", "-q", "--bare", r.dir, mirror)
	b, cb := syncer(t, sharing(mirror))
	sync := func(s *Syncer) {
		t.Helper()
		if err := s.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	sync(b)
	<-cb
	newer := r.grow(2)
	r.git("push", "-q", bare, "main")
	sync(a)
	<-ca
	if err := b.AcceptFirst(t.Context(), offer(t, a)); err != nil {
		t.Fatal(err)
	}
	<-cb
	sync(b)
	none(t, cb)
	if st := b.Status(); st.Commit != newer || st.Head == newer {
		t.Errorf("got %+v", st)
	}
	r.git("push", "-q", mirror, "main")
	sync(b) // now it is where the nodes are
	r.git("push", "-q", "-f", mirror, "main~1:main")
	if err := b.Sync(t.Context()); err == nil || !strings.Contains(err.Error(), "does not descend") {
		t.Errorf("moved back: got %v", err)
	}
}

// What is polled while an offer is taken is not taken for an answer.
func TestAnOfferOvertakesAPoll(t *testing.T) {
	r, bare := bareRepo(t, "1")
	a, ca := syncer(t, sharing(bare))
	if err := a.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-ca
	newer := r.grow(1)
	r.git("push", "-q", bare, "main")
	enter, leave := make(chan struct{}), make(chan struct{})
	first := true
	url := serveWith(t, bare, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if first {
				first = false
				close(enter)
				<-leave
			}
			h.ServeHTTP(w, req)
		})
	})
	cfg := sharing(url)
	b, cb := syncer(t, cfg)
	follow(t, b)
	<-enter
	if err := b.Accept(t.Context(), offer(t, a)); err != nil {
		t.Fatal(err)
	}
	<-cb
	close(leave)
	if h := <-cb; h.revision != "git:"+newer || h.refused != nil { // by the next poll, which comes at once
		t.Errorf("got %+v, want %s", h, newer)
	}
}

// Without a parcel on disk the repository is asked for one.
func TestAnOldLastGoodGetsAParcel(t *testing.T) {
	_, bare := bareRepo(t, "1")
	cfg := sharing(bare)
	cfg.Share, cfg.StateDir = false, t.TempDir()
	old, co := syncer(t, cfg)
	if err := old.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-co
	cfg.Share = true
	s, c := syncer(t, cfg)
	if err := s.Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	next(t, c)
	if s.Shared().Parcel != nil {
		t.Error("got a parcel from nowhere")
	}
	if err := s.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	next(t, c)
	offer(t, s)
}

// FuzzParcel holds that no bytes in a parcel do more than be refused.
func FuzzParcel(f *testing.F) {
	f.Add("", "", []byte("PACK\x00\x00\x00\x02\x00\x00\x00\x00"))
	f.Add(strings.Repeat("a", 40), strings.Repeat("a", 40), []byte("PACK\x00\x00\x00\x02\x00\x00\x00\x01\x3ex"))
	s, err := New(sharing("/nowhere"), Hooks{}, quiet())
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, want, commit string, pack []byte) {
		p := Parcel{Want: want, Commit: commit, Pack: pack}
		err := s.guard(func() error {
			o, err := p.open()
			if err == nil {
				_, err = o.lineage()
			}
			return err
		})
		if err == nil && (!wholeID(want) || !wholeID(commit)) {
			t.Fatalf("got %q, %q opened", want, commit)
		}
	})
}
