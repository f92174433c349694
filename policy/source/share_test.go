package source_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"parley/core/cluster"
	"parley/core/cluster/objects"
	"parley/core/redis"
	"parley/core/redis/redistest"
	"parley/policy/source"
)

// member is a source among others.
type member struct {
	*source.Source
	id    string
	nodes *cluster.Registry
	log   *syncBuffer
	stop  func()
}

// join starts a source that shares with others through the server at url.
func join(t *testing.T, url, name string, cfg source.Config, tune ...func(*objects.Config)) *member {
	t.Helper()
	m := &member{log: &syncBuffer{}}
	log := slog.New(slog.NewTextHandler(m.log, nil))
	rc := redis.Defaults()
	rc.URL = url
	client, err := redis.Open(rc, log)
	if err != nil {
		t.Fatal(err)
	}
	m.nodes, err = cluster.New(cluster.Config{Name: name, Lease: time.Second, Renew: 100 * time.Millisecond}, client, log)
	if err != nil {
		t.Fatal(err)
	}
	oc := objects.Defaults()
	oc.Poll = 100 * time.Millisecond
	for _, f := range tune {
		f(&oc)
	}
	store, err := objects.New(oc, client, log)
	if err != nil {
		t.Fatal(err)
	}
	m.id = string(m.nodes.Self())
	cfg.Cluster = &source.Cluster{Self: m.id, Objects: store, Touch: m.nodes.Touch}
	if m.Source, err = source.Open(t.Context(), cfg, log); err != nil {
		t.Fatal(err)
	}
	m.nodes.SetInfo(source.InfoKey, func() any { return m.NodeInfo() })
	m.nodes.OnView(m.Observe)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for _, f := range []func(context.Context) error{m.Run, m.nodes.Run, store.Run} {
		running.Go(func() {
			if err := f(ctx); err != nil {
				t.Errorf("run: %v", err)
			}
		})
	}
	m.stop = sync.OnceFunc(func() { cancel(); running.Wait(); client.Close() })
	t.Cleanup(m.stop)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the log of %s:\n%s", m.id, m.log)
		}
	})
	return m
}

// gitConfig follows a repository, and keeps what it took.
func gitConfig(t *testing.T, url string) source.Config {
	t.Helper()
	cfg := config()
	cfg.Git.URL, cfg.Git.StateDir, cfg.Git.Interval = url, t.TempDir(), 20*time.Millisecond
	return cfg
}

// away is a repository that nobody reaches.
func away(t *testing.T) string { return filepath.Join(t.TempDir(), "away.git") }

func on(revision string) func(source.Status) bool {
	return func(st source.Status) bool { return st.Revision == revision }
}

// all waits until each decides by the revision and knows that the others do.
func all(t *testing.T, revision string, members ...*member) {
	t.Helper()
	for _, m := range members {
		until(t, m.Source, "on "+revision+" with all others", func(st source.Status) bool {
			if st.Revision != revision || len(st.Nodes) != len(members) || st.CannotConverge != nil {
				return false
			}
			for _, n := range st.Nodes {
				if !n.OnHead || n.Revision != revision {
					return false
				}
			}
			return m.Skew() == 0
		})
	}
}

const (
	headsKey = "parley:{objects}:heads"
	objKey   = "parley:{objects}:o:"
)

// head reads the stored head "policy": its version, and its value.
func head(t *testing.T, server *redistest.Server) (version string, value map[string]any) {
	t.Helper()
	parts := strings.Split(server.Do("HGET", headsKey, "policy"), "\n") // a seal comes fourth
	if len(parts) < 3 {
		t.Fatalf("head: got %q", parts)
	}
	if err := json.Unmarshal([]byte(parts[2]), &value); err != nil {
		t.Fatal(err)
	}
	return parts[0], value
}

