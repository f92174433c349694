package plugins_test

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"parley/core/chat"
	"parley/core/moderation"
	"parley/plugins"
	"parley/sdk/abi"
)

// children lets a test decide when the child processes that try modules work:
// as long as the file it returns is there.
func children(t testing.TB) (cfg func(*plugins.Config), works string) {
	t.Helper()
	works = filepath.Join(t.TempDir(), "works")
	cache, child := t.TempDir(), buildTrial(t)
	script := fmt.Sprintf("if [ -e '%s' ]; then exec '%s'; fi; kill -9 $$", works, child)
	return func(c *plugins.Config) {
		c.CacheDir = cache
		c.Trial.InProcess, c.Trial.Command = false, []string{"/bin/sh", "-c", script}
		c.Retry = plugins.Retry{First: time.Millisecond, Most: 2 * time.Millisecond}
	}, works
}

func touch(t testing.TB, path string) { write(t, filepath.Dir(path), filepath.Base(path), nil) }

func remove(t testing.TB, path string) {
	t.Helper()
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
}

// verdicts says what becomes of a message.
func (w *world) verdict() string {
	w.t.Helper()
	who, r := w.say("ann")
	if r.Failed {
		return r.Verdict.String() + " by failure"
	}
	return r.Verdict.String() + " by " + who
}

// A trial that failed for reasons of the machine is tried again until the
// machine is well, without a change of the files.
func TestTroubleIsTriedAgain(t *testing.T) {
	cfg, works := children(t)
	w := newWorld(t, cfg)
	until := watched(t, w.Catalog)
	w.drop(version("v1", abi.Flag), "")
	until(func() bool { return w.status().Tries >= 3 })
	s := w.status()
	if s.State != plugins.StateRefused || s.RetryAt.IsZero() || !strings.Contains(s.Error, "signal: killed") || !w.log.has("it will be tried again") {
		t.Errorf("got %+v, want it waiting", s)
	}
	touch(t, works)
	until(func() bool { return w.status().State == plugins.StateActive })
	if s := w.status(); s.Error != "" || !s.RetryAt.IsZero() || s.Tries != 0 || w.verdict() != "flag by v1" {
		t.Errorf("got %+v and %s, want it in force", s, w.verdict())
	}
}

// Between two tries nothing happens, and an operator need not wait.
func TestTroubleWaits(t *testing.T) {
	cfg, works := children(t)
	w := newWorld(t, cfg, func(c *plugins.Config) { c.Retry = plugins.Retry{First: time.Hour, Most: time.Hour} })
	w.drop(version("v1", abi.Flag), "")
	first := w.status()
	if wait := time.Until(first.RetryAt); first.Tries != 1 || wait < 40*time.Minute || wait > 80*time.Minute {
		t.Fatalf("got %+v, want it tried again in an hour or so", first)
	}
	_ = w.Load(t.Context())
	if s := w.status(); s.Tries != 1 || !s.RetryAt.Equal(first.RetryAt) {
		t.Errorf("got %+v, want no second try yet", s)
	}
	if err := w.order(plugins.Order{Action: "retry"}); !errors.Is(err, plugins.ErrNotNow) || !strings.Contains(err.Error(), "killed") {
		t.Errorf("got %v, want the second try to have failed", err)
	}
	touch(t, works)
	w.mustOrder(plugins.Order{Action: "retry"})
	if got := w.verdict(); got != "flag by v1" {
		t.Errorf("got %s after an ordered retry", got)
	}
	// Changed files are tried at once.
	remove(t, works)
	w.drop(version("v2", abi.Flag), "")
	touch(t, works)
	w.drop(version("v3", abi.Flag), "")
	if got := w.verdict(); got != "flag by v3" {
		t.Errorf("got %s after the file was changed", got)
	}
}

// What was in force judges while the version in the folder waits, also after a
// restart.
func TestTroubleKeepsWhatWasInForce(t *testing.T) {
	cfg, works := children(t)
	w := newWorld(t, cfg)
	touch(t, works)
	w.drop(version("v1", abi.Flag), "")
	remove(t, works)
	w.drop(version("v2", abi.Hold), "")
	for range 3 {
		if s := w.status(); s.State != plugins.StateActive || s.RetryAt.IsZero() || w.verdict() != "flag by v1" {
			t.Fatalf("got %+v and %s, want v1 in force and v2 waiting", s, w.verdict())
		}
		w.restart()
	}
	touch(t, works)
	w.restart()
	if got := w.verdict(); got != "hold by v2" {
		t.Errorf("got %s once the machine is well", got)
	}
}

