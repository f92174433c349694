package plugins_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"parley/core/chat"
	"parley/core/moderation"
	"parley/plugins"
	"parley/sdk/abi"
)

// world is a catalog with the stage that asks it, on folders that outlive it.
type world struct {
	*plugins.Catalog
	t          testing.TB
	edit       []func(*plugins.Config)
	stage      *moderation.Stage
	dir, state string
	log        *syncBuffer
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) has(s string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Contains(b.b.String(), s)
}

func newWorld(t testing.TB, edit ...func(*plugins.Config)) *world {
	w := &world{t: t, edit: edit, dir: t.TempDir(), state: t.TempDir(), log: &syncBuffer{}}
	w.open()
	t.Cleanup(func() { w.Close() })
	return w
}

// open starts the catalog, as the server does.
func (w *world) open() {
	w.t.Helper()
	cfg := plugins.Defaults()
	cfg.Dir, cfg.StateDir = w.dir, w.state
	cfg.Watch.Quiet = 5 * time.Millisecond
	for _, f := range w.edit {
		f(&cfg)
	}
	var err error
	if w.Catalog, err = plugins.New(cfg, slog.New(slog.NewTextHandler(w.log, nil))); err != nil {
		w.t.Fatal(err)
	}
	if w.stage, err = moderation.New(moderation.Defaults(), w.Catalog); err != nil {
		w.t.Fatal(err)
	}
	_ = w.Load(w.t.Context()) // tests look at Status
}

// restart ends the catalog and starts another one on the same folders.
func (w *world) restart() {
	w.t.Helper()
	if err := w.Close(); err != nil {
		w.t.Fatal(err)
	}
	w.open()
}

// version is a module whose verdict's reason names it.
func version(name string, v abi.Verdict) []byte { return always(v, &abi.Result{Reason: name}) }

// drop installs a version of p and loads it; a manifest comes first, so that no
// reload sees the module without it.
func (w *world) drop(wasm []byte, manifest string) {
	w.t.Helper()
	if manifest == "" {
		_ = os.Remove(filepath.Join(w.dir, "p.json"))
	} else {
		write(w.t, w.dir, "p.json", []byte(manifest))
	}
	write(w.t, w.dir, "p.wasm", wasm)
	_ = w.Load(w.t.Context())
}

func (w *world) status() plugins.Status { return status(w.t, w.Catalog, "p") }

