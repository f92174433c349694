package plugins_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"parley/core/chat"
	"parley/core/moderation"
	"parley/plugins"
	"parley/plugins/internal/asm"
	"parley/sdk/abi"
)

// TestMain lets the test binary be the child of a trial.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "plugin-trial" {
		os.Exit(plugins.TrialMain(os.Stdin, os.Stdout))
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		os.RemoveAll(trialDir)
		os.Exit(code)
	}))
}

var (
	_ moderation.Judge  = (*plugins.Plugin)(nil)
	_ moderation.Source = (*plugins.Catalog)(nil)
)

func TestVerdicts(t *testing.T) {
	h := newHost(t)
	for _, c := range []struct {
		name string
		wasm []byte
		text string
		want abi.Verdict
	}{
		{"allow", allower(), "hello", abi.Allow},
		{"flag", always(abi.Flag, &abi.Result{Code: 1, Reason: "look"}), "hello", abi.Flag},
		{"hold", always(abi.Hold, &abi.Result{Code: 2, Reason: "wait"}), "hello", abi.Hold},
		{"deny", always(abi.Deny, &abi.Result{Code: 3, Reason: "no"}), "hello", abi.Deny},
		{"masker without", masker(), "hello", abi.Allow},
		{"masker with", masker(), "hello!", abi.Redact},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := mustLoad(t, h, c.wasm, "{}")
			v, r, fuel, err := ask(p, c.text)
			if err != nil || v != c.want {
				t.Fatalf("got %v, %v, want %v", v, err, c.want)
			}
			if fuel == 0 {
				t.Error("got no fuel used, want some")
			}
			if c.want == abi.Redact && (len(r.Spans) != 1 || r.Spans[0].Start != 5 || r.Reason != "no shouting") {
				t.Errorf("got %+v, want the span [5,6)", r)
			}
		})
	}
}

// counter denies from its third message on, if it can remember two: it counts
// in a global and in memory. The self-test is the first.
func counter() []byte {
	deny := asm.Cat(asm.Const64(int64(abi.Pack(abi.Deny, answerAt, abi.ResultHeaderSize))), asm.Return)
	return guest(asm.Cat(
		asm.GlobalGet(0), asm.Const(1), asm.I32GtU, asm.If, asm.Empty, deny, asm.End,
		asm.Const(2000), asm.Load(0), asm.Const(1), asm.I32GtU, asm.If, asm.Empty, deny, asm.End,
		asm.GlobalGet(0), asm.Const(1), asm.I32Add, asm.GlobalSet(0),
		asm.Const(2000), asm.Const(2000), asm.Load(0), asm.Const(1), asm.I32Add, asm.Store(0),
		asm.Const64(0),
	), make([]byte, abi.ResultHeaderSize), func(m *asm.Module) {
		m.Globals = []asm.Global{{Type: asm.I32, Mutable: true, Init: asm.Const(0)}}
	})
}

func TestNothingIsRemembered(t *testing.T) {
	grow := asm.Cat(asm.Const(1), asm.Grow(), asm.Drop)
	table := func(m *asm.Module) { m.Table = asm.Cat(asm.FuncRef, 1, 2, 2) }
	deny := asm.Cat(asm.Const64(int64(abi.Pack(abi.Deny, answerAt, abi.ResultHeaderSize))), asm.Return)
	for _, c := range []struct {
		name string
		wasm []byte
	}{
		{"memory and globals", counter()},
		{"memory size", guest(asm.Cat(
			0x3f, 0, asm.Const(2), asm.I32GtU, asm.If, asm.Empty, deny, asm.End, grow, asm.Const64(0)), make([]byte, 8))},
		{"table", guest(asm.Cat( // the self-test leaves it be
			asm.Get(localPtr), asm.Load(textAt+4), asm.Const(5), asm.I32Eq, asm.If, asm.Empty,
			asm.Const(1), 0x25, 0, 0xd1, asm.I32Eqz, asm.If, asm.Empty, deny, asm.End,
			asm.Const(1), 0xd2, 0, 0x26, 0, asm.End, asm.Const64(0)), make([]byte, 8), table,
			func(m *asm.Module) { m.Elements = asm.Cat(1, 3, 0, 1, 0) })},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := load(t, newHost(t), c.wasm, "{}")
			if err != nil {
				t.Fatal(err)
			}
			var first uint64
			for i := range 5 {
				v, _, fuel, err := ask(p, "hello")
				if err != nil {
					t.Fatal(err)
				}
				if i == 0 {
					first = fuel
				}
				if v != abi.Allow {
					t.Fatalf("message %d: got %v, want allow", i, v)
				}
				if fuel != first {
					t.Fatalf("message %d: got %d fuel, the first used %d", i, fuel, first)
				}
			}
		})
	}
}

