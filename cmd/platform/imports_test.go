package main

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// homes says which folders may import a third-party module, by the beginning
// of the import path. A module that is not listed may not be imported.
var homes = map[string][]string{
	"github.com/gorilla/websocket":             {"core/transport/ws", "core/client"},
	"github.com/tetratelabs/wazero":            {"plugins"},
	"github.com/open-policy-agent/opa":         {"policy"},
	"github.com/go-git/go-git/v5":              {"policy/gitsync"},
	"github.com/ProtonMail/go-crypto":          {"policy/gitsync/signers"},
	"golang.org/x/crypto":                      {"policy/gitsync"},
	"github.com/redis/go-redis/v9":             {"core/redis"},
	"go.etcd.io/bbolt":                         {"core/journal/disk", "core/evidence/disk", "core/scrub"},
	"go.uber.org/automaxprocs":                 {"core/tuning"},
	"github.com/golang-jwt/jwt/v5":             {"core/auth"},
	"go.yaml.in/yaml/v3":                       {"core/config"},
	"golang.org/x/text":                        {"core/moderation"},
	"go.mau.fi/util/confusable":                {"core/moderation"},
	"github.com/spf13/cobra":                   {"cmd/platform"},
	"github.com/spf13/pflag":                   {"cmd/platform"},
	"github.com/prometheus/client_golang":      {"core/metrics"},
	"github.com/fsnotify/fsnotify":             {"core/watch"},
	"github.com/go-json-experiment/json":       {"core/wire"},
	"golang.org/x/sys":                         {"core/liveness", "core/transport/intake", "core/bench", "core/chaos"},
	"github.com/HdrHistogram/hdrhistogram-go":  {"core/bench/load"},
	"github.com/google/pprof":                  {"core/bench"},
	"github.com/go-analyze/charts":             {"core/bench/report"},
	"github.com/invopop/jsonschema":            {"core/wire"},
	"github.com/santhosh-tekuri/jsonschema/v6": {"plugins", "core/wire"},
	"github.com/chromedp":                      {"core/web/browsertest"},
	"github.com/Shopify/toxiproxy/v2":          {"core/chaos"},
	"github.com/rs/zerolog":                    {"core/chaos"},
	"go.uber.org/goleak":                       {""},
}

// rank orders the layers: a package imports only packages of a lower rank.
// Longer names win. Tests are bound by homes but not by rank.
var rank = map[string]int{
	"core/atomicfile": 0, "core/chat": 0, "core/spelling": 0, "core/crew": 0, "core/child": 0, "core/scrub": 0, "core/histogram": 0, "sdk": 0, "sdk/abi": 0, "sdk/project": 1,
	"core/gate": 1, "core/journal": 1, "core/watch": 1, "core/metrics": 1, "core/tuning": 1, "core/liveness": 1, "core/redis": 1, "sdk/plugin": 1, "sdk/plugin/conformance": 2,
	"core/state": 2, "core/auth": 2, "core/auth/names": 3, "core/wire": 2, "core/moderation": 2, "core/journal/codec": 2, "core/journal/journaltest": 2, "core/redis/redistest": 2,
	"core/cluster": 2, "core/cluster/objects": 2,
	"core/doctor": 2, "core/config": 3, "core/archive": 3, "core/presence": 3, "core/presence/redis": 4, "core/room": 3, "core/journal/disk": 3, "core/journal/redis": 3, "core/checker": 3, "core/client": 3, "core/evidence": 3, "core/evidence/disk": 4,
	"core/absent": 2, "core/absent/redis": 3, "core/absent/webhook": 4,
	"core/session": 4, "core/web": 4, "core/admin": 5,
	"core/mirror":           4,
	"core/transport/intake": 1, "core/transport/proxy": 1, "core/transport/stream": 4, "core/transport": 5,
	"plugins": 4, "plugins/internal": 2, "plugins/wasmbin": 2, "plugins/meter": 3, "plugins/plugintest": 5, "plugins/share": 5,
	"policy/decisionlog": 3, "policy": 4, "policy/preview": 5, "policy/rego": 5, "policy/gitsync/signers": 1, "policy/webhook": 1, "policy/gitsync": 5, "policy/folder": 5, "policy/source": 6, "policy/starter": 6,
	"examples/plugins": 5,
	"core/release":     1, "core/bench/load": 1, "core/bench/proc": 1, "core/bench/report": 1, "core/bench/gctrace": 1, "core/bench": 2, "core/bench/failover": 4, "core/bench/experiments": 5,
	"core/e2e/rig": 8, "core/e2e": 9, "core/chaos": 9, "core/web/browsertest": 9, "cmd/platform": 9,
}

