package chat

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// IDs are UUIDs of version 7 that tell when they were made, and those of one
// goroutine sort in the order it made them in; nobody else has any of them.
func TestIDs(t *testing.T) {
	const people, each = 8, 2000
	form := regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	before := time.Now().UnixMilli()
	made := make([][]string, people)
	var all sync.WaitGroup
	for i := range made {
		all.Go(func() {
			for range each {
				made[i] = append(made[i], NewID())
			}
		})
	}
	all.Wait()
	after := time.Now().UnixMilli() + people*each/4096 + 1 // IDs may run ahead of the clock
	seen := make(map[string]bool)
	for _, ids := range made {
		if !slices.IsSorted(ids) {
			t.Error("later IDs sort before earlier ones")
		}
		for _, id := range ids {
			ms, err := strconv.ParseInt(strings.ReplaceAll(id, "-", "")[:12], 16, 64)
			if !form.MatchString(id) || err != nil || ms < before || ms > after {
				t.Fatalf("got %s, of %d, %v, want a UUIDv7 of %d to %d", id, ms, err, before, after)
			}
			if seen[id] || !ValidNonce(id) {
				t.Fatalf("%s was made twice, or is no nonce", id)
			}
			seen[id] = true
		}
	}
}

func BenchmarkNewID(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		_ = NewID()
	}
}
