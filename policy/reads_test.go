package policy

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"

	"parley/core/gate"
)

// engineOf compiles rules with time to spare.
func engineOf(t testing.TB, rules string) *Engine {
	t.Helper()
	o := Defaults()
	o.EvalTimeout = 10 * time.Second
	o.CacheEntries = 64 // small, so that random inputs evict
	e, err := o.Compile(t.Context(), Files{"p.rego": []byte("package parley\n" + rules)}, "r1")
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestReads(t *testing.T) {
	const (
		all    = "everything"
		action = "action.name action.role action.changes action.mode action.visibility action.slow_mode_s action.seconds action.lift"
	)
	tests := []struct{ name, rules, want string }{
		{"nothing", `decision := {"allow": true}`, ""},
		{"one field", `decision := {"allow": input.subject.banned}`, "subject.banned"},
		{"an element", `decision := {"allow": "x" in input.subject.roles}`, "subject.roles"},
		{"an index", "default decision := {\"allow\": false}\ndecision := {\"allow\": true} if input.subject.roles[0] == \"x\"", "subject.roles"},
		{"a group", `decision := {"allow": count(input.action) == 1}`, action},
		{"a group through a name", "decision := {\"allow\": a.name == \"x\"} if a := input.action", action},
		{"an import", "import input.subject as who\ndecision := {\"allow\": who.id == \"x\"}", "subject.id"},
		{"a field that is not there", `decision := {"allow": object.get(input, ["subject", "age"], 1) == 1}`, all},
		{"an unknown field", "default decision := {\"allow\": false}\ndecision := {\"allow\": true} if input.subject.age > 1", ""},
		{"a dynamic group", "decision := {\"allow\": count(x) > 0} if x := [v | some k; v := input[k]]", all},
		{"a dynamic field", "decision := {\"allow\": count(x) > 0} if x := [v | some k; v := input.action[k]]", action},
		{"a field named by a field", "default decision := {\"allow\": false}\ndecision := {\"allow\": true} if input.action[input.resource.id]", action + " resource.id"},
		{"an operand of data", "default decision := {\"allow\": false}\ndecision := {\"allow\": true} if data.lists[input.subject.type][input.subject.id]", "subject.type subject.id"},
		{"the whole input as a value", "decision := {\"allow\": x == input} if x := 1", all},
		{"walk", "decision := {\"allow\": count([1 | walk(input, [_, v]); v == \"x\"]) > 0}", all},
		{"a function's argument", "decision := {\"allow\": f(input)}\nf(x) := x.subject.id == \"x\"", all},
		{"a replaced input", "decision := {\"allow\": d} if d := e with input.subject.id as \"x\"\ne := input.subject.muted", "subject.id subject.muted"},
		{"else and default", "default decision := {\"allow\": false}\ndecision := {\"allow\": true} if { false } else := {\"allow\": input.subject.muted}", "subject.muted"},
		{"every", "decision := {\"allow\": x} if x := e\ndefault e := false\ne if every r in input.subject.roles { r != input.context.network }", "subject.roles context.network"},
		{"another package", "decision := {\"allow\": true}\nunused := input.context.text_bytes", "context.text_bytes"},
		{"a template", "decision := {\"allow\": false, \"reasons\": [$\"no, {input.subject.id}\"]}", "subject.id"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			want := tt.want
			if want == all {
				want = strings.Join((&Engine{reads: everything}).Reads(), " ")
			}
			if got := strings.Join(engineOf(t, tt.rules).Reads(), " "); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		})
	}
}

