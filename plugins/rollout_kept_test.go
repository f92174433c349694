package plugins_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"parley/plugins"
	"parley/sdk/abi"
)

// revived says what a replaced version judges now, "" if there is no copy.
func (w *world) revived(digest, config string) string {
	w.t.Helper()
	j, release, err := w.Revive(w.t.Context(), "p", digest, config)
	if errors.Is(err, plugins.ErrNotKept) {
		return ""
	}
	if err != nil {
		w.t.Fatal(err)
	}
	defer release()
	if j.Name() != "p" || j.Digest() != digest || j.ConfigDigest() != config {
		w.t.Errorf("got %s %s %s, want the version that was asked for", j.Name(), j.Digest(), j.ConfigDigest())
	}
	in := abi.Input{TimeMS: 1, Text: []byte("hello"), Normalized: []byte("hello"), User: "ann", Room: "lobby", Kind: "message"}
	v, r, _, err := j.Decide(abi.AppendInput(nil, &in), in.Text, in.Normalized)
	if err != nil {
		w.t.Fatal(err)
	}
	return v.String() + " by " + r.Reason
}

// What was decided with a version can be explained when it is gone: after it
// was replaced, after a restart, after its plugin was removed.
func TestReplacedVersionsComeBack(t *testing.T) {
	w := newWorld(t)
	w.drop(version("v1", abi.Flag), "")
	first := w.status().Digest
	if got := w.revived(first, ""); got != "" {
		t.Errorf("got %q of a version in force, want nothing: it is loaded", got)
	}
	w.drop(version("v2", abi.Deny), "")
	second := w.status().Digest
	w.drop(version("v3", abi.Hold), `{"rollout":{"stage":"shadow"}}`)
	third := w.status().Candidate.Digest
	w.mustOrder(plugins.Order{Action: "rollback"})
	for range 2 {
		if got := w.revived(first, ""); got != "flag by v1" {
			t.Errorf("got %q of the first, want it back", got)
		}
		if got := w.revived(third, ""); got != "hold by v3" {
			t.Errorf("got %q of the one rolled back, want it back", got)
		}
		w.restart()
	}
	if got := w.revived(first, third); got != "" {
		t.Errorf("got %q with a config the version never had", got)
	}
	if got := w.revived(second, ""); got != "" {
		t.Errorf("got %q of the one in force", got)
	}
	if err := os.Remove(filepath.Join(w.dir, "p.wasm")); err != nil {
		t.Fatal(err)
	}
	w.restart()
	if got := w.revived(second, ""); got != "deny by v2" {
		t.Errorf("got %q after the plugin was removed, want it back", got)
	}
	// What is in force again is not twice in the books.
	w.drop(version("v1", abi.Flag), "")
	if got := w.revived(first, ""); got != "" {
		t.Errorf("got %q of the one in force again", got)
	}
}

// A server that was replaced by one with another file in the folder did not see
// the version go.
func TestReplacedBetweenTwoRuns(t *testing.T) {
	w := newWorld(t)
	w.drop(version("v1", abi.Flag), "")
	first := w.status().Digest
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	write(t, w.dir, "p.wasm", version("v2", abi.Deny))
	w.open()
	if got := w.revived(first, ""); got != "flag by v1" {
		t.Errorf("got %q, want what was in force before the start", got)
	}
}

func TestReplacedVersionsAreBounded(t *testing.T) {
	kept := func(w *world) (names []string) {
		for i := range 5 {
			name := "v" + string(rune('0'+i))
			w.drop(version(name, abi.Flag), "")
		}
		for i := range 5 {
			name := "v" + string(rune('0'+i))
			p := mustLoad(t, newHost(t), version(name, abi.Flag), "{}")
			if w.revived(p.Digest(), "") != "" {
				names = append(names, name)
			}
		}
		return names
	}
	size := int64(len(version("v0", abi.Flag)))
	for _, c := range []struct {
		name  string
		rules plugins.Replaced
		want  int
	}{
		{"no bound reached", plugins.Replaced{Count: 9, Bytes: 1 << 20}, 4},
		{"count", plugins.Replaced{Count: 2, Bytes: 1 << 20}, 2},
		{"bytes", plugins.Replaced{Count: 9, Bytes: 3*size + size/2}, 3},
		{"none", plugins.Replaced{}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, func(cfg *plugins.Config) { cfg.Replaced = c.rules })
			names := kept(w)
			if len(names) != c.want || c.want > 0 && names[len(names)-1] != "v3" {
				t.Errorf("got %v kept, want the newest %d of v0 to v3", names, c.want)
			}
			if got := len(files(t, filepath.Join(w.state, "versions"))); got != c.want+1 {
				t.Errorf("got %d files, want those %d and the one in force", got, c.want)
			}
		})
	}
}

// Copies go when the evidence has gone, without anything else happening.
func TestReplacedVersionsExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(cfg *plugins.Config) { cfg.Replaced.For = time.Hour; cfg.Watch.Poll = true })
		w.drop(version("v1", abi.Flag), "")
		first := w.status().Digest
		w.drop(version("v2", abi.Flag), "")
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- w.Run(ctx) }()
		<-time.After(59 * time.Minute)
		if w.revived(first, "") == "" {
			t.Error("it went too early")
		}
		<-time.After(12 * time.Minute)
		if w.revived(first, "") != "" || len(files(t, filepath.Join(w.state, "versions"))) != 1 {
			t.Error("it did not go")
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// A copy that is damaged is not judged with.
func TestDamagedReplacedVersion(t *testing.T) {
	w := newWorld(t)
	w.drop(version("v1", abi.Flag), "")
	first := w.status().Digest
	w.drop(version("v2", abi.Flag), "")
	for _, f := range files(t, filepath.Join(w.state, "versions")) {
		if err := os.WriteFile(f, []byte("nonsense"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := w.Revive(t.Context(), "p", first, ""); err == nil || errors.Is(err, plugins.ErrNotKept) {
		t.Errorf("got %v, want the damage named", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := w.Revive(ctx, "p", first, ""); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v after the end of the context, want its error", err)
	}
}
