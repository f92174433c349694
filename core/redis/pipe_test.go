package redis_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"parley/core/redis"
	"parley/core/redis/redistest"
)

var until = redistest.Await

// commandCalls is how often the server has run a command.
func commandCalls(t *testing.T, s *redistest.Server, command string) (n int) {
	t.Helper()
	for line := range strings.Lines(s.Do("INFO", "commandstats")) {
		if rest, ok := strings.CutPrefix(line, "cmdstat_"+command+":calls="); ok {
			if _, err := fmt.Sscan(strings.Split(rest, ",")[0], &n); err != nil {
				t.Fatalf("read %q: %v", line, err)
			}
		}
	}
	return n
}

func TestCallsShareRoundTrips(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	c := open(t, server.URL(), nil)
	const callers, each = 64, 50
	add := redis.NewScript("add", `return redis.call('INCRBY', KEYS[1], ARGV[1])`)
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			for n := range each {
				want := fmt.Sprintf("%d of %d", n, i)
				if got, err := c.Do(t.Context(), "echo", want); err != nil || got != want {
					t.Errorf("echo: got %v, %v, want %q", got, err, want)
				}
				key := fmt.Sprintf("n%d", i)
				if got, err := c.Eval(t.Context(), add, []string{key}, 2); err != nil || got != int64(2*n+2) {
					t.Errorf("script: got %v, %v, want %d", got, err, 2*n+2)
				}
			}
		})
	}
	wg.Wait()
	st := c.Pipes()
	if st.Calls != 2*callers*each || st.Batches > st.Calls/2 || st.Waiting != 0 || st.Refused != 0 {
		t.Errorf("got %+v, want %d calls in far fewer batches, and none left", st, 2*callers*each)
	}
	if open := c.Pool().Total; open > 8 {
		t.Errorf("%d callers took %d connections, want a few", callers, open)
	}
}

func TestPipelineAnswersEach(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	c := open(t, server.URL(), nil)
	twice := redis.NewScript("twice", `return ARGV[1] .. ARGV[1] .. KEYS[1]`)
	cmds := []redis.Command{{Args: []any{"set", "k", "v"}}, {Args: []any{"incr", "k"}}, {Args: []any{"get", "none"}},
		{Script: twice, Keys: []string{"k"}, Args: []any{"x"}}}
	for i := range 400 { // more than one pipeline
		cmds = append(cmds, redis.Command{Args: []any{"echo", i}})
	}
	got := c.Pipeline(t.Context(), cmds)
	if len(got) != len(cmds) || got[0].Value != "OK" || got[1].Err == nil || got[2] != (redis.Reply{}) || got[3].Value != "xxk" {
		t.Fatalf("got %+v, want OK, an error, nothing, xxk", got[:4])
	}
	for i, r := range got[4:] {
		if r.Err != nil || r.Value != fmt.Sprint(i) {
			t.Errorf("echo %d: got %+v", i, r)
		}
	}
	if none := c.Pipeline(t.Context(), nil); len(none) != 0 {
		t.Errorf("no commands: got %v", none)
	}
}

// A script that the server has forgotten is told it once for all who call it.
func TestUnknownScriptIsToldOnce(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	c := open(t, server.URL(), nil)
	same := redis.NewScript("same", `return ARGV[1]`)
	other := redis.NewScript("other", `return 'other ' .. ARGV[1]`)
	large := redis.NewScript("large", `return 'large ' .. ARGV[1]`).Bulk()
	var cmds []redis.Command
	for i := range 99 {
		cmds = append(cmds, redis.Command{Script: []*redis.Script{same, other, large}[i%3], Keys: []string{"k"}, Args: []any{i}})
	}
	for range 2 {
		server.Do("SCRIPT", "FLUSH")
		server.Do("CONFIG", "RESETSTAT")
		for i, r := range c.Pipeline(t.Context(), cmds) {
			if want := []string{"", "other ", "large "}[i%3] + fmt.Sprint(i); r.Err != nil || r.Value != want {
				t.Fatalf("script %d: got %+v, want %q", i, r, want)
			}
		}
		// Of each script once for each pipeline that is under way meanwhile: four of
		// one lane, with two scripts, and two of the other.
		if n := commandCalls(t, server, "eval"); n > 4*2+2 || n == 0 {
			t.Errorf("the texts were sent %d times, want a few", n)
		}
	}
}

// stallTime is what a call to a server that has stopped takes: what a test does
// meanwhile must be done by then, also where the machine stands still for a while.
const stallTime = 5 * time.Second

// stall opens a client on a server that has stopped, with as many calls under
// way as there are pipelines. Each adds 1 to n.
func stall(t *testing.T, edit func(*redis.Config)) (c *redis.Client, server *redistest.Server, ended *sync.WaitGroup) {
	server = redistest.Start(t, redistest.Options{})
	c = open(t, server.URL(), func(cfg *redis.Config) {
		cfg.CallTimeout = stallTime
		edit(cfg)
	})
	until(t, "an answer", func() bool { return c.Ping(t.Context()) == nil && c.Pipes().Waiting == 0 })
	sent := c.Pipes().Batches
	server.Pause()
	ended = new(sync.WaitGroup)
	for i := range uint64(4) {
		ended.Go(func() {
			if _, err := c.Do(context.WithoutCancel(t.Context()), "incr", "n"); !errors.Is(err, redis.ErrUnavailable) {
				t.Errorf("call to a stopped server: got %v, want ErrUnavailable", err)
			}
		})
		until(t, "the call to leave", func() bool { return c.Pipes().Batches == sent+i+1 })
	}
	return c, server, ended
}