// say has user's message judged and returns the versions that decided about it,
// or "nobody".
func (w *world) say(user string) (string, moderation.Result) {
	w.t.Helper()
	r, err := w.stage.Judge(w.t.Context(), &moderation.Message{Room: "lobby", User: chat.UserID(user), Kind: "message", Text: "hello"}, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	var who []string
	for _, reason := range r.Reasons {
		who = append(who, reason.Text)
	}
	if len(who) == 0 {
		return "nobody", r
	}
	return strings.Join(who, "+"), r
}

func (w *world) order(o plugins.Order) error {
	o.By = "olga"
	return w.Steer(w.t.Context(), "p", o)
}

func (w *world) mustOrder(o plugins.Order) {
	w.t.Helper()
	if err := w.order(o); err != nil {
		w.t.Fatal(err)
	}
}

// decidedBy counts who decides about 400 people.
func (w *world) decidedBy() map[string]int {
	w.t.Helper()
	n := make(map[string]int)
	for i := range 400 {
		who, _ := w.say(fmt.Sprintf("user%d", i))
		n[who]++
	}
	return n
}

const lax = `"guards":{"error_rate":0,"deny_rate":0,"disagreement":0}`

// The whole way of a version: shadow, canary, more canary, in force, across
// restarts.
func TestRolloutToTheEnd(t *testing.T) {
	w := newWorld(t)
	w.drop(version("v1", abi.Flag), "")
	w.drop(version("v2", abi.Hold), `{"version":"2","rollout":{"stage":"shadow",`+lax+`}}`)

	for round := range 2 {
		if got := w.decidedBy(); got["v1"] != 400 {
			t.Fatalf("in shadow: got %v, want v1 to decide about all", got)
		}
		_, r := w.say("ann")
		if len(r.Records) != 2 || r.Records[1].Part != moderation.Shadow || r.Records[1].Verdict != abi.Hold {
			t.Fatalf("got %+v, want the shadow recorded", r.Records)
		}
		s := w.status()
		if k := s.Candidate; s.State != plugins.StateActive || k == nil || k.Stage != "shadow" || k.Version != "2" || k.Compared != 401 || k.Disagreed != 401 || k.Decisions != 401 {
			t.Fatalf("got %+v with %+v, want 401 messages compared", s, k)
		}
		if round == 0 {
			w.restart()
		}
	}

	w.mustOrder(plugins.Order{Action: "set", Stage: "canary", Percent: 10, Reason: "looks good"})
	first := w.decidedBy()
	if first["v2"] < 15 || first["v2"] > 80 || first["v1"]+first["v2"] != 400 {
		t.Fatalf("at 10 percent: got %v", first)
	}
	w.restart()
	if again := w.decidedBy(); again["v2"] != first["v2"] {
		t.Errorf("after a restart: got %v, want the canary to stay at %v", again, first)
	}
	if k := w.status().Candidate; k.Stage != "canary" || k.Percent != 10 || k.Compared != uint64(first["v2"]) {
		t.Errorf("got %+v, want what the canary decided compared with v1", k)
	}
	w.mustOrder(plugins.Order{Action: "set", Percent: 40})
	if more := w.decidedBy(); more["v2"] < 2*first["v2"] || more["v1"]+more["v2"] != 400 {
		t.Errorf("at 40 percent: got %v, at 10 %v", more, first)
	}
	w.mustOrder(plugins.Order{Action: "promote"})
	for range 2 {
		if got := w.decidedBy(); got["v2"] != 400 {
			t.Fatalf("once promoted: got %v", got)
		}
		if s := w.status(); s.Candidate != nil || s.Version != "2" || s.State != plugins.StateActive {
			t.Errorf("got %+v, want version 2 in force and nothing on trial", s)
		}
		w.restart() // the file still says shadow
	}
	if !w.log.has("by=olga reason=\"looks good\"") {
		t.Error("the log does not say who moved the rollout and why")
	}
	files, err := os.ReadDir(filepath.Join(w.state, "versions"))
	if err != nil || len(files) != 3 {
		t.Errorf("got %d files kept, %v, want those of version 2 and the module of the one it replaced", len(files), err)
	}
}

// A version that denies everything takes itself back, stays back, and is tried
// again when somebody says so.
func TestRolloutRollsBack(t *testing.T) {
	for _, stage := range []string{"shadow", "canary"} {
		t.Run(stage, func(t *testing.T) {
			w := newWorld(t)
			w.drop(version("v1", abi.Flag), "")
			manifest := `{"version":"3","rollout":{"stage":"` + stage + `","percent":50}}`
			w.drop(version("v3", abi.Deny), manifest)
			denied := 0
			for i := range 400 {
				if who, _ := w.say(fmt.Sprintf("user%d", i)); who == "v3" {
					denied++
				}
			}
			// 20 % of 100: the 21st denial is one too many; so is the 21st difference.
			if want := map[string]int{"shadow": 0, "canary": 21}[stage]; denied != want {
				t.Errorf("got %d messages denied, want %d", denied, want)
			}
			taken := func() {
				t.Helper()
				s := w.status()
				if r := s.LastRollback; s.Candidate != nil || s.State != plugins.StateActive || r == nil || r.By != "guard" || r.Stage != stage || r.Version != "3" ||
					!strings.Contains(r.Reason, "deny_rate: 21 of 21 decisions were denials") || !strings.Contains(s.Error, r.Reason) {
					t.Fatalf("got %+v with %+v, want it rolled back for its denials", s, r)
				}
				if who, _ := w.say("ann"); who != "v1" {
					t.Fatalf("got %s, want v1 to decide", who)
				}
			}
			taken()
			if !w.log.has("plugin rolled back") {
				t.Error("the log does not say so")
			}
			w.restart()
			taken()
			// Whatever else the manifest says, and however it is dropped.
			w.drop(version("v3", abi.Deny), `{"version":"3","description":"again","rollout":{"stage":"canary","percent":100}}`)
			taken()
			w.drop(version("v3", abi.Deny), "")
			taken()
			if err := os.Remove(filepath.Join(w.dir, "p.wasm")); err != nil {
				t.Fatal(err)
			}
			_ = w.Load(t.Context())
			w.restart()
			w.drop(version("v3", abi.Deny), manifest)
			if s := w.status(); s.State != plugins.StateRefused || !strings.Contains(s.Error, "rolled back") {
				t.Fatalf("got %+v after the file was removed and copied again", s)
			}
			w.drop(version("v1", abi.Flag), "")
			w.drop(version("v3", abi.Deny), manifest)
			taken()
			w.mustOrder(plugins.Order{Action: "retry", Reason: "I meant it"})
			if k := w.status().Candidate; k == nil || k.Stage != stage {
				t.Errorf("got %+v after a retry, want it on trial again", k)
			}
			if c := counters(w); c.Rollbacks != 0 && c.Rollbacks != 1 {
				t.Errorf("got %+v", c)
			}
		})
	}
}

func counters(w *world) plugins.Counters { return w.Counters()[0] }

// A version on trial that breaks never decides about a message.
func TestRolloutFaultsHurtNobody(t *testing.T) {
	for _, stage := range []string{"shadow", "canary"} {
		for _, old := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, old %v", stage, old), func(t *testing.T) {
				w := newWorld(t)
				want := "nobody"
				if old {
					w.drop(version("v1", abi.Flag), "")
					want = "v1"
				}
				w.drop(trapOn("hello"), `{"rollout":{"stage":"`+stage+`","percent":100,`+lax+`}}`)
				for i := range 10 {
					if who, r := w.say(fmt.Sprint("ann", i)); who != want || r.Failed {
						t.Fatalf("got %s, failed %v, want %s", who, r.Failed, want)
					}
				}
				s := w.status()
				if r := s.LastRollback; r == nil || !strings.Contains(r.Reason, "quarantine after it failed at messages of 5 people") || !strings.Contains(r.Reason, "unreachable") {
					t.Errorf("got %+v, want it rolled back for its faults", r)
				}
				if c := counters(w); c.Usage[1].Verdicts["error"] != 5 || c.Rollbacks != 1 {
					t.Errorf("got %+v", c)
				}
			})
		}
	}
}

