package plugins_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"parley/plugins"
	"parley/sdk/abi"
)

// table is a board of one process: what is agreed on lies in it, and who follows
// reads it when the test says so.
type table struct {
	all     map[string]plugins.Standing
	away    bool
	pending []func()
}

type chair struct {
	*table
	name string
}

func (c chair) Node() string { return c.name }

func (c chair) Agree(_ context.Context, name string, change func(plugins.Standing) (plugins.Standing, error)) (plugins.Standing, error) {
	if c.away {
		return plugins.Standing{}, fmt.Errorf("%w: away", plugins.ErrNoAgreement)
	}
	old := c.all[name]
	next, err := change(old)
	if err != nil || next.Same(old) {
		return old, err
	}
	next.Rev, next.Node = old.Rev+1, c.name
	if err := next.Check(); err != nil {
		return next, err
	}
	c.all[name] = next
	return next, nil
}

func (c chair) Tell(name string, change func(plugins.Standing) (plugins.Standing, error)) {
	c.pending = append(c.pending, func() { _, _ = c.Agree(context.Background(), name, change) })
}

// told does what waits to be told.
func (t *table) told() {
	for _, f := range t.pending {
		f()
	}
	t.pending = nil
}

// What is decided at one catalog holds at the other once it follows, each decision
// once, and what must not wait does not.
func TestTwoCatalogsAgree(t *testing.T) {
	board := &table{all: map[string]plugins.Standing{}}
	join := func(name string) *world {
		w := newWorld(t)
		w.Join(chair{board, name})
		return w
	}
	a, b := join("a"), join("b")
	both := func(wasm []byte, manifest string) {
		a.drop(wasm, manifest)
		b.drop(wasm, manifest)
	}
	stage := func(w *world) string {
		if k := w.status().Candidate; k != nil {
			return fmt.Sprint(k.Version, " ", k.Stage, k.Percent)
		}
		return w.status().Version
	}
	want := func(what, inA, inB string) {
		t.Helper()
		if gotA, gotB := stage(a), stage(b); gotA != inA || gotB != inB {
			t.Fatalf("%s: got %q and %q, want %q and %q", what, gotA, gotB, inA, inB)
		}
	}
	follow := func(all ...*world) {
		for _, w := range all {
			w.Follow(board.all)
		}
	}
	both(version("v1", abi.Deny), `{"version":"1"}`)
	both(version("v2", abi.Deny), `{"version":"2","rollout":{}}`)
	want("both on trial", "2 shadow5", "2 shadow5")
	a.mustOrder(plugins.Order{Action: plugins.ActionSet, Stage: plugins.StageCanary, Percent: 20})
	want("before b follows", "2 canary20", "2 shadow5")
	if err := b.order(plugins.Order{Action: plugins.ActionPromote}); !errors.Is(err, plugins.ErrNotNow) {
		t.Errorf("an order about what has moved on: got %v, want it refused", err)
	}
	follow(a, b)
	want("b follows", "2 canary20", "2 canary20")
	if a.Digest() != b.Digest() {
		t.Error("two that judge alike have another digest")
	}

	// A rollback while nobody can be told.
	board.away = true
	if err := b.order(plugins.Order{Action: plugins.ActionPromote}); !errors.Is(err, plugins.ErrNotNow) || !errors.Is(err, plugins.ErrNoAgreement) {
		t.Errorf("a promotion: got %v, want it refused", err)
	}
	b.mustOrder(plugins.Order{Action: plugins.ActionRollback, Reason: "odd"})
	follow(a, b)
	want("rolled back on b alone", "2 canary20", "1")
	if err := b.order(plugins.Order{Action: plugins.ActionRetry}); !errors.Is(err, plugins.ErrNoAgreement) {
		t.Errorf("a retry of what was rolled back: got %v, want it refused", err)
	}
	board.away = false
	board.told()
	follow(a, b)
	want("told", "1", "1")
	if r := a.status().LastRollback; r == nil || r.Node != "b" || r.Reason != "odd" || r.By != "olga" {
		t.Errorf("got %+v on a, want b's rollback", r)
	}
	if s := a.Standings()["p"]; s.Stage != plugins.StageEnforce || len(s.Rollbacks) != 1 || s.Check() != nil {
		t.Errorf("got %+v (%v), want v1 in force and v2 kept out", s, s.Check())
	}
	b.restart()
	b.Join(chair{board, "b"})
	follow(b)
	want("after a restart", "1", "1")

	// A retry lets it in on both, from the stage of its manifest.
	a.mustOrder(plugins.Order{Action: plugins.ActionRetry})
	follow(a, b)
	_ = b.Load(t.Context())
	want("retried", "2 shadow5", "2 shadow5")
	b.mustOrder(plugins.Order{Action: plugins.ActionSet, Stage: plugins.StageEnforce})
	follow(a)
	want("in force", "2", "2")
	follow(a, b)
	want("once", "2", "2")

	// A rollback that was not told before the node ended is told when it follows.
	both(version("v3", abi.Deny), `{"version":"3","rollout":{}}`)
	a.mustOrder(plugins.Order{Action: plugins.ActionPromote})
	follow(a, b)
	b.mustOrder(plugins.Order{Action: plugins.ActionRollback})
	board.pending = nil
	b.restart()
	b.Join(chair{board, "b"})
	want("rolled back on b alone", "3 canary5", "2")
	follow(b)
	board.told()
	follow(a)
	want("told after all", "2", "2")
}

// A version in force elsewhere is brought beside one on trial.
func TestInstall(t *testing.T) {
	w := newWorld(t)
	old := plugins.Bundle(version("v1", abi.Deny), []byte(`{"version":"1"}`))
	if err := w.Install(t.Context(), "p", old); !errors.Is(err, plugins.ErrNoPlugin) {
		t.Errorf("without a file in the folder: got %v, want ErrNoPlugin", err)
	}
	w.drop(version("v2", abi.Deny), `{"version":"2","rollout":{}}`)
	if err := w.Install(t.Context(), "p", old); err != nil {
		t.Fatal(err)
	}
	if s := w.status(); s.Version != "1" || s.Candidate == nil || s.Candidate.Version != "2" {
		t.Errorf("got %+v, want v1 in force and v2 on trial", s)
	}
	kept, err := w.Kept(w.status().Source)
	if err != nil || string(kept) != string(old) {
		t.Errorf("got %d bytes, %v, want the bundle back", len(kept), err)
	}
	if _, err := w.Kept("../x"); err == nil {
		t.Error("a path passes for a version")
	}
	w.restart()
	if who, _ := w.say("ann"); who != "v1" {
		t.Errorf("after a restart %s decides, want v1", who)
	}
	w.drop(version("v3", abi.Deny), `{"version":"3"}`)
	if err := w.Install(t.Context(), "p", old); !errors.Is(err, plugins.ErrNotNow) || w.status().Version != "3" {
		t.Errorf("over what the folder has in force: got %v and version %s, want it refused", err, w.status().Version)
	}
	for name, bad := range map[string][]byte{"no bundle": []byte("x"), "no module": plugins.Bundle([]byte("x"), nil), "no manifest": plugins.Bundle(version("v1", abi.Deny), []byte("x"))} {
		if err := w.Install(t.Context(), "p", bad); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
}
