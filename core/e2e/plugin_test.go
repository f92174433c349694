package e2e

import (
	"encoding/binary"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"parley/core/chat"
	"parley/core/client"
	"parley/sdk/abi"
)

// install puts a file into place as a careful operator does: complete, by
// rename.
func install(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path+".new", data, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// pluginStatus is the part of /v1/plugins these tests read.
type pluginStatus struct {
	Name, State, Digest, Error string
	Version, Source            string
	ErrorSource                string `json:"error_source"`
	Decisions                  uint64
	Candidate                  *struct {
		Version, Stage, Source         string
		Percent                        int
		Decisions, Compared, Disagreed uint64
	}
	LastRollback *struct{ Version, Stage, Reason, By string } `json:"last_rollback"`
}

func pluginOf(n *node, name string) pluginStatus {
	n.T.Helper()
	for _, p := range status[struct{ Plugins []pluginStatus }](n, "/v1/plugins").Plugins {
		if p.Name == name {
			return p
		}
	}
	return pluginStatus{}
}

// TestAPluginJudgesAndIsReplacedWhileItRuns starts with the real wordlist
// plugin, replaces it with another module, breaks it and removes it.
func TestAPluginJudgesAndIsReplacedWhileItRuns(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	module, err := os.ReadFile(built.wordlist)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := json.Marshal(map[string]any{"name": "wordlist",
		"config": map[string]any{"words": []string{"darn"}, "reason": "Mind your words."}})
	if err != nil {
		t.Fatal(err)
	}
	install(t, filepath.Join(dir, "wordlist.json"), manifest)
	install(t, filepath.Join(dir, "wordlist.wasm"), module)
	n := startNode(t, unlimited(settings{"plugins.dir": dir}))
	await(t, "the plugin is active", func() bool { return pluginOf(n, "wordlist").State == "active" })

	ann := visit(t, client.Options{URL: n.WSURL(), Guest: "ann"})
	bob := visit(t, client.Options{URL: n.TCPURL(), Guest: "bob"})
	bob.enters("lobby")
	masked := func() {
		t.Helper()
		for _, text := range []string{"well darn it", "well D4RN it", "well d a r n it", "well d\u200b\u0430rn it"} {
			ack, nonce := ann.says("lobby", text)
			if ack.Outcome != chat.Redacted || len(ack.Reasons) != 1 || ack.Reasons[0].Source != "plugin:wordlist" || ack.Reasons[0].Text != "Mind your words." {
				t.Errorf("%q: got outcome %q and reasons %+v, want redacted and the plugin's words", text, ack.Outcome, ack.Reasons)
			}
			got := bob.hears(nonce)
			if got.Outcome != chat.Redacted || !strings.HasPrefix(got.Text, "well ") || !strings.HasSuffix(got.Text, " it") || strings.ContainsAny(got.Text[5:len(got.Text)-3], "darnDARN4\u0430") {
				t.Errorf("%q: bob got %q (%s), want the word masked and the rest as it was", text, got.Text, got.Outcome)
			}
		}
		if ack, _ := ann.says("lobby", "a fine day"); ack.Outcome != chat.Accepted {
			t.Errorf("a harmless message: got outcome %q", ack.Outcome)
		}
	}
	masked()
	before := pluginOf(n, "wordlist").Digest

	install(t, filepath.Join(dir, "wordlist.wasm"), []byte("this is no module"))
	await(t, "the broken module is refused", func() bool { return pluginOf(n, "wordlist").Error != "" })
	if p := pluginOf(n, "wordlist"); p.State != "active" || p.Digest != before {
		t.Errorf("after a broken module: got %+v, want the old one active", p)
	}
	masked()

	if err := os.Remove(filepath.Join(dir, "wordlist.json")); err != nil {
		t.Fatal(err)
	}
	install(t, filepath.Join(dir, "wordlist.wasm"), constantModule(abi.Deny, "Nobody speaks today."))
	await(t, "the new module is in force", func() bool {
		p := pluginOf(n, "wordlist")
		return p.Digest != before && p.Error == ""
	})
	_, err = ann.Send(within(t), "lobby", client.NewNonce(), "a fine day")
	if said := refusal(t, err); said.Code != chat.CodeDenied || len(said.Reasons) != 1 || said.Reasons[0].Text != "Nobody speaks today." || said.Reasons[0].Source != "plugin:wordlist" {
		t.Errorf("under the new module: got %+v, want it denied in its words", said)
	}

	if err := os.Remove(filepath.Join(dir, "wordlist.wasm")); err != nil {
		t.Fatal(err)
	}
	await(t, "the plugin is gone", func() bool { return pluginOf(n, "wordlist").Name == "" })
	if ack, _ := ann.says("lobby", "well darn it"); ack.Outcome != chat.Accepted {
		t.Errorf("without the plugin: got outcome %q", ack.Outcome)
	}
	n.Stop()
}

// constantModule is a whole guest that gives every message the same verdict:
// the smallest thing that fulfils the ABI, written out in the binary format
// (WebAssembly core 1.0, §5).
func constantModule(v abi.Verdict, reason string) []byte {
	const at, buffer = 16, 1024
	result := abi.AppendResult(nil, &abi.Result{Code: 1, Score: 1000, Reason: reason})
	section := func(id byte, body ...byte) []byte { return append([]byte{id}, sized(body)...) }
	export := func(name string, kind, index byte) []byte {
		return append(sized([]byte(name)), kind, index)
	}
	function := func(code ...byte) []byte { return sized(append([]byte{0}, append(code, 0x0b)...)) } // no locals, end
	i32 := func(x int64) []byte { return append([]byte{0x41}, signed(x)...) }
	i64 := func(x int64) []byte { return append([]byte{0x42}, signed(x)...) }

	m := []byte{0, 'a', 's', 'm', 1, 0, 0, 0}
	// types: () -> i32, (i32) -> i32, (i32 i32) -> i64
	m = append(m, section(1, 3, 0x60, 0, 1, 0x7f, 0x60, 1, 0x7f, 1, 0x7f, 0x60, 2, 0x7f, 0x7f, 1, 0x7e)...)
	m = append(m, section(3, 3, 0, 1, 2)...)
	m = append(m, section(5, 1, 1, 1, 1)...) // one page, and no more
	exports := []byte{4}
	exports = append(exports, export(abi.ExportMemory, 2, 0)...)
	exports = append(exports, export(abi.ExportVersion, 0, 0)...)
	exports = append(exports, export(abi.ExportInputBuffer, 0, 1)...)
	exports = append(exports, export(abi.ExportDecide, 0, 2)...)
	m = append(m, section(7, exports...)...)
	code := []byte{3}
	code = append(code, function(i32(abi.Version)...)...)
	code = append(code, function(i32(buffer)...)...)
	answer := int64(0) // allow has no result
	if v != abi.Allow {
		answer = int64(abi.Pack(v, at, uint32(len(result))))
	}
	code = append(code, function(i64(answer)...)...)
	m = append(m, section(10, code...)...)
	data := append([]byte{1, 0}, append(i32(at), 0x0b)...)
	return append(m, section(11, append(data, sized(result)...)...)...)
}

// sized puts the length of b before it, in LEB128.
func sized(b []byte) []byte { return append(binary.AppendUvarint(nil, uint64(len(b))), b...) }

// signed is a signed LEB128 number.
func signed(x int64) []byte {
	var out []byte
	for {
		b := byte(x & 0x7f)
		x >>= 7
		if (x == 0 && b&0x40 == 0) || (x == -1 && b&0x40 != 0) {
			return append(out, b)
		}
		out = append(out, b|0x80)
	}
}

// TestAFolderOfPluginsThatIsNotThere: the node serves, and says on the page that
// operators look at that nothing judges; once the folder is there, it does not.
func TestAFolderOfPluginsThatIsNotThere(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "plugins")
	n := startNode(t, settings{"plugins.dir": dir})
	if code, body := n.Get("/readyz"); code != 200 || !strings.Contains(body, "no plugin judges until it can be read") {
		t.Errorf("/readyz: got %d %s, want ready, with a note", code, body)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	await(t, "the note is gone", func() bool {
		_, body := n.Get("/readyz")
		return !strings.Contains(body, "notes")
	})
	n.Stop()
}