// Without a version in force there is nothing to compare with and nobody to
// stand in.
func TestRolloutOfTheFirstVersion(t *testing.T) {
	w := newWorld(t)
	w.drop(version("v1", abi.Flag), `{"rollout":{"stage":"shadow",`+lax+`}}`)
	if got := w.decidedBy(); got["nobody"] != 400 {
		t.Errorf("in shadow: got %v", got)
	}
	if s := w.status(); s.State != plugins.StateTrial || s.Candidate.Decisions != 400 || s.Candidate.Compared != 0 {
		t.Errorf("got %+v, want it on trial alone", s)
	}
	w.mustOrder(plugins.Order{Action: "promote"})
	if got := w.decidedBy(); got["v1"] < 4 || got["v1"] > 50 || got["v1"]+got["nobody"] != 400 {
		t.Errorf("in canary at 5 percent: got %v", got)
	}
	w.mustOrder(plugins.Order{Action: "rollback", Reason: "changed my mind"})
	if s := w.status(); s.State != plugins.StateRefused || s.LastRollback.By != "olga" || s.LastRollback.Reason != "changed my mind" {
		t.Errorf("got %+v with %+v", s, s.LastRollback)
	}
}

func TestOrders(t *testing.T) {
	w := newWorld(t)
	w.drop(version("v1", abi.Flag), "")
	for _, c := range []struct {
		name string
		o    plugins.Order
		want error
		text string
	}{
		{"nothing on trial", plugins.Order{Action: "promote"}, plugins.ErrNotNow, "no version on trial"},
		{"nothing to retry", plugins.Order{Action: "retry"}, plugins.ErrNotNow, "were not rolled back"},
		{"no action", plugins.Order{}, plugins.ErrOrder, "want promote"},
		{"long reason", plugins.Order{Action: "promote", Reason: strings.Repeat("x", 1025)}, plugins.ErrOrder, "1024"},
	} {
		if err := w.order(c.o); !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.text)
		}
	}
	if err := w.Steer(t.Context(), "q", plugins.Order{Action: "promote", By: "olga"}); !errors.Is(err, plugins.ErrNoPlugin) {
		t.Errorf("got %v for a plugin there is not", err)
	}
	if err := w.Steer(t.Context(), "p", plugins.Order{Action: "promote"}); !errors.Is(err, plugins.ErrOrder) {
		t.Errorf("got %v for an order by nobody", err)
	}
	w.drop(version("v2", abi.Flag), `{"rollout":{"stage":"shadow"}}`)
	for _, o := range []plugins.Order{{Action: "set", Stage: "half"}, {Action: "set", Percent: 101}, {Action: "set", Percent: -1}} {
		if err := w.order(o); !errors.Is(err, plugins.ErrOrder) {
			t.Errorf("got %v for %+v", err, o)
		}
	}
	w.mustOrder(plugins.Order{Action: "set", Stage: "enforce"})
	if who, _ := w.say("ann"); who != "v2" {
		t.Errorf("got %s, want v2 enforced at once", who)
	}
	// The old files come back while another version is on trial.
	w.drop(version("v3", abi.Flag), `{"rollout":{"stage":"canary"}}`)
	w.drop(version("v2", abi.Flag), `{"rollout":{"stage":"shadow"}}`)
	if s := w.status(); s.Candidate != nil || s.Error != "" {
		t.Errorf("got %+v, want the version in force and no trial", s)
	}
}

