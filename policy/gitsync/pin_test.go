package gitsync

import (
	"context"
	"errors"
	"net/http"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"parley/policy"
)

// follow runs s until the test ends.
func follow(t *testing.T, s *Syncer) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

func TestPin(t *testing.T) {
	for _, remote := range []string{"local", "http", "http, commits by name", "ssh"} {
		t.Run(remote, func(t *testing.T) {
			r, bare := bareRepo(t, "1")
			first := r.git("rev-parse", "HEAD")
			cfg := config(bare)
			switch remote {
			case "http":
				cfg = config(serve(t, bare))
			case "http, commits by name":
				cfg = config(serveWith(t, bare, func(http.Handler) http.Handler {
					return backend(t, bare, "uploadpack.allowReachableSHA1InWant", "true")
				}))
			case "ssh":
				cfg = newSSHD(t).config(bare)
			}
			cfg.Interval, cfg.StateDir = time.Hour, t.TempDir()
			r.grow(4)
			last := r.grow(1)
			r.git("push", "-q", bare, "main")
			s, c := syncer(t, cfg)
			follow(t, s)
			if h := next(t, c); h.revision != "git:"+last {
				t.Fatalf("got %+v, want %s", h, last)
			}
			if err := s.Pin(t.Context(), Pin{Revision: first, By: "ann", Reason: "lock-out"}); err != nil {
				t.Fatal(err)
			}
			if h := next(t, c); h.revision != "git:"+first || string(h.files["p.rego"]) != "1" {
				t.Errorf("got %+v, want %s", h, first)
			}
			st := s.Status()
			if st.Commit != first || st.Pin == nil || st.Pin.Revision != first || st.Pin.By != "ann" || st.Pin.Reason != "lock-out" || st.Head != last {
				t.Errorf("status: got %+v", st)
			}
			newer := r.grow(1)
			r.git("push", "-q", bare, "main")
			s.Trigger()
			tick := time.NewTicker(2 * time.Millisecond)
			defer tick.Stop()
			for s.Status().Head != newer { // seen
				<-tick.C
			}
			none(t, c) // not taken

			again, c2 := syncer(t, cfg)
			if err := again.Restore(t.Context()); err != nil {
				t.Fatal(err)
			}
			if h := next(t, c2); h.revision != "git:"+first || again.Status().Pin == nil {
				t.Errorf("after a restart: got %+v, %+v", h, again.Status())
			}
			follow(t, again)
			if err := again.Unpin(t.Context()); err != nil {
				t.Fatal(err)
			}
			if h := next(t, c2); h.revision != "git:"+newer || again.Status().Pin != nil {
				t.Errorf("unpinned: got %+v, %+v", h, again.Status())
			}
			if err := again.Unpin(t.Context()); !errors.Is(err, ErrPin) {
				t.Errorf("unpinned twice: got %v", err)
			}
		})
	}
}

// A pin takes what does not descend; afterwards both it and what came before
// are what the ref may go on from.
func TestPinTakesARewrittenHistory(t *testing.T) {
	r, bare := bareRepo(t, "1")
	cfg := config(bare)
	cfg.Interval, cfg.StateDir = time.Hour, t.TempDir()
	s, c := syncer(t, cfg)
	follow(t, s)
	next(t, c)
	before := r.git("rev-parse", "HEAD")
	r.git("commit", "-q", "--amend", "-m", "rewritten")
	rewritten := r.git("rev-parse", "HEAD")
	r.git("push", "-q", "-f", bare, "main")
	s.Trigger()
	if h := next(t, c); h.refused == nil {
		t.Fatalf("got %+v, want it refused", h)
	}
	if err := s.Pin(t.Context(), Pin{Revision: strings.ToUpper(rewritten)}); err != nil {
		t.Fatal(err)
	}
	if h := next(t, c); h.revision != "git:"+rewritten {
		t.Errorf("got %+v, want %s", h, rewritten)
	}
	if err := s.Unpin(t.Context()); err != nil {
		t.Fatal(err)
	}
	on := r.grow(1)
	r.git("push", "-q", bare, "main")
	s.Trigger()
	if h := next(t, c); h.revision != "git:"+on {
		t.Errorf("got %+v, want %s", h, on)
	}

	// Pinned elsewhere, and back on the branch that was followed.
	r.git("checkout", "-q", "-b", "side", before)
	side := r.grow(1)
	r.git("push", "-q", bare, "side")
	if err := s.Pin(t.Context(), Pin{Revision: side}); err != nil {
		t.Fatal(err)
	}
	if h := next(t, c); h.revision != "git:"+side {
		t.Errorf("got %+v, want %s", h, side)
	}
	again, c := syncer(t, cfg)
	if err := again.Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	next(t, c)
	follow(t, again)
	if err := again.Unpin(t.Context()); err != nil {
		t.Fatal(err)
	}
	if h := next(t, c); h.revision != "git:"+on {
		t.Errorf("got %+v, want %s", h, on)
	}
}

