package objects

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	rds "parley/core/redis"
)

// Bounds of an object.
const (
	MaxBytes   = 128 << 20 // the largest plugin that is taken, with room
	chunkBytes = 1 << 20   // one command's worth: it passes within the client's call timeout
	maxKind    = 32
)

// Errors that callers branch on.
var (
	// ErrMissing says that Redis does not hold the object, or not all of it.
	ErrMissing = errors.New("the object is not there")
	// ErrDamaged says that what Redis holds is not what its name says.
	ErrDamaged = errors.New("the object is not what its name says")
	// ErrConflict says that a head has another version than the caller knew.
	ErrConflict = errors.New("the head has changed meanwhile")
)

// Digest is the SHA-256 of an object's bytes, in lower-case hexadecimal.
type Digest string

// Sum names b.
func Sum(b []byte) Digest {
	sum := sha256.Sum256(b)
	return Digest(hex.EncodeToString(sum[:]))
}

// Valid reports whether d has the form of a digest.
func (d Digest) Valid() bool {
	if len(d) != 2*sha256.Size {
		return false
	}
	for _, c := range []byte(d) {
		if !('0' <= c && c <= '9' || 'a' <= c && c <= 'f') {
			return false
		}
	}
	return true
}

// Config bounds what is kept and how soon a lost hint is caught. Decode it over
// Defaults.
type Config struct {
	// Keep is how long an object is kept that no head names.
	Keep time.Duration
	// Poll is how often the heads are looked at without a hint, a tenth more or
	// less.
	Poll time.Duration
	// Sweep is how often objects are looked for that are not kept any longer,
	// half more or less.
	Sweep time.Duration
	// Secrets are what heads are sealed with (see ReadSecrets): the first seals, and
	// a head that none of them opens is refused. None: heads are not sealed, and who
	// can write to Redis can set them.
	Secrets [][]byte
	// StateFile remembers the newest sealed heads over a restart, so that nobody can
	// put back older ones; "" forgets them.
	StateFile string
}

// Defaults returns the settings for ordinary use.
func Defaults() Config {
	return Config{Keep: time.Hour, Poll: 4 * time.Second, Sweep: 10 * time.Minute}
}

func (c Config) check() error {
	for _, d := range []struct {
		name  string
		value time.Duration
	}{{"keep", c.Keep}, {"poll", c.Poll}, {"sweep", c.Sweep}} {
		if d.value < 10*time.Millisecond {
			return fmt.Errorf("objects %s %v: want at least 10ms", d.name, d.value)
		}
	}
	if err := checkSecrets(c.Secrets); err != nil {
		return fmt.Errorf("objects secrets: %w", err)
	}
	return nil
}

var (
	//go:embed begin.lua
	beginSource string
	//go:embed finish.lua
	finishSource string
	//go:embed chunk.lua
	chunkSource string
	//go:embed sethead.lua
	setHeadSource string
	//go:embed heads.lua
	headsSource string
	//go:embed unhead.lua
	unheadSource string
	//go:embed sweep.lua
	sweepSource string
	//go:embed drop.lua
	dropSource string

	beginScript   = rds.NewScript("begin an object", beginSource)
	finishScript  = rds.NewScript("finish an object", finishSource)
	chunkScript   = rds.NewScript("read an object", chunkSource)
	setHeadScript = rds.NewScript("set a head", setHeadSource)
	headsScript   = rds.NewScript("read heads", headsSource)
	unheadScript  = rds.NewScript("remove a head", unheadSource)
	sweepScript   = rds.NewScript("sweep objects", sweepSource)
	dropScript    = rds.NewScript("drop an object", dropSource)
)

// Store is the objects and heads of one installation. Make one with New.
type Store struct {
	// Set at construction.
	cfg     Config
	client  *rds.Client
	log     *slog.Logger
	prefix  string // begins every key
	channel string
	sub     *rds.Subscriber
	nudge   chan struct{}

	watched   []*watched // set before Run; each is Run's own then
	unwritten bool       // Run's own: the last write of the StateFile failed

	mu      sync.Mutex
	newest  map[string]Head   // seen sealed, by name; guarded by mu
	texts   map[string]string // the same in their stored form; guarded by mu
	refused map[string]string // stored form of what is refused, by name; guarded by mu
	unsaved bool              // newest has changed since it was written; guarded by mu

	put, got, damaged, conflicts, swept, unsealed, wrong, stale, restored atomic.Uint64
}

// New returns a store on the client's server that watches nothing until Run.
func New(cfg Config, client *rds.Client, log *slog.Logger) (*Store, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	s := &Store{
		cfg: cfg, client: client, log: log, nudge: make(chan struct{}, 1),
		newest: make(map[string]Head), texts: make(map[string]string), refused: make(map[string]string),
		prefix: client.Prefix() + ":{objects}:", channel: client.ChannelPrefix() + ":{objects}:heads",
	}
	s.sub = client.Subscriber(ear{s})
	s.sub.Subscribe(s.channel)
	s.recall()
	return s, nil
}

func (s *Store) objectKey(d Digest) string { return s.prefix + "o:" + string(d) }
func (s *Store) agesKey() string           { return s.prefix + "ages" }
func (s *Store) headsKey() string          { return s.prefix + "heads" }

