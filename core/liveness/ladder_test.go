package liveness_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"parley/core/liveness"
)

// kernel scripts what the kernel would say at a time after the first ping that
// went unanswered. It begins with an idle connection: all acknowledged.
type kernel func(age time.Duration) liveness.Evidence

// idle is a connection on which everything is acknowledged.
func idle() liveness.Evidence {
	return liveness.Evidence{Known: true, Acked: 1000, DataIn: 10, SegmentsOut: 100, RTT: 20 * time.Millisecond, RTO: 220 * time.Millisecond}
}

func with(change func(*liveness.Evidence)) liveness.Evidence {
	e := idle()
	change(&e)
	return e
}

// lost is a ping in flight whose retransmission timer doubles from rto.
func lost(rto time.Duration) kernel {
	return func(age time.Duration) liveness.Evidence {
		return with(func(e *liveness.Evidence) {
			e.Unacked, e.Queued = 1, 6
			for t := 2 * rto; t <= age; t += rto << e.Timeouts { // a loss probe comes first
				e.Timeouts++
			}
			e.Backoff = e.Timeouts
		})
	}
}

// after is what comes before the change, and then what comes after it.
func after(at time.Duration, before, then kernel) kernel {
	return func(age time.Duration) liveness.Evidence {
		if age < at {
			return before(age)
		}
		return then(age)
	}
}

func constant(e liveness.Evidence) kernel {
	return func(time.Duration) liveness.Evidence { return e }
}

func TestLadder(t *testing.T) {
	unread := constant(with(func(e *liveness.Evidence) { e.Unread = 5 }))
	closed := constant(with(func(e *liveness.Evidence) { e.NotSent, e.Queued = 4096, 4096 }))
	sec := func(n float64) time.Duration { return time.Duration(n * float64(time.Second)) }
	tests := []struct {
		name     string
		kernel   kernel
		cause    liveness.Cause  // "" = kept
		from, to time.Duration   // when the verdict falls, after the ping
		pings    int             // unanswered, of the verdict
		excuse   liveness.Excuse // "" = none
	}{
		{"path dead, near", lost(sec(0.2)), liveness.CausePathDead, sec(2.9), sec(3.5), 1, ""},
		{"path dead, 200 ms away", lost(sec(0.4)), liveness.CausePathDead, sec(2.9), sec(3.5), 1, ""},
		{"path dead, slow timer", lost(sec(0.9)), liveness.CausePathDead, sec(7.1), sec(7.7), 1, ""},
		{"path stalled, very slow timer", lost(sec(8)), liveness.CausePathStalled, sec(9.5), sec(10.3), 1, ""},
		{"frozen", constant(idle()), liveness.CauseFrozen, sec(5.5), sec(6), 2, ""},
		{"frozen, the ping acknowledged late", after(sec(4), lost(sec(1.2)), constant(with(func(e *liveness.Evidence) { e.Acked += 6 }))),
			liveness.CauseFrozen, sec(9.5), sec(10.5), 2, ""},
		{"frozen, on a path with spikes", constant(with(func(e *liveness.Evidence) { e.RTO = sec(2) })), liveness.CauseFrozen, sec(10.5), sec(11.5), 2, ""},
		{"path dies once the ping was acknowledged", after(sec(5), constant(idle()), func(age time.Duration) liveness.Evidence { return lost(sec(0.2))(age - sec(3)) }),
			liveness.CausePathDead, sec(5), sec(6.2), 2, ""},
		{"bytes wait unread", unread, "", 0, 0, 0, liveness.ExcuseUnread},
		{"window closed", closed, "", 0, 0, 0, liveness.ExcuseWindow},
		{"answers arrive behind a hole", func(age time.Duration) liveness.Evidence {
			return with(func(e *liveness.Evidence) { e.DataIn += uint32(age / sec(1)) })
		}, "", 0, 0, 0, liveness.ExcuseArriving},
		{"a long queue moves", func(age time.Duration) liveness.Evidence {
			return with(func(e *liveness.Evidence) {
				e.Unacked, e.Queued, e.NotSent = 10, 1<<20-int(age/time.Millisecond), 1<<19
				e.Acked += uint64(age / time.Millisecond)
			})
		}, "", 0, 0, 0, liveness.ExcuseProgress},
		{"the queue stops", func(age time.Duration) liveness.Evidence {
			return with(func(e *liveness.Evidence) {
				e.Unacked, e.Queued, e.NotSent = 10, 1<<20, 1<<19
				e.Acked += uint64(min(age, sec(5)) / time.Millisecond)
			})
		}, liveness.CausePathStalled, sec(14), sec(15.5), 1, liveness.ExcuseProgress},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := config
			cfg.Ping = time.Minute
			turning(t, cfg, func(t *testing.T, w *liveness.Wheel) {
				c := &client{wheel: w}
				var asked time.Time
				c.reply = func(*client, uint32) {
					if asked.IsZero() {
						asked = time.Now()
					}
				}
				c.look = func(*client) (liveness.Evidence, error) { return tt.kernel(time.Since(asked)), nil }
				c.Enforce()
				w.Add(&c.Beat, c)
				pass(cfg.Ping + 20*time.Second)
				if tt.cause == "" {
					if len(c.dead) != 0 {
						t.Errorf("got %v, want it kept", c.dead)
					}
				} else if len(c.dead) != 1 {
					t.Fatalf("got %v, want one verdict", c.dead)
				} else if v := c.dead[0]; v.Cause != tt.cause || v.Age < tt.from || v.Age > tt.to || v.Pings != tt.pings || v.Ping != 1 {
					t.Errorf("got %v, %d pings, want %s within %v and %v, %d pings", v, v.Pings, tt.cause, tt.from, tt.to, tt.pings)
				} else if c.died.Sub(asked) != v.Age || w.Stats().Dead[tt.cause] != 1 || !v.Evidence.Known {
					t.Errorf("got age %v after %v, stats %v, want them to agree", v.Age, c.died.Sub(asked), w.Stats().Dead)
				}
				for excuse, n := range w.Stats().Excused {
					if (n > 0) != (excuse == tt.excuse) {
						t.Errorf("got %d times excused as %s, want only %q", n, excuse, tt.excuse)
					}
				}
			})
		})
	}
}

