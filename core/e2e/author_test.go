package e2e

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"parley/core/chat"
	"parley/core/client"
	"parley/sdk/project"
)

// author runs the binary as somebody who writes plugins does: in a folder
// outside the repository, with a cache of compiled modules of his own.
type author struct {
	t   *testing.T
	dir string
	env []string
}

func newAuthor(t *testing.T) *author {
	t.Helper()
	a := &author{t: t, dir: t.TempDir(), env: os.Environ()}
	goCache := strings.TrimSpace(a.run("go", "env", "GOCACHE")) // whoever writes Go has compiled something before
	a.env = append(a.env, "XDG_CACHE_HOME="+t.TempDir(), "GOCACHE="+goCache, "GOFLAGS=", "GOWORK=")
	return a
}

// run runs one command in the author's folder and returns what it printed.
func (a *author) run(name string, args ...string) string {
	a.t.Helper()
	cmd := exec.CommandContext(within(a.t), name, args...)
	cmd.Dir, cmd.Env = a.dir, a.env
	out, err := cmd.CombinedOutput()
	if err != nil {
		a.t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// plugin is `platform plugin`.
func (a *author) plugin(args ...string) string {
	a.t.Helper()
	return a.run(built.platform, append([]string{"plugin"}, args...)...)
}

// TestFromNothingToALiveVerdict is what the README promises, in each language:
// three commands, new, build and install, and a running server judges with the
// plugin. How long it took is logged.
func TestFromNothingToALiveVerdict(t *testing.T) {
	t.Parallel()
	data := filepath.Join(t.TempDir(), "data")
	folder := filepath.Join(data, "plugins")
	n := startNode(t, unlimited(settings{"plugins.dir": folder, "data_dir": data}))
	ann := visit(t, client.Options{URL: n.WSURL(), Guest: "ann"})
	bob := visit(t, client.Options{URL: n.TCPURL(), Guest: "bob"})
	bob.enters("lobby")
	for _, lang := range project.Languages() {
		t.Run(lang, func(t *testing.T) {
			name := "no-tags-" + lang
			a := newAuthor(t)
			began := time.Now()
			a.plugin("new", "--lang", lang, name)
			made := time.Since(began)
			a.plugin("build", name)
			builtIn := time.Since(began) - made
			a.plugin("install", filepath.Join(name, name+".wasm"), "--data-dir", data, "--admin", n.Admin, "--wait", "60s")
			ack, nonce := ann.says("lobby", "see this #offer today")
			took := time.Since(began)
			if ack.Outcome != chat.Redacted || len(ack.Reasons) != 1 || ack.Reasons[0].Source != "plugin:"+name {
				t.Errorf("got outcome %q and reasons %+v, want redacted by %s", ack.Outcome, ack.Reasons, name)
			}
			if got := bob.hears(nonce); got.Text != "see this ****** today" {
				t.Errorf("bob got %q", got.Text)
			}
			t.Logf("%s: a live verdict %v after `plugin new` (build %v)", lang, took.Round(time.Millisecond), builtIn.Round(time.Millisecond))

			if out := a.plugin("test", name); !strings.Contains(out, "4 of 4 vectors pass") {
				t.Errorf("its own test:\n%s", out)
			}
			if out := a.plugin("list", "--admin", n.Admin); !strings.Contains(out, name) || !strings.Contains(out, "active") {
				t.Errorf("plugin list:\n%s", out)
			}
			if lang == string(project.Go) {
				a.run("go", "-C", name, "test", "./...")
				a.run("go", "-C", name, "vet", "./...")
			}
			if err := os.Remove(filepath.Join(folder, name+".wasm")); err != nil {
				t.Fatal(err)
			}
			await(t, "the plugin is gone", func() bool { return pluginOf(n, name).Name == "" })
		})
	}
	n.Stop()
}

// change replaces text in a file of the author's.
func (a *author) change(file, old, now string) {
	a.t.Helper()
	path := filepath.Join(a.dir, file)
	b, err := os.ReadFile(path)
	if err != nil {
		a.t.Fatal(err)
	}
	if !strings.Contains(string(b), old) {
		a.t.Fatalf("%s has no %q", file, old)
	}
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(string(b), old, now)), 0o644); err != nil {
		a.t.Fatal(err)
	}
}

// says checks what a command prints.
func (a *author) says(out string, want ...string) {
	a.t.Helper()
	for _, w := range want {
		if !strings.Contains(out, w) {
			a.t.Errorf("no %q in\n%s", w, out)
		}
	}
}

