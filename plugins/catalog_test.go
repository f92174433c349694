package plugins_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"parley/core/moderation"
	"parley/plugins"
	"parley/plugins/internal/asm"
	"parley/sdk/abi"
)

// newCatalog returns a catalog of a fresh folder.
func newCatalog(t testing.TB, edit ...func(*plugins.Config)) (*plugins.Catalog, string) {
	t.Helper()
	cfg := plugins.Defaults()
	cfg.Dir = t.TempDir()
	cfg.Watch.Quiet = 5 * time.Millisecond
	for _, f := range edit {
		f(&cfg)
	}
	c, err := plugins.New(cfg, quietLog)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for range 2 {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}
	})
	return c, cfg.Dir
}

// reload loads and returns the error's text.
func reload(t testing.TB, c *plugins.Catalog) string {
	t.Helper()
	if err := c.Load(t.Context()); err != nil {
		return err.Error()
	}
	return ""
}

func names(c *plugins.Catalog) string {
	var out []string
	for _, j := range c.Judges() {
		out = append(out, j.Name())
	}
	return strings.Join(out, " ")
}

func decide(j moderation.Judge, text string) (abi.Verdict, uint64, error) {
	return decideFor(j, "ann", text)
}

func decideFor(j moderation.Judge, user, text string) (abi.Verdict, uint64, error) {
	in := abi.Input{TimeMS: 1, Text: []byte(text), Normalized: []byte(text), User: user, Room: "lobby", Kind: "message"}
	v, _, fuel, err := j.Decide(abi.AppendInput(nil, &in), in.Text, in.Normalized)
	return v, fuel, err
}

func status(t testing.TB, c *plugins.Catalog, name string) plugins.Status {
	t.Helper()
	for _, s := range c.Status() {
		if s.Name == name {
			return s
		}
	}
	t.Fatalf("no status of %s", name)
	return plugins.Status{}
}

func TestCatalogFollowsItsFolder(t *testing.T) {
	c, dir := newCatalog(t)
	deny := always(abi.Deny, &abi.Result{Reason: "no"})

	write(t, dir, "b.wasm", allower())
	write(t, dir, "a.wasm", masker())
	write(t, dir, "notes.txt", []byte("not a plugin"))
	write(t, dir, ".hidden.wasm", []byte("not a plugin either"))
	if err := reload(t, c); err != "" || names(c) != "a b" {
		t.Fatalf("got %q, %s, want a b", names(c), err)
	}
	first := c.Judges()

	// Nothing changed: the very same plugins.
	reload(t, c)
	if c.Judges()[0] != first[0] || c.Judges()[1] != first[1] {
		t.Error("a file that did not change was loaded again")
	}

	// One changed: the other stays.
	write(t, dir, "b.wasm", deny)
	reload(t, c)
	if c.Judges()[0] != first[0] || c.Judges()[1] == first[1] {
		t.Error("want a to stay and b to be new")
	}
	if v, _, err := decide(c.Judges()[1], "x"); v != abi.Deny || err != nil {
		t.Errorf("got %v, %v from the new b, want deny", v, err)
	}
	// Who holds the old one goes on with it.
	if v, _, err := decide(first[1], "x"); v != abi.Allow || err != nil {
		t.Errorf("got %v, %v from the old b, want allow", v, err)
	}

	// A manifest alone is a change too.
	write(t, dir, "b.json", []byte(`{"version":"1.2","kinds":["edit"]}`))
	reload(t, c)
	if got := status(t, c, "b"); got.Version != "1.2" || c.Judges()[1].Wants("lobby", "message") {
		t.Errorf("got %+v, want the manifest in force", got)
	}

	if err := os.Remove(filepath.Join(dir, "a.wasm")); err != nil {
		t.Fatal(err)
	}
	reload(t, c)
	if names(c) != "b" {
		t.Errorf("got %s after a's file went, want b", names(c))
	}
}