func TestNodesShareARevision(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	r := newRepo(t)
	first := r.commit("p.rego", says("first"))
	a := join(t, server.URL(), "a", gitConfig(t, r.dir))
	until(t, a.Source, "live", on(first))
	// b follows the same repository, c cannot reach it: it starts from what a has handed over, or waits for it.
	b, c := join(t, server.URL(), "b", gitConfig(t, r.dir)), join(t, server.URL(), "c", gitConfig(t, away(t)))
	all(t, first, a, b, c)
	for i := range 3 {
		now := r.commit("p.rego", says(fmt.Sprint("rule", i)))
		all(t, now, a, b, c)
		for _, m := range []*member{a, b, c} {
			if got := m.Decide(t.Context(), ask("ann")).Reasons[0].Code; got != fmt.Sprint("rule", i) {
				t.Errorf("%s says %s", m.id, got)
			}
		}
		// Exactly one of those who reach the repository has brought it in, and says how long it took.
		until(t, c.Source, "the time it took", func(st source.Status) bool {
			for _, n := range st.Nodes {
				if n.Live != nil && n.Live.Revision == now {
					return n.Live.Nodes == 3 && n.Live.TookMS >= 0
				}
			}
			return false
		})
	}
	if notes := strings.Join(c.Notes(), "\n"); strings.Contains(notes, "cannot converge") || c.Behind() != "" {
		t.Errorf("c: got %q", notes)
	}
	c.stop()
	until(t, a.Source, "two nodes", func(st source.Status) bool { return len(st.Nodes) == 2 })
}

