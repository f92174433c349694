package e2e

import (
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
	a := &author{t: t, dir: t.TempDir()}
	a.env = append(os.Environ(), "XDG_CACHE_HOME="+t.TempDir(), "GOFLAGS=", "GOWORK=")
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
	ann := visit(t, client.Options{URL: n.wsURL(), Guest: "ann"})
	bob := visit(t, client.Options{URL: n.tcpURL(), Guest: "bob"})
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
			a.plugin("install", filepath.Join(name, name+".wasm"), "--data-dir", data, "--admin", n.admin, "--wait", "60s")
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
			if out := a.plugin("list", "--admin", n.admin); !strings.Contains(out, name) || !strings.Contains(out, "active") {
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
	n.stop()
}