func TestBadFileKeepsOldVersion(t *testing.T) {
	c, dir := newCatalog(t)
	good := masker()
	write(t, dir, "m.wasm", good)
	reload(t, c)
	old := c.Judges()[0]
	for _, bad := range []struct {
		name           string
		wasm, manifest []byte
		want           string
	}{
		{"empty", []byte{}, nil, "not a WebAssembly"},
		{"half written", good[:len(good)/2], nil, "refused"},
		{"hostile", guest(asm.Cat(forever, asm.Const64(0)), nil), nil, "out of fuel"},
		{"manifest", good, []byte("{\n\"fual\": 1}"), `m.json: line 2: unknown key "fual"`},
		{"manifest cut", good, []byte(`{"version":`), `m.json: line 1: "version": not JSON`},
		{"manifest of another module", good, []byte(`{"sha256":"` + strings.Repeat("ab", 32) + `"}`), "its manifest says abab"},
	} {
		write(t, dir, "m.wasm", bad.wasm)
		if bad.manifest != nil {
			write(t, dir, "m.json", bad.manifest)
		}
		if err := reload(t, c); !strings.Contains(err, "plugin m: ") || !strings.Contains(err, bad.want) {
			t.Errorf("%s: got %q, want %q", bad.name, err, bad.want)
		}
		if len(c.Judges()) != 1 || c.Judges()[0] != old {
			t.Fatalf("%s: the old version is gone", bad.name)
		}
		s := status(t, c, "m")
		if s.State != plugins.StateActive || !strings.Contains(s.Error, bad.want) || s.RefusedAt.IsZero() {
			t.Errorf("%s: got %+v, want active with the error", bad.name, s)
		}
		if v, _, err := decide(old, "hello!"); v != abi.Redact || err != nil {
			t.Errorf("%s: got %v, %v from the old version", bad.name, v, err)
		}
	}
	// What failed is not tried again until it changes, and the error stays.
	at := status(t, c, "m").RefusedAt
	if err := reload(t, c); err == "" || status(t, c, "m").RefusedAt != at {
		t.Errorf("got %q, refused anew at %v", err, status(t, c, "m").RefusedAt)
	}
	if err := os.Remove(filepath.Join(dir, "m.json")); err != nil {
		t.Fatal(err)
	}
	if err := reload(t, c); err != "" || status(t, c, "m").Error != "" {
		t.Errorf("got %q once the file is good again", err)
	}
}

func TestRefusedWithoutOldVersion(t *testing.T) {
	c, dir := newCatalog(t)
	write(t, dir, "bad.wasm", []byte("nonsense"))
	write(t, dir, "BadName.wasm", allower())
	if err := os.Mkdir(filepath.Join(dir, "folder.wasm"), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, dir, "good.wasm", allower())
	err := reload(t, c)
	for _, want := range []string{"plugin bad: ", `"BadName" is not a plugin name`, "folder.wasm is not a regular file"} {
		if !strings.Contains(err, want) {
			t.Errorf("got %q, want %q in it", err, want)
		}
	}
	if names(c) != "good" {
		t.Errorf("got %s, want good", names(c))
	}
	if s := status(t, c, "bad"); s.State != plugins.StateRefused || s.Error == "" {
		t.Errorf("got %+v, want refused", s)
	}
	if got := c.Stats(); got.Active != 1 || got.Refused != 3 {
		t.Errorf("got %+v, want 1 active, 3 refused", got)
	}
}