func TestAPinAtOneNodeIsOneEverywhere(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	r := newRepo(t)
	first := r.commit("p.rego", says("first"))
	second := r.commit("p.rego", says("second"))
	ca := recording(t)
	cc := recording(t)
	ca.Git, cc.Git = gitConfig(t, r.dir).Git, gitConfig(t, away(t)).Git
	cc.Guard.MaxChanged = 1 // a pin passes it, by name
	a, b, c := join(t, server.URL(), "a", ca), join(t, server.URL(), "b", gitConfig(t, r.dir)), join(t, server.URL(), "c", cc)
	all(t, second, a, b, c)
	for range 3 {
		c.Decide(t.Context(), ask("ann"))
	}
	if err := a.Pin(t.Context(), strings.TrimPrefix(first, "git:"), "olga", "because"); err != nil {
		t.Fatal(err)
	}
	all(t, first, a, b, c)
	for _, m := range []*member{a, b, c} {
		if p := m.Status().Git.Pin; p == nil || p.By != "olga" || p.Reason != "because" {
			t.Errorf("%s: got pin %+v", m.id, p)
		}
	}
	audit, err := c.Audit(t.Context(), time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	recorded := ""
	for _, e := range audit.Events {
		recorded += fmt.Sprintln(e.Event, e.Revision, e.By, e.Detail)
	}
	if !strings.Contains(recorded, "pinned "+first+" olga on node "+a.id) {
		t.Errorf("c has recorded:\n%s", recorded)
	}
	if err := b.Unpin(t.Context()); err != nil { // at another node
		t.Fatal(err)
	}
	all(t, second, a, b, c)
	if a.Status().Git.Pin != nil || c.Status().Git.Pin != nil {
		t.Errorf("still pinned: %+v, %+v", a.Status().Git.Pin, c.Status().Git.Pin)
	}
}

// A guard refuses on one node what passes on the other; a word at either lets it pass.
func TestAnAcceptAtOneNodeIsOneEverywhere(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	r := newRepo(t)
	first := r.commit("p.rego", everybody)
	strict := recording(t)
	strict.Guard.MaxChanged, strict.Git = 1, gitConfig(t, away(t)).Git
	a, c := join(t, server.URL(), "a", gitConfig(t, r.dir)), join(t, server.URL(), "c", strict)
	all(t, first, a, c)
	for range 3 {
		c.Decide(t.Context(), ask("ann"))
	}
	second := r.commit("p.rego", shut)
	until(t, c.Source, "refused", func(st source.Status) bool { return st.CannotConverge != nil })
	st := c.Status()
	if x := st.CannotConverge; x.Revision != second || x.From != a.id || !x.Overridable || st.Refused == nil || st.Revision != first {
		t.Errorf("got %+v, %+v", x, st.Refused)
	}
	until(t, a.Source, "told", func(st source.Status) bool {
		for _, n := range st.Nodes {
			if n.Refused != nil {
				return string(n.Node) == c.id && n.Refused.Revision == second && !n.OnHead && a.Skew() == 1
			}
		}
		return false
	})
	if notes := strings.Join(c.Notes(), "\n"); !strings.Contains(notes, "cannot converge: node "+c.id+" refuses "+second+" from node "+a.id) {
		t.Errorf("got notes %q", notes)
	}
	if _, err := c.Accept(second, "olga"); err != nil {
		t.Fatal(err)
	}
	all(t, second, a, c)
	if c.Status().Refused != nil || c.Behind() != "" {
		t.Errorf("still refused: %+v", c.Status().Refused)
	}
	// And the other way: accepted at a node that did not bring it in.
	until(t, a.Source, "the word", func(source.Status) bool { return strings.Contains(a.log.String(), "on another node") })
}

// What somebody puts into Redis by hand is refused and named, and gives way to
// what a node brings in.
func TestHostileObjects(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	r := newRepo(t)
	first := r.commit("p.rego", says("first"))
	a, c := join(t, server.URL(), "a", gitConfig(t, r.dir)), join(t, server.URL(), "c", gitConfig(t, away(t)))
	all(t, first, a, c)
	version, good := head(t, server)
	object := good["object"].(string)

	// A revision of another history, by a node that is none of ours.
	elsewhere := redistest.Start(t, redistest.Options{})
	other := newRepo(t)
	alien := other.commit("p.rego", says("alien"))
	e := join(t, elsewhere.URL(), "e", gitConfig(t, other.dir))
	until(t, e.Source, "handed over", func(source.Status) bool { return elsewhere.Do("HEXISTS", headsKey, "policy") == "1" })
	_, bad := head(t, elsewhere)
	badObject := bad["object"].(string)
	pack := elsewhere.Do("HGET", objKey+badObject, "0")
	put := func(digest, bytes string) {
		server.Do("HSET", objKey+digest, "kind", "policy", "size", fmt.Sprint(len(bytes)), "done", fmt.Sprint(len(bytes)), "0", bytes)
	}
	set := func(value any, names string) {
		t.Helper()
		b, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		server.Do("HSET", headsKey, "policy", fmt.Sprint(time.Now().UnixMicro())+"\n"+names+"\n"+string(b))
	}
	with := func(v map[string]any, pairs ...any) map[string]any {
		out := map[string]any{}
		for k, x := range v {
			out[k] = x
		}
		for i := 0; i < len(pairs); i += 2 {
			out[pairs[i].(string)] = pairs[i+1]
		}
		return out
	}
	put(badObject, pack)
	flipped := []byte(pack)
	flipped[len(flipped)/2] ^= 1
	damaged := strings.Repeat("ab", 32)
	put(damaged, string(flipped))
	for _, tt := range []struct {
		name  string
		value any
		want  string
	}{
		{"a flipped byte", with(bad, "object", damaged), "not what its name says"},
		{"an object that is not there", with(bad, "object", strings.Repeat("cd", 32)), "not there"},
		{"another history", bad, "does not descend"},
		{"another commit than it says", with(bad, "commit", strings.Repeat("a", 40)), "is the commit"},
		{"another ref", with(bad, "ref", "other"), `follow the ref "other"`},
		{"a later format", with(bad, "format", 2), "update this node"},
	} {
		set(tt.value, badObject)
		for _, m := range []*member{a, c} {
			st := until(t, m.Source, "refusing "+tt.name, func(st source.Status) bool {
				return st.CannotConverge != nil && strings.Contains(st.CannotConverge.Why, tt.want)
			})
			if st.Revision != first {
				t.Fatalf("%s: %s decides by %s", tt.name, m.id, st.Revision)
			}
			if notes := strings.Join(m.Notes(), "\n"); !strings.Contains(notes, "cannot converge: node "+m.id) || !strings.Contains(notes, tt.want) {
				t.Errorf("%s: got notes %q", tt.name, notes)
			}
		}
	}
	// What helps nobody is replaced at once, by whoever has something.
	set("rubbish", "")
	all(t, first, a, c)
	if _, now := head(t, server); now["commit"] != good["commit"] || now["object"] != object || version == "" {
		t.Errorf("the head is %v", now)
	}
	// So is an object that was damaged later, by who has what it was.
	server.Do("HSET", objKey+object, "0", "damaged")
	late := join(t, server.URL(), "late", gitConfig(t, away(t)))
	until(t, late.Source, "refusing what is damaged", func(st source.Status) bool {
		return st.CannotConverge != nil && strings.Contains(st.CannotConverge.Why, "not what its name says")
	})
	late.stop()
	// What is refused gives way to the next merge.
	set(bad, badObject)
	until(t, c.Source, "refusing again", func(st source.Status) bool { return st.CannotConverge != nil })
	until(t, a.Source, "refusing again", func(st source.Status) bool { return st.CannotConverge != nil })
	second := r.commit("p.rego", says("second"))
	all(t, second, a, c)
	if a.Status().Revision == alien {
		t.Error("the alien decides")
	}
	// An accept or a pin from somebody's hand: what is malformed passes nothing.
	server.Do("HSET", headsKey, "policy-accepts", "5\n\n{\"format\":1,\"accepts\":[{\"revision\":\"main\",\"by\":\"x\"}]}")
	until(t, a.Source, "the bad word", func(source.Status) bool { return strings.Contains(a.log.String(), "cannot be read") })
}

func TestRedisLosesItsData(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	r := newRepo(t)
	first := r.commit("p.rego", says("first"))
	a, c := join(t, server.URL(), "a", gitConfig(t, r.dir)), join(t, server.URL(), "c", gitConfig(t, away(t)))
	all(t, first, a, c)
	server.Do("FLUSHALL")
	until(t, a.Source, "handed over again", func(source.Status) bool { return server.Do("HEXISTS", headsKey, "policy") == "1" })
	all(t, first, a, c)
	server.Kill()
	second := r.commit("p.rego", says("second"))
	until(t, a.Source, "live without redis", on(second))
	server.Restart()
	all(t, second, a, c)
}

// A node that starts without a repository takes the others' policy before it
// decides anything; without those too, the built-in one.
func TestStartWithoutARepository(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	r := newRepo(t)
	first := r.commit("p.rego", says("first"))
	a := join(t, server.URL(), "a", gitConfig(t, r.dir))
	until(t, a.Source, "handed over", func(source.Status) bool { return server.Do("HEXISTS", headsKey, "policy") == "1" })
	cfg := gitConfig(t, away(t))
	c := join(t, server.URL(), "c", cfg)
	if !strings.Contains(c.log.String(), "policy taken from the other nodes") || c.Fallback() == source.FromDefault {
		t.Errorf("c began with %s", c.Status().Revision)
	}
	all(t, first, a, c)
	c.stop()
	a.stop()
	server.Do("FLUSHALL")
	// From its disk, and then it hands over what it has.
	again := join(t, server.URL(), "c", cfg)
	if again.Status().Revision != first {
		t.Errorf("after a restart: got %s", again.Status().Revision)
	}
	b := join(t, server.URL(), "b", gitConfig(t, away(t)))
	all(t, first, again, b)
}

// Folders are not shared, and differences show.
func TestFoldersShowSkew(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	folder := func(rules string) source.Config {
		cfg := config()
		cfg.Dir = t.TempDir()
		if err := os.WriteFile(filepath.Join(cfg.Dir, "p.rego"), []byte(rules), 0o644); err != nil {
			t.Fatal(err)
		}
		return cfg
	}
	a, b, c := join(t, server.URL(), "a", folder(says("one"))), join(t, server.URL(), "b", folder(says("one"))), join(t, server.URL(), "c", folder(says("two")))
	until(t, a.Source, "the skew", func(st source.Status) bool { return len(st.Nodes) == 3 && a.Skew() == 1 })
	for _, n := range a.Nodes() {
		if n.OnHead != (string(n.Node) != c.id) || n.Source != "dir" {
			t.Errorf("got %+v", n)
		}
	}
	if server.Do("EXISTS", headsKey) != "0" || b.Behind() != "" {
		t.Error("folders are handed over")
	}
}

// What a node says of itself is anybody's word.
func TestObserveHostileNodes(t *testing.T) {
	r := newRepo(t)
	r.commit("p.rego", says("first"))
	server := redistest.Start(t, redistest.Options{})
	a := join(t, server.URL(), "a", gitConfig(t, r.dir))
	var nodes []cluster.Node
	for i, info := range []string{"{", `{"revision":"\u001b[2J"}`, `{"revision":"` + strings.Repeat("x", 999) + `"}`, `{"refused":{"why":"` + strings.Repeat("x", 9999) + `"}}`, `{"live":{"revision":"\u0007"}}`, `5`} {
		nodes = append(nodes, cluster.Node{ID: cluster.NodeID(fmt.Sprintf("x-0000000%d", i)), Info: map[string]json.RawMessage{source.InfoKey: json.RawMessage(info)}})
	}
	nodes = append(nodes, cluster.Node{ID: "y-00000000"})
	s := open(t, config(), io.Discard)
	s.Observe(cluster.View{Nodes: nodes})
	if s.Nodes() != nil {
		t.Error("without a cluster there are no nodes")
	}
	a.Observe(cluster.View{Nodes: nodes})
	bad := 0
	for _, n := range a.Nodes() {
		if n.Error != "" {
			bad++
		}
	}
	if bad != len(nodes) && bad != 0 { // 0: the registry has observed again meanwhile
		t.Errorf("got %d of %d nodes unreadable", bad, len(nodes))
	}
}
