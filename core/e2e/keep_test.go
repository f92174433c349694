package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"parley/core/chat"
	"parley/core/checker"
	"parley/core/client"
	"parley/core/e2e/rig"
	"parley/core/redis/redistest"
	"parley/core/wire"
	"parley/sdk/abi"
)

// adminArgs say where the node's admin listener is, for commands.
func adminArgs(n *node, args ...string) []string {
	return append(args, "--admin", n.Admin, "--data-dir", n.Data())
}

// must runs a command of the binary that has to succeed.
func must(n *node, args ...string) string {
	n.T.Helper()
	out, code := n.Bare(args...)
	if code != 0 {
		n.T.Fatalf("platform %s: exit code %d: %s", strings.Join(args, " "), code, out)
	}
	return out
}

// TestBackupIsRestored takes a backup under load, kills the server, takes its
// store away, starts it empty and restores: the clients are told to reset, and
// nothing else of what they are promised is broken.
func TestBackupIsRestored(t *testing.T) {
	for _, tc := range []struct {
		name string
		make func(t *testing.T) (extra settings, lose func(n *node))
	}{
		{"embedded", func(*testing.T) (settings, func(*node)) {
			return nil, func(n *node) {
				if err := os.Remove(filepath.Join(n.Data(), "parley.db")); err != nil {
					n.T.Fatal(err)
				}
			}
		}},
		{"redis", func(t *testing.T) (settings, func(*node)) {
			store := redistest.Start(t, redistest.Options{AppendOnly: true})
			return settings{"redis.url": store.URL()}, func(*node) { store.Do("FLUSHALL") }
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			extra, lose := tc.make(t)
			n := startNode(t, unlimited(extra))
			c := newCrowd(t, "lobby", "kitchen")
			for i := range 5 {
				c.Add(fmt.Sprintf("client %d", i), client.ResilientOptions{Options: client.Options{URL: n.URL(i), Guest: fmt.Sprintf("guest%d", i)}})
			}
			c.Talk(3, 20*time.Millisecond)
			c.More(100)
			file := filepath.Join(t.TempDir(), "rooms.backup")
			wrote := must(n, adminArgs(n, "backup", "--out", file)...)
			c.More(60)
			checked := must(n, "backup", "verify", file)
			t.Log(wrote)
			if count := func(s string) string {
				_, rest, _ := strings.Cut(s, ": ")
				line, _, _ := strings.Cut(rest, "\n")
				return line
			}; count(wrote) != count(checked) {
				t.Errorf("the backup says %q, and reading it %q", wrote, checked)
			}
			n.Kill()
			lose(n)
			n.Start()
			c.More(60) // both rooms have begun anew
			refuseDamaged(n, file)
			t.Log(must(n, adminArgs(n, "restore", "--in", file)...))
			c.More(60)
			rep := c.Settle(client.Options{URL: n.WSURL(), Guest: "judge"}, func(r *checker.Run) { r.Losses = 2 }) // the store that was taken away, and the restore
			if rep.Resets == 0 {
				t.Error("no client was told to reset")
			}
			if rep.Refused > 0 || rep.Unknown > 0 {
				t.Errorf("got %d refused and %d unknown, want none", rep.Refused, rep.Unknown)
			}
			n.Stop()
		})
	}
}

// refuseDamaged restores what is no whole archive, which must change nothing.
func refuseDamaged(n *node, file string) {
	n.T.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		n.T.Fatal(err)
	}
	_, before := n.Get("/v1/rooms/lobby")
	flipped := bytes.Clone(b)
	flipped[len(b)/2] ^= 1
	for what, bad := range map[string][]byte{"cut off": b[:len(b)*2/3], "changed": flipped} {
		name := filepath.Join(n.T.TempDir(), "bad.backup")
		if err := os.WriteFile(name, bad, 0o600); err != nil {
			n.T.Fatal(err)
		}
		out, code := n.Bare(adminArgs(n, "restore", "--in", name)...)
		if code == 0 || !strings.Contains(out, "at byte") || !strings.Contains(out, "nothing was restored") {
			n.T.Errorf("restore of a backup that is %s: got code %d and %q, want the byte named", what, code, out)
		}
	}
	epoch := func(body string) string {
		var room struct{ Epoch string }
		if err := json.Unmarshal([]byte(body), &room); err != nil {
			n.T.Errorf("room lobby: %v in %s", err, body)
		}
		return room.Epoch
	}
	if _, after := n.Get("/v1/rooms/lobby"); epoch(after) != epoch(before) {
		n.T.Errorf("the lobby has another epoch after what was refused")
	}
}