// TestFieldsCoverInput fails when gate.Input gains a field that this package
// does not know.
func TestFieldsCoverInput(t *testing.T) {
	var want []string
	root := reflect.TypeFor[gate.Input]()
	for i := range root.NumField() {
		group := root.Field(i)
		if group.Tag.Get("json") == "-" {
			continue // no policy sees it
		}
		for j := range group.Type.NumField() {
			want = append(want, group.Tag.Get("json")+"."+group.Type.Field(j).Tag.Get("json"))
		}
	}
	if got := (&Engine{reads: everything}).Reads(); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// TestDocumentIsTheJSON holds the input as OPA sees it to its JSON form.
func TestDocumentIsTheJSON(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		in := randomInput(r)
		b, err := json.Marshal(in)
		if err != nil {
			t.Fatal(err)
		}
		want, err := ast.ValueFromReader(strings.NewReader(strings.NewReplacer(`"roles":null`, `"roles":[]`, `"changes":null`, `"changes":[]`,
			`"periods":null`, `"periods":[]`, `"networks":null`, `"networks":[]`).Replace(string(b))))
		if err != nil {
			t.Fatal(err)
		}
		if got := everything.document(in).Value; got.Compare(want) != 0 {
			t.Fatalf("got %v, want %v", got, want)
		}
	}
}

func pick[T any](r *rand.Rand, of ...T) T { return of[r.IntN(len(of))] }

// randomInput draws from few values, so that equal keys occur, and from values
// that would collide in a careless key.
func randomInput(r *rand.Rand) *gate.Input {
	roles := make([]string, r.IntN(3))
	for i := range roles {
		roles[i] = pick(r, "moderator", "a", "ab", "b", "")
	}
	if len(roles) == 0 && r.IntN(2) == 0 {
		roles = nil
	}
	return &gate.Input{
		Subject: gate.Subject{
			Type: pick(r, "guest", "user"), ID: pick(r, "ann", "a", "b", "name", "id", "zoë"), Roles: roles,
			RoomRole: pick(r, "", "member", "owner"), Banned: r.IntN(4) == 0, Muted: r.IntN(4) == 0, NewAccount: r.IntN(2) == 0,
		},
		Action: gate.Action{
			Name: pick(r, gate.Connect, gate.RoomJoin, gate.MessageSend, "name"), Role: pick(r, "", "owner", "member"),
			Changes: pick(r, nil, []string{}, []string{"mode"}, []string{"mode", "title"}, []string{"modetitle"}), Mode: pick(r, "", "open", "archived"),
			Visibility: pick(r, "", "public"), SlowModeS: pick(r, 0, 30), Seconds: pick(r, 0, 60, 86400), Lift: r.IntN(4) == 0,
		},
		Resource: gate.Resource{
			Type: pick(r, "room", "server"), ID: pick(r, "", "a", "ab", "name", "id", "announcements"), Exists: r.IntN(2) == 0,
			Mode: pick(r, "open", "announce", "archived"), Visibility: pick(r, "public", "private"), SlowModeS: pick(r, 0, 1, 30, 21600), Direct: r.IntN(4) == 0,
		},
		Target: gate.Target{
			Type: pick(r, "", "user", "guest"), ID: pick(r, "", "ann", "a", "b"), Self: r.IntN(4) == 0,
			RoomRole: pick(r, "", "owner"), Banned: r.IntN(4) == 0, Muted: r.IntN(4) == 0,
		},
		Context: gate.Context{
			Transport: pick(r, "ws", "tcp"), Network: pick(r, "public", "private"),
			TextBytes: pick(r, 0, 1, 127, 128, 70000), SlowWaitS: pick(r, 0, 1, -1, 63, 64),
			Periods: pick(r, nil, []string{}, []string{"night"}, []string{"night", "weekend"}), Networks: pick(r, nil, []string{"office"}, []string{"night"}),
		},
	}
}

