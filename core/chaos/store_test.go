package chaos

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"testing"
	"time"

	"parley/core/chat"
	"parley/core/redis/redistest"
)

// TestRedisRestarts ends Redis, by SIGTERM and by kill -9 in turn, and starts
// it again with its data.
func TestRedisRestarts(t *testing.T) {
	t.Parallel()
	w := begin(t, "Redis restarted", plan{})
	rounds := often(2, 20)
	for k := range rounds {
		w.crowd.Midway()
		if k%2 == 0 {
			w.store.Kill()
		} else {
			w.store.Stop()
		}
		w.store.Restart()
		w.goesOn(40)
	}
	w.settle(rounds, 0)
}

// quiet lets a fault happen while nobody talks, in the short form, and under
// load in the long one.
func (w *world) quiet(fault func()) {
	w.t.Helper()
	if long {
		w.crowd.Midway()
		fault()
		return
	}
	w.crowd.Abreast()
	w.crowd.Hush()
	fault()
	w.crowd.Talk(4, 20*time.Millisecond)
}

// TestRedisReturnsEmpty loses everything Redis had. Everyone must be told, and
// the conversation goes on in a new generation.
func TestRedisReturnsEmpty(t *testing.T) {
	t.Parallel()
	w := begin(t, "Redis returns empty", plan{})
	rounds := often(1, 10)
	for range rounds {
		w.goesOn(40)
		w.quiet(func() {
			w.store.Wipe()
			w.store.Restart()
		})
		w.goesOn(40)
	}
	w.settle(rounds, rounds)
}

// TestRedisIsFrozen stops the process of Redis for a while: nothing is refused
// and nothing answers. Some talkers lose patience, so that outcomes stay
// unknown.
func TestRedisIsFrozen(t *testing.T) {
	t.Parallel()
	w := begin(t, "SIGSTOP of Redis, 0.2 to 10 s", plan{giveUp: 4 * time.Second})
	rounds := often(2, 20)
	shortest, longest := 200*time.Millisecond, time.Duration(often(3, 10))*time.Second
	for k := range rounds {
		part := float64(k) / float64(rounds-1)
		w.crowd.Midway()
		w.store.Pause()
		lasts(t, time.Duration(float64(shortest)*math.Pow(float64(longest)/float64(shortest), part)))
		w.store.Resume()
		w.goesOn(40)
	}
	w.settle(rounds, 0)
}

// TestAReplicaIsPromotedWithoutTheTail lets a replica take over that has not
// got the newest messages. They are lost, and everyone is told.
func TestAReplicaIsPromotedWithoutTheTail(t *testing.T) {
	t.Parallel()
	primary := redistest.Start(t, redistest.Options{AppendOnly: true, Args: quickSync})
	front := newLink(t, primary.Addr())
	w := begin(t, "replica promoted minus its tail", plan{url: front.URL()})
	rounds := often(1, 10)
	for range rounds {
		wire := newLink(t, primary.Addr())
		host, port, _ := strings.Cut(wire.Addr(), ":")
		replica := redistest.Start(t, redistest.Options{AppendOnly: true, Args: append([]string{"--replicaof", host + " " + port}, quickSync...)})
		await(t, "the replica follows", func() bool { return info(replica, "replication")["master_link_status"] == "up" })
		w.goesOn(40)
		wire.close()
		w.goesOn(30) // the tail
		w.quiet(func() {
			front.close()
			primary.Kill()
			replica.Do("REPLICAOF", "NO", "ONE")
			front.openTo(replica.Addr())
			primary = replica
		})
		w.goesOn(40)
	}
	w.settle(rounds, rounds)
}

// quickSync lets a replica have its copy at once.
var quickSync = []string{"--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "0"}

// info asks Redis for a section of INFO.
func info(s *redistest.Server, section string) map[string]string {
	m := make(map[string]string)
	for line := range strings.Lines(s.Do("INFO", section)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			m[name] = value
		}
	}
	return m
}

// number is one that Redis tells of itself.
func number(t *testing.T, s *redistest.Server, section, name string) int {
	t.Helper()
	n, err := strconv.Atoi(info(s, section)[name])
	if err != nil {
		t.Fatalf("redis says %s: %v", name, err)
	}
	return n
}

// TestRedisIsOutOfMemory fills Redis up to its maxmemory. Senders are told
// that the store is overloaded, nothing is half done, and it goes on when
// there is memory again.
func TestRedisIsOutOfMemory(t *testing.T) {
	t.Parallel()
	w := begin(t, "maxmemory reached", plan{})
	rounds := often(1, 5)
	for range rounds {
		w.store.Do("CONFIG", "SET", "maxmemory", fmt.Sprint(number(t, w.store, "memory", "used_memory")))
		told := w.crowd.Told(chat.CodeOverloaded)
		await(t, "senders are told that the store is overloaded", func() bool { return w.crowd.Told(chat.CodeOverloaded) >= told+20 })
		w.store.Do("CONFIG", "SET", "maxmemory", "0")
		w.goesOn(40)
	}
	w.settle(rounds, 0)
}