// TestABacktestShowsWhatANewVersionChanges replays what people wrote to a real
// server from its evidence store.
func TestABacktestShowsWhatANewVersionChanges(t *testing.T) {
	t.Parallel()
	data := filepath.Join(t.TempDir(), "data")
	n := startNode(t, unlimited(settings{"plugins.dir": filepath.Join(data, "plugins"), "data_dir": data, "evidence.keep": "all"}))
	ann := visit(t, client.Options{URL: n.WSURL(), Guest: "ann"})
	a := newAuthor(t)
	a.plugin("new", "--lang", "c", "no-tags")
	a.plugin("build", "no-tags")
	a.plugin("install", "no-tags/no-tags.wasm", "--data-dir", data, "--admin", n.Admin, "--wait", "60s")
	for _, text := range []string{"good morning", "#one two", "really #good! isn't it", "a fine day"} {
		ann.says("lobby", text)
	}
	ann.says("staff", "#elsewhere!")
	a.change("no-tags/plugin.c", "c == '_'", "c == '_' || c == '!'")
	a.change("no-tags/no-tags.json", "0.1.0", "0.2.0")
	a.plugin("build", "no-tags")

	var report struct {
		Records, Changed uint64
		Changes          []struct {
			User, Room, Text string
			Old, New         struct{ Verdict, Masked string }
		}
		New struct{ Version string }
	}
	backtest := func(args ...string) (out []byte, code int) {
		t.Helper()
		cmd := exec.CommandContext(within(t), built.platform, append([]string{"plugin", "backtest", "no-tags/no-tags.wasm", "--against", "no-tags",
			"--data-dir", data, "--admin", n.Admin, "--room", "lobby", "--exit-code"}, args...)...)
		cmd.Dir, cmd.Env = a.dir, a.env
		out, err := cmd.Output()
		var ended *exec.ExitError
		if err != nil && !errors.As(err, &ended) {
			t.Fatal(err)
		}
		return out, cmd.ProcessState.ExitCode()
	}
	await(t, "the evidence of four messages is stored", func() bool {
		out, code := backtest("--json")
		report.Records = 0
		if code != 0 && code != 3 || json.Unmarshal(out, &report) != nil {
			t.Fatalf("backtest: exit code %d: %s", code, out)
		}
		return report.Records == 4
	})
	if c := report.Changes; report.Changed != 1 || len(c) != 1 || c[0].Text != "really #good! isn't it" || c[0].Room != "lobby" ||
		c[0].Old.Masked != "really *****! isn't it" || c[0].New.Masked != "really ****** isn't it" || report.New.Version != "0.2.0" {
		t.Errorf("got %+v, want one change", report)
	}
	out, code := backtest("--since", "1h")
	if code != 3 {
		t.Errorf("something changed, and the exit code is %d", code)
	}
	a.says(string(out), "4 messages, 1 changed", "really *****! isn't it", "decisions/s", "fuel below")
	n.Stop()
}

// TestAVersionIsRolledOutFromTheCommandLine takes a second version through
// shadow and canary into force, and a third one back, on a real server.
func TestAVersionIsRolledOutFromTheCommandLine(t *testing.T) {
	t.Parallel()
	data := filepath.Join(t.TempDir(), "data")
	n := startNode(t, unlimited(settings{"plugins.dir": filepath.Join(data, "plugins"), "data_dir": data}))
	ann := visit(t, client.Options{URL: n.WSURL(), Guest: "ann"})
	reason := func() string {
		t.Helper()
		ack, _ := ann.says("lobby", "see this #offer today")
		if len(ack.Reasons) != 1 {
			t.Fatalf("got outcome %q and reasons %+v, want one reason", ack.Outcome, ack.Reasons)
		}
		return ack.Reasons[0].Text
	}
	a := newAuthor(t)
	server := []string{"--data-dir", data, "--admin", n.Admin}
	install := func() {
		t.Helper()
		a.plugin("build", "no-tags")
		a.plugin(append([]string{"install", "no-tags/no-tags.wasm", "--wait", "60s"}, server...)...)
	}
	rollout := func(args ...string) string {
		t.Helper()
		return a.plugin(append(append([]string{"rollout", "no-tags"}, args...), server...)...)
	}
	a.plugin("new", "--lang", "c", "no-tags")
	install()
	const first, second = "No hash tags in this room, please.", "No hash tags in this house, please."

	a.change("no-tags/plugin.c", "this room", "this house")
	a.change("no-tags/no-tags.json", `"version": "0.1.0",`, `"version": "0.2.0", "rollout": {"stage": "shadow"},`)
	install()
	if got := reason(); got != first {
		t.Errorf("in shadow ann is told %q, want %q", got, first)
	}
	a.says(rollout(), "0.1.0", "shadow", "1 decisions, 0 failed")
	a.says(rollout("canary", "--percent", "100", "--reason", "looks good"), "canary 100%")
	if got := reason(); got != second {
		t.Errorf("in the canary ann is told %q, want %q", got, second)
	}
	if out := rollout("promote"); strings.Contains(out, "canary") || !strings.Contains(out, "0.2.0") {
		t.Errorf("promoted, it is\n%s", out)
	}
	a.change("no-tags/plugin.c", "this house", "this world")
	install()
	a.says(rollout("rollback", "--reason", "too wide"), "0.2.0", "rolled back from shadow", "too wide")
	if got := reason(); got != second {
		t.Errorf("after the rollback ann is told %q, want %q", got, second)
	}
	n.Stop()
}
