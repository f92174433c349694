package redis_test

import (
	"context"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"parley/core/journal"
	"parley/core/redis"
	"parley/core/redis/redistest"
)

// BenchmarkErase measures erasures in a room of 100,000 entries of 120 bytes,
// while somebody writes in another: one message, those of 64 people at once, and
// a thousand of one person. The metrics are what Redis says of itself: what a
// slice of the copy took in the middle and at most, by the clock, and how long it
// was busy in all; and the longest that the other room's appends took meanwhile.
func BenchmarkErase(b *testing.B) {
	for _, tc := range []struct {
		name      string
		callers   int
		perCaller int
	}{{"1", 1, 1}, {"64 at once", 64, 1}, {"1000 of one", 1, 1000}} {
		b.Run(tc.name, func(b *testing.B) { benchErase(b, tc.callers, tc.perCaller) })
	}
}

func benchErase(b *testing.B, callers, perCaller int) {
	server := redistest.Start(b, redistest.Options{})
	j := benchNode(b, server.URL())
	epoch := fillRoom(b, j, 100_000)
	server.Do("CONFIG", "SET", "slowlog-log-slower-than", "500")
	server.Do("CONFIG", "SET", "slowlog-max-len", "100000")
	server.Do("SLOWLOG", "RESET")
	server.Do("CONFIG", "RESETSTAT")
	slowest, stop := writeElsewhere(b, j)
	seq := uint64(0)
	b.ResetTimer()
	for range b.N {
		var wg sync.WaitGroup
		for range callers {
			er := journal.Erasure{Epoch: epoch}
			for range perCaller {
				seq += 7
				er.Seqs = append(er.Seqs, seq%100_000+1)
			}
			wg.Go(func() {
				if _, err := j.Erase(b.Context(), "lobby", er); err != nil {
					b.Error(err)
				}
			})
		}
		wg.Wait()
	}
	b.StopTimer()
	stop()
	slice, longest, busy := redisTimes(b, server)
	b.ReportMetric(slice.Seconds()*1000, "slice-ms")
	b.ReportMetric(longest.Seconds()*1000, "longest-ms")
	b.ReportMetric(busy.Seconds()*1000/float64(b.N), "busy-ms/op")
	b.ReportMetric(slowest().Seconds()*1000, "append-max-ms")
}

// writeElsewhere appends to another room, one entry after the other, until stop.
func writeElsewhere(b *testing.B, j journal.Journal) (slowest func() time.Duration, stop func()) {
	ctx, cancel := context.WithCancel(b.Context())
	var most time.Duration
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := 0; ctx.Err() == nil; n++ {
			began := time.Now()
			if _, err := j.Append(context.WithoutCancel(ctx), message("attic", strconv.Itoa(n))); err != nil {
				b.Error(err)
				return
			}
			most = max(most, time.Since(began))
		}
	})
	return func() time.Duration { return most }, func() { cancel(); wg.Wait() }
}

// redisTimes are the median and the maximum of the server's commands of half a
// millisecond and more since the statistics were reset, and the time that all
// scripts took.
func redisTimes(b *testing.B, server *redistest.Server) (slice, longest, busy time.Duration) {
	b.Helper()
	for line := range strings.Lines(server.Do("INFO", "commandstats")) {
		_, rest, _ := strings.Cut(line, "usec=")
		digits, _, _ := strings.Cut(rest, ",")
		name, _, _ := strings.Cut(line, ":")
		// What scripts call is counted as theirs too.
		if us, err := strconv.Atoi(digits); err == nil && (name == "cmdstat_evalsha" || name == "cmdstat_eval") {
			busy += time.Duration(us) * time.Microsecond
		}
	}
	cfg := redis.Defaults()
	cfg.URL = server.URL()
	c, err := redis.Open(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	reply, err := c.Do(b.Context(), "slowlog", "get", -1)
	if err != nil {
		b.Fatal(err)
	}
	list, _ := reply.([]any)
	var all []time.Duration
	for _, v := range list {
		if parts, _ := v.([]any); len(parts) > 2 {
			us, _ := parts[2].(int64)
			all = append(all, time.Duration(us)*time.Microsecond)
		}
	}
	if len(all) == 0 {
		return 0, 0, busy
	}
	slices.Sort(all)
	return all[len(all)/2], all[len(all)-1], busy
}
