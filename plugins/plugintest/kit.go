package plugintest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"testing"

	"parley/plugins"
	"parley/sdk/abi"
)

// Run holds a conformance guest against every rule, each in a subtest.
func Run(t *testing.T, module []byte) {
	t.Helper()
	k, err := open(t.Context(), module)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := k.close(); err != nil {
			t.Error(err)
		}
	}()
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) {
			if err := r.check(k); err != nil {
				t.Error(err)
			}
		})
	}
}

// Broken is a rule that a guest does not keep.
type Broken struct {
	Rule string
	Err  error
}

// Check is Run outside of a test: it returns the rules that the guest does not
// keep. The error says why it could not be held against any.
func Check(ctx context.Context, module []byte) ([]Broken, error) {
	k, err := open(ctx, module)
	if err != nil {
		return nil, err
	}
	var broken []Broken
	for _, r := range rules {
		if err := r.check(k); err != nil {
			broken = append(broken, Broken{r.name, err})
		}
	}
	return broken, k.close()
}

// rule is one thing a guest must do. Rules share the kit's plugin and may run
// in any order.
type rule struct {
	name  string
	check func(k *kit) error
}

var rules = concat(verdictRules, spanRules, inputRules, configRules, lifeRules)

func concat(lists ...[]rule) (all []rule) {
	for _, l := range lists {
		all = append(all, l...)
	}
	return all
}

// kit is one guest under test.
type kit struct {
	ctx    context.Context
	host   *plugins.Host
	cache  string // folder of compiled modules: the guest is loaded many times
	module []byte
	plugin *plugins.Plugin // loaded without a configuration
}

func open(ctx context.Context, module []byte) (*kit, error) {
	cache, err := os.MkdirTemp("", "plugintest-")
	if err != nil {
		return nil, err
	}
	cfg := plugins.Defaults()
	cfg.CacheDir = cache
	cfg.Trial.InProcess = true // an SDK's guest is its author's own
	h, err := plugins.NewHost(cfg, slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(cache))
	}
	k := &kit{ctx: ctx, host: h, cache: cache, module: module}
	if k.plugin, err = k.load(`{}`); err != nil {
		return nil, errors.Join(fmt.Errorf("load the guest: %w", err), k.close())
	}
	return k, nil
}

func (k *kit) close() error { return errors.Join(k.host.Close(), os.RemoveAll(k.cache)) }

// load loads the guest with a manifest.
func (k *kit) load(manifest string) (*plugins.Plugin, error) {
	m, err := plugins.ParseManifest([]byte(manifest))
	if err != nil {
		return nil, fmt.Errorf("the kit's own manifest %s: %w", manifest, err)
	}
	return k.host.Load(k.ctx, "conformance", k.module, m)
}

// answer is what the host makes of one decision.
type answer struct {
	verdict abi.Verdict
	result  abi.Result
	fuel    uint64
	err     error
}

func (a answer) String() string {
	if a.err != nil {
		return fmt.Sprintf("the failure %q", a.err)
	}
	if a.verdict == abi.Allow {
		return "allow"
	}
	return fmt.Sprintf("%s, code %d, score %d, reason %q, spans %v", a.verdict, a.result.Code, a.result.Score, a.result.Reason, a.result.Spans)
}

// message is the input the kit asks about, but for its text.
func message(text string) *abi.Input {
	return &abi.Input{
		TimeMS: 1_735_689_600_000, Text: []byte(text), Normalized: []byte("normalised " + text),
		User: "ann", Room: "lobby", Roles: "", Kind: "message", Signals: abi.Signals{RecentPerMinute: 1},
	}
}

// ask has p judge in.
func ask(p *plugins.Plugin, in *abi.Input) answer {
	return askRaw(p, abi.AppendInput(nil, in), in)
}

// askRaw has p judge an input that was encoded otherwise.
func askRaw(p *plugins.Plugin, input []byte, in *abi.Input) (a answer) {
	a.verdict, a.result, a.fuel, a.err = p.Decide(input, in.Text, in.Normalized)
	return a
}

// say asks about a text and compares the whole answer.
func (k *kit) say(text string, verdict abi.Verdict, want abi.Result) error {
	return k.sayTo(k.plugin, message(text), verdict, want)
}

func (k *kit) sayTo(p *plugins.Plugin, in *abi.Input, verdict abi.Verdict, want abi.Result) error {
	got := ask(p, in)
	wanted := answer{verdict: verdict, result: want}
	if got.String() != wanted.String() {
		return fmt.Errorf("%.80q: got %s, want %s", in.Text, got, wanted)
	}
	return nil
}

// fails asks about an input and wants the failure is.
func fails(p *plugins.Plugin, what string, input []byte, in *abi.Input, is error) error {
	got := askRaw(p, input, in)
	if !errors.Is(got.err, is) {
		return fmt.Errorf("%s: got %s, want the failure %q", what, got, is)
	}
	return nil
}
