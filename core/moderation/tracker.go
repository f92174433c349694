package moderation

import (
	"hash/maphash"
	"sync"
	"time"

	"parley/core/chat"
	"parley/sdk/abi"
)

// Tracker counts what each user wrote to each room lately, for the signals
// plugins see. It is a fixed table: a (room, user) pair lives in one of a
// set's slots, and a pair that finds no slot takes that of the pair silent
// longest, whose counts are lost. So memory never grows (about 100 bytes a
// pair) and an attacker with many names only forgets himself. Any goroutine
// may use it.
type Tracker struct {
	seed maphash.Seed
	sets []trackerSet // a power of two
}

const (
	trackerWays   = 8  // slots of a set
	trackerBucket = 5  // seconds one bucket of the rate spans
	trackerSpan   = 12 // buckets: a minute
	trackerTexts  = 8  // texts remembered for repeats
)

type trackerSet struct {
	mu    sync.Mutex
	slots [trackerWays]trackerSlot
}

// trackerSlot counts for one pair; the zero value is free.
type trackerSlot struct {
	pair   uint64              // hash of room and user
	bucket int64               // the bucket of the newest message; 0 = free
	rate   [trackerSpan]uint16 // messages by bucket, modulo trackerSpan
	texts  [trackerTexts]uint32
	next   uint8 // where the next text goes
	filled uint8 // texts that count
}

// NewTracker returns a tracker for at least pairs pairs of room and user,
// rounded up to a power of two; 16384 of them take 1.3 MiB.
func NewTracker(pairs int) *Tracker {
	n := 1
	for n*trackerWays < pairs {
		n *= 2
	}
	return &Tracker{seed: maphash.MakeSeed(), sets: make([]trackerSet, n)}
}

// Observe counts one message and returns the signals as they were before it:
// the messages of that user to that room in the last minute (in steps of 5 s,
// so up to 5 s less) and how many of the last 8 had the same text. The
// account's age is the caller's to fill in. Call it once per message that is
// to be judged, after the nonce was looked up, so that a resend does not count.
func (t *Tracker) Observe(room chat.RoomID, user chat.UserID, text string, now time.Time) abi.Signals {
	pair := t.pair(room, user)
	sum := uint32(maphash.String(t.seed, text))
	bucket := max(1, now.Unix()/trackerBucket) // 0 marks a free slot

	set := &t.sets[pair&uint64(len(t.sets)-1)]
	set.mu.Lock()
	defer set.mu.Unlock()
	slot := set.find(pair)
	slot.advance(bucket)
	s := slot.signals(sum)
	if at := &slot.rate[slot.bucket%trackerSpan]; *at < 1<<16-1 {
		*at++
	}
	slot.texts[slot.next] = sum
	slot.next = (slot.next + 1) % trackerTexts
	slot.filled = min(slot.filled+1, trackerTexts)
	return s
}

// Peek returns what Observe would, and counts nothing.
func (t *Tracker) Peek(room chat.RoomID, user chat.UserID, text string, now time.Time) (s abi.Signals) {
	pair := t.pair(room, user)
	sum := uint32(maphash.String(t.seed, text))
	set := &t.sets[pair&uint64(len(t.sets)-1)]
	set.mu.Lock()
	defer set.mu.Unlock()
	for i := range set.slots {
		if set.slots[i].pair != pair || set.slots[i].bucket == 0 {
			continue
		}
		slot := set.slots[i] // a copy: what it forgets is not forgotten
		slot.advance(max(1, now.Unix()/trackerBucket))
		return slot.signals(sum)
	}
	return s
}

// pair names the slot of a room and a user.
func (t *Tracker) pair(room chat.RoomID, user chat.UserID) uint64 {
	var h maphash.Hash
	h.SetSeed(t.seed)
	h.WriteString(string(room))
	h.WriteByte(0)
	h.WriteString(string(user))
	return h.Sum64()
}

// signals says what the slot has counted, for a text of that hash.
func (slot *trackerSlot) signals(text uint32) (s abi.Signals) {
	for _, n := range slot.rate {
		s.RecentPerMinute += uint32(n)
	}
	for _, seen := range slot.texts[:slot.filled] {
		if seen == text {
			s.Repeats++
		}
	}
	return s
}

// find returns the pair's slot, taking over the one silent longest (a free one
// before any other) when it has none.
func (set *trackerSet) find(pair uint64) *trackerSlot {
	oldest := &set.slots[0]
	for i := range set.slots {
		slot := &set.slots[i]
		if slot.pair == pair && slot.bucket != 0 {
			return slot
		}
		if slot.bucket < oldest.bucket {
			oldest = slot
		}
	}
	*oldest = trackerSlot{pair: pair}
	return oldest
}

// advance forgets the buckets that are more than a minute old. A clock that
// steps back counts into the newest bucket.
func (slot *trackerSlot) advance(bucket int64) {
	if bucket <= slot.bucket {
		return
	}
	for b := max(slot.bucket+1, bucket-trackerSpan+1); b <= bucket; b++ {
		slot.rate[b%trackerSpan] = 0
	}
	slot.bucket = bucket
}
