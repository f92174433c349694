package liveness_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"parley/core/liveness"
)

var config = liveness.Config{Ping: 15 * time.Second, Pong: 3 * time.Second}

// client is a Peer that answers as a test tells it to.
type client struct {
	liveness.Beat
	wheel *liveness.Wheel
	reply func(c *client, seq uint32)                // nil: silence
	look  func(c *client) (liveness.Evidence, error) // nil: no evidence

	mu    sync.Mutex
	pings []time.Time
	dead  []liveness.Verdict
	died  time.Time
	swept []time.Time
}

func (c *client) Ping(seq uint32) {
	c.mu.Lock()
	c.pings = append(c.pings, time.Now())
	n, reply := len(c.pings), c.reply
	c.mu.Unlock()
	if int(seq) != n {
		panic(fmt.Sprintf("got seq %d, want %d", seq, n))
	}
	if reply != nil {
		reply(c, seq)
	}
}

// behave changes how a client answers from now on.
func (c *client) behave(reply func(*client, uint32)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reply = reply
}

func (c *client) Look() (liveness.Evidence, error) {
	if c.look == nil {
		return liveness.Evidence{}, errors.ErrUnsupported
	}
	return c.look(c)
}

func (c *client) Swept(liveness.Evidence) { c.swept = append(c.swept, time.Now()) }

func (c *client) Dead(v liveness.Verdict) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dead = append(c.dead, v)
	c.died = time.Now()
}

// answerAfter replies with a pong after d.
func answerAfter(d time.Duration) func(*client, uint32) {
	return func(c *client, seq uint32) {
		time.AfterFunc(d, func() { c.wheel.Heard(&c.Beat, seq) })
	}
}

// deaths returns the causes that were found at all.
func deaths(s liveness.Stats) map[liveness.Cause]uint64 {
	maps.DeleteFunc(s.Dead, func(_ liveness.Cause, n uint64) bool { return n == 0 })
	return s.Dead
}

// pass lets time go by in a bubble, and what it brings happen.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// turning runs a test inside a bubble with a turning wheel.
func turning(t *testing.T, cfg liveness.Config, test func(t *testing.T, w *liveness.Wheel)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w, err := liveness.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(77 * time.Minute) // before Run: not lateness
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- w.Run(ctx) }()
		synctest.Wait()
		test(t, w)
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: got %v, want nil", err)
		}
	})
}

func TestLivingPeerIsKept(t *testing.T) {
	turning(t, config, func(t *testing.T, w *liveness.Wheel) {
		c := &client{wheel: w, reply: answerAfter(40 * time.Millisecond)}
		c.Enforce()
		w.Add(&c.Beat, c)
		pass(10*time.Minute + 10*time.Second)
		if n := len(c.pings); n < 40 || n > 41 {
			t.Errorf("got %d pings in ten minutes, want 40 or 41", n)
		}
		for i := 1; i < len(c.pings); i++ {
			if gap := c.pings[i].Sub(c.pings[i-1]); gap != 15*time.Second {
				t.Errorf("ping %d came %v after the one before, want 15s", i+1, gap)
			}
		}
		s := w.Stats()
		if len(c.dead) != 0 || s.Connections != 1 || s.Suspects != 0 || len(deaths(s)) != 0 || s.Late != 0 {
			t.Errorf("got verdicts %v, stats %+v, want one sound connection", c.dead, s)
		}
		if s.RTT.Count != uint64(len(c.pings)) || s.RTT.Counts[6] != s.RTT.Count || math.Abs(s.RTT.Sum-0.04*float64(s.RTT.Count)) > 1e-9 {
			t.Errorf("got RTT %+v, want %d of 40 ms in the bucket up to 64 ms", s.RTT, len(c.pings))
		}
		w.Remove(&c.Beat)
		w.Remove(&c.Beat)
		before := len(c.pings)
		pass(time.Minute)
		if len(c.pings) != before || w.Stats().Connections != 0 || w.StateOf(&c.Beat) != liveness.StateGone {
			t.Errorf("after Remove: got %d more pings, state %v", len(c.pings)-before, w.StateOf(&c.Beat))
		}
	})
}

