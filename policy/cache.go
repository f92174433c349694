package policy

import (
	"hash/maphash"
	"sync/atomic"
	"time"

	"parley/core/gate"
)

// cacheWays is how many entries share one set. A key may lie in any way of its
// set, so a few keys with unlucky hashes do not evict each other.
const cacheWays = 4

// maxKeyBytes bounds one key; a larger question is answered uncached. Names
// and roles within core/chat's bounds need less than 900 bytes.
const maxKeyBytes = 1 << 10

// cache holds decisions by exact key. It is a fixed table of sets: a lookup
// compares whole keys, takes no lock and allocates nothing; an insert replaces
// the first way of its set that was not used since the hand last passed
// (CLOCK within the set). Two inserts may race for a way: one is lost, which
// costs a later evaluation and nothing else. Entries are immutable.
type cache struct {
	seed maphash.Seed
	mask uint64
	sets []cacheSet
	n    atomic.Int64 // ways in use
}

type cacheSet struct {
	ways [cacheWays]atomic.Pointer[cacheEntry]
	hand atomic.Uint32
}

type cacheEntry struct {
	hash     uint64
	key      string
	decision gate.Decision
	took     time.Duration // what evaluating it took
	used     atomic.Bool
}

// newCache returns a cache of at least entries slots, rounded up to a power of
// two; nil, which caches nothing, when entries is 0.
func newCache(entries int) *cache {
	if entries <= 0 {
		return nil
	}
	sets := 1
	for sets*cacheWays < entries {
		sets *= 2
	}
	return &cache{seed: maphash.MakeSeed(), mask: uint64(sets - 1), sets: make([]cacheSet, sets)}
}

func (c *cache) hash(key []byte) uint64 { return maphash.Bytes(c.seed, key) }

// get returns what is stored under key, or nil.
func (c *cache) get(hash uint64, key []byte) *cacheEntry {
	set := &c.sets[hash&c.mask]
	for i := range set.ways {
		e := set.ways[i].Load()
		if e != nil && e.hash == hash && e.key == string(key) {
			if !e.used.Load() { // written only when it changes: readers share the line
				e.used.Store(true)
			}
			return e
		}
	}
	return nil
}

// put stores d, which took that long, under key.
func (c *cache) put(hash uint64, key []byte, d gate.Decision, took time.Duration) {
	d.Cached = true // as every later reader will see it
	e := &cacheEntry{hash: hash, key: string(key), decision: d, took: took}
	set := &c.sets[hash&c.mask]
	for range 2 * cacheWays { // the second round finds a way the first has cleared
		way := &set.ways[set.hand.Add(1)%cacheWays]
		old := way.Load()
		if old != nil && old.used.Swap(false) {
			continue
		}
		if way.CompareAndSwap(old, e) {
			if old == nil {
				c.n.Add(1)
			}
			return
		}
	}
}

// slots is how many decisions fit.
func (c *cache) slots() int {
	if c == nil {
		return 0
	}
	return len(c.sets) * cacheWays
}

// len is how many decisions are stored.
func (c *cache) len() int {
	if c == nil {
		return 0
	}
	return int(c.n.Load())
}
