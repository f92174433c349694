package gitsync

import (
	"errors"
	"sync/atomic"
	"testing"
)

// What an operator says while another node's revision is looked at stands, until
// it was shared; and nobody sees a revision that was pinned without its pin.
func TestAnUntoldPinStandsAboveOffers(t *testing.T) {
	r, bare := bareRepo(t, "1")
	first := r.git("rev-parse", "HEAD")
	r.grow(3)
	r.git("push", "-q", bare, "main")
	cfg := sharing(bare)
	cfg.StateDir = t.TempDir()
	hooks, heard := listen()
	var s *Syncer
	var naked atomic.Bool
	var shown atomic.Pointer[Shared] // when the pin was seen first
	hooks.Changed = func() {
		sh := s.Shared()
		if sh.Commit == first && (sh.Pin == nil || !sh.Untold) {
			naked.Store(true)
		}
		if sh.Pin != nil {
			shown.CompareAndSwap(nil, &sh)
		}
	}
	s, err := New(cfg, hooks, quiet())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-heard
	other := offer(t, s) // as another node has it
	follow(t, s)
	if err := s.Pin(t.Context(), Pin{Revision: first, By: "ann"}); err != nil {
		t.Fatal(err)
	}
	<-heard
	if err := s.Accept(t.Context(), other); !errors.Is(err, ErrUntold) || s.Status().Pin == nil || s.Shared().Commit != first {
		t.Errorf("while the pin is untold: got %v, %+v", err, s.Shared())
	}
	if naked.Load() {
		t.Error("the pinned revision was shown without its pin")
	}
	pinned := offer(t, s)
	tell := func(sh Shared) {
		t.Helper()
		if err := s.Told(t.Context(), sh.Pin); err != nil || s.Shared().Untold {
			t.Fatalf("told: got %v, %+v", err, s.Shared())
		}
	}
	if err := s.Told(t.Context(), nil); err != nil || !s.Shared().Untold {
		t.Fatalf("what was before the pin was told: got %v, %+v", err, s.Shared())
	}
	tell(*shown.Load()) // others may have heard it before all of it was done
	if err := s.Unpin(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Accept(t.Context(), pinned); !errors.Is(err, ErrUntold) || s.Status().Pin != nil {
		t.Errorf("while its end is untold: got %v, %+v", err, s.Status().Pin)
	}
	tell(s.Shared())
	if err := s.Accept(t.Context(), pinned); err != nil || s.Status().Pin == nil {
		t.Errorf("afterwards: got %v, %+v", err, s.Status().Pin)
	}
}