// Whoever is kept for a whole round is asked anew, and may answer.
func TestKeptSuspectGetsANewTrial(t *testing.T) {
	turning(t, config, func(t *testing.T, w *liveness.Wheel) {
		c := &client{wheel: w}
		c.look = func(*client) (liveness.Evidence, error) {
			return with(func(e *liveness.Evidence) { e.Unread = 1 }), nil
		}
		c.Enforce()
		w.Add(&c.Beat, c)
		pass(5 * time.Minute)
		if n := len(c.pings); len(c.dead) != 0 || n < 9 {
			t.Errorf("got %v after %d pings, want it kept and asked on", c.dead, n)
		}
		c.behave(answerAfter(time.Millisecond))
		pass(time.Minute)
		if w.Stats().Suspects != 0 {
			t.Errorf("got state %v, want quiet", w.StateOf(&c.Beat))
		}
	})
}

func TestModes(t *testing.T) {
	tests := []struct {
		name   string
		mode   liveness.Mode
		kernel kernel
		stall  time.Duration // of this server, in the first ping
		cause  liveness.Cause
		by     time.Duration
	}{
		{"ping blames a silent client", liveness.ModePing, constant(idle()), 0, liveness.CauseNoPong, 3500 * time.Millisecond},
		{"ping does not ask whose fault it is", liveness.ModePing, constant(with(func(e *liveness.Evidence) { e.Unread = 5 })), 0, liveness.CauseNoPong, 3500 * time.Millisecond},
		{"keepalive judges nobody", liveness.ModeKeepAlive, lost(200 * time.Millisecond), 0, "", 0},
		{"both: a lost ping keeps KeepAlive silent", liveness.ModeBoth, lost(200 * time.Millisecond), 0, "", 0},
		{"both: a frozen client's kernel answers", liveness.ModeBoth, constant(idle()), 0, "", 0},
		{"both: they agree", liveness.ModeBoth, constant(with(func(e *liveness.Evidence) { e.Probes = 3 })), 0, liveness.CauseKeepAlive, 3500 * time.Millisecond},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := config
			cfg.Mode, cfg.KeepAliveCount = tt.mode, 3
			turning(t, cfg, func(t *testing.T, w *liveness.Wheel) {
				c := &client{wheel: w}
				c.look = func(c *client) (liveness.Evidence, error) { return tt.kernel(time.Since(c.pings[0])), nil }
				c.Enforce()
				w.Add(&c.Beat, c)
				pass(5 * time.Minute)
				switch {
				case tt.cause == "" && (len(c.dead) != 0 || len(c.pings) < 9):
					t.Errorf("got %v after %d pings, want it kept and asked on", c.dead, len(c.pings))
				case tt.cause != "" && (len(c.dead) != 1 || c.dead[0].Cause != tt.cause || c.dead[0].Age > tt.by || len(c.pings) != 1):
					t.Errorf("got %v after %d pings, want %s within %v", c.dead, len(c.pings), tt.cause, tt.by)
				}
			})
		})
	}
}

func TestPongsAnswerPings(t *testing.T) {
	turning(t, config, func(t *testing.T, w *liveness.Wheel) {
		c := &client{wheel: w}
		if w.Heard(&c.Beat, 0) || w.HeardAny(&c.Beat) {
			t.Error("a pong was taken before any ping")
		}
		w.Add(&c.Beat, c)
		pass(16 * time.Second)
		for _, seq := range []uint32{0, 2, 1 << 31} {
			if w.Heard(&c.Beat, seq) {
				t.Errorf("the pong to ping %d was taken, though there was none", seq)
			}
		}
		pass(20 * time.Second)
		if len(c.dead) != 0 || len(c.pings) != 2 {
			t.Fatalf("got %v after %d pings, want nothing demanded yet", c.dead, len(c.pings))
		}
		if w.Heard(&c.Beat, 1) || !w.Heard(&c.Beat, 2) {
			t.Error("want the newest ping's pong taken, an old one's not")
		}
		if !w.HeardAny(&c.Beat) || w.Stats().RTT.Count != 1 {
			t.Errorf("got %d round trips, want the round's one", w.Stats().RTT.Count)
		}
	})
}