// A broken file does not end a trial, also across a restart.
func TestBrokenFileKeepsTheTrial(t *testing.T) {
	w := newWorld(t)
	w.drop(version("v1", abi.Flag), "")
	w.drop(version("v2", abi.Hold), `{"rollout":{"stage":"canary","percent":100,`+lax+`}}`)
	w.drop([]byte("nonsense"), `{"rollout":{"stage":"canary"}}`)
	for range 2 {
		if who, _ := w.say("ann"); who != "v2" {
			t.Errorf("got %s, want v2 still on trial", who)
		}
		if s := w.status(); s.State != plugins.StateActive || s.Candidate == nil || s.Error == "" {
			t.Errorf("got %+v", s)
		}
		w.restart()
	}
}

// A rollout that moves while files are being read does not leave another version
// in force than they say.
func TestMovedWhileReading(t *testing.T) {
	trial := `{"rollout":{"stage":"shadow"}}`
	w := newWorld(t)
	w.drop(version("v1", abi.Flag), "")
	w.drop(version("v2", abi.Flag), trial)
	write(t, w.dir, "p.wasm", version("v1", abi.Flag)) // the trial is to end
	if err := os.Remove(filepath.Join(w.dir, "p.json")); err != nil {
		t.Fatal(err)
	}
	place := w.Look(t.Context(), "p")
	w.mustOrder(plugins.Order{Action: "promote"})
	w.mustOrder(plugins.Order{Action: "promote"})
	place()
	_ = w.Load(t.Context())
	if who, _ := w.say("ann"); who != "v1" || w.status().Candidate != nil {
		t.Errorf("got %s, %+v, want the version of the folder in force", who, w.status())
	}

	write(t, w.dir, "p.json", []byte(trial))
	w.drop(version("v3", abi.Flag), trial)
	write(t, w.dir, "p.wasm", []byte("x"))
	if _ = w.Load(t.Context()); w.status().Candidate == nil {
		t.Fatal("a file that is refused ended the trial")
	}
	write(t, w.dir, "p.wasm", version("v3", abi.Flag)) // goes on with its trial
	place = w.Look(t.Context(), "p")
	w.mustOrder(plugins.Order{Action: "rollback"})
	place()
	_ = w.Load(t.Context())
	if s := w.status(); s.Candidate != nil || !strings.Contains(s.Error, "rolled back") {
		t.Errorf("got %+v, want it said that the file was rolled back", s)
	}
}