// TestCacheIsExact compares, over random inputs, what the engine answers (from
// its cache or over the fields it reads) with an evaluation over the whole input.
func TestCacheIsExact(t *testing.T) {
	explain := func(with string) string {
		return `decision := {"allow": count(seen) > 3, "reasons": [sprintf("%v", [seen])]}` + "\n" + with
	}
	tests := []struct{ name, rules string }{
		{"constant", `decision := {"allow": true}`},
		{"fields", explain(`seen := [input.subject.roles, input.resource.id, input.context.slow_wait_s, input.subject.banned]`)},
		{"dynamic group", explain(`seen := [v.id | some k; v := input[k]]`)},
		{"dynamic by value", explain(`seen := [input[x].id | some x in {"subject", "resource"}]`)},
		{"group named by a field", explain(`seen := [v | some k in {input.subject.id, input.action.name}; v := input.subject[k]]`)},
		{"walk", explain(`seen := [v | walk(input, [_, v]); is_string(v)]`)},
		{"walk a part", explain(`seen := [[p, v] | walk(input.subject, [p, v])]`)},
		{"whole group", explain(`seen := [input.resource]`)},
		{"whole input", explain(`seen := [input]`)},
		{"whole input in a function", explain("seen := [f(input)]\nf(x) := x.subject.id")},
		{"replaced", explain("seen := [a, b] if { a := e with input.subject.id as \"x\"; b := e with input.action as {\"name\": input.resource.id} }\ne := [input.subject.id, input.action.name, input.subject.muted]")},
		{"negation of what is not there", explain("default n := false\nn if not input.subject.age\nseen := [n, input.action.name]")},
		{"through data", explain(`seen := [k | some k; data.parley.table[k]; k == input.subject.type]` + "\ntable := {\"guest\": true, \"user\": true}")},
		{"object operations", explain(`seen := [object.keys(input.action), object.get(input, ["context", "network"], ""), json.filter(input, ["subject/roles"])]`)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := engineOf(t, tt.rules)
			whole := engineOf(t, tt.rules)
			whole.reads, whole.cache = everything, nil
			seed := rand.Uint64()
			r := rand.New(rand.NewPCG(seed, 7))
			for i := range 400 {
				in := randomInput(r)
				got, want := e.Decide(t.Context(), in), whole.Decide(t.Context(), in)
				if want.Failed {
					t.Fatalf("the reference failed for %+v", in)
				}
				got.Cached = false
				if !reflect.DeepEqual(got, want) {
					t.Fatalf("seed %d, input %d %+v: got %+v, want %+v", seed, i, in, got, want)
				}
			}
		})
	}
}

func TestKeysDiffer(t *testing.T) {
	keys := map[string]string{}
	r := rand.New(rand.NewPCG(3, 4))
	for range 5000 {
		in := randomInput(r)
		key := string(everything.appendKey(nil, in))
		doc := everything.document(in).String()
		if was, ok := keys[key]; ok && was != doc {
			t.Fatalf("one key for %s and %s", was, doc)
		}
		keys[key] = doc
	}
}

func TestOversizeKeyIsNotCached(t *testing.T) {
	e := engineOf(t, `decision := {"allow": input.subject.id != ""}`)
	in := &gate.Input{Subject: gate.Subject{ID: strings.Repeat("x", maxKeyBytes)}}
	for range 2 {
		if d := e.Decide(t.Context(), in); !d.Allow || d.Cached {
			t.Errorf("got %+v, want an uncached yes", d)
		}
	}
	if n := e.cache.len(); n != 0 {
		t.Errorf("got %d entries, want 0", n)
	}
}

func TestCacheIsBounded(t *testing.T) {
	c := newCache(60)
	if c.slots() != 64 {
		t.Fatalf("got %d slots, want 64", c.slots())
	}
	for i := range 10_000 {
		key := fmt.Appendf(nil, "%d", i)
		h := c.hash(key)
		c.put(h, key, gate.Decision{Revision: string(key)}, 0)
		if d := c.get(h, key); d == nil || d.decision.Revision != string(key) || !d.decision.Cached {
			t.Fatalf("key %d: got %+v, want it just stored", i, d)
		}
	}
	if n := c.len(); n > 64 || n < 32 {
		t.Errorf("got %d entries, want about 64", n)
	}
}

func TestCacheKeepsWhatIsUsed(t *testing.T) {
	c := newCache(cacheWays) // one set
	hot := []byte("hot")
	c.put(c.hash(hot), hot, gate.Decision{}, 0)
	for i := range 100 {
		if c.get(c.hash(hot), hot) == nil {
			t.Fatalf("the used entry was evicted by insert %d", i)
		}
		key := fmt.Appendf(nil, "%d", i)
		c.put(c.hash(key), key, gate.Decision{}, 0)
	}
}