func TestSilentPeerIsDead(t *testing.T) {
	tests := []struct {
		name string
		cfg  liveness.Config
	}{
		{"defaults", config},
		{"short", liveness.Config{Ping: 2 * time.Second, Pong: time.Second, Tick: 100 * time.Millisecond}},
		{"pong nearly as long as ping", liveness.Config{Ping: 3 * time.Second, Pong: 2900 * time.Millisecond}},
		{"tick that does not divide", liveness.Config{Ping: 10 * time.Second, Pong: time.Second, Tick: 300 * time.Millisecond}},
		{"one slot", liveness.Config{Ping: 2 * time.Second, Pong: 1900 * time.Millisecond, Tick: 1900 * time.Millisecond}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			turning(t, tt.cfg, func(t *testing.T, w *liveness.Wheel) {
				tick := tt.cfg.Tick
				if tick == 0 {
					tick = liveness.DefaultTick
				}
				c := &client{wheel: w}
				c.Enforce()
				w.Add(&c.Beat, c)
				if got := w.StateOf(&c.Beat); got != liveness.StateQuiet {
					t.Errorf("after Add: got %v, want quiet", got)
				}
				pass(5 * tt.cfg.Ping)
				if len(c.pings) != 2 || len(c.dead) != 1 {
					t.Fatalf("got %d pings and verdicts %v, want two and one", len(c.pings), c.dead)
				}
				if after := c.pings[1].Sub(c.pings[0]); after < tt.cfg.Pong-tick/2 || after > tt.cfg.Pong+tick {
					t.Errorf("second ping %v after the first, want %v and at most a tick more", after, tt.cfg.Pong)
				}
				if after := c.died.Sub(c.pings[0]); after < 2*tt.cfg.Pong-2*tick || after > 2*tt.cfg.Pong+2*tick {
					t.Errorf("dead %v after the ping, want about %v", after, 2*tt.cfg.Pong)
				}
				if v := c.dead[0]; v.Cause != liveness.CauseNoPong || v.Ping != 1 || v.Pings != 2 || v.Age != c.died.Sub(c.pings[0]) {
					t.Errorf("got %+v, want no_pong and both pings named", v)
				}
				if s := w.Stats(); s.Connections != 0 || s.Suspects != 0 || deaths(s)[liveness.CauseNoPong] != 1 || w.StateOf(&c.Beat) != liveness.StateDead {
					t.Errorf("got %+v, state %v, want nobody left", s, w.StateOf(&c.Beat))
				}
				w.Remove(&c.Beat) // as a closing connection does
			})
		})
	}
}

func TestPongIsADutyOnceGiven(t *testing.T) {
	turning(t, config, func(t *testing.T, w *liveness.Wheel) {
		c := &client{wheel: w}
		w.Add(&c.Beat, c)
		pass(time.Hour)
		if len(c.dead) != 0 || len(c.pings) < 200 {
			t.Fatalf("got %v after %d pings, want a silent person left alone", c.dead, len(c.pings))
		}
		w.HeardAny(&c.Beat)
		pass(time.Minute)
		if len(c.dead) != 1 {
			t.Errorf("got verdicts %v, want one: this client has shown that it can answer", c.dead)
		}
	})
}

func TestLateAnswerSavesASuspect(t *testing.T) {
	turning(t, config, func(t *testing.T, w *liveness.Wheel) {
		c := &client{wheel: w}
		c.Enforce()
		// bytes after 2.9 s show life, so the second ping goes out at 5.9 s and
		// has until 8.6 s
		c.reply = func(c *client, seq uint32) {
			if seq%2 == 0 {
				return // the pong to the first is on its way
			}
			time.AfterFunc(2900*time.Millisecond, func() { w.Active(&c.Beat) })
			time.AfterFunc(4*time.Second, func() {
				if got := w.StateOf(&c.Beat); got != liveness.StateSuspect || w.Stats().Suspects != 1 {
					t.Errorf("got %v, want a suspect", got)
				}
			})
			time.AfterFunc(8*time.Second, func() {
				if !w.Heard(&c.Beat, seq) {
					t.Errorf("the pong to the first of two pings was not taken")
				}
			})
		}
		w.Add(&c.Beat, c)
		pass(time.Minute)
		if len(c.dead) != 0 || len(c.pings) < 6 || w.Stats().Suspects != 0 {
			t.Errorf("got %v after %d pings, %d suspects, want it kept", c.dead, len(c.pings), w.Stats().Suspects)
		}
		c.behave(func(c *client, _ uint32) { // the same without the pong
			time.AfterFunc(2*time.Second, func() { w.Active(&c.Beat) })
		})
		pass(time.Minute)
		if len(c.dead) != 1 {
			t.Errorf("got %v, want it dead: bytes alone are no pong", c.dead)
		}
	})
}

