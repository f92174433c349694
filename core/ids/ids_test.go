package ids

import (
	"slices"
	"sync"
	"testing"

	"github.com/google/uuid"
)

func TestNew(t *testing.T) {
	const people, each = 4, 500
	made := make([][]string, people)
	var all sync.WaitGroup
	for i := range made {
		all.Go(func() {
			for range each {
				made[i] = append(made[i], New())
			}
		})
	}
	all.Wait()
	seen := make(map[string]bool)
	for _, some := range made {
		if !slices.IsSorted(some) {
			t.Error("a later one sorts before an earlier one")
		}
		for _, s := range some {
			if id, err := uuid.Parse(s); err != nil || id.Version() != 7 || id.Variant() != uuid.RFC4122 || seen[s] {
				t.Fatalf("got %q (%v), want a UUIDv7 that nobody has", s, err)
			}
			seen[s] = true
		}
	}
}