func TestSecondPingsPongSavesToo(t *testing.T) {
	turning(t, config, func(t *testing.T, w *liveness.Wheel) {
		c := &client{wheel: w}
		c.look = func(*client) (liveness.Evidence, error) { return idle(), nil }
		c.reply = func(c *client, seq uint32) {
			if seq%2 == 0 {
				answerAfter(10*time.Millisecond)(c, seq)
			}
		}
		c.Enforce()
		w.Add(&c.Beat, c)
		pass(5 * time.Minute)
		s := w.Stats()
		if len(c.dead) != 0 || s.RTT.Count < 15 || s.RTT.Sum > 0.0101*float64(s.RTT.Count) {
			t.Errorf("got %v, round trips %+v, want all of 10 ms", c.dead, s.RTT)
		}
	})
}

func TestSweepSeesEveryoneOnce(t *testing.T) {
	for name, ping := range map[string]time.Duration{"with pings": 15 * time.Second, "without": 0} {
		t.Run(name, func(t *testing.T) {
			cfg := config
			cfg.Ping, cfg.Sweep = ping, 5*time.Minute
			turning(t, cfg, func(t *testing.T, w *liveness.Wheel) {
				clients := make([]*client, 600)
				for i := range clients {
					c := &client{wheel: w, reply: answerAfter(time.Millisecond)}
					c.look = func(*client) (liveness.Evidence, error) {
						return with(func(e *liveness.Evidence) {
							if i == 0 {
								e.Retransmits, e.Unacked = 30, 3
							}
						}), nil
					}
					clients[i] = c
					w.Add(&c.Beat, c)
				}
				pass(5*time.Minute + time.Second)
				perTick := make(map[time.Time]int)
				for i, c := range clients {
					if n := len(c.swept); n != 1 && n != 2 {
						t.Fatalf("connection %d: got %d looks in five minutes and a second, want one", i, n)
					}
					perTick[c.swept[0]]++
				}
				for at, n := range perTick {
					if n > len(clients)/20 {
						t.Errorf("got %d looks at %v, want them spread", n, at)
					}
				}
				s := w.Stats().Swept
				if s.Looks < 600 || s.Poor == 0 || s.Poor > 2 || s.KernelRTT.Count != s.Looks || s.LossShare.Count != s.Looks || s.Unacked.Counts[0] != s.Looks-s.Poor {
					t.Errorf("got %+v, want every look counted and one poor connection", s)
				}
			})
		})
	}
}

// A look right after the ping would always find something in flight.
func TestSweepLooksBeforeThePing(t *testing.T) {
	cfg := config
	cfg.Sweep = cfg.Ping
	turning(t, cfg, func(t *testing.T, w *liveness.Wheel) {
		c := &client{wheel: w, reply: answerAfter(time.Millisecond)}
		c.look = func(c *client) (liveness.Evidence, error) {
			if n := len(c.pings); n > 0 && time.Since(c.pings[n-1]) == 0 {
				t.Error("it looked with a ping on its way")
			}
			return idle(), nil
		}
		w.Add(&c.Beat, c)
		pass(time.Minute)
		if len(c.swept) < 3 {
			t.Errorf("got %d looks in a minute, want one a round", len(c.swept))
		}
	})
}

func TestEvidenceForPeople(t *testing.T) {
	e := idle()
	if e.Poor() || e.LossShare() != 0 || e.LogValue().Kind().String() != "Group" {
		t.Errorf("got poor %v, loss %v, want a sound connection", e.Poor(), e.LossShare())
	}
	sound := e.Badness()
	for name, change := range map[string]func(*liveness.Evidence){
		"loss":     func(e *liveness.Evidence) { e.Retransmits = 10 },
		"distance": func(e *liveness.Evidence) { e.RTT = time.Second },
		"trouble":  func(e *liveness.Evidence) { e.Unacked, e.Timeouts = 1, 2 },
	} {
		if bad := with(change); !bad.Poor() || bad.Badness() <= sound {
			t.Errorf("%s: got poor %v and badness %v, want worse than %v", name, bad.Poor(), bad.Badness(), sound)
		}
	}
	var none liveness.Evidence
	if none.Poor() || none.LossShare() != 0 || none.LogValue().String() != "none" {
		t.Errorf("got %v of no evidence", none.LogValue())
	}
	v := liveness.Verdict{Cause: liveness.CauseFrozen, Age: 5750 * time.Millisecond, Ping: 7}
	if got := v.String(); !strings.Contains(got, "frozen") || !strings.Contains(got, "5.75s after ping 7") {
		t.Errorf("got %q", got)
	}
}

func TestKernelGaveUpIsCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, err := liveness.New(config)
		if err != nil {
			t.Fatal(err)
		}
		w.KernelGaveUp()
		if n := w.Stats().Dead[liveness.CauseKernel]; n != 1 {
			t.Errorf("got %d, want 1", n)
		}
	})
}