// apart are folders that know nothing of each other, but for those below a folder
// in except. Tests may.
var apart = []struct{ folder, of, except string }{
	{"core", "plugins", "core/admin core/bench/experiments"},
	{"core", "policy", "core/admin"},
	{"plugins", "policy", ""},
	{"policy", "plugins", ""},
	{"sdk", "core", "sdk/project"},
	{"core", "core/journal/disk", "core/transport/transporttest"},
	{"core", "core/journal/redis", "core/mirror"},
}

type pkg struct {
	ImportPath                         string
	Imports, TestImports, XTestImports []string
	Standard                           bool
}

func list(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports,TestImports,XTestImports", "parley/...")
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("go list: %v: %s", err, exit.Stderr)
		}
		t.Fatal(err)
	}
	var all []pkg
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// within reports whether path is folder or lies below it.
func within(path, folder string) bool {
	return folder == "" || path == folder || strings.HasPrefix(path, folder+"/")
}

// longest returns the longest key of m that path lies within.
func longest[V any](m map[string]V, path string) (key string, ok bool) {
	for k := range m {
		if within(path, k) && len(k) >= len(key) {
			key, ok = k, true
		}
	}
	return key, ok
}

func TestImports(t *testing.T) {
	for _, p := range list(t) {
		name := strings.TrimPrefix(p.ImportPath, "parley/")
		layer, ok := longest(rank, name)
		if !ok {
			t.Errorf("%s has no rank: add it to the layers in this test and to docs/architecture.md", name)
			continue
		}
		for _, i := range p.Imports {
			if below, ours := strings.CutPrefix(i, "parley/"); ours {
				if key, ok := longest(rank, below); ok && rank[key] >= rank[layer] {
					t.Errorf("%s (rank %d) imports %s (rank %d): imports point downward only", name, rank[layer], below, rank[key])
				}
				for _, a := range apart {
					excepted := slices.ContainsFunc(strings.Fields(a.except), func(e string) bool { return within(name, e) })
					if within(name, a.folder) && !within(name, a.of) && within(below, a.of) && !excepted {
						t.Errorf("%s imports %s: %s is to know nothing of %s (docs/architecture.md)", name, below, a.folder, a.of)
					}
				}
				if within(below, "cmd") {
					t.Errorf("%s imports %s: nothing imports the commands", name, below)
				}
			} else if thirdParty(i) && (name == "core/chat" || name == "sdk/abi") {
				t.Errorf("%s imports %s: it may import the standard library alone", name, i)
			}
		}
		for _, i := range slices.Concat(p.Imports, p.TestImports, p.XTestImports) {
			if thirdParty(i) {
				checkHome(t, name, i)
			}
		}
	}
}

func thirdParty(path string) bool {
	first, _, _ := strings.Cut(path, "/")
	return strings.Contains(first, ".")
}

func checkHome(t *testing.T, name, imported string) {
	t.Helper()
	key, ok := longest(homes, imported)
	if !ok {
		t.Errorf("%s imports %s, which has no home: justify it in docs/dependencies.md and add it here", name, imported)
		return
	}
	if !slices.ContainsFunc(homes[key], func(h string) bool { return within(name, h) }) {
		t.Errorf("%s imports %s, whose home is %v", name, imported, homes[key])
	}
}