func TestSuspectMayLeave(t *testing.T) {
	turning(t, config, func(t *testing.T, w *liveness.Wheel) {
		c := &client{wheel: w}
		c.Enforce()
		c.reply = func(c *client, _ uint32) {
			time.AfterFunc(2*time.Second, func() { w.Active(&c.Beat) })
			time.AfterFunc(4*time.Second, func() { w.Remove(&c.Beat) })
		}
		w.Add(&c.Beat, c)
		pass(time.Minute)
		if s := w.Stats(); len(c.dead) != 0 || s.Suspects != 0 || s.Connections != 0 {
			t.Errorf("got %v, %+v, want it gone without a verdict", c.dead, s)
		}
	})
}

// A server that stood still must not blame those whose pongs it did not read.
func TestLateWheelPostponesVerdicts(t *testing.T) {
	turning(t, config, func(t *testing.T, w *liveness.Wheel) {
		const n = 100
		var stalled bool
		clients := make([]*client, n)
		for i := range clients {
			c := &client{wheel: w}
			c.Enforce()
			c.reply = func(c *client, seq uint32) {
				if !stalled {
					stalled = true
					time.Sleep(20 * time.Second) // the wheel's own goroutine stands still
				}
				// every pong arrives 2 s after the server can read again
				answerAfter(2*time.Second)(c, seq)
			}
			clients[i] = c
			w.Add(&c.Beat, c)
		}
		pass(2 * time.Minute)
		for i, c := range clients {
			if len(c.dead) != 0 {
				t.Fatalf("client %d: got verdict %v, want none", i, c.dead)
			}
		}
		if s := w.Stats(); s.Late == 0 || s.Excused[liveness.ExcuseLate] == 0 || s.Connections != n {
			t.Errorf("got %+v, want lateness noticed, verdicts postponed and all kept", s)
		}
		for _, c := range clients { // and the dead are still found
			c.behave(nil)
		}
		pass(40 * time.Second)
		if got := deaths(w.Stats())[liveness.CauseNoPong]; got != n {
			t.Errorf("got %d dead, want %d", got, n)
		}
	})
}

func TestPingsAreSpread(t *testing.T) {
	turning(t, config, func(t *testing.T, w *liveness.Wheel) {
		const n = 15_000
		perTick := make(map[time.Time]int) // all pings of a tick share its time
		for range n {                      // all in one moment, as after a restart
			c := &client{wheel: w}
			c.reply = func(*client, uint32) {
				perTick[time.Now()]++
				w.HeardAny(&c.Beat)
			}
			w.Add(&c.Beat, c)
		}
		pass(15 * time.Second)
		if len(perTick) != 60 {
			t.Errorf("got pings in %d ticks, want all 60 of them", len(perTick))
		}
		for at, got := range perTick {
			if got != n/60 {
				t.Errorf("got %d pings at %v, want %d", got, at, n/60)
			}
		}
	})
}

func TestChurn(t *testing.T) {
	turning(t, config, func(t *testing.T, w *liveness.Wheel) {
		var (
			wg    sync.WaitGroup
			mu    sync.Mutex
			alive int
		)
		for worker := range 8 {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(uint64(worker), 7))
				var mine []*client
				for range 2000 {
					c := &client{wheel: w, reply: answerAfter(time.Duration(r.IntN(2500)) * time.Millisecond)}
					c.Enforce()
					w.Add(&c.Beat, c)
					mine = append(mine, c)
					if len(mine) > 20 {
						i := r.IntN(len(mine))
						w.Remove(&mine[i].Beat)
						mine[i] = mine[len(mine)-1]
						mine = mine[:len(mine)-1]
					}
					time.Sleep(time.Duration(r.IntN(100)) * time.Millisecond)
				}
				for _, c := range mine {
					if len(c.dead) != 0 {
						t.Errorf("got verdict %v for a client that answers", c.dead)
					}
				}
				mu.Lock()
				alive += len(mine)
				mu.Unlock()
			})
		}
		wg.Wait()
		pass(time.Minute)
		if s := w.Stats(); s.Connections != alive || len(deaths(s)) != 0 || s.Pings == 0 {
			t.Errorf("got %+v, want %d connections and no verdict", s, alive)
		}
	})
}