// Nothing can be loaded at start: messages are treated as on_error says, that of
// the version in force before, until it loads. Nothing is forgotten over it.
func TestAbsentAtStart(t *testing.T) {
	for _, c := range []struct{ manifest, state, absent string }{
		{`{"on_error":"closed","rooms":["lob*"]}`, plugins.StateAbsent, "deny by failure"},
		{`{"on_error":"hold"}`, plugins.StateAbsent, "hold by failure"},
		{``, plugins.StateAbsent, "deny by failure"}, // the server's default
		{`{"on_error":"open"}`, plugins.StateRefused, "allow by nobody"},
	} {
		t.Run(c.manifest, func(t *testing.T) {
			cfg, works := children(t)
			cache := ""
			w := newWorld(t, cfg, func(c *plugins.Config) { cache = c.CacheDir })
			touch(t, works)
			w.drop(version("v1", abi.Flag), c.manifest)
			if got := w.verdict(); got != "flag by v1" {
				t.Fatal(got)
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			remove(t, cache) // another version of the server would not know its trials either
			remove(t, works)
			for range 2 {
				w.open()
				if s := w.status(); s.State != c.state || s.RetryAt.IsZero() || !strings.Contains(s.Error, "killed") {
					t.Errorf("got %+v, want it %s", s, c.state)
				}
				if got := w.verdict(); got != c.absent {
					t.Errorf("got %s, want %s", got, c.absent)
				}
				if err := w.Close(); err != nil {
					t.Fatal(err)
				}
			}
			w.open()
			until := watched(t, w.Catalog)
			touch(t, works)
			until(func() bool { return w.status().State == plugins.StateActive })
			if got := w.verdict(); got != "flag by v1" {
				t.Errorf("got %s once it is loaded", got)
			}
		})
	}
}

// What an operator promoted is in force again after a start that could not
// load it, although its manifest says shadow.
func TestAbsentKeepsItsStage(t *testing.T) {
	cfg, works := children(t)
	cache := ""
	w := newWorld(t, cfg, func(c *plugins.Config) { cache = c.CacheDir })
	touch(t, works)
	w.drop(version("v1", abi.Flag), "")
	w.drop(version("v2", abi.Hold), `{"rollout":{"stage":"shadow"}}`)
	fresh := func() {
		t.Helper()
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		remove(t, cache)
		remove(t, works)
		w.open()
	}
	w.mustOrder(plugins.Order{Action: "set", Stage: "canary", Percent: 50})
	fresh()
	if s := w.status(); s.State != plugins.StateAbsent || s.Candidate != nil || w.verdict() != "deny by failure" {
		t.Fatalf("got %+v, want nothing loaded", s)
	}
	touch(t, works)
	w.mustOrder(plugins.Order{Action: "retry"})
	if s := w.status(); s.State != plugins.StateActive || s.Candidate == nil || s.Candidate.Stage != "canary" || s.Candidate.Percent != 50 {
		t.Fatalf("got %+v, want v1 in force and v2 a canary again", s)
	}
	w.mustOrder(plugins.Order{Action: "promote"})
	fresh()
	touch(t, works)
	w.mustOrder(plugins.Order{Action: "retry"})
	if s := w.status(); s.Candidate != nil || w.verdict() != "hold by v2" {
		t.Errorf("got %+v and %s, want v2 in force", s, w.verdict())
	}
}

// A file that is refused for good: what was in force goes on; where nothing was,
// a manifest that can be read and says closed or hold closes the room.
func TestRefusedForGood(t *testing.T) {
	trusted, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	_, stranger, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	bad := []byte("nonsense")
	signed := string(plugins.Sign(manifest(t, `{"on_error":"closed"}`), bad, stranger).JSON())
	for _, c := range []struct {
		name, manifest string
		edit           func(*plugins.Config)
		want           string
	}{
		{"says nothing", ``, nil, "allow by nobody"},
		{"says open", `{"on_error":"open"}`, nil, "allow by nobody"},
		{"says closed", `{"on_error":"closed"}`, nil, "deny by failure"},
		{"says hold", `{"on_error":"hold"}`, nil, "hold by failure"},
		{"closed elsewhere", `{"on_error":"closed","rooms":["den"]}`, nil, "allow by nobody"},
		{"closed for other kinds", `{"on_error":"closed","kinds":["nick"]}`, nil, "allow by nobody"},
		{"closed, in shadow", `{"on_error":"closed","rollout":{"stage":"shadow"}}`, nil, "allow by nobody"},
		{"closed, cannot be read", `{"on_error":"closed","x":1}`, nil, "allow by nobody"},
		{"closed, says a stranger", signed, nil, "deny by failure"},
		{"closed, says a stranger where signatures count", signed, func(c *plugins.Config) {
			c.RequireSignature, c.TrustedKeys = true, append(c.TrustedKeys, trusted)
		}, "allow by nobody"},
	} {
		t.Run(c.name, func(t *testing.T) {
			edits := []func(*plugins.Config){}
			if c.edit != nil {
				edits = append(edits, c.edit)
			}
			w := newWorld(t, edits...)
			w.drop(bad, c.manifest)
			if s := w.status(); s.Error == "" || !s.RetryAt.IsZero() || w.verdict() != c.want {
				t.Errorf("got %+v and %s, want %s", s, w.verdict(), c.want)
			}
			if c.edit != nil {
				return
			}
			w.drop(version("v1", abi.Flag), "")
			w.drop(bad, c.manifest)
			for range 2 {
				if got := w.verdict(); got != "flag by v1" || w.status().Error == "" || !w.log.has("plugin refused") {
					t.Errorf("got %s and %+v, want what was in force", got, w.status())
				}
				w.restart()
			}
		})
	}
}

// The absent one is a plugin like others: it is listed, recorded and counted, and
// a policy that asks for it by name gets its on_error.
func TestAbsentIsSeen(t *testing.T) {
	w := newWorld(t)
	w.drop([]byte("nonsense"), `{"on_error":"hold","version":"7","kinds":["message"]}`)
	r, err := w.stage.Judge(t.Context(), &moderation.Message{Room: "lobby", User: "ann", Kind: "message", Text: "x"}, []string{"p"})
	if err != nil || r.Verdict != abi.Hold || len(r.Records) != 1 {
		t.Fatalf("got %+v, %v", r, err)
	}
	if rec := r.Records[0]; rec.Plugin != "p" || rec.Version != "7" || rec.Err == nil || !strings.Contains(rec.Err.Error(), "not loaded") {
		t.Errorf("got %+v, want the reason recorded", rec)
	}
	if s := w.status(); s.State != plugins.StateAbsent || s.OnError != "hold" || !slices.Equal(s.Kinds, []string{"message"}) || w.Stats().Absent != 1 {
		t.Errorf("got %+v, want it absent", s)
	}
	if got := counters(w).Unasked; got != 1 {
		t.Errorf("got %d messages unasked, want 1", got)
	}
	if err := os.Remove(filepath.Join(w.dir, "p.wasm")); err != nil {
		t.Fatal(err)
	}
	_ = w.Load(t.Context())
	if got := w.verdict(); got != "allow by nobody" {
		t.Errorf("got %s once its file is gone", got)
	}
}

// A canary decides about its people while the version in force is absent, and
// where it fails nobody is let pass for it.
func TestAbsentBesideACanary(t *testing.T) {
	w := newWorld(t)
	w.drop(version("v1", abi.Flag), "")
	w.drop(trapOn("x"), `{"rollout":{"stage":"canary","percent":50,`+lax+`}}`)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for _, f := range files(t, filepath.Join(w.state, "versions")) {
		if b, err := os.ReadFile(f); err == nil && strings.Contains(string(b), "v1") {
			remove(t, f)
		}
	}
	w.open()
	n := map[string]int{}
	for i := range 200 {
		_, r := w.say(fmt.Sprintf("user%d", i))
		n[r.Verdict.String()]++
	}
	if n["allow"] < 50 || n["deny"] < 50 || n["allow"]+n["deny"] != 200 {
		t.Errorf("got %v, want half of them judged by the canary and the others refused", n)
	}
	for i := range 20 {
		r, err := w.stage.Judge(t.Context(), &moderation.Message{Room: "lobby", User: chat.UserID(fmt.Sprint("user", i)), Kind: "message", Text: "x"}, nil)
		if err != nil || r.Verdict != abi.Deny || !r.Failed {
			t.Fatalf("got %+v, %v, want nobody let pass", r, err)
		}
	}
}

// Open tries strangers for a while only, knows what it knows, and leaves what
// another version judges for later.
func TestOpen(t *testing.T) {
	cfg, works := children(t)
	touch(t, works)
	dir, state := t.TempDir(), t.TempDir()
	open := func(edit ...func(*plugins.Config)) *plugins.Catalog {
		t.Helper()
		c := plugins.Defaults()
		c.Dir, c.StateDir = dir, state
		for _, f := range append([]func(*plugins.Config){cfg}, edit...) {
			f(&c)
		}
		catalog, err := plugins.New(c, quietLog)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { catalog.Close() })
		_ = catalog.Open(t.Context())
		return catalog
	}
	states := func(c *plugins.Catalog) string {
		var out []string
		for _, s := range c.Status() {
			out = append(out, s.Name+" "+s.State+map[bool]string{true: " waits"}[!s.RetryAt.IsZero()])
		}
		return strings.Join(out, ", ")
	}
	write(t, dir, "a.wasm", version("a1", abi.Flag))
	write(t, dir, "b.wasm", version("b1", abi.Flag))
	c := open()
	if got := states(c); got != "a active, b active" {
		t.Fatalf("got %s at the first start, want both tried", got)
	}
	c.Close()
	// A child that never ends: a is known, c is new, b has a new version.
	write(t, dir, "b.wasm", version("b2", abi.Deny))
	write(t, dir, "c.wasm", version("c1", abi.Flag))
	write(t, dir, "c.json", []byte(`{"on_error":"closed"}`))
	c = open(func(c *plugins.Config) {
		c.Trial.Command, c.StartTrials = []string{"/bin/sh", "-c", "exec cat /dev/zero >/dev/null"}, 200*time.Millisecond
	})
	if got := states(c); got != "a active, b active waits, c absent waits" {
		t.Errorf("got %s, want a and the old b in force and c missed", got)
	}
	if v, _, err := decide(c.Judges()[1], "x"); v != abi.Flag || err != nil {
		t.Errorf("got %v, %v from b, want what was in force", v, err)
	}
	// The end of Run stops the trial at once.
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- c.Run(ctx) }()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for len(trying(t, cfg)) == 0 {
		<-tick.C
	}
	began := time.Now()
	cancel()
	if err := <-done; err != nil || time.Since(began) > 10*time.Second {
		t.Errorf("got %v after %v, want the trial stopped", err, time.Since(began))
	}
	c.Close()
	c = open()
	until := watched(t, c)
	until(func() bool { return states(c) == "a active, b active, c active" })
	if v, _, err := decide(c.Judges()[1], "x"); v != abi.Deny || err != nil {
		t.Errorf("got %v, %v from b, want the new version", v, err)
	}
}

