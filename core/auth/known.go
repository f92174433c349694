package auth

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"parley/core/chat"
)

// Known says which names belong to token users. Known is called with the
// folded form of a name and must not block.
type Known interface {
	Known(folded string) bool
}

// MaxKnownUsers bounds a KnownUsers: about 100 MB of memory when full.
const MaxKnownUsers = 1_000_000

// maxKnownFile bounds the file; each record has at most maxKnownLine bytes.
const (
	maxKnownLine = 1 + 8 + 1 + chat.MaxUserBytes + 1 + 10 // "\n" crc " " name " " time
	maxKnownFile = 2 * MaxKnownUsers * maxKnownLine
)

// ErrKnownFull says that MaxKnownUsers is reached: further token users may
// connect, but a guest could take their name while they are away.
var ErrKnownFull = errors.New("auth: known-users file is full")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// KnownUsers is a durable set of the names that a token was ever verified
// for, and when that was first. It is a file of lines "CRC32C NAME TIME",
// appended to and never rewritten; TIME is in Unix seconds, and absent from
// records of earlier versions. Each record begins with its line break, so a record cut short by a crash or
// a full disk costs itself only.
type KnownUsers struct {
	file *os.File // opened with O_APPEND: each record is one write
	fold func(string) string
	bad  int

	mu     sync.RWMutex
	saved  map[string]known // by folded name
	closed bool
}

// known is what is known of a name.
type known struct {
	since  uint32 // Unix seconds, which ends in 2106; 0: not known
	onDisk bool   // false: the write is under way or failed
}

// OpenKnownUsers reads the set at path, or begins an empty one. Damaged
// records are skipped and counted. A nil fold means lower case.
func OpenKnownUsers(path string, fold func(string) string) (*KnownUsers, error) {
	if fold == nil {
		fold = strings.ToLower
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open known users: %w", err)
	}
	k := &KnownUsers{file: f, fold: fold, saved: make(map[string]known)}
	if err := k.load(f); err != nil {
		return nil, errors.Join(fmt.Errorf("read known users %s: %w", path, err), f.Close())
	}
	return k, nil
}

// load reads every record.
func (k *KnownUsers) load(r io.Reader) error {
	limited := &io.LimitedReader{R: r, N: maxKnownFile + 1}
	lines := bufio.NewReaderSize(limited, 64<<10)
	for {
		line, err := lines.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			k.bad++ // far too long: skip to its end
			for errors.Is(err, bufio.ErrBufferFull) {
				_, err = lines.ReadSlice('\n')
			}
			line = nil
		}
		if line = bytes.TrimSuffix(line, []byte("\n")); len(line) > 0 {
			if name, since, ok := parseKnown(line); !ok {
				k.bad++
			} else if folded := k.fold(name); len(k.saved) < MaxKnownUsers {
				if first, again := k.saved[folded]; again {
					since = first.since // written twice: the first counts
				}
				k.saved[folded] = known{since, true}
			}
		}
		switch {
		case errors.Is(err, io.EOF) && limited.N == 0:
			return fmt.Errorf("the file is larger than %d bytes", maxKnownFile)
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
}

// parseKnown reads one record without its line break.
func parseKnown(line []byte) (name string, since uint32, ok bool) {
	sum, rest, ok := bytes.Cut(line, []byte(" "))
	user, at, dated := bytes.Cut(rest, []byte(" "))
	if !ok || len(sum) != 8 || !chat.ValidUser(chat.UserID(user)) {
		return "", 0, false
	}
	want, err := strconv.ParseUint(string(sum), 16, 32)
	if err != nil || crc32.Checksum(rest, castagnoli) != uint32(want) {
		return "", 0, false
	}
	if dated {
		n, err := strconv.ParseUint(string(at), 10, 32)
		if err != nil {
			return "", 0, false
		}
		since = uint32(n)
	}
	return string(user), since, true
}

// Known reports whether the folded name belongs to a token user.
func (k *KnownUsers) Known(folded string) bool {
	k.mu.RLock()
	defer k.mu.RUnlock()
	_, known := k.saved[folded]
	return known
}

// Since returns when a token was first verified for the folded name; zero
// where that is not known.
func (k *KnownUsers) Since(folded string) time.Time {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if n := k.saved[folded].since; n != 0 {
		return time.Unix(int64(n), 0)
	}
	return time.Time{}
}

// Registered is a registered user as a KnownUsers has them.
type Registered struct {
	Folded string
	Since  time.Time // as Since
}

// All returns everybody, in no order.
func (k *KnownUsers) All() []Registered {
	k.mu.RLock()
	defer k.mu.RUnlock()
	all := make([]Registered, 0, len(k.saved))
	for folded, entry := range k.saved {
		r := Registered{Folded: folded}
		if entry.since != 0 {
			r.Since = time.Unix(int64(entry.since), 0)
		}
		all = append(all, r)
	}
	return all
}

// Add records a token user. It returns when the name is on disk, at once when
// it was there before. From the call on Known answers true, even where the
// write fails; the next Add of the name then tries again.
func (k *KnownUsers) Add(user chat.UserID) error {
	if !chat.ValidUser(user) {
		return fmt.Errorf("add known user: %q is not a user name", user)
	}
	folded := k.fold(string(user))
	since, todo, err := k.begin(folded)
	if err != nil || !todo {
		return err
	}
	text := fmt.Sprintf("%s %d", user, since)
	record := fmt.Sprintf("\n%08x %s", crc32.Checksum([]byte(text), castagnoli), text)
	// no lock: O_APPEND gives every record a place of its own, and a name
	// written twice does no harm
	_, err = k.file.WriteString(record)
	if err == nil {
		err = k.file.Sync()
	}
	if err != nil {
		return fmt.Errorf("add known user: %w", err)
	}
	k.mu.Lock()
	k.saved[folded] = known{since, true}
	k.mu.Unlock()
	return nil
}

// begin enters the name, with this moment where it is new, and reports whether
// it is still to be written.
func (k *KnownUsers) begin(folded string) (since uint32, todo bool, err error) {
	if k.onDisk(folded) {
		return 0, false, nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	entry, again := k.saved[folded]
	switch {
	case entry.onDisk:
		return 0, false, nil
	case k.closed:
		return 0, false, os.ErrClosed
	case !again && len(k.saved) >= MaxKnownUsers:
		return 0, false, ErrKnownFull
	case !again:
		entry.since = uint32(min(max(0, time.Now().Unix()), math.MaxUint32))
	}
	k.saved[folded] = entry
	return entry.since, true, nil
}

func (k *KnownUsers) onDisk(folded string) bool {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.saved[folded].onDisk
}

// Len returns how many names are known, and how many damaged records of the
// file were skipped.
func (k *KnownUsers) Len() (names, damaged int) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return len(k.saved), k.bad
}

// Close closes the file. It may be called twice; Known answers on.
func (k *KnownUsers) Close() error {
	k.mu.Lock()
	closed := k.closed
	k.closed = true
	k.mu.Unlock()
	if closed {
		return nil
	}
	return k.file.Close()
}