// TestMoveToRedis moves a server with its clients from its own store to Redis,
// with a kill -9 on the way: they go on from where they were.
func TestMoveToRedis(t *testing.T) {
	store := redistest.Start(t, redistest.Options{AppendOnly: true})
	n := startNode(t, unlimited(nil))
	c := newCrowd(t, "lobby", "kitchen", "attic")
	for i := range 5 {
		c.Add(fmt.Sprintf("client %d", i), client.ResilientOptions{Options: client.Options{URL: n.URL(i), Guest: fmt.Sprintf("guest%d", i)}})
	}
	c.Talk(3, 20*time.Millisecond)
	c.More(150)
	move := []string{"migrate", "--from", n.Data(), "--to", store.URL(), "--redis.prefix", "moved"}
	if out, code := n.Bare(move...); code == 0 || !strings.Contains(out, "another process holds it") {
		t.Errorf("while the server runs: got code %d and %q, want a refusal", code, out)
	}
	c.Midway()
	n.Kill()
	interrupted := exec.Command(built.platform, move...)
	interrupted.Env = rig.CleanEnv()
	first, err := interrupted.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := interrupted.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := first.Read(make([]byte, 256)); err != nil { // a room has been copied
		t.Fatal(err)
	}
	_ = interrupted.Process.Kill()
	_ = interrupted.Wait() // it was killed, or had ended before
	out := must(n, move...)
	t.Log(out)
	if !strings.Contains(out, "was there") || !strings.Contains(out, "4 rooms") { // and announcements
		t.Errorf("got %q, want the first room found and all four there", out)
	}
	n.Configure(settings{"listen": n.HTTP, "tcp.listen": n.TCP, "admin.listen": n.Admin, "data_dir": n.Data(),
		"redis.url": store.URL(), "redis.prefix": "moved", "limits.commands_per_second": 0, "limits.accepts_per_second": 0})
	n.Start()
	c.More(100)
	rep := c.Settle(client.Options{URL: n.WSURL(), Guest: "judge"})
	if rep.Resets > 0 || rep.Refused > 0 || rep.Unknown > 0 {
		t.Errorf("got %d resets, %d refused and %d unknown, want none", rep.Resets, rep.Refused, rep.Unknown)
	}
	n.Stop()
}

// TestErasedEverywhere looks for what was erased in every file of the server and
// every key of Redis.
func TestErasedEverywhere(t *testing.T) {
	for _, tc := range []struct {
		name string
		make func(t *testing.T) (settings, *redistest.Server)
	}{
		{"embedded", func(*testing.T) (settings, *redistest.Server) { return settings{}, nil }},
		{"redis", func(t *testing.T) (settings, *redistest.Server) {
			store := redistest.Start(t, redistest.Options{AppendOnly: true})
			return settings{"redis.url": store.URL()}, store
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			extra, store := tc.make(t)
			eraseEverywhere(t, extra, store)
		})
	}
}

const secret = "my-number-is-0451-7788"

