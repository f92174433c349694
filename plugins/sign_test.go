package plugins_test

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"parley/plugins"
	"parley/sdk/abi"
)

// testKey is a key pair that depends on the seed alone.
func testKey(seed byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed([]byte(strings.Repeat(string(rune(seed)), ed25519.SeedSize)))
}

func public(k ed25519.PrivateKey) ed25519.PublicKey { return k.Public().(ed25519.PublicKey) }

func manifest(t testing.TB, text string) plugins.Manifest {
	t.Helper()
	m, err := plugins.ParseManifest([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestSignature(t *testing.T) {
	key := testKey('a')
	trusted := []ed25519.PublicKey{public(testKey('b')), public(key)}
	m := plugins.Sign(manifest(t, `{"name":"test","version":"1","config":{"b":1, "a":2}}`), masker(), key)
	if m.SHA256 == "" {
		t.Error("a signed manifest does not name its module")
	}
	// It survives the way through a file.
	m = manifest(t, string(m.JSON()))
	if err := plugins.Verify(m, masker(), trusted); err != nil {
		t.Errorf("got %v, want the signature accepted", err)
	}
	if err := plugins.Verify(manifest(t, "{}"), masker(), trusted); !errors.Is(err, plugins.ErrUnsigned) {
		t.Errorf("got %v, want ErrUnsigned", err)
	}
	if err := plugins.Verify(m, masker(), trusted[:1]); !errors.Is(err, plugins.ErrUntrusted) || !strings.Contains(err.Error(), base64.StdEncoding.EncodeToString(public(key))) {
		t.Errorf("got %v, want ErrUntrusted naming the key", err)
	}
	for name, edit := range map[string]func(m *plugins.Manifest) []byte{
		"another module":   func(*plugins.Manifest) []byte { return allower() },
		"another version":  func(m *plugins.Manifest) []byte { m.Version = "2"; return masker() },
		"config's order":   func(m *plugins.Manifest) []byte { m.Config = []byte(`{"a":2,"b":1}`); return masker() },
		"another on_error": func(m *plugins.Manifest) []byte { m.OnError = abi.Allow; return masker() },
		"more limits":      func(m *plugins.Manifest) []byte { m.Limits.Fuel = 5; return masker() },
		"a vector less": func(m *plugins.Manifest) []byte {
			m.Vectors = append(m.Vectors, plugins.Vector{Name: "x"})
			return masker()
		},
		"a key of another's": func(m *plugins.Manifest) []byte {
			m.Signature = &plugins.Signature{Key: trusted[0], Value: m.Signature.Value}
			return masker()
		},
	} {
		changed := m
		file := edit(&changed)
		if err := plugins.Verify(changed, file, trusted); !errors.Is(err, plugins.ErrSignature) {
			t.Errorf("%s: got %v, want ErrSignature", name, err)
		}
	}
}

// The signed bytes are what docs/plugin-abi.md says, so that another program
// can sign.
func TestSignedBytes(t *testing.T) {
	key := testKey('a')
	m := plugins.Sign(manifest(t, `{"version": "1"}`), masker(), key)
	module := sha256.Sum256(masker())
	text := sha256.Sum256([]byte(`{"sha256":"` + hex.EncodeToString(module[:]) + `","version":"1"}`))
	signed := append(append([]byte("parley plugin signature 1\n"), module[:]...), text[:]...)
	if !ed25519.Verify(public(key), signed, m.Signature.Value) {
		t.Error("the signature covers something else")
	}
}

func TestLoadChecksSignature(t *testing.T) {
	key, other := testKey('a'), testKey('b')
	trust := func(require bool) *plugins.Host {
		return newHost(t, func(c *plugins.Config) {
			c.TrustedKeys, c.RequireSignature = []ed25519.PublicKey{public(key)}, require
		})
	}
	lenient, strict := trust(false), trust(true)
	unsigned := manifest(t, "{}")
	good, foreign := plugins.Sign(unsigned, masker(), key), plugins.Sign(unsigned, masker(), other)
	broken := good
	broken.Version = "2"
	for _, c := range []struct {
		name string
		h    *plugins.Host
		m    plugins.Manifest
		is   error
	}{
		{"signed", strict, good, nil},
		{"unsigned", strict, unsigned, plugins.ErrUnsigned},
		{"unsigned where none is required", lenient, unsigned, nil},
		{"signed by a stranger", strict, foreign, plugins.ErrUntrusted},
		{"signed by a stranger where none is required", lenient, foreign, nil},
		{"changed", strict, broken, plugins.ErrSignature},
		{"changed where none is required", lenient, broken, plugins.ErrSignature},
	} {
		_, err := c.h.Load(t.Context(), "test", masker(), c.m)
		if !errors.Is(err, c.is) || c.is == nil && err != nil {
			t.Errorf("%s: got %v, want %v", c.name, err, c.is)
		}
	}
}

// A manifest may lie in the module, where it can name and sign the rest.
func TestEmbeddedManifest(t *testing.T) {
	key := testKey('a')
	c, dir := newCatalog(t, func(c *plugins.Config) {
		c.TrustedKeys, c.RequireSignature = []ed25519.PublicKey{public(key)}, true
	})
	m := plugins.Sign(manifest(t, `{"version":"1.5","kinds":["topic"]}`), masker(), key)
	file, err := plugins.Embed(masker(), m)
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, "m.wasm", file)
	if err := reload(t, c); err != "" {
		t.Fatal(err)
	}
	sum := sha256.Sum256(file)
	if got := status(t, c, "m"); got.Version != "1.5" || got.Digest != hex.EncodeToString(sum[:]) {
		t.Errorf("got %+v, want version 1.5 and the digest of the whole file", got)
	}
	cfg := plugins.Defaults()
	cfg.TrustedKeys = []ed25519.PublicKey{public(key)}
	in, err := plugins.Inspect(dir+"/m.wasm", cfg)
	if err != nil || in.Source != "section" || in.Signature != "trusted" || in.ModuleDigest != m.SHA256 || in.Functions != 3 || in.Limits.Fuel != cfg.Fuel {
		t.Errorf("got %+v, %v", in, err)
	}
	if !strings.Contains(strings.Join(in.Exports, "\n"), "func decide(i32, i32) -> (i64)") {
		t.Errorf("got exports %q", in.Exports)
	}
	// A file beside it replaces it whole.
	write(t, dir, "m.json", []byte(`{"description":"beside"}`))
	if err := reload(t, c); !strings.Contains(err, "not signed") {
		t.Errorf("got %q, want the unsigned file beside it to count", err)
	}
	twice, err := plugins.Embed(file, manifest(t, `{"version":"2"}`))
	if err != nil || len(twice) >= len(file) {
		t.Errorf("got %d bytes, %v, want the section replaced", len(twice), err)
	}
	write(t, dir, "n.wasm", append(file, file[len(masker()):]...))
	if err := reload(t, c); !strings.Contains(err, `two custom sections "parley.manifest"`) {
		t.Errorf("got %q, want two manifests refused", err)
	}
}

func TestConfigSchema(t *testing.T) {
	const schema = `"config_schema":{"type":"object","additionalProperties":false,"properties":{"a":{"type":"array","items":{"type":"string"}}}}`
	for _, c := range []struct{ name, manifest, want string }{
		{"fits", `{"config":{"a":["x"]},` + schema + `}`, ""},
		{"no config", `{` + schema + `}`, ""},
		{"no schema", `{"config":{"b":1}}`, ""},
		{"wrong item", `{"config":{"a":["x",3]},` + schema + `}`, `config does not satisfy config_schema: at "/a/1": got number, want string`},
		{"unknown key", `{"config":{"b/c":3},` + schema + `}`, `additional properties 'b/c' not allowed`},
		{"not a schema", `{"config_schema":{"type":"thing"}}`, "config_schema: "},
		{"a file", `{"config_schema":{"$ref":"file:///etc/passwd"}}`, "a schema may only refer to itself"},
		{"the network", `{"config_schema":{"$ref":"https://example.org/s"}}`, "a schema may only refer to itself"},
	} {
		err := manifest(t, c.manifest).CheckConfig()
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
}

func TestVectors(t *testing.T) {
	vectors := func(s string) string { return `{"vectors":[` + s + `]}` }
	h := newHost(t)
	for _, c := range []struct{ name, vectors, want string }{
		{"all kinds of wants", `{"name":"a","text":"hello","want":"allow"},
			{"name":"b","text":"hey!","want":"redact","code":7,"masked":"hey*","spans":[{"field":"text","start":3,"length":1}]}`, ""},
		{"verdict", `{"name":"b","text":"hey!","want":"deny"}`, `test vector "b": got redact ("no shouting"), want deny`},
		{"code", `{"name":"b","text":"hey!","want":"redact","code":8}`, "got code 7, want 8"},
		{"masked", `{"name":"b","text":"hey!","want":"redact","masked":"hey!"}`, `got the text "hey*", want "hey!"`},
		{"spans", `{"name":"b","text":"hey!","want":"redact","spans":[{"start":0,"length":4}]}`, "got spans [0:[3,4)], want [0:[0,4)]"},
		{"unclean", `{"name":"b","text":"  ","want":"allow"}`, "the server would not take its text"},
	} {
		p, err := load(t, h, masker(), vectors(c.vectors))
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
		if err == nil && p.Name() != "test" {
			t.Errorf("got %s", p.Name())
		}
	}
	p := mustLoad(t, h, masker(), "{}")
	results, err := plugins.RunVectors(t.Context(), p, manifest(t, vectors(`{"name":"b","text":"hey!","want":"hold"}`)))
	if err != nil || len(results) != 1 || results[0].Verdict != abi.Redact || results[0].Fuel == 0 || results[0].Problem == "" {
		t.Errorf("got %+v, %v", results, err)
	}
	for _, c := range []struct{ vectors, want string }{
		{`{"text":"a","want":"allow"}`, `"vectors[0].name": want a name`},
		{`{"name":"a","text":"a","want":"flag"},{"name":"b","text":"a"}`, `"vectors[1].want": want a verdict`},
		{`{"name":"a","text":"a","want":"allow"},{"name":"a","text":"b","want":"allow"}`, `"vectors[1].name": "a" is repeated`},
		{`{"name":"a","text":"a","want":"shout"}`, `"vectors[0].want": "shout": want one of allow, flag`},
		{`{"name":"a","text":"a","want":"redact","spans":[{"start":0}],"x":1}`, `vectors[0].x`},
		{`3`, "want an object"},
	} {
		if _, err := plugins.ParseManifest([]byte(vectors(c.vectors))); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want %q", err, c.want)
		}
	}
}

func TestRolloutManifest(t *testing.T) {
	m := manifest(t, `{"rollout":{"stage":"canary","promote_after":"10m","guards":{"error_rate":0}}}`)
	want := plugins.Rollout{Stage: plugins.StageCanary, Percent: 5, PromoteAfter: 600e9,
		Guards: plugins.Guards{DenyRate: 0.2, Disagreement: 0.2, MinDecisions: 100}}
	if m.Rollout == nil || *m.Rollout != want {
		t.Errorf("got %+v, want %+v", m.Rollout, want)
	}
	if m := manifest(t, "{}"); m.Rollout != nil {
		t.Errorf("got %+v without a rollout", m.Rollout)
	}
	for _, c := range []struct{ text, want string }{
		{`{"stage":"beta"}`, `"rollout.stage": "beta": want one of shadow, canary, enforce`},
		{`{"percent":0}`, `"rollout.percent": 0, want 1 to 100`},
		{`{"promote_after":600}`, `"rollout.promote_after": got number, want text`},
		{`{"promote_after":"-1s"}`, `"-1s", want a duration such as "10m"`},
		{`{"guards":{"deny_rate":1.5}}`, `"rollout.guards.deny_rate": 1.5, want 0 to 1`},
		{`{"guards":{"latency":1}}`, `unknown key "rollout.guards.latency"`},
	} {
		if _, err := plugins.ParseManifest([]byte(`{"rollout":` + c.text + `}`)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.text, err, c.want)
		}
	}
}