// trying lists the children at work.
func trying(t *testing.T, cfg func(*plugins.Config)) []os.DirEntry {
	t.Helper()
	var c plugins.Config
	cfg(&c)
	entries, err := os.ReadDir(filepath.Join(c.CacheDir, "trying"))
	if err != nil {
		t.Fatal(err)
	}
	return entries
}

// One file too many does not keep the others from loading.
func TestTooManyPlugins(t *testing.T) {
	c, dir := newCatalog(t, func(c *plugins.Config) { c.MaxPlugins = 2 })
	write(t, dir, "m.wasm", allower())
	write(t, dir, "z.wasm", allower())
	if err := reload(t, c); err != "" {
		t.Fatal(err)
	}
	write(t, dir, "a.wasm", allower())
	for i := range 80 {
		write(t, dir, fmt.Sprintf("b%02d.wasm", i), []byte("not even a module"))
	}
	err := reload(t, c)
	if !strings.Contains(err, "plugin a: the folder has more than 2 modules (plugins.max)") || !strings.Contains(err, "17 modules more") || names(c) != "m z" {
		t.Errorf("got %q, %s: want those in force to stay, and the others named", err, names(c))
	}
	if got := len(c.Status()); got != 2+64 {
		t.Errorf("got %d plugins listed, want 66", got)
	}
	if err := os.Remove(filepath.Join(dir, "m.wasm")); err != nil {
		t.Fatal(err)
	}
	if reload(t, c); names(c) != "a z" {
		t.Errorf("got %s once there is room, want the first by name", names(c))
	}
	// At start: the first by name, and one that was in force before all others.
	w := newWorld(t, func(c *plugins.Config) { c.MaxPlugins = 1 })
	w.drop(version("v1", abi.Flag), "")
	write(t, w.dir, "a.wasm", version("a", abi.Flag))
	w.restart()
	if got := names(w.Catalog); got != "p" {
		t.Errorf("got %s after a restart, want the one that was in force", got)
	}
	if w.drop(version("v1", abi.Flag), ""); status(t, w.Catalog, "a").State != plugins.StateRefused {
		t.Error("the other one is not refused")
	}
}
