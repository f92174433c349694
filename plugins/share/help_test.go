package share_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"parley/core/chat"
	"parley/core/cluster"
	"parley/core/cluster/objects"
	"parley/core/moderation"
	"parley/core/redis"
	"parley/core/redis/redistest"
	"parley/plugins"
	"parley/plugins/internal/asm"
	"parley/plugins/share"
	"parley/sdk/abi"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// go-redis looks for a lost server once a second, and ends when it
		// next notices that the client was closed.
		goleak.IgnoreAnyFunction("github.com/redis/go-redis/v9/internal/pool.(*ConnPool).tryDial"))
}

// says is a guest whose every verdict is v, with a reason.
func says(v abi.Verdict, reason string) []byte {
	const bufferAt, answerAt = 4096, 1024
	b := abi.AppendResult(nil, &abi.Result{Reason: reason})
	i32, answer := []byte{asm.I32}, int64(abi.Pack(v, answerAt, uint32(len(b))))
	if v == abi.Allow {
		answer = 0
	}
	m := &asm.Module{Min: 1, DataAt: answerAt, Data: b, Funcs: []asm.Func{
		{Export: abi.ExportVersion, Results: i32, Code: asm.Const(abi.Version)},
		{Export: abi.ExportInputBuffer, Params: i32, Results: i32, Code: asm.Const(bufferAt)},
		{Export: abi.ExportDecide, Params: []byte{asm.I32, asm.I32}, Results: []byte{asm.I64}, Code: asm.Const64(answer)},
	}}
	return m.Encode()
}

// node is one node's plugins with all they need of a process.
type node struct {
	t          *testing.T
	url, name  string
	dir, state string
	edit       func(*plugins.Config)
	retry      time.Duration // 0 for a short one
	judge      time.Duration // 0 for that of Defaults
	log        *buffer

	catalog *plugins.Catalog
	share   *share.Share
	nodes   *cluster.Registry
	store   *objects.Store
	stop    func()
}

type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) count(s string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Count(b.b.String(), s)
}

// newNode prepares a node with folders of its own; it starts nothing.
func newNode(t *testing.T, server *redistest.Server, name string) *node {
	t.Helper()
	n := &node{t: t, url: server.URL(), name: name, dir: t.TempDir(), state: t.TempDir(), log: &buffer{}}
	t.Cleanup(func() {
		n.down()
		if t.Failed() {
			t.Logf("log of %s:\n%s", name, n.log.b.String())
		}
	})
	return n
}

// up starts the node as the server does.
func (n *node) up() *node {
	n.t.Helper()
	n.open()()
	return n
}

// open does what a server does before it serves, and returns how to go on.
func (n *node) open() (run func()) {
	n.t.Helper()
	log := slog.New(slog.NewTextHandler(n.log, nil))
	rc := redis.Defaults()
	rc.URL = n.url
	rc.DialTimeout, rc.CallTimeout, rc.ProbeTimeout = redistest.Patience, redistest.Patience, redistest.Patience // for a machine that stands still
	client, err := redis.Open(rc, log)
	n.must(err)
	cc := cluster.Defaults()
	cc.Name = n.name
	n.nodes, err = cluster.New(cc, client, log)
	n.must(err)
	n.store, err = objects.New(objects.Defaults(), client, log)
	n.must(err)
	pc := plugins.Defaults()
	pc.Dir, pc.StateDir = n.dir, n.state
	pc.Watch.Quiet = 5 * time.Millisecond
	if n.edit != nil {
		n.edit(&pc)
	}
	n.catalog, err = plugins.New(pc, log)
	n.must(err)
	sc := share.Defaults()
	sc.Plugins, sc.Retry = pc, cmp.Or(n.retry, 200*time.Millisecond)
	if n.judge > 0 {
		sc.Judge = n.judge
	}
	n.share, err = share.New(sc, n.catalog, n.store, n.nodes, log)
	n.must(err)
	ctx, cancel := context.WithCancel(context.Background())
	n.must(n.share.Open(ctx, func(ctx context.Context) error {
		_ = n.catalog.Open(ctx) // tests look at Status
		return nil
	}))
	var wg sync.WaitGroup
	n.stop = func() {
		cancel()
		wg.Wait()
		if err := errors.Join(n.catalog.Close(), client.Close()); err != nil {
			n.t.Error(err)
		}
	}
	return func() {
		for _, run := range []func(context.Context) error{n.nodes.Run, n.store.Run, n.catalog.Run, n.share.Run} {
			wg.Go(func() {
				if err := run(ctx); err != nil {
					n.t.Errorf("%s: %v", n.name, err)
				}
			})
		}
	}
}

