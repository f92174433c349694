package objects_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"parley/core/cluster/objects"
	"parley/core/redis/redistest"
)

const (
	secretA  = "a-secret-of-the-nodes-0123456789ab"
	secretB  = "another-secret-of-the-nodes-012345"
	headsKey = "parley:{objects}:heads"
)

func with(secrets ...string) func(*objects.Config) {
	return func(c *objects.Config) {
		quick(c)
		for _, s := range secrets {
			c.Secrets = append(c.Secrets, []byte(s))
		}
	}
}

// What was written without the secret, with another one, for another head or
// changed by one byte is refused by name, and no value of it is seen.
func TestSealedHeadsAreBelieved(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	open2 := func(secrets ...string) *objects.Store { return open(t, server.URL(), with(secrets...)) }
	a, b := open2(secretA), open2(secretA)
	d, err := a.Put(t.Context(), "policy", []byte("object"))
	if err != nil {
		t.Fatal(err)
	}
	first, err := a.SetHead(t.Context(), "policy", 0, map[string]int{"n": 1}, d)
	if err != nil {
		t.Fatal(err)
	}
	got, err := b.Head(t.Context(), "policy")
	if err != nil || got.Version != first.Version || string(got.Value) != `{"n":1}` || len(got.Names) != 1 {
		t.Fatalf("got %+v, %v", got, err)
	}
	if _, err := b.SetHead(t.Context(), "policy", 0, 2); !errors.Is(err, objects.ErrConflict) {
		t.Errorf("sealed, from another version: got %v, want a conflict", err)
	}
	sealed := server.Do("HGET", headsKey, "policy")
	lines := strings.Split(sealed, "\n")
	if len(lines) != 4 {
		t.Fatalf("got %q", sealed)
	}
	late := fmt.Sprint(uint64(first.Version) + 1_000_000)
	for _, tt := range []struct {
		name, head, text string
		want             error
	}{
		{"no seal", "policy", late + "\n\n{\"n\":2}", objects.ErrUnsealed},
		{"another value", "policy", strings.Replace(sealed, `{"n":1}`, `{"n":2}`, 1), objects.ErrSeal},
		{"another version", "policy", late + strings.TrimPrefix(sealed, lines[0]), objects.ErrSeal},
		{"other objects", "policy", strings.Replace(sealed, lines[1], "", 1), objects.ErrSeal},
		{"another head's", "rollouts", sealed, objects.ErrSeal},
		{"half a seal", "policy", sealed[:len(sealed)-32], objects.ErrSeal},
		{"no digits", "policy", sealed[:len(sealed)-2] + "zz", objects.ErrSeal},
	} {
		server.Do("HSET", headsKey, tt.head, tt.text)
		h, err := b.Head(t.Context(), tt.head)
		if !errors.Is(err, tt.want) || !errors.Is(err, objects.ErrBadHead) || h.Value != nil || h.Names != nil {
			t.Errorf("%s: got %+v, %v, want %v", tt.name, h, err, tt.want)
		}
	}
	if st := b.Stats(); st.Unsealed != 1 || st.WrongSeal != 6 || st.Stale != 0 {
		t.Errorf("got %+v", st)
	}
	server.Do("HDEL", headsKey, "rollouts")
	server.Do("HSET", headsKey, "policy", sealed)

	// Another secret is another installation; two of them are a change of the secret.
	if _, err := open2(secretB).Head(t.Context(), "policy"); !errors.Is(err, objects.ErrSeal) {
		t.Errorf("another secret: got %v", err)
	}
	both := open2(secretB, secretA)
	h, err := both.Head(t.Context(), "policy")
	if err != nil {
		t.Fatal(err)
	}
	second, err := both.SetHead(t.Context(), "policy", h.Version, 2)
	if err != nil || second.Version <= first.Version {
		t.Fatalf("got %+v, %v", second, err)
	}
	if h, err := open2(secretB).Head(t.Context(), "policy"); err != nil || string(h.Value) != "2" {
		t.Errorf("the new secret alone: got %+v, %v", h, err)
	}
	// A node without a secret follows and changes nothing.
	plain := open2()
	if h, err := plain.Head(t.Context(), "policy"); err != nil || string(h.Value) != "2" {
		t.Errorf("without a secret: got %+v, %v", h, err)
	}
	if _, err := plain.SetHead(t.Context(), "policy", second.Version, 3); !errors.Is(err, objects.ErrNoSecret) {
		t.Errorf("without a secret: got %v", err)
	}
	if _, err := plain.SetHead(t.Context(), "other", 0, 3); err != nil {
		t.Errorf("without a secret, what nobody seals: got %v", err)
	}
}

