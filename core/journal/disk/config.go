package disk

import (
	"fmt"
	"time"
)

// Config says where the journal lives and what it may use. Decode over
// Defaults, so that an explicit zero keeps its meaning.
type Config struct {
	// Path is the file; it is created when missing. Its folder must exist.
	Path string
	// CommitWindow is how long the committer gathers appends under load. A
	// writer that is alone never waits for it. 0 commits at once, always.
	CommitWindow time.Duration
	// NonceWindow is how long a nonce is remembered.
	NonceWindow time.Duration
	// MaxNonces bounds the nonces remembered, of all rooms together, at about
	// 50 bytes of memory each. Past it the oldest are forgotten early.
	MaxNonces int
	// MaxEntries is how many entries a room keeps; 0 keeps all.
	MaxEntries int
	// MaxAge is how long an entry is kept, by its own time; 0 keeps for ever.
	MaxAge time.Duration
	// MaxPending bounds the appends that wait for the committer; past it
	// Append answers ErrOverloaded.
	MaxPending int
	// MaxPendingBytes bounds their encoded size together.
	MaxPendingBytes int
	// MaxCachedRooms bounds the rooms whose top is kept in memory, at about
	// 300 bytes each. Others are read from the file when they are needed.
	MaxCachedRooms int
}

// Defaults returns the configuration of an ordinary node, without a path.
func Defaults() Config {
	return Config{
		CommitWindow:    2 * time.Millisecond,
		NonceWindow:     10 * time.Minute,
		MaxNonces:       2 << 20, // 3,400 appends a second, sustained over the window
		MaxEntries:      100_000,
		MaxPending:      4096,
		MaxPendingBytes: 16 << 20,
		MaxCachedRooms:  16 << 10,
	}
}

// validate names the first field that cannot be used.
func (c Config) validate() error {
	bad := func(field string, value any, want string) error {
		return fmt.Errorf("journal config: %s %v must be %s", field, value, want)
	}
	switch {
	case c.Path == "":
		return bad("path", `""`, "the name of a file")
	case c.CommitWindow < 0 || c.CommitWindow > time.Second:
		return bad("commit window", c.CommitWindow, "between 0 and 1s")
	case c.NonceWindow <= 0:
		return bad("nonce window", c.NonceWindow, "above 0")
	case c.MaxNonces < 1:
		return bad("max nonces", c.MaxNonces, "1 or more")
	case c.MaxEntries < 0:
		return bad("max entries", c.MaxEntries, "0 (no limit) or more")
	case c.MaxAge < 0:
		return bad("max age", c.MaxAge, "0 (for ever) or more")
	case c.MaxPending < 1:
		return bad("max pending", c.MaxPending, "1 or more")
	case c.MaxPendingBytes < 1:
		return bad("max pending bytes", c.MaxPendingBytes, "1 or more")
	case c.MaxCachedRooms < 1:
		return bad("max cached rooms", c.MaxCachedRooms, "1 or more")
	}
	return nil
}
