package objects_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"parley/core/cluster/objects"
	"parley/core/redis"
	"parley/core/redis/redistest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait; what is awaited takes milliseconds.
const patience = redistest.Patience

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

func quick(c *objects.Config) { c.Poll = 200 * time.Millisecond }

func open(t *testing.T, url string, tune func(*objects.Config)) *objects.Store {
	t.Helper()
	rc := redis.Defaults()
	rc.URL = url
	rc.DialTimeout, rc.CallTimeout, rc.ProbeTimeout = patience, patience, patience // no test here is about them
	client, err := redis.Open(rc, quiet)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	cfg := objects.Defaults()
	if tune != nil {
		tune(&cfg)
	}
	s, err := objects.New(cfg, client, quiet)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func run(t *testing.T, s *objects.Store) { t.Cleanup(runUntil(t, s)) }

// runUntil runs s until what it returns is called.
func runUntil(t *testing.T, s *objects.Store) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := s.Run(ctx); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	return func() { cancel(); running.Wait() }
}

func random(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(b)
	return b
}

const prefix = "parley:{objects}:"

func TestPutAndGet(t *testing.T) { redistest.Each(t, redistest.Options{}, putAndGet) }

func putAndGet(t *testing.T, server redistest.Store) {
	a, b := open(t, server.URL(), nil), open(t, server.URL(), nil)
	for _, size := range []int{0, 1, 1 << 20, 1<<20 + 1, 5 << 20} {
		want := random(size)
		d, err := a.Put(t.Context(), "plugin", want)
		if err != nil || d != objects.Sum(want) {
			t.Fatalf("put %d bytes: got %s, %v", size, d, err)
		}
		got, err := b.Get(t.Context(), d)
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("get %d bytes: got %d, %v", size, len(got), err)
		}
	}
	if d, err := b.Put(t.Context(), "plugin", random(1)); err != nil || d != objects.Sum(random(1)) {
		t.Errorf("put again: got %s, %v", d, err)
	}
	if st := b.Stats(); st.Put != 0 || st.Got != 5 {
		t.Errorf("stats: got %+v, want 5 read and none written", st)
	}
}

func TestGetRefuses(t *testing.T) { redistest.Each(t, redistest.Options{}, getRefuses) }

func getRefuses(t *testing.T, server redistest.Store) {
	s := open(t, server.URL(), nil)
	want := random(2<<20 + 10)
	d, err := s.Put(t.Context(), "policy", want)
	if err != nil {
		t.Fatal(err)
	}
	key := prefix + "o:" + string(d)
	second := server.Do("HGET", key, "1")
	flipped := []byte(second)
	flipped[7] ^= 1
	tests := []struct {
		name  string
		fault []string
		want  error
		text  string
	}{
		{"a flipped bit", []string{"HSET", key, "1", string(flipped)}, objects.ErrDamaged, ""},
		{"a part cut short", []string{"HSET", key, "1", second[:9]}, objects.ErrDamaged, ""},
		{"a part beyond its bound", []string{"HSET", key, "1", second + "x"}, objects.ErrDamaged, ""},
		{"a part that is gone", []string{"HDEL", key, "1"}, objects.ErrDamaged, ""},
		{"another size", []string{"HSET", key, "done", "1048576"}, objects.ErrDamaged, ""},
		{"no size", []string{"HSET", key, "done", "x"}, objects.ErrMissing, ""},
		{"a size below zero", []string{"HSET", key, "done", "-1"}, nil, "at most"},
		{"a size beyond the bound", []string{"HSET", key, "done", "999999999999"}, nil, "at most"},
		{"not all of it written", []string{"HDEL", key, "done"}, objects.ErrMissing, ""},
		{"nothing", []string{"DEL", key}, objects.ErrMissing, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			server.Do(tt.fault...)
			_, err := s.Get(t.Context(), d)
			if err == nil || tt.want != nil && !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("got %v, want %v %s", err, tt.want, tt.text)
			}
			if _, err := s.Repair(t.Context(), "policy", want); err != nil {
				t.Fatal(err)
			}
			if got, err := s.Get(t.Context(), d); err != nil || !bytes.Equal(got, want) {
				t.Errorf("after the repair: got %d bytes, %v", len(got), err)
			}
		})
	}
	if _, err := s.GetUpTo(t.Context(), d, 1<<20); err == nil || !strings.Contains(err.Error(), "at most 1048576") {
		t.Errorf("larger than the caller wants: got %v", err)
	}
	if _, err := s.Get(t.Context(), "../x"); err == nil {
		t.Error("a name that is no digest: got no error")
	}
	if st := s.Stats(); st.Damaged != 5 {
		t.Errorf("stats: got %+v, want 5 damaged", st)
	}
}

