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
	hooks.Changed = func() {
		if sh := s.Shared(); sh.Commit == first && (sh.Pin == nil || !sh.Untold) {
			naked.Store(true)
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
	tell := func() {
		t.Helper()
		if err := s.Told(t.Context(), s.Shared().Turn); err != nil || s.Shared().Untold {
			t.Fatalf("told: got %v, %+v", err, s.Shared())
		}
	}
	tell()
	if err := s.Unpin(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Accept(t.Context(), pinned); !errors.Is(err, ErrUntold) || s.Status().Pin != nil {
		t.Errorf("while its end is untold: got %v, %+v", err, s.Status().Pin)
	}
	tell()
	if err := s.Accept(t.Context(), pinned); err != nil || s.Status().Pin == nil {
		t.Errorf("afterwards: got %v, %+v", err, s.Status().Pin)
	}
}