func eraseEverywhere(t *testing.T, extra settings, store *redistest.Server) {
	key := filepath.Join(t.TempDir(), "jwt.key")
	extra["plugins.dir"], extra["auth.jwt.key_file"], extra["evidence.keep"] = erasePlugins(t), key, "all"
	anns := token(t, key, "ann") // makes the key
	n := startNode(t, unlimited(extra))
	await(t, "the plugins are active", func() bool {
		return pluginOf(n, "careful").State == "active" && pluginOf(n, "noter").State == "active"
	})
	ann := visit(t, client.Options{URL: n.WSURL(), Token: anns})
	bob := visit(t, client.Options{URL: n.TCPURL(), Token: token(t, key, "bob")})
	for _, v := range []*visitor{ann, bob} {
		if _, err := v.Join(within(t), "lobby", nil); err != nil {
			t.Fatal(err)
		}
	}
	say := func(v *visitor, room chat.RoomID, nonce, text string) *wire.AckEvent {
		t.Helper()
		ack, err := v.Send(within(t), room, nonce, text)
		if err != nil {
			t.Fatal(err)
		}
		return ack
	}
	one := say(ann, "lobby", "1", secret)
	say(bob, "lobby", "2", "what stays")
	second := say(ann, "lobby", "3", "once more: "+secret)
	third := say(ann, "kitchen", "4", secret)
	if held := say(ann, "careful", "5", secret); held.ReviewID == "" {
		t.Fatalf("got %+v, want the message held", held)
	}
	if places := traces(t, n, store); len(places) == 0 || evidenceAbout(n, "ann") != 4 {
		t.Fatalf("the text is in %q, and %d originals are kept, want some and 4: this test shows nothing", places, evidenceAbout(n, "ann"))
	}

	if _, err := bob.Erase(within(t), "lobby", "e0", one.Seq, ""); err == nil {
		t.Error("bob erases what ann wrote")
	}
	ack, err := ann.Erase(within(t), "lobby", "e1", one.Seq, "")
	if err != nil {
		t.Fatal(err)
	}
	if again, err := ann.Erase(within(t), "lobby", "e1", one.Seq, ""); err != nil || again.Seq != ack.Seq || !again.Repeat {
		t.Errorf("the same again: got %+v, %v, want the answer of before", again, err)
	}
	told := erasureOf(bob, one.Seq)
	if told.From != "ann" || told.Seq != ack.Seq {
		t.Errorf("bob is told %+v, want entry %d by ann", told, ack.Seq)
	}
	t.Log(must(n, adminArgs(n, "erase", "--room", "lobby", "--seq", fmt.Sprint(second.Seq), "--reason", "by request")...))
	out := must(n, adminArgs(n, "erase", "--user", "ann")...)
	if !strings.Contains(out, "erased 1 entry in 2 rooms and rejected 1 message that") {
		t.Errorf("got %q, want the entry in the kitchen and the held message", out)
	}
	_, history, err := bob.HistoryAll(within(t), "lobby")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range history {
		if erased := e.Seq == one.Seq || e.Seq == second.Seq; e.Erased != erased || erased && (e.Text != "" || e.From != "ann") {
			t.Errorf("history: got %+v", e)
		}
	}
	if _, kitchen, err := bob.HistoryAll(within(t), "kitchen"); err != nil || !kitchen[third.Seq-1].Erased {
		t.Errorf("the kitchen: got %+v, %v", kitchen, err)
	}
	if a, b := evidenceAbout(n, "ann"), evidenceAbout(n, "bob"); a != 0 || b != 1 {
		t.Errorf("%d originals of ann and %d of bob are kept, want 0 and 1", a, b)
	}
	if store != nil { // docs/keeping.md tells the operator
		store.Do("BGREWRITEAOF")
		await(t, "the append-only file is rewritten", func() bool {
			info := store.Do("INFO", "persistence")
			return strings.Contains(info, "aof_rewrite_in_progress:0") && strings.Contains(info, "aof_rewrite_scheduled:0") && strings.Contains(info, "aof_last_bgrewrite_status:ok")
		})
	}
	if places := traces(t, n, store); len(places) > 0 {
		t.Errorf("the text is still in %q", places)
	}
	late := visit(t, client.Options{URL: n.WSURL(), Token: token(t, key, "cid")})
	if _, err := late.Join(within(t), "lobby", nil); err != nil {
		t.Fatal(err)
	}
	n.Stop()
	if places := traces(t, n, store); len(places) > 0 {
		t.Errorf("once the server has ended the text is in %q", places)
	}
}

// erasePlugins hold everything in rooms that begin with careful, and flag
// everything elsewhere, so that there is evidence.
func erasePlugins(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for name, v := range map[string]struct {
		room    string
		verdict abi.Verdict
	}{"careful": {"careful*", abi.Hold}, "noter": {"*", abi.Flag}} {
		manifest, err := json.Marshal(map[string]any{"name": name, "version": "1.0", "rooms": []string{v.room}})
		if err != nil {
			t.Fatal(err)
		}
		install(t, filepath.Join(dir, name+".json"), manifest)
		install(t, filepath.Join(dir, name+".wasm"), constantModule(v.verdict, "It was looked at."))
	}
	return dir
}

// traces lists the files of the server, and of Redis, and the keys there that
// hold the secret.
func traces(t *testing.T, n *node, store *redistest.Server) (places []string) {
	t.Helper()
	dirs := []string{n.Data()}
	if store != nil {
		dirs = append(dirs, store.Dir())
		for _, key := range strings.Fields(store.Do("KEYS", "*")) {
			if strings.Contains(store.Do("DUMP", key), secret) {
				places = append(places, "key "+key)
			}
		}
	}
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			b, err := os.ReadFile(path)
			if err != nil && !os.IsNotExist(err) {
				return err
			}
			if bytes.Contains(b, []byte(secret)) {
				places = append(places, path)
			}
			return nil
		})
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}
	return places
}

// erasureOf waits for the entry that erases the entry seq.
func erasureOf(v *visitor, seq uint64) *wire.EntryEvent {
	v.t.Helper()
	return first(v, "the entry is erased", func(e *wire.EntryEvent) bool { return len(e.Erases) == 1 && e.Erases[0] == seq })
}

// evidenceAbout counts the originals that the node keeps of what a user wrote.
func evidenceAbout(n *node, user chat.UserID) (count int) {
	n.T.Helper()
	for _, r := range status[struct{ Records []struct{ User chat.UserID } }](n, "/v1/evidence").Records {
		if r.User == user {
			count++
		}
	}
	return count
}
