package plugins_test

import (
	"bytes"
	"strings"
	"testing"

	"parley/plugins"
	"parley/sdk/abi"
)

func TestManifest(t *testing.T) {
	m, err := plugins.ParseManifest([]byte(`{
		"name": "wordlist", "version": "1.2.0", "description": "masks words",
		"sha256": "` + strings.Repeat("AB", 32) + `",
		"kinds": ["message", "edit"], "rooms": ["lobby", "support-*"],
		"limits": {"fuel": 2000000, "memory_bytes": 2097152, "input_bytes": 1000, "output_bytes": 100},
		"on_error": "hold",
		"config": {"words": ["a", "b"]}
	}`))
	if err != nil {
		t.Fatal(err)
	}
	if m.Name != "wordlist" || m.Version != "1.2.0" || m.Description != "masks words" || m.SHA256 != strings.Repeat("ab", 32) ||
		len(m.Kinds) != 2 || len(m.Rooms) != 2 || m.OnError != abi.Hold || string(m.Config) != `{"words": ["a", "b"]}` ||
		m.Limits != (plugins.Limits{Fuel: 2_000_000, MemoryBytes: 2 << 20, InputBytes: 1000, OutputBytes: 100}) {
		t.Errorf("got %+v", m)
	}
	if m, err := plugins.ParseManifest([]byte(" {} \n")); err != nil || m.OnError != abi.Error || m.Kinds != nil || m.Config != nil {
		t.Errorf("got %+v, %v, want the defaults", m, err)
	}
	// The canonical form says the same, and is the same again.
	if again, err := plugins.ParseManifest(m.JSON()); err != nil || string(again.JSON()) != string(m.JSON()) {
		t.Errorf("got %s, %v, want %s", again.JSON(), err, m.JSON())
	}
	for text, want := range map[string]abi.Verdict{"open": abi.Allow, "closed": abi.Deny} {
		if m, err := plugins.ParseManifest([]byte(`{"on_error":"` + text + `"}`)); err != nil || m.OnError != want {
			t.Errorf("got %v, %v for %s", m.OnError, err, text)
		}
	}
}

func TestManifestRefused(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"nothing", "", "line 1: not JSON: it ends too early"},
		{"a list", "[]", "line 1: want an object"},
		{"a word", "null", "want an object"},
		{"no JSON", "{\n\n,}", "line 3: not JSON"},
		{"cut in a value", "{\n\"limits\": {\"fuel\"", "line 2:"},
		{"unknown key", "{\n\"verison\": \"1\"}", `line 2: unknown key "verison"; did you mean "version"?`},
		{"quite unknown key", `{"colour": 1}`, `unknown key "colour"; known are config, config_schema, description, kinds`},
		{"other case", `{"Name": "x"}`, `did you mean "name"?`},
		{"unknown limit", "{\"limits\":\n{\"memory\": 1}}", `line 2: unknown key "limits.memory"; known are fuel, input_bytes`},
		{"repeated key", `{"name":"a","name":"b"}`, `key "name" is repeated`},
		{"wrong type", "{\n\"version\": 3}", `line 2: "version": got number, want text`},
		{"bad name", `{"name":"A b"}`, "lower-case letters"},
		{"bad digest", `{"sha256":"xyz"}`, `"sha256": want 64 hexadecimal digits`},
		{"bad kind", `{"kinds":["msg"]}`, `unknown kind "msg": want one of message, edit, nick, topic`},
		{"kinds not a list", `{"kinds":"message"}`, `"kinds": got string, want a list of texts`},
		{"bad pattern", `{"rooms":["[a"]}`, `neither a room nor a pattern`},
		{"bad on_error", `{"on_error":"ignore"}`, "want open, closed or hold"},
		{"config not an object", `{"config":[1]}`, `"config": want an object`},
		{"no fuel", `{"limits":{"fuel":0}}`, `"limits.fuel": 0, want 1 to 1000000000`},
		{"negative", `{"limits":{"input_bytes":-1}}`, `"limits.input_bytes": -1, want 1 to 1048576`},
		{"too much", `{"limits":{"memory_bytes":1000000000}}`, "want 1 to 67108864"},
		{"fraction", `{"limits":{"fuel":1.5}}`, "want a whole number"},
		{"limits not an object", `{"limits":[]}`, `"limits": want an object`},
		{"something after", `{} {}`, "nothing may follow"},
		{"too long", `{"description":"` + strings.Repeat("x", 2000) + `"}`, "2000 bytes, at most 1024"},
		{"too many rooms", `{"rooms":["a"` + strings.Repeat(`,"a"`, 1000) + `]}`, "1001 items, at most 1000"},
		{"huge", strings.Repeat(" ", 2<<20), "at most 1048576"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := plugins.ParseManifest([]byte(c.text))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want an error with %q", err, c.want)
			}
		})
	}
}

func FuzzManifest(f *testing.F) {
	f.Add([]byte(`{"name":"a","limits":{"fuel":1},"kinds":["edit"],"rooms":["x*"],"config":{},"on_error":"open"}`))
	f.Add([]byte("{\n\"limits\": {\"fuel\""))
	f.Add([]byte(`{"sha256":"00"}`))
	f.Add([]byte(`{"kinds":[],"rooms":null,"config_schema":{"type":"object"},"rollout":{"percent":7,"promote_after":"90s","guards":{"deny_rate":0.125,"p99_time":"1ms"}}}`))
	f.Add([]byte(`{"vectors":[{"name":"n","text":"\ud800<","time":"2025-06-01T10:00:00.5+02:00","want":"redact","code":3,"masked":"*","spans":[{"start":0,"length":1}],"signals":{"repeats":2},"roles":["a"]}]}`))
	f.Add([]byte(`{"signature":{"key":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=","value":"` + strings.Repeat("A", 86) + `=="}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := plugins.ParseManifest(b)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "line ") && !strings.HasPrefix(err.Error(), "manifest has") {
				t.Fatalf("error without a line: %v", err)
			}
			return
		}
		canonical := m.JSON()
		again, err := plugins.ParseManifest(canonical)
		if err != nil && len(canonical) <= 1<<20 || err == nil && !bytes.Equal(again.JSON(), canonical) {
			t.Fatalf("canonical form is not stable: %s, then %s, %v", canonical, again.JSON(), err)
		}
		if m.Config != nil && m.Config[0] != '{' || m.Limits.MemoryBytes < 0 {
			t.Fatalf("accepted %+v", m)
		}
	})
}