func TestHeartbeatsOff(t *testing.T) {
	turning(t, liveness.Config{}, func(t *testing.T, w *liveness.Wheel) {
		c := &client{wheel: w}
		c.Enforce()
		w.Add(&c.Beat, c)
		w.HeardAny(&c.Beat)
		w.Active(&c.Beat)
		pass(time.Hour)
		if s := w.Stats(); s.Pings != 0 || s.Connections != 1 || s.RTT.Count != 0 {
			t.Errorf("got %+v, want one connection and no pings", s)
		}
		w.Remove(&c.Beat)
		if s := w.Stats(); s.Connections != 0 {
			t.Errorf("got %d connections, want 0", s.Connections)
		}
	})
}

func TestAddTwicePanics(t *testing.T) {
	w, err := liveness.New(config)
	if err != nil {
		t.Fatal(err)
	}
	c := &client{wheel: w}
	w.Add(&c.Beat, c)
	defer func() {
		if recover() == nil {
			t.Error("got no panic from a Beat that is in the wheel")
		}
	}()
	w.Add(&c.Beat, c)
}

// A connection may end on one goroutine while another still sets it up.
func TestRemoveBeforeAdd(t *testing.T) {
	turning(t, config, func(t *testing.T, w *liveness.Wheel) {
		c := &client{wheel: w}
		w.Remove(&c.Beat)
		w.Add(&c.Beat, c)
		pass(time.Minute)
		if n := w.Stats().Connections; n != 0 || len(c.pings) != 0 || w.StateOf(&c.Beat) != liveness.StateGone {
			t.Errorf("got %d connections, %d pings, state %v, want 0, 0 and gone", n, len(c.pings), w.StateOf(&c.Beat))
		}
	})
}

func TestBadConfig(t *testing.T) {
	tests := []struct {
		name string
		cfg  liveness.Config
		want string
	}{
		{"negative ping", liveness.Config{Ping: -1, Pong: 1}, "must be positive"},
		{"no pong", liveness.Config{Ping: time.Second}, "must be positive"},
		{"pong after ping", liveness.Config{Ping: time.Second, Pong: time.Second}, "must be shorter than ping"},
		{"coarse tick", liveness.Config{Ping: time.Minute, Pong: time.Second, Tick: 2 * time.Second}, "must not be longer than pong"},
		{"fine tick", liveness.Config{Ping: time.Hour, Pong: time.Second, Tick: time.Millisecond}, "more than 65536 ticks"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := liveness.New(tt.cfg); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
}

func TestStateNames(t *testing.T) {
	var got []string
	for s := liveness.StateNew; s <= liveness.StateGone+1; s++ {
		got = append(got, s.String())
	}
	if want := "new quiet probed suspect dead gone state(6)"; strings.Join(got, " ") != want {
		t.Errorf("got %q, want %q", strings.Join(got, " "), want)
	}
}

func BenchmarkHeard(b *testing.B) {
	w, err := liveness.New(config)
	if err != nil {
		b.Fatal(err)
	}
	c := &client{wheel: w}
	w.Add(&c.Beat, c)
	b.ReportAllocs()
	for b.Loop() {
		w.Heard(&c.Beat, 1)
	}
}

func BenchmarkAddRemove(b *testing.B) {
	w, err := liveness.New(config)
	if err != nil {
		b.Fatal(err)
	}
	clients := make([]client, 1000)
	b.ReportAllocs()
	for b.Loop() {
		clear(clients)
		for i := range clients {
			w.Add(&clients[i].Beat, &clients[i])
		}
		for i := range clients {
			w.Remove(&clients[i].Beat)
		}
	}
}