// A trap in the middle of a change must not leave half of it behind.
func TestTrapLeavesNothing(t *testing.T) {
	p := mustLoad(t, newHost(t), guest(asm.Cat(
		asm.GlobalGet(0), asm.Const(1), asm.I32GtU, asm.If, asm.Empty, asm.Const64(int64(abi.Pack(abi.Deny, answerAt, 8))), asm.Return, asm.End,
		asm.GlobalGet(0), asm.Const(1), asm.I32Add, asm.GlobalSet(0),
		asm.Get(localPtr), asm.Load(textAt+4), asm.Const(3), asm.I32Eq, asm.If, asm.Empty, asm.Unreachable, asm.End,
		asm.Const64(0)), make([]byte, 8), func(m *asm.Module) {
		m.Globals = []asm.Global{{Type: asm.I32, Mutable: true, Init: asm.Const(0)}}
	}), "{}")
	for _, text := range []string{"abc", "abcd", "abc", "abcd"} {
		v, _, _, err := ask(p, text)
		if len(text) == 3 {
			if v != abi.Error || !errors.Is(err, plugins.ErrTrap) {
				t.Fatalf("got %v, %v, want a trap", v, err)
			}
		} else if v != abi.Allow || err != nil {
			t.Fatalf("got %v, %v after a trap, want allow", v, err)
		}
	}
}

// An instance whose set-up changed a table cannot be copied from the snapshot;
// others must be set up the same way.
func TestSetUpThatChangesTables(t *testing.T) {
	p := mustLoad(t, newHost(t), guest(asm.Cat(
		asm.Const(0), 0x25, 0, 0xd1, asm.If, asm.Empty, asm.Unreachable, asm.End, // must be set
		asm.Get(localPtr), asm.Load(textAt+4), asm.Const(3), asm.I32Eq, asm.If, asm.Empty, asm.Unreachable, asm.End,
		asm.Const64(0)), nil, func(m *asm.Module) {
		m.Table = asm.Cat(asm.FuncRef, 1, 1, 1)
		m.Elements = asm.Cat(1, 3, 0, 1, 0)
		m.Funcs = append(m.Funcs, asm.Func{Export: abi.ExportInitialize, Code: asm.Cat(asm.Const(0), 0xd2, 0, 0x26, 0)})
	}), "{}")
	for _, text := range []string{"abcd", "abc", "abcd"} { // the trap has another instance made
		if v, _, _, err := ask(p, text); (err == nil) != (len(text) == 4) {
			t.Fatalf("%q: got %v, %v", text, v, err)
		}
	}
}

