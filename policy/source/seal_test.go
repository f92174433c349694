package source_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"parley/core/cluster/objects"
	"parley/core/redis/redistest"
	"parley/policy/source"
)

const nodesSecret = "0123456789abcdef0123456789abcdef"

func sealedBy(secret string) func(*objects.Config) {
	return func(c *objects.Config) { c.Secrets = [][]byte{[]byte(secret)} }
}

// Who can write to Redis and does not have the secret pins nothing, ends no pin
// and lets nothing pass, though no signers are asked for.
func TestSealedPins(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	r := newRepo(t)
	first := r.commit("p.rego", says("first"))
	second := r.commit("p.rego", says("second"))
	sealed := sealedBy(nodesSecret)
	a, b := join(t, server.URL(), "a", gitConfig(t, r.dir), sealed), join(t, server.URL(), "b", gitConfig(t, away(t)), sealed)
	all(t, second, a, b)
	until(t, a.Source, "handed over", func(source.Status) bool { return strings.Contains(server.Do("HGET", headsKey, "policy"), second[4:]) })
	followed := server.Do("HGET", headsKey, "policy")
	if err := a.Pin(t.Context(), strings.TrimPrefix(first, "git:"), "olga", "because"); err != nil {
		t.Fatal(err)
	}
	all(t, first, a, b)

	// The commit of somebody else, which no signature refuses.
	elsewhere := redistest.Start(t, redistest.Options{})
	other := newRepo(t)
	alien := other.commit("p.rego", says("alien"))
	e := join(t, elsewhere.URL(), "e", gitConfig(t, other.dir), sealedBy("another secret that is long enough"))
	until(t, e.Source, "handed over", func(source.Status) bool { return elsewhere.Do("HEXISTS", headsKey, "policy") == "1" })
	foreign := elsewhere.Do("HGET", headsKey, "policy")
	_, bad := head(t, elsewhere)
	object := bad["object"].(string)
	pack := elsewhere.Do("HGET", objKey+object, "0")
	server.Do("HSET", objKey+object, "kind", "policy", "size", fmt.Sprint(len(pack)), "done", fmt.Sprint(len(pack)), "0", pack)
	bad["pin"] = map[string]any{"revision": bad["commit"], "by": "mallory", "at": time.Now()}
	_, unpinned := head(t, server)
	delete(unpinned, "pin")

	text := func(v map[string]any) string {
		j, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(time.Now().Add(time.Hour).UnixMicro()) + "\n" + v["object"].(string) + "\n" + string(j)
	}
	seal := func(from string) string { return from[strings.LastIndexByte(from, '\n'):] }
	for _, tt := range []struct{ name, head, why string }{
		{"an end of the pin", text(unpinned), "it is not sealed"},
		{"an end of the pin under another seal", text(unpinned) + seal(followed), "its seal does not fit"},
		{"what was true before the pin", followed, "it is older than one"},
		{"a pin of another's commit", text(bad), "it is not sealed"},
		{"what another installation has sealed", foreign, "its seal does not fit"},
	} {
		server.Do("HSET", headsKey, "policy", tt.head)
		until(t, a.Source, tt.name+" replaced", func(st source.Status) bool {
			return server.Do("HGET", headsKey, "policy") != tt.head && st.CannotConverge == nil
		})
		all(t, first, a, b)
		for _, m := range []*member{a, b} {
			if p := m.Status().Git.Pin; p == nil || p.By != "olga" {
				t.Fatalf("%s: %s has pin %+v", tt.name, m.id, p)
			}
			if m.Status().Revision == alien {
				t.Fatalf("%s: the alien decides", tt.name)
			}
		}
		until(t, a.Source, "somebody to say "+tt.why, func(source.Status) bool { return strings.Contains(a.log.String()+b.log.String(), tt.why) })
	}
	server.Do("HSET", headsKey, "policy-accepts", fmt.Sprint(time.Now().UnixMicro())+"\n\n"+`{"format":1,"accepts":[{"revision":"`+alien+`","by":"mallory","node":"x"}]}`)
	until(t, a.Source, "the accept taken away", func(source.Status) bool {
		return strings.Contains(a.log.String()+b.log.String(), `they have" head=policy-accepts`) && server.Do("HEXISTS", headsKey, "policy-accepts") == "0"
	})
	if strings.Contains(a.log.String()+b.log.String(), "mallory") {
		t.Error("the accept was heard")
	}
	// What an operator says goes on as before, and a third node believes it.
	if err := b.Unpin(t.Context()); err != nil {
		t.Fatal(err)
	}
	c := join(t, server.URL(), "c", gitConfig(t, away(t)), sealed)
	all(t, second, a, b, c)
	// A node without the secret follows, and its own operator is told what is missing.
	d := join(t, server.URL(), "d", gitConfig(t, r.dir))
	all(t, second, a, b, c, d)
	if err := d.Pin(t.Context(), strings.TrimPrefix(first, "git:"), "dan", "alone"); err != nil {
		t.Fatal(err)
	}
	until(t, d.Source, "saying so", func(st source.Status) bool {
		return st.CannotConverge != nil && strings.Contains(st.CannotConverge.Why, "this node has no cluster.secret_file")
	})
	if a.Status().Git.Pin != nil {
		t.Error("a node without the secret has pinned the others")
	}
}

// Nodes with different secrets each keep what they have and say what is wrong; none
// takes the other's word away.
func TestTwoSecrets(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	r := newRepo(t)
	first := r.commit("p.rego", says("first"))
	a := join(t, server.URL(), "a", gitConfig(t, r.dir), sealedBy(nodesSecret))
	until(t, a.Source, "handed over", func(st source.Status) bool {
		return st.Revision == first && server.Do("HEXISTS", headsKey, "policy") == "1"
	})
	theirs := server.Do("HGET", headsKey, "policy")
	x := join(t, server.URL(), "x", gitConfig(t, r.dir), sealedBy("another secret that is long enough"))
	st := until(t, x.Source, "saying so", func(st source.Status) bool { return st.CannotConverge != nil })
	if !strings.Contains(st.CannotConverge.Why, "has another cluster.secret_file") || st.Revision != first {
		t.Errorf("got %+v on %s", st.CannotConverge, st.Revision)
	}
	second := r.commit("p.rego", says("second"))
	until(t, a.Source, "live", on(second))
	until(t, x.Source, "live", on(second))
	until(t, a.Source, "handed over", func(source.Status) bool { return server.Do("HGET", headsKey, "policy") != theirs })
	if a.Status().CannotConverge != nil {
		t.Errorf("got %+v", a.Status().CannotConverge)
	}
}