// A folder that is misspelt leaves a server without plugins: it says that, and
// not that something stays in force.
func TestUnreadableFolderOfNoPlugins(t *testing.T) {
	var log bytes.Buffer
	cfg := plugins.Defaults()
	cfg.Dir = filepath.Join(t.TempDir(), "plguins")
	c, err := plugins.New(cfg, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Open(t.Context()); err == nil || !strings.Contains(err.Error(), "no plugin judges") || !strings.Contains(err.Error(), cfg.Dir) {
		t.Errorf("got %v, want it to name the folder and say that no plugin judges", err)
	}
	if n := strings.Count(log.String(), "plugin folder cannot be read"); n != 1 {
		t.Errorf("got %d records of it, want 1:\n%s", n, &log)
	}
}

func TestUnreadableFolderKeepsPlugins(t *testing.T) {
	c, dir := newCatalog(t, func(c *plugins.Config) { c.MaxPlugins = 1 })
	write(t, dir, "a.wasm", allower())
	reload(t, c)
	write(t, dir, "b.wasm", allower())
	if err := reload(t, c); !strings.Contains(err, "more than 1 modules") || names(c) != "a" {
		t.Errorf("got %q, %s", err, names(c))
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := reload(t, c); !strings.Contains(err, "open folder") || names(c) != "a" {
		t.Errorf("got %q, %s: deleting the folder must not switch moderation off", err, names(c))
	}
}

func TestLoadCutShort(t *testing.T) {
	c, dir := newCatalog(t)
	write(t, dir, "a.wasm", allower())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Load(ctx); !errors.Is(err, context.Canceled) || names(c) != "" {
		t.Errorf("got %v, %q", err, names(c))
	}
	if err := reload(t, c); err != "" || names(c) != "a" {
		t.Errorf("got %q, %q afterwards", err, names(c))
	}
}

func TestNoFolder(t *testing.T) {
	c, _ := newCatalog(t, func(c *plugins.Config) { c.Dir = "" })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- c.Run(ctx) }()
	if err := reload(t, c); err != "" || len(c.Judges()) != 0 {
		t.Errorf("got %q, %d judges", err, len(c.Judges()))
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run: got %v", err)
	}
	c.Close()
	if err := reload(t, c); !strings.Contains(err, "closed") {
		t.Errorf("got %q after Close", err)
	}
}

// watched runs a catalog and returns a function that waits until a condition
// on it holds; the test's own timeout ends a wait in vain.
func watched(t *testing.T, c *plugins.Catalog) func(func() bool) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	tick := time.NewTicker(time.Millisecond)
	t.Cleanup(tick.Stop)
	return func(ok func() bool) {
		for !ok() {
			<-tick.C
		}
	}
}

func TestRunSeesChanges(t *testing.T) {
	c, dir := newCatalog(t)
	until := watched(t, c)
	write(t, dir, "a.wasm", allower())
	until(func() bool { return names(c) == "a" })
	write(t, dir, "a.wasm", []byte("nonsense"))
	until(func() bool { return status(t, c, "a").Error != "" })
	if names(c) != "a" {
		t.Error("the old version is gone")
	}
	if err := os.Rename(filepath.Join(dir, "a.wasm"), filepath.Join(dir, "b.wasm")); err != nil {
		t.Fatal(err)
	}
	write(t, dir, "b.wasm", masker())
	until(func() bool { return names(c) == "b" })
}

// Decisions go on at full speed while the plugin is swapped again and again:
// none fails, and each is the verdict of a version that was in force.
func TestSwapUnderLoad(t *testing.T) {
	c, dir := newCatalog(t, func(c *plugins.Config) { c.PoolSize = 2 })
	versions := [][]byte{always(abi.Hold, &abi.Result{}), always(abi.Deny, &abi.Result{})}
	write(t, dir, "p.wasm", versions[0])
	reload(t, c)
	var stop atomic.Bool
	var wg sync.WaitGroup
	var asked, seen [256]atomic.Int64
	for range 4 {
		wg.Go(func() {
			for !stop.Load() {
				judges := c.Judges()
				if len(judges) != 1 {
					t.Errorf("got %d judges, want 1", len(judges))
					return
				}
				for range 3 { // the set may be old by now
					v, _, err := decide(judges[0], "hello")
					asked[0].Add(1)
					seen[v].Add(1)
					if err != nil {
						t.Errorf("got %v, %v", v, err)
						return
					}
				}
			}
		})
	}
	for i := range 40 {
		write(t, dir, "p.wasm", versions[(i+1)%2])
		if err := reload(t, c); err != "" {
			t.Error(err)
		}
	}
	stop.Store(true)
	wg.Wait()
	if all := seen[abi.Hold].Load() + seen[abi.Deny].Load(); all != asked[0].Load() {
		t.Errorf("got %d verdicts of %d decisions", all, asked[0].Load())
	}
}