func TestNoPileBehindASlowServer(t *testing.T) {
	t.Parallel()
	c, server, ended := stall(t, func(cfg *redis.Config) { cfg.MaxQueued = 10 })
	for range 6 {
		ended.Go(func() {
			if _, err := c.Do(t.Context(), "incr", "n"); !errors.Is(err, redis.ErrUnavailable) {
				t.Errorf("call that waits: got %v, want ErrUnavailable", err)
			}
		})
	}
	until(t, "ten calls", func() bool { return c.Pipes().Waiting == 10 })
	for range 3 {
		if _, err := c.Do(t.Context(), "incr", "n"); !errors.Is(err, redis.ErrOverloaded) {
			t.Errorf("one call too many: got %v, want ErrOverloaded", err)
		}
	}
	if st := c.Pipes(); st.Refused != 3 || st.Waiting != 10 {
		t.Errorf("got %+v, want 3 refused and 10 that wait", st)
	}
	ended.Wait()
	server.Resume()
	until(t, "the server to answer", func() bool { return c.Ping(t.Context()) == nil })
	// What had left may have run; what had not never does.
	if n := server.Do("GET", "n"); n != "" && !slices.Contains([]string{"1", "2", "3", "4"}, n) {
		t.Errorf("%s calls ran, want at most the 4 that had left", n)
	}
	until(t, "nothing to wait", func() bool { return c.Pipes().Waiting == 0 })
}

func TestBytesThatWaitAreBounded(t *testing.T) {
	t.Parallel()
	c, server, ended := stall(t, func(cfg *redis.Config) { cfg.MaxQueuedBytes = 10_000 })
	if _, err := c.Do(t.Context(), "set", "k", strings.Repeat("x", 10_000)); !errors.Is(err, redis.ErrOverloaded) {
		t.Errorf("a value too many: got %v, want ErrOverloaded", err)
	}
	ended.Wait()
	server.Resume()
	until(t, "the server to answer, and nothing to wait", func() bool { return c.Ping(t.Context()) == nil && c.Pipes().Waiting == 0 })
	if _, err := c.Do(t.Context(), "set", "k", strings.Repeat("x", 10_000)); err != nil {
		t.Errorf("the same alone: %v", err)
	}
}

func TestCallersMayLeave(t *testing.T) {
	c, server, ended := stall(t, func(cfg *redis.Config) { cfg.CallTimeout = 2 * patience })
	ctx, cancel := context.WithCancel(t.Context())
	left := make(chan error, 1)
	ended.Go(func() {
		_, err := c.Do(ctx, "incr", "n")
		left <- err
	})
	until(t, "the call to wait", func() bool { return c.Pipes().Waiting == 5 })
	cancel()
	if err := <-left; !errors.Is(err, context.Canceled) { // before Close answers it as well
		t.Errorf("cancelled: got %v, want context.Canceled", err)
	}
	if _, err := c.Do(ctx, "incr", "n"); !errors.Is(err, context.Canceled) {
		t.Errorf("with an ended context: got %v, want context.Canceled", err)
	}
	// Close ends what is under way, with nobody to answer it.
	if err := c.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	ended.Wait()
	server.Resume()
	if _, err := c.Do(t.Context(), "ping"); !errors.Is(err, redis.ErrUnavailable) {
		t.Errorf("after close: got %v, want ErrUnavailable", err)
	}
}

func TestScriptsWithLargeRepliesTravelApart(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	c := open(t, server.URL(), nil)
	large := redis.NewScript("large", `return string.rep(ARGV[1], 100000)`).Bulk()
	cmds := make([]redis.Command, 100)
	for i := range cmds {
		cmds[i] = redis.Command{Script: large, Keys: []string{"k"}, Args: []any{"x"}}
	}
	for i, r := range c.Pipeline(t.Context(), cmds) {
		if s, _ := r.Value.(string); r.Err != nil || len(s) != 100000 {
			t.Fatalf("reply %d: got %d bytes, %v", i, len(s), r.Err)
		}
	}
	if st := c.Pipes(); st.Batches < 100/8 {
		t.Errorf("got %d batches of %d calls, want at most 8 calls in one", st.Batches, st.Calls)
	}
}

// What takes a good part of what may come at once does so by itself: a few of
// them must not end the connection of all.
func TestScriptsThatTravelAlone(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	c := open(t, server.URL(), func(c *redis.Config) { c.MaxReplyBytes = 150_000 })
	large := redis.NewScript("large", `return string.rep(ARGV[1], 100000)`).Alone()
	small := redis.NewScript("small", `return ARGV[1]`).Bulk()
	cmds := make([]redis.Command, 60)
	for i := range cmds {
		cmds[i] = redis.Command{Script: large, Keys: []string{"k"}, Args: []any{"x"}}
		if i%3 == 0 {
			cmds[i].Script = small
		}
	}
	for i, r := range c.Pipeline(t.Context(), cmds) {
		if s, _ := r.Value.(string); r.Err != nil || len(s) != 100000 && i%3 != 0 {
			t.Fatalf("reply %d: got %d bytes, %v", i, len(s), r.Err)
		}
	}
}