// Stats count since the start of the process.
type Stats struct {
	Put, Got  uint64 // objects written and read whole
	Damaged   uint64 // objects read that were not what their name says
	Conflicts uint64 // heads that had changed meanwhile
	Swept     uint64 // objects removed by age

	// Heads that this node did not believe, and that it put back what was there
	// before; 0 without a secret.
	Unsealed, WrongSeal, Stale, Restored uint64
}

// Stats returns the counters.
func (s *Store) Stats() Stats {
	return Stats{Put: s.put.Load(), Got: s.got.Load(), Damaged: s.damaged.Load(), Conflicts: s.conflicts.Load(), Swept: s.swept.Load(),
		Unsealed: s.unsealed.Load(), WrongSeal: s.wrong.Load(), Stale: s.stale.Load(), Restored: s.restored.Load()}
}

// Put stores b and returns its name. kind says for people what it is. An object
// that is there already is not written again, only kept for longer.
func (s *Store) Put(ctx context.Context, kind string, b []byte) (Digest, error) {
	return s.write(ctx, kind, b, false)
}

// Repair is Put that writes the object anew though it seems to be there: what
// is there was found damaged.
func (s *Store) Repair(ctx context.Context, kind string, b []byte) (Digest, error) {
	return s.write(ctx, kind, b, true)
}

func (s *Store) write(ctx context.Context, kind string, b []byte, anew bool) (Digest, error) {
	switch {
	case len(b) > MaxBytes:
		return "", fmt.Errorf("store a %s of %d bytes: at most %d are allowed", kind, len(b), MaxBytes)
	case kind == "" || len(kind) > maxKind:
		return "", fmt.Errorf("store an object of kind %.40q: want 1 to %d bytes", kind, maxKind)
	}
	d := Sum(b)
	fail := func(err error) (Digest, error) { return "", fmt.Errorf("store %s %s: %w", kind, short(d), err) }
	keys := []string{s.objectKey(d), s.agesKey()}
	there, err := s.client.Eval(ctx, beginScript, keys, string(d), kind, len(b), anew)
	if err != nil {
		return fail(err)
	}
	if there == int64(1) {
		return d, nil
	}
	n := 0
	for rest := b; len(rest) > 0; n++ {
		part := rest[:min(len(rest), chunkBytes)]
		rest = rest[len(part):]
		if _, err := s.client.Do(ctx, "hset", keys[0], n, part); err != nil {
			return fail(err)
		}
	}
	done, err := s.client.Eval(ctx, finishScript, keys, string(d), len(b), n)
	if err != nil {
		return fail(err)
	}
	if done != int64(1) {
		return fail(fmt.Errorf("%w: somebody removed it meanwhile", ErrMissing))
	}
	s.put.Add(1)
	return d, nil
}

// Get returns the object of that name, checked against it.
func (s *Store) Get(ctx context.Context, d Digest) ([]byte, error) {
	return s.GetUpTo(ctx, d, MaxBytes)
}

// GetUpTo is Get for an object of which the caller wants no more than most
// bytes; a larger one is an error before it is loaded.
func (s *Store) GetUpTo(ctx context.Context, d Digest, most int) ([]byte, error) {
	if !d.Valid() {
		return nil, fmt.Errorf("read object %.80q: that is no digest", string(d))
	}
	b, err := s.read(ctx, d, min(most, MaxBytes))
	if errors.Is(err, ErrDamaged) {
		s.damaged.Add(1)
	}
	if err != nil {
		return nil, fmt.Errorf("read object %s: %w", short(d), err)
	}
	s.got.Add(1)
	return b, nil
}

func (s *Store) read(ctx context.Context, d Digest, most int) ([]byte, error) {
	size, b := -1, []byte(nil)
	hash := sha256.New()
	for n := 0; size < 0 || len(b) < size; n++ {
		reply, err := s.client.Eval(ctx, chunkScript, []string{s.objectKey(d)}, n, chunkBytes)
		if err != nil {
			return nil, err
		}
		list, ok := reply.([]any)
		if !ok || len(list) != 2 {
			return nil, ErrMissing
		}
		said, ok1 := list[0].(int64)
		part, ok2 := list[1].(string)
		switch {
		case !ok1 || !ok2:
			return nil, ErrMissing
		case said < 0 || said > int64(most):
			return nil, fmt.Errorf("it has %d bytes, at most %d are read", said, most)
		case size >= 0 && int(said) != size:
			return nil, ErrMissing // written anew meanwhile
		}
		size = int(said)
		if len(part) != min(chunkBytes, size-len(b)) {
			return nil, fmt.Errorf("%w: part %d has %d bytes", ErrDamaged, n, len(part))
		}
		hash.Write([]byte(part))
		b = append(b, part...)
		if size == 0 {
			break
		}
	}
	if Digest(hex.EncodeToString(hash.Sum(nil))) != d {
		return nil, ErrDamaged
	}
	return b, nil
}

// short names a digest for people.
func short(d Digest) string {
	return string(d[:min(len(d), 12)])
}