func TestStatus(t *testing.T) {
	c, dir := newCatalog(t, func(c *plugins.Config) { c.FaultLimit = 3 })
	write(t, dir, "t.wasm", trapOn("x"))
	write(t, dir, "t.json", []byte(`{"version":"3","description":"traps","on_error":"open","rooms":["den"],"limits":{"fuel":5000}}`))
	reload(t, c)
	j := c.Judges()[0]
	for i := range 5 {
		decide(j, "hello")
		if i < 2 {
			decideFor(j, fmt.Sprint("ann", i), "x")
		}
	}
	s := status(t, c, "t")
	if s.State != plugins.StateActive || s.Decisions != 7 || s.Faults != 2 || s.Fuel == 0 {
		t.Errorf("got %+v, want active with 7 decisions, 2 faults", s)
	}
	if s.Version != "3" || s.OnError != "open" || s.Limits.Fuel != 5000 || s.Limits.MemoryBytes != 1<<20 || s.LoadedAt.IsZero() || s.Digest != j.Digest() {
		t.Errorf("got %+v, want what the manifest says", s)
	}
	decideFor(j, "bob", "x")
	s = status(t, c, "t")
	if s.State != plugins.StateQuarantined || s.Quarantine == nil || !strings.Contains(s.LastFault, "unreachable") {
		t.Errorf("got %+v, want quarantined after 3 faults", s)
	}
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"name":"t"`, `"state":"quarantined"`, `"on_error":"open"`, `"last_fault":"plugin t: it trapped`, `"limits":{"fuel":5000,"memory_bytes":1048576`} {
		if !strings.Contains(string(b), want) {
			t.Errorf("got %s, want %s in it", b, want)
		}
	}
	if got := c.Stats(); got.Quarantined != 1 || got.Decisions != 8 || got.Faults != 3 {
		t.Errorf("got %+v", got)
	}
}

// A second start compiles nothing and behaves the same; damage in the cache
// costs time, nothing else.
func TestCache(t *testing.T) {
	cache := t.TempDir()
	withCache := func(c *plugins.Config) { c.CacheDir = cache }
	_, _, want, err := ask(mustLoad(t, newHost(t, withCache), masker(), "{}"), "hello!")
	if err != nil {
		t.Fatal(err)
	}
	again := func(what string) {
		t.Helper()
		v, _, fuel, err := ask(mustLoad(t, newHost(t, withCache), masker(), "{}"), "hello!")
		if v != abi.Redact || fuel != want || err != nil {
			t.Errorf("%s: got %v, %d, %v, want redact for %d", what, v, fuel, err, want)
		}
	}
	again("whole")
	damage := func(edit func(path string, b []byte) error) {
		t.Helper()
		files := 0
		err := filepath.WalkDir(cache, func(path string, e os.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return err
			}
			files++
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			return edit(path, b)
		})
		if err != nil || files < 2 {
			t.Fatalf("%d files in the cache, %v", files, err)
		}
	}
	damage(func(path string, b []byte) error { return os.WriteFile(path, b[:len(b)/2], 0o600) })
	again("cut")
	damage(func(path string, b []byte) error {
		b[len(b)-9] ^= 0xff
		return os.WriteFile(path, b, 0o600)
	})
	again("flipped")
	damage(func(path string, _ []byte) error { return os.WriteFile(path, []byte("WAZEVO nonsense"), 0o600) })
	again("nonsense")
}

func TestCheck(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "good.wasm", masker())
	write(t, dir, "good.json", []byte(`{"version":"7"}`))
	write(t, dir, "bad.wasm", []byte("nonsense"))
	s, err := plugins.Check(t.Context(), filepath.Join(dir, "good.wasm"), plugins.Defaults(), quietLog)
	if err != nil || s.State != plugins.StateActive || s.Version != "7" || s.Digest == "" {
		t.Errorf("got %+v, %v", s, err)
	}
	s, err = plugins.Check(t.Context(), filepath.Join(dir, "bad.wasm"), plugins.Defaults(), quietLog)
	if err == nil || s.State != plugins.StateRefused || s.Error != err.Error() {
		t.Errorf("got %+v, %v", s, err)
	}
	if _, err = plugins.Check(t.Context(), filepath.Join(dir, "none.wasm"), plugins.Defaults(), quietLog); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want no such file", err)
	}
	if _, err = plugins.Check(t.Context(), filepath.Join(dir, "good.wasm"), plugins.Config{}, quietLog); err == nil {
		t.Error("got no error for an empty config")
	}
}