func TestPutRefuses(t *testing.T) { redistest.Each(t, redistest.Options{}, putRefuses) }

func putRefuses(t *testing.T, server redistest.Store) {
	s := open(t, server.URL(), nil)
	if _, err := s.Put(t.Context(), "plugin", make([]byte, objects.MaxBytes+1)); err == nil {
		t.Error("too large: got no error")
	}
	for _, kind := range []string{"", strings.Repeat("k", 33)} {
		if _, err := s.Put(t.Context(), kind, nil); err == nil {
			t.Errorf("kind %q: got no error", kind)
		}
	}
	server.Kill()
	if _, err := s.Put(t.Context(), "plugin", []byte("x")); !errors.Is(err, redis.ErrUnavailable) {
		t.Errorf("without a server: got %v", err)
	}
}

func TestSweep(t *testing.T) { redistest.Each(t, redistest.Options{}, sweep) }

func sweep(t *testing.T, server redistest.Store) {
	s := open(t, server.URL(), func(c *objects.Config) { c.Keep, c.Sweep = time.Hour, 20*time.Millisecond })
	put := func(text string) objects.Digest {
		d, err := s.Put(t.Context(), "test", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	named, young, old, unfinished := put("named"), put("young"), put("old"), put("unfinished")
	if _, err := s.SetHead(t.Context(), "h", 0, "v", named); err != nil {
		t.Fatal(err)
	}
	server.Do("HDEL", prefix+"o:"+string(unfinished), "done")
	for _, d := range []objects.Digest{named, old, unfinished} {
		server.Do("ZADD", prefix+"ages", "1000", string(d))
	}
	server.Do("ZADD", prefix+"ages", "1000", "no digest")
	run(t, s)
	await(t, "the sweep", func() bool { return s.Stats().Swept == 2 })
	for d, want := range map[objects.Digest]string{named: "1", young: "1", old: "0", unfinished: "0"} {
		if got := server.Do("EXISTS", prefix+"o:"+string(d)); got != want {
			t.Errorf("object %s: got %s, want %s", d, got, want)
		}
	}
	if got := server.Do("ZCARD", prefix+"ages"); got != "2" {
		t.Errorf("ages: got %s, want 2", got)
	}
}

// TestSweepLeavesWhatIsPutAgain: an object that was found to be old and is then
// put or named by somebody stays, and one whose sweeper has died is found again.
func TestSweepLeavesWhatIsPutAgain(t *testing.T) {
	redistest.Each(t, redistest.Options{}, sweepLeavesWhatIsPutAgain)
}

func sweepLeavesWhatIsPutAgain(t *testing.T, server redistest.Store) {
	s := open(t, server.URL(), nil)
	put := func(text string) objects.Digest {
		d, err := s.Put(t.Context(), "test", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	again, named, old := put("again"), put("named"), put("old")
	age := func() {
		for _, d := range []objects.Digest{again, named, old} {
			server.Do("ZADD", prefix+"ages", "1000", string(d))
		}
	}
	age()
	found, err := s.Old(t.Context())
	if err != nil || len(found) != 3 {
		t.Fatalf("got %v, %v, want all three", found, err)
	}
	put("again")
	if _, err := s.SetHead(t.Context(), "h", 0, "v", named); err != nil {
		t.Fatal(err)
	}
	if found, err = s.Old(t.Context()); err != nil || len(found) != 1 || found[0] != string(old) {
		t.Errorf("after a sweeper that ended: got %v, %v, want %s", found, err, old)
	}
	for d, want := range map[objects.Digest]bool{again: false, named: false, old: true} {
		if dropped, err := s.Drop(t.Context(), string(d)); err != nil || dropped != want {
			t.Errorf("%s: got dropped %v, %v, want %v", d, dropped, err, want)
		}
	}
}

var await = redistest.Await

func TestConfig(t *testing.T) {
	for _, tune := range []func(*objects.Config){
		func(c *objects.Config) { c.Keep = 0 }, func(c *objects.Config) { c.Poll = 0 }, func(c *objects.Config) { c.Sweep = -1 },
	} {
		cfg := objects.Defaults()
		tune(&cfg)
		if _, err := objects.New(cfg, nil, quiet); err == nil {
			t.Errorf("%+v: got no error", cfg)
		}
	}
}