func TestPinThatFailsChangesNothing(t *testing.T) {
	r, bare := bareRepo(t, "1")
	good := r.git("rev-parse", "HEAD")
	r.write("bad.rego", "x")
	bad := r.commit()
	r.git("rm", "-q", "bad.rego")
	last := r.commit()
	r.git("push", "-q", bare, "main")
	cfg := config(bare)
	cfg.Interval, cfg.StateDir = time.Hour, t.TempDir()
	s, c := syncer(t, cfg)
	follow(t, s)
	next(t, c)
	for _, tt := range []struct {
		name, want string
		pin        Pin
	}{
		{"refused by Apply", "bad.rego:1: bad", Pin{Revision: bad}},
		{"not there", "object not found", Pin{Revision: strings.Repeat("a", 40)}},
		{"a short name", "40 hexadecimal digits", Pin{Revision: good[:12]}},
		{"no name", "40 hexadecimal digits", Pin{Revision: strings.Repeat("g", 40)}},
		{"a long reason", "the reason has more than", Pin{Revision: good, Reason: strings.Repeat("x", maxReasonBytes+1)}},
	} {
		if err := s.Pin(t.Context(), tt.pin); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want it to say %q", tt.name, err, tt.want)
		}
		if st := s.Status(); st.Pin != nil || st.Commit != last {
			t.Errorf("%s: status: got %+v, want nothing changed", tt.name, st)
		}
	}
	none(t, c)
	var problems policy.Problems
	if err := s.Pin(t.Context(), Pin{Revision: bad}); !errors.As(err, &problems) {
		t.Errorf("got %v, want Problems", err)
	}
	// What is in use can be pinned without anybody's help.
	if err := os.Rename(bare, bare+"-away"); err != nil {
		t.Fatal(err)
	}
	if err := s.Pin(t.Context(), Pin{Revision: good}); err == nil {
		t.Error("got no error without the repository")
	}
	if err := s.Pin(t.Context(), Pin{Revision: last}); err != nil {
		t.Errorf("the commit in use: %v", err)
	}
	if s.Status().Pin == nil {
		t.Error("not pinned")
	}
}

// A pin that asks for signatures takes none without, but an annotated tag.
func TestPinIsSigned(t *testing.T) {
	r := newRepo(t)
	r.write("p.rego", "1")
	by := sshSigning(t, r)
	plain := r.commit()
	by.tag("v1")
	tag := r.git("rev-parse", "v1")
	by.commit()
	cfg := config(r.dir)
	cfg.Interval, cfg.StateDir, cfg.Signers = time.Hour, t.TempDir(), []string{by.list}
	s, c := syncer(t, cfg)
	follow(t, s)
	next(t, c)
	if err := s.Pin(t.Context(), Pin{Revision: plain}); err == nil || !strings.Contains(err.Error(), "it is not signed") {
		t.Errorf("got %v, want that it is not signed", err)
	}
	if err := s.Pin(t.Context(), Pin{Revision: tag}); err != nil {
		t.Fatal(err)
	}
	if h := next(t, c); h.revision != "git:"+plain || s.Status().Pin.Revision != tag {
		t.Errorf("got %+v, %+v", h, s.Status())
	}
}