func (n *node) must(err error) {
	n.t.Helper()
	if err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) down() {
	if n.stop != nil {
		n.stop()
		n.stop = nil
	}
}

// drop installs a version, its manifest first. A node that runs has looked at it
// when drop returns: what it may have judged with in between, the new manifest
// with the old module, is not what a test goes on from.
func (n *node) drop(name string, wasm []byte, manifest string) {
	n.t.Helper()
	put := func(name string, b []byte) {
		tmp := filepath.Join(n.dir, "."+name+".new")
		n.must(os.WriteFile(tmp, b, 0o644))
		n.must(os.Rename(tmp, filepath.Join(n.dir, name)))
	}
	if manifest != "" {
		put(name+".json", []byte(manifest))
	}
	put(name+".wasm", wasm)
	if n.stop == nil {
		return
	}
	var sidecar []byte // nil where there is none
	if manifest != "" {
		sidecar = []byte(manifest)
	}
	source := plugins.SourceDigest(wasm, sidecar)
	await(n.t, fmt.Sprintf("%s to look at %s, %.12s", n.name, name, source), func() bool {
		s := n.status(name)
		return s.Source == source || s.ErrorSource == source || s.Candidate != nil && s.Candidate.Source == source
	})
}

func (n *node) remove(name string) {
	n.t.Helper()
	n.must(os.Remove(filepath.Join(n.dir, name+".wasm")))
}

func (n *node) status(name string) plugins.Status {
	for _, s := range n.catalog.Status() {
		if s.Name == name {
			return s
		}
	}
	return plugins.Status{}
}

// judges is who says what in force and on trial, "" for nobody.
func (n *node) judges(name string) string {
	s := n.status(name)
	out := s.Version
	if k := s.Candidate; k != nil {
		out += fmt.Sprintf(" %s:%s", k.Version, k.Stage)
		if k.Stage == plugins.StageCanary {
			out += fmt.Sprint(k.Percent)
		}
	}
	return out
}

var await = redistest.Await

// all waits until each node judges so.
func all(t *testing.T, name, want string, nodes ...*node) {
	t.Helper()
	for _, n := range nodes {
		await(t, fmt.Sprintf("%s of %q on %s (has %q)", want, name, n.name, n.judges(name)), func() bool { return n.judges(name) == want })
	}
	for _, n := range nodes {
		await(t, "nodes that judge alike have the same digest", func() bool { return n.share.Info().Digest == nodes[0].share.Info().Digest })
	}
}

func (n *node) order(name string, o plugins.Order) error {
	o.By = "olga"
	return n.catalog.Steer(n.t.Context(), name, o)
}

func (n *node) has(file string) bool {
	_, err := os.Stat(filepath.Join(n.dir, file))
	return err == nil
}

// observe has one judge decide, as the stage does, and tells it what came of it.
func observe(j moderation.Judge, in *abi.Input, encoded []byte) int {
	staged, ok := j.(moderation.Staged)
	if !ok {
		return 0
	}
	part := staged.Part(chat.RoomID(in.Room), chat.UserID(in.User))
	if part == moderation.None {
		return 0
	}
	v, _, fuel, err := j.Decide(encoded, in.Text, in.Normalized)
	staged.Observe(&moderation.Record{Part: part, Verdict: v, Fuel: fuel, Err: err}, nil, false)
	if part == moderation.Canary && v == abi.Deny {
		return 1
	}
	return 0
}

// flip changes one byte of an object in Redis.
func flip(t *testing.T, url, key string) {
	t.Helper()
	cfg := redis.Defaults()
	cfg.URL, cfg.DialTimeout, cfg.CallTimeout = url, redistest.Patience, redistest.Patience
	c, err := redis.Open(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	reply, err := c.Do(t.Context(), "hget", key, "0")
	text, ok := reply.(string)
	if err != nil || !ok || text == "" {
		t.Fatalf("got %v, %v of %s, want a part", reply, err, key)
	}
	b := []byte(text)
	b[len(b)/2] ^= 1
	if _, err := c.Do(t.Context(), "hset", key, "0", b); err != nil {
		t.Fatal(err)
	}
}