// An older head that somebody puts back, and one that somebody makes up, are
// replaced by the newest that was true; so they are after a restart.
func TestWhatWasThereIsPutBack(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	file := filepath.Join(t.TempDir(), "heads.json")
	remembering := func(c *objects.Config) { with(secretA)(c); c.StateFile = file }
	writer := open(t, server.URL(), with(secretA))
	var texts []string
	version := objects.Version(0)
	for n := range 2 {
		h, err := writer.SetHead(t.Context(), "policy", version, n)
		if err != nil {
			t.Fatal(err)
		}
		version = h.Version
		texts = append(texts, server.Do("HGET", headsKey, "policy"))
	}
	reader := open(t, server.URL(), remembering)
	told := make(chan objects.Head, 16)
	reader.OnHead("policy", func(h objects.Head) { told <- h })
	stop := runUntil(t, reader)
	wait := func(what string) objects.Head {
		t.Helper()
		select {
		case h := <-told:
			return h
		case <-time.After(patience):
			t.Fatalf("not told of %s", what)
			return objects.Head{}
		}
	}
	if h := wait("what is there"); string(h.Value) != "1" {
		t.Fatalf("got %+v", h)
	}
	for i, text := range []string{texts[0], "1\n\n7", fmt.Sprint(uint64(version)+1e9) + "\n\n7", "rubbish", "5\nhmac-sha256:00"} {
		server.Do("HSET", headsKey, "policy", text)
		if h := wait(text); string(h.Value) != "1" || h.Version <= version {
			t.Errorf("%q: got %+v, want the value put back under a new version", text, h)
		} else {
			version = h.Version
		}
		if st := reader.Stats(); st.Restored != uint64(i+1) {
			t.Errorf("got %+v", st)
		}
	}
	if st := reader.Stats(); st.Stale != 1 || st.Unsealed != 3 || st.WrongSeal != 1 {
		t.Errorf("got %+v", st)
	}
	stop()

	// All nodes were away, and somebody has put back what once was true.
	server.Do("HSET", headsKey, "policy", texts[0])
	if _, err := open(t, server.URL(), remembering).Head(t.Context(), "policy"); !errors.Is(err, objects.ErrStale) {
		t.Errorf("after a restart: got %v, want that it is older", err)
	}
	again := open(t, server.URL(), remembering)
	again.OnHead("policy", func(h objects.Head) { told <- h })
	stop = runUntil(t, again)
	if h := wait("the newest"); string(h.Value) != "1" || h.Version <= version {
		t.Errorf("after a restart: got %+v", h)
	}
	stop()

	// A file that was tampered with, is of another installation or is rubbish counts for nothing.
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	server.Do("HSET", headsKey, "policy", texts[0])
	for _, text := range []string{strings.Replace(string(good), `\n1\n`, `\n5\n`, 1), "rubbish", `{"format":2}`} {
		if text == string(good) {
			t.Fatalf("nothing was changed in %s", good)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if h, err := open(t, server.URL(), remembering).Head(t.Context(), "policy"); err != nil || string(h.Value) != "0" {
			t.Errorf("file %q: got %+v, %v", text, h, err)
		}
	}
}

// What a full disk would not take is written once there is room.
func TestRememberedLater(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	dir := filepath.Join(t.TempDir(), "away")
	s := open(t, server.URL(), func(c *objects.Config) { with(secretA)(c); c.StateFile = filepath.Join(dir, "heads.json") })
	told := make(chan objects.Head, 16)
	s.OnHead("policy", func(h objects.Head) { told <- h })
	if _, err := s.SetHead(t.Context(), "policy", 0, 1); err != nil {
		t.Fatal(err)
	}
	defer runUntil(t, s)()
	<-told
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	redistest.Await(t, "the head is remembered", func() bool {
		b, err := os.ReadFile(filepath.Join(dir, "heads.json"))
		return err == nil && strings.Contains(string(b), "policy")
	})
}

// A head that names what is gone cannot be put back, and whoever watches is told.
func TestWhatIsGoneCannotBePutBack(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	s := open(t, server.URL(), with(secretA))
	d, err := s.Put(t.Context(), "plugin", []byte("object"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.SetHead(t.Context(), "plugins", 0, 1, d); err != nil {
		t.Fatal(err)
	}
	server.Do("DEL", "parley:{objects}:o:"+string(d))
	server.Do("HSET", headsKey, "plugins", "1\n\n2")
	told := make(chan error, 16)
	s.OnHead("plugins", func(h objects.Head) { var v int; told <- h.Decode(&v) })
	defer runUntil(t, s)()
	if err := <-told; !errors.Is(err, objects.ErrUnsealed) || !errors.Is(err, objects.ErrMissing) {
		t.Errorf("got %v", err)
	}
	last, ok := s.Last("plugins")
	if !ok || string(last.Value) != "1" {
		t.Fatalf("got %+v", last)
	}
	if _, err := s.Put(t.Context(), "plugin", []byte("object")); err != nil {
		t.Fatal(err)
	}
	for {
		if err := <-told; err == nil {
			break
		}
	}
}

// What nobody has sealed, where nothing was, is as if it were not there. What nodes
// with another secret have sealed is refused and left alone.
func TestNothingToPutBack(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	s, other := open(t, server.URL(), with(secretA)), open(t, server.URL(), with(secretB))
	if _, err := other.SetHead(t.Context(), "theirs", 0, 1); err != nil {
		t.Fatal(err)
	}
	theirs := server.Do("HGET", headsKey, "theirs")
	server.Do("HSET", headsKey, "plain", "7\n\n2")
	server.Do("HSET", headsKey, "large", strings.Repeat("x", 70<<10))
	type told struct {
		name string
		err  error
	}
	news := make(chan told, 16)
	for _, name := range []string{"plain", "large", "theirs"} {
		s.OnHead(name, func(h objects.Head) { var v any; news <- told{h.Name, h.Decode(&v)} })
	}
	defer runUntil(t, s)()
	for range 3 {
		got := <-news
		if errors.Is(got.err, objects.ErrBadHead) != (got.name == "theirs") {
			t.Errorf("%s: got %v", got.name, got.err)
		}
	}
	if there := server.Do("HKEYS", headsKey); there != "theirs" || server.Do("HGET", headsKey, "theirs") != theirs {
		t.Errorf("there is %q", there)
	}
	if _, err := s.SetHead(t.Context(), "plain", 0, 3); err != nil {
		t.Error(err)
	}
	if st := s.Stats(); st.Restored != 2 || st.Unsealed != 2 || st.WrongSeal != 1 {
		t.Errorf("got %+v", st)
	}
}

func TestSecrets(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secret")
	for _, tt := range []struct {
		text, want string
		n          int
	}{
		{secretA + "\n", "", 1},
		{"\n" + secretA + "\r\n\n" + secretB, "", 2},
		{"", "is empty", 0},
		{"short\n", "secret 1 has 5 bytes", 0},
		{strings.Repeat(secretA+"\n", 9), "at most 8", 0},
	} {
		if err := os.WriteFile(file, []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := objects.ReadSecrets(file)
		if len(got) != tt.n || (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: got %d, %v, want %d, %q", tt.text, len(got), err, tt.n, tt.want)
		}
	}
	if _, err := objects.ReadSecrets(file + "x"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	cfg := objects.Defaults()
	cfg.Secrets = [][]byte{[]byte("short")}
	if _, err := objects.New(cfg, nil, quiet); err == nil {
		t.Error("a short secret was taken")
	}
}