func TestPinThatCannotBeRecordedSaysSo(t *testing.T) {
	r, bare := bareRepo(t, "1")
	first := r.git("rev-parse", "HEAD")
	r.grow(1)
	r.git("push", "-q", bare, "main")
	cfg := config(bare)
	cfg.Interval, cfg.StateDir = time.Hour, file(t, "no folder")
	s, c := syncer(t, cfg)
	follow(t, s)
	next(t, c)
	if err := s.Pin(t.Context(), Pin{Revision: first}); err == nil || !strings.Contains(err.Error(), "a restart forgets the pin") {
		t.Errorf("got %v, want that it is not recorded", err)
	}
	next(t, c)
	if err := s.Unpin(t.Context()); err == nil || !strings.Contains(err.Error(), "could not be recorded") {
		t.Errorf("got %v, want that it is not recorded", err)
	}
}

func TestOrdersEndWithTheirContext(t *testing.T) {
	s, _ := syncer(t, config("/nowhere")) // nobody runs it
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Unpin(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want canceled", err)
	}
}

// Calls that come together are answered by one poll, and the first at once.
func TestDebounce(t *testing.T) {
	r, bare := bareRepo(t, "1")
	r.grow(1)
	synctest.Test(t, func(t *testing.T) {
		cfg := config(bare)
		cfg.Interval, cfg.Debounce = time.Hour, time.Second
		s, c := syncer(t, cfg)
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		<-c
		polls := func() uint64 {
			synctest.Wait()
			st := s.Stats()
			return st.Polls[ResultTaken] + st.Polls[ResultUnchanged]
		}
		if n := polls(); n != 1 {
			t.Errorf("at the start: got %d polls, want 1", n)
		}
		s.Trigger()
		if n := polls(); n != 2 {
			t.Errorf("first call: got %d polls, want 2", n)
		}
		for range 10 {
			s.Trigger()
			if n := polls(); n != 2 {
				t.Errorf("more calls at once: got %d polls, want 2", n)
			}
		}
		time.Sleep(cfg.Debounce) // in no time: nothing else runs
		if n := polls(); n != 3 {
			t.Errorf("a while later: got %d polls, want 3", n)
		}
		time.Sleep(10 * cfg.Debounce)
		if n := polls(); n != 3 {
			t.Errorf("much later: got %d polls, want 3", n)
		}
		cancel()
		<-done
	})
}

func TestStats(t *testing.T) {
	r, bare := bareRepo(t, "1")
	cfg := config(bare)
	s, c := syncer(t, cfg)
	sync := func() { _ = s.Sync(t.Context()) }
	s.Trigger()
	sync() // the first does not count for since commit
	next(t, c)
	r.grow(1)
	r.git("push", "-q", bare, "main")
	s.Trigger()
	sync()
	next(t, c)
	s.Trigger()
	sync() // unchanged: nothing to wait for
	r.write("bad.rego", "x")
	r.commit()
	r.git("push", "-q", bare, "main")
	s.Trigger()
	sync()
	next(t, c)
	if err := os.Rename(bare, bare+"-away"); err != nil {
		t.Fatal(err)
	}
	sync()
	st := s.Stats()
	for result, want := range map[Result]uint64{ResultTaken: 2, ResultUnchanged: 1, ResultRefused: 1, ResultError: 1} {
		if st.Polls[result] != want {
			t.Errorf("%s: got %d, want %d", result, st.Polls[result], want)
		}
	}
	if st.SinceTrigger.Count != 2 || st.SinceTrigger.Sum <= 0 || st.SinceCommit.Count != 1 {
		t.Errorf("got %+v, want two since a call, one since a commit", st)
	}
	var n uint64
	for _, c := range st.SinceTrigger.Counts {
		n += c
	}
	if n != 2 {
		t.Errorf("got %+v, want the buckets to hold both", st.SinceTrigger)
	}
}

func TestGuard(t *testing.T) {
	s, _ := syncer(t, config("/nowhere"))
	if err := s.guard(func() error { panic("hostile pack") }); err == nil || !strings.Contains(err.Error(), "hostile pack") {
		t.Errorf("got %v, want the panic as an error", err)
	}
}