// State that cannot be read is put aside and said so; the folder counts alone.
func TestDamagedState(t *testing.T) {
	w := newWorld(t)
	w.drop(version("v1", abi.Flag), "")
	w.drop(version("v2", abi.Hold), `{"rollout":{"stage":"shadow"}}`)
	path := filepath.Join(w.state, "rollout.json")
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.open()
	if s := w.status(); s.State != plugins.StateTrial || !w.log.has("state of rollouts is lost") {
		t.Errorf("got %+v, want what the folder says", s)
	}
	if _, err := os.Stat(path + ".damaged"); err != nil {
		t.Error(err)
	}
	// So is a kept version that is not what it was.
	w.drop(version("v1", abi.Flag), "")
	w.drop(version("v2", abi.Hold), `{"rollout":{"stage":"shadow"}}`)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(w.state, "versions", "*.wasm"))
	if err != nil || len(files) != 2 {
		t.Fatalf("%v %v", files, err)
	}
	for _, f := range files {
		if err := os.WriteFile(f, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w.open()
	s := w.status()
	if s.State != plugins.StateAbsent || s.Candidate == nil || s.OnError != "closed" || !strings.Contains(s.Error, "is damaged") || !w.log.has("is damaged") {
		t.Errorf("got %+v, want the loss said, and version 2 on trial", s)
	}
	if who, r := w.say("ann"); r.Verdict != abi.Deny || !r.Failed {
		t.Errorf("got %s by %s, want messages refused that the lost version would have judged", r.Verdict, who)
	}
	w.mustOrder(plugins.Order{Action: "set", Stage: "enforce"})
	if who, _ := w.say("ann"); who != "v2" || w.status().State != plugins.StateActive {
		t.Errorf("got %s and %+v, want version 2 in force", who, w.status())
	}
}

// The timer moves a version on when it has judged enough for long enough.
func TestTimer(t *testing.T) {
	w := newWorld(t)
	until := watched(t, w.Catalog)
	w.drop(version("v1", abi.Flag), "")
	w.drop(version("v2", abi.Flag), `{"rollout":{"stage":"shadow","percent":100,"promote_after":"1ms","guards":{"min_decisions":5}}}`)
	stage := func() string {
		if k := w.status().Candidate; k != nil {
			return k.Stage
		}
		return "in force"
	}
	for _, want := range []string{"canary", "in force"} {
		for range 5 {
			w.say("ann")
		}
		until(func() bool { return stage() == want })
	}
	if who, _ := w.say("ann"); who != "v2" || !w.log.has("by=timer") {
		t.Errorf("got %s", who)
	}
}

// TestAStartWithoutAFolder forgets nothing: what was promoted is in force at the
// next start that has the folder.
func TestAStartWithoutAFolder(t *testing.T) {
	var without bool
	w := newWorld(t, func(c *plugins.Config) {
		if without {
			c.Dir = ""
		}
	})
	w.drop(version("v1", abi.Flag), `{"version": "1"}`)
	w.drop(version("v2", abi.Flag), `{"version": "2", "rollout": {"stage": "shadow"}}`)
	w.mustOrder(plugins.Order{Action: "set", Stage: "enforce"})
	if who, _ := w.say("ann"); who != "v2" {
		t.Fatalf("once promoted: %s judges", who)
	}
	without = true
	w.restart()
	if who, _ := w.say("ann"); who != "nobody" {
		t.Errorf("without a folder: %s judges", who)
	}
	without = false
	w.restart()
	if who, _ := w.say("ann"); who != "v2" || w.status().Candidate != nil {
		t.Errorf("with the folder again: %s judges, %+v; want what was promoted in force", who, w.status())
	}
}