func TestManyAtOnce(t *testing.T) {
	p := mustLoad(t, newHost(t, func(c *plugins.Config) { c.PoolSize = 4 }), masker(), "{}")
	_, _, want, err := ask(p, "hello there!")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range 200 {
				v, r, fuel, err := ask(p, "hello there!")
				if err != nil || v != abi.Redact || r.Spans[0].Start != 11 || fuel != want {
					t.Errorf("got %v, %+v, %d, %v", v, r, fuel, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestWants(t *testing.T) {
	h := newHost(t)
	for _, c := range []struct {
		manifest   string
		room, kind string
		want       bool
	}{
		{`{}`, "lobby", "message", true},
		{`{}`, "lobby", "topic", true},
		{`{"kinds":["edit"]}`, "lobby", "message", false},
		{`{"kinds":["edit"]}`, "lobby", "edit", true},
		{`{"kinds":[]}`, "lobby", "edit", false},
		{`{"rooms":["lobby"]}`, "lobby", "edit", true},
		{`{"rooms":["lobby"]}`, "den", "edit", false},
		{`{"rooms":["den","support-*"]}`, "support-1", "edit", true},
	} {
		p := mustLoad(t, h, allower(), c.manifest)
		if got := p.Wants(chat.RoomID(c.room), c.kind); got != c.want {
			t.Errorf("%s: got %t for %s in %s, want %t", c.manifest, got, c.kind, c.room, c.want)
		}
	}
}

// An input longer than the guest's buffer must not even be tried: it would
// overwrite what lies behind, and the snapshot would keep that for ever.
func TestInputLimitBelowTheSelfTest(t *testing.T) {
	_, err := load(t, newHost(t), allower(), `{"limits":{"input_bytes":100}}`)
	if err == nil || !strings.Contains(err.Error(), "limits.input_bytes is 100, too small") {
		t.Fatalf("got %v, want an error naming limits.input_bytes", err)
	}
}

// plugins.fuel and plugins.memory_bytes are the most that a manifest may ask for.
func TestMoreThanTheServerGives(t *testing.T) {
	h := newHost(t, func(c *plugins.Config) { c.GoFuel, c.GoMemoryBytes = 2_000_000, 2<<20 })
	mustLoad(t, h, allower(), `{"limits":{"fuel":2000000,"memory_bytes":2097152}}`)
	for manifest, want := range map[string]string{
		`{"limits":{"fuel":2000001}}`:         "limits.fuel is 2000001, more than the server gives: 2000000 (plugins.fuel)",
		`{"limits":{"memory_bytes":2162688}}`: "limits.memory_bytes is 2162688, more than the server gives: 2097152 (plugins.memory_bytes)",
	} {
		if _, err := load(t, h, allower(), manifest); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", manifest, err, want)
		}
	}
}

func TestInputTooLarge(t *testing.T) {
	p := mustLoad(t, newHost(t), allower(), `{"limits":{"input_bytes":200}}`)
	v, _, _, err := ask(p, strings.Repeat("x", 100))
	if v != abi.Error || err == nil || !strings.Contains(err.Error(), "limits.input_bytes") {
		t.Fatalf("got %v, %v, want an error naming limits.input_bytes", v, err)
	}
}

// Config reaches the guest whole, and its answer counts.
func TestConfigure(t *testing.T) {
	h := newHost(t)
	configurable := guest(asm.Const64(0), nil, func(m *asm.Module) {
		m.Funcs = append(m.Funcs, asm.Func{Export: abi.ExportConfigure, Params: []byte{asm.I32, asm.I32}, Results: []byte{asm.I32},
			Code: asm.Cat(asm.Get(0), asm.Get(1), asm.I32Add, asm.Const(2), asm.I32Sub, asm.Load8(0), asm.Const('1'), asm.I32Sub)}) // the byte before the last
	})
	for _, c := range []struct{ manifest, want string }{
		{`{"config":{"a":1}}`, ""},
		{`{}`, ""},
		{`{"config":{"a":3}}`, "configure returned 2"},
	} {
		_, err := load(t, h, configurable, c.manifest)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.manifest, err, c.want)
		}
	}
	if _, err := load(t, h, allower(), `{"config":{}}`); err == nil || !strings.Contains(err.Error(), "does not export configure") {
		t.Errorf("got %v, want configure named", err)
	}
}

func TestLoadChecksManifest(t *testing.T) {
	h := newHost(t)
	for _, c := range []struct{ manifest, want string }{
		{`{"sha256":"` + strings.Repeat("0", 64) + `"}`, "its manifest says 0000"},
		{`{"name":"other"}`, `names it "other", its file "test"`},
	} {
		if _, err := load(t, h, allower(), c.manifest); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want an error with %q", c.manifest, err, c.want)
		}
	}
	m, _ := plugins.ParseManifest([]byte("{}"))
	if _, err := h.Load(t.Context(), "No Name", allower(), m); err == nil || !strings.Contains(err.Error(), "lower-case") {
		t.Errorf("got %v, want the rule for names", err)
	}
	p := mustLoad(t, h, allower(), `{"name":"test","sha256":"`+mustLoad(t, h, allower(), "{}").Digest()+`","on_error":"hold"}`)
	if p.Name() != "test" || p.OnError() != abi.Hold {
		t.Errorf("got %s, %v", p.Name(), p.OnError())
	}
}

func TestFaultsAreLoggedOnce(t *testing.T) {
	var out bytes.Buffer
	cfg := plugins.Defaults()
	h, err := plugins.NewHost(cfg, slog.New(slog.NewTextHandler(&out, nil)))
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	p := mustLoad(t, h, trapOn("x"), "{}")
	for range 50 {
		ask(p, "x")
	}
	if got := strings.Count(out.String(), "plugin failed"); got != 1 {
		t.Errorf("got %d log lines for 50 faults at once, want 1:\n%s", got, out.String())
	}
}

// trapOn traps for texts of as many bytes as text has.
func trapOn(text string) []byte {
	return guest(asm.Cat(asm.Get(localPtr), asm.Load(textAt+4), asm.Const(int32(len(text))), asm.I32Eq,
		asm.If, asm.Empty, asm.Unreachable, asm.End, asm.Const64(0)), nil)
}

func TestConfigRefused(t *testing.T) {
	for _, c := range []struct {
		name string
		edit func(*plugins.Config)
	}{
		{"fuel", func(c *plugins.Config) { c.Fuel = 0 }},
		{"go_fuel", func(c *plugins.Config) { c.GoFuel = 1 << 60 }},
		{"memory_bytes", func(c *plugins.Config) { c.MemoryBytes = -1 }},
		{"pool_size", func(c *plugins.Config) { c.PoolSize = 0 }},
		{"fault_window", func(c *plugins.Config) { c.FaultWindow = 0 }},
		{"fault_limit", func(c *plugins.Config) { c.FaultLimit = 65 }},
	} {
		cfg := plugins.Defaults()
		c.edit(&cfg)
		if _, err := plugins.NewHost(cfg, quietLog); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("plugins: %s is", c.name)) {
			t.Errorf("got %v, want %s named", err, c.name)
		}
	}
}
