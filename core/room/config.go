package room

import (
	"fmt"
	"time"
)

// Config is the hub's configuration.
type Config struct {
	// Shards is the number of pump goroutines; 0 means one a processor.
	Shards int
	// Pace is the least time between two writes of a busy room to a member,
	// twice that while a shard is busy writing; 0 never waits. A room that was
	// quiet for that long is passed at once.
	Pace time.Duration
	// RingEntries and RingBytes bound the encoded entries a room keeps in
	// memory; members further behind read from the journal. RingEntries is
	// rounded up to a power of two.
	RingEntries int
	RingBytes   int
	// LagBytes closes a parked member when the rooms it listens to have grown
	// by that many bytes beyond what it was given; 0 = no limit. What lay
	// between its position and the room's top when it joined does not count.
	LagBytes int64
	// LagTime closes a parked member whose socket took no byte for that long;
	// 0 = no limit.
	LagTime time.Duration
	// ReplyBytes bounds answers that wait for a parked connection; above it
	// the connection's own reader waits.
	ReplyBytes int
	// IdleTime is how long a room without members stays loaded.
	IdleTime time.Duration
	// MaxRooms bounds loaded rooms; 0 = no limit.
	MaxRooms int
}

// Defaults returns the configuration that the measurements in
// docs/performance.md were made with.
func Defaults() Config {
	return Config{
		Pace:        5 * time.Millisecond,
		RingEntries: 1024,
		RingBytes:   1 << 20,
		LagBytes:    4 << 20,
		LagTime:     30 * time.Second,
		ReplyBytes:  1 << 20,
		IdleTime:    time.Minute,
		MaxRooms:    100_000,
	}
}

func (c Config) validate() error {
	switch {
	case c.RingEntries < 8:
		return fmt.Errorf("room: RingEntries %d is below 8", c.RingEntries)
	case c.RingBytes < 1:
		return fmt.Errorf("room: RingBytes %d is below 1", c.RingBytes)
	case c.ReplyBytes < 1:
		return fmt.Errorf("room: ReplyBytes %d is below 1", c.ReplyBytes)
	case c.Shards < 0 || c.Pace < 0 || c.LagBytes < 0 || c.LagTime < 0 || c.IdleTime < 0 || c.MaxRooms < 0:
		return fmt.Errorf("room: a bound is negative")
	}
	return nil
}
