// Package journal is the ordered log of every room: the history, the order
// all nodes agree on, and the durable state that changes with it.
//
// A Journal gives each room one dense sequence 1, 2, 3, ... inside an epoch.
// Append is the single way in: it looks up the nonce, gives the next seq,
// stores the entry and its state changes in one atomic step and returns when
// the entry is durable. Readers never see an entry that is not.
//
// Implementations are in core/journal/disk (one node, bbolt) and
// core/journal/redis (many nodes); both pass core/journal/journaltest. Every
// method may be called from any goroutine.
package journal

import (
	"context"
	"errors"
	"fmt"

	"parley/core/chat"
)

// Kind says what an entry records. Kinds are part of the wire protocol: an
// entry reaches clients as an event whose type is the kind.
type Kind string

// The kinds of entry.
const (
	KindMessage  Kind = "message"
	KindSettings Kind = "settings" // the room's settings changed (also its first entry)
	KindRole     Kind = "role"     // a user's role in the room changed
	KindBan      Kind = "ban"      // a user was banned, muted, or freed of either
	KindKick     Kind = "kick"     // a user was put out of the room; the change takes their role, Text is the reason
	KindErase    Kind = "erase"    // what was written in the entries Erases was taken out, by From; Text is the reason
)

// Entry is one record of a room's log. It is immutable once appended, but for
// Journal.Erase.
type Entry struct {
	Seq   uint64         `json:"seq"`             // assigned by Append; 1 is the first
	ID    chat.MessageID `json:"id"`              // assigned by the caller, unique for ever
	Kind  Kind           `json:"kind"`            //
	From  chat.UserID    `json:"from,omitempty"`  // author, or who made the change
	Time  int64          `json:"ts"`              // Unix ms on the node that accepted it
	Nonce string         `json:"nonce,omitempty"` // the author's, for idempotency
	Text  string         `json:"text,omitempty"`  // the message as people may see it
	// Outcome and Reasons are what the author was told.
	Outcome chat.Outcome  `json:"outcome,omitempty"`
	Reasons []chat.Reason `json:"reasons,omitempty"`
	// Changes are the state this entry sets or deletes. Folding the Changes
	// of a room's entries in seq order gives the room's state.
	Changes []Change `json:"changes,omitempty"`
	// Erases names, for KindErase, the earlier entries of this epoch that are
	// tombstones by now: see Journal.Erase.
	Erases []uint64 `json:"erases,omitempty"`
}

// Change sets one key of a room's state, or deletes it when Value is nil.
// Keys are short ASCII strings that core/state defines ("settings",
// "role/ann", "ban/bob"); the journal does not interpret them.
type Change struct {
	Key   string `json:"key"`
	Value []byte `json:"value,omitempty"` // nil deletes
}

// Bounds that every implementation enforces with ErrTooLarge.
const (
	MaxEntryBytes  = 256 << 10 // encoded entry; text is bounded far below by limits.text_bytes
	MaxID          = 127       // bytes of an id; a UUID has 36
	MaxReasons     = 1024      // reasons of one entry
	MaxChanges     = 64        // changes of one entry
	MaxChangeKey   = 160       // bytes; "ban/" and the longest user name fit twice
	MaxChangeValue = 16 << 10  // bytes
	MaxErases      = 1024      // seqs of one entry
	MaxErasure     = 1 << 20   // seqs of one Erase; what it costs hardly depends on how many they are
)

// Receipt is what an append answers, and answers again for the same nonce.
type Receipt struct {
	Epoch   string
	Seq     uint64 // 0 for a review that is open or was rejected
	ID      chat.MessageID
	Outcome chat.Outcome
	Reasons []chat.Reason
	// Repeat says that the nonce was known: nothing was appended and the rest
	// of the receipt is the original answer.
	Repeat bool
}

// Position names a place in a room's log. Replay after it is possible only
// where all three match what the journal holds; Seq 0 with ID "" is the start.
type Position struct {
	Epoch string         `json:"epoch"`
	Seq   uint64         `json:"seq"`
	ID    chat.MessageID `json:"id,omitempty"`
}

// Request is one append.
type Request struct {
	Room  chat.RoomID
	Entry Entry // Seq is ignored
	// Create demands that the room's log is empty; else ErrExists.
	Create bool
	// Known is the highest position the caller has seen of this room; its
	// zero value means none. A store whose own top is lower, or differs in
	// epoch, has lost entries: it opens a new epoch before appending. The new
	// epoch keeps the entries that survived, with their seqs, and goes on
	// behind them; answers to nonces hold where the entry is still there. The
	// room's state stays, for a room that forgot its bans would be worse than
	// one whose log does not explain them. A store may open a new epoch for a
	// reason of its own, too.
	//
	// The store remembers the epochs a room has left, that of a Known it
	// could not match included (the last 16 at least). A Known in one of
	// those means that the caller is behind, not the store: it changes
	// nothing. So callers that lost the same entries share one new epoch.
	Known Position
	// Expect names keys of the room's state and the value each must have, nil
	// for a key that must be absent: at most MaxChanges. If one has another,
	// the append is ErrChanged. So what was decided on a state that another
	// node has changed meanwhile is not stored. A known nonce is answered
	// whatever the state is by now.
	Expect []Change
	// Review, when set, makes the append put a message in the room's review
	// queue, or take one out; see Act. Entry is then the message as well, with
	// the same id, author and nonce. A decision stores the answer under the
	// nonce anew, so that a resend is told what is true by then.
	Review *Review
	// Notify names people whom the entry concerns and who are not there to read
	// it, at most MaxNotices. A store that keeps an outbox (package
	// journal/redis) puts them there in the same step, if it appends an entry:
	// not for a repeat, nor for a review that is held or rejected. Others ignore
	// it.
	Notify []Notice
}

// Notice says that an entry concerns somebody, and why.
type Notice struct {
	User chat.UserID
	Kind NoticeKind
}

// NoticeKind says why an entry concerns somebody.
type NoticeKind string

// The kinds of notice.
const (
	NoticeMention NoticeKind = "mention" // the text names them
	NoticeDirect  NoticeKind = "direct"  // it was written to them, in the room of two
)

// MaxNotices bounds the notices of one entry: ten mentions and the other person
// of a direct.
const MaxNotices = 11

// Info describes a room as the journal holds it.
type Info struct {
	Top   Position // Seq 0 when the log is empty
	First uint64   // the oldest seq still held; Top.Seq+1 when none is
	State map[string][]byte
}

// Watcher hears of entries appended to one room, by this node or any other.
// Its methods are called from the journal's goroutines, must not block and
// must not call the journal. Deliveries may repeat, and under a lossy
// transport they may be out of order or missing; the receiver orders by seq
// and reads what is missing with Read.
type Watcher interface {
	// Appended delivers one durable entry. The entry must not be modified.
	Appended(epoch string, e *Entry)
	// Reviewed tells that a review was opened or decided. It is a hint: no
	// delivery makes up for one that was missed. The review must not be
	// modified.
	Reviewed(r *Review)
	// Doubt says that deliveries may have been missed (a link was
	// re-established, a probe stayed away): compare with Info and Read.
	Doubt()
}

// Renewer is a Journal whose store may forget what it has acknowledged.
type Renewer interface {
	// Renew begins a new epoch of the room if the store has lost something that
	// known names, as an append with that knowledge would, and otherwise does
	// nothing. Without it a room that nobody writes to would not be told, and
	// one that forgot what it knew would give seqs of the old epoch again.
	Renew(ctx context.Context, room chat.RoomID, known Position) error
}

// Placed is a Watcher that knows how far it has come. A journal whose deliveries
// may be lost compares that with its own top from time to time and tells the
// watcher to Doubt.
type Placed interface {
	Watcher
	// Position returns the newest position that the watcher has. It must not
	// block.
	Position() Position
}

// Journal is an ordered log per room.
type Journal interface {
	// Append stores one entry, or what Request.Review says. Errors:
	// ErrExists, ErrChanged, ErrQueueFull, ErrOwnQueueFull and ErrNotOpen
	// (nothing was stored), ErrTooLarge, ErrUnavailable (nothing is known to be stored
	// unless the nonce later says otherwise: the outcome is unknown),
	// ErrOverloaded (nothing was stored), ctx errors (outcome unknown).
	Append(ctx context.Context, r Request) (Receipt, error)
	// Lookup answers for a nonce inside the window, or of an open review: the
	// original receipt with Repeat set, or ok == false.
	Lookup(ctx context.Context, room chat.RoomID, user chat.UserID, nonce string) (r Receipt, ok bool, err error)
	// Read returns at most limit entries with seq > after in rising order,
	// and the epoch they belong to. Fewer than limit means the top was
	// reached or the batch reached its byte bound (MaxBatchBytes); compare
	// with Info or read on until none comes. Entries older than retention are
	// skipped: the first entry's seq tells. A record that fails its checksum
	// is never returned: the entries before it are, and the read that would
	// begin with it answers a *DamagedError, which names its seq. Read on
	// behind it with after = that seq. A limit below 1 reads nothing.
	Read(ctx context.Context, room chat.RoomID, after uint64, limit int) (epoch string, es []Entry, err error)
	// ReadBefore returns at most limit entries with seq < before, in rising
	// order (the newest ones below before); before 0 means from the top. Going
	// down it meets a damaged record as Read does going up: read on with
	// before = its seq.
	ReadBefore(ctx context.Context, room chat.RoomID, before uint64, limit int) (epoch string, es []Entry, err error)
	// Info returns the room's top, first seq and state, consistent with one
	// another. An unknown room has an empty log, a fresh or empty epoch and
	// no state; asking does not create it.
	Info(ctx context.Context, room chat.RoomID) (Info, error)
	// Reviews returns the room's open reviews, the oldest first, and the last
	// decisions, the newest first. A record that fails its checksum is left
	// out and logged.
	Reviews(ctx context.Context, room chat.RoomID) (open, decided []Review, err error)
	// Overdue returns open reviews of all rooms that were held before the given
	// Unix ms, the oldest first, at most limit. Fewer than limit does not mean
	// that there are no more: ask again once these are decided.
	Overdue(ctx context.Context, before int64, limit int) ([]Waiting, error)
	// Rooms lists the rooms the journal holds, sorted, beginning after the
	// given one, at most limit.
	Rooms(ctx context.Context, after chat.RoomID, limit int) ([]chat.RoomID, error)
	// Watch delivers entries of a room to w until cancel is called; entries
	// appended after Watch returned are delivered (or announced by Doubt).
	// Once cancel has returned w is not called again; it waits for a call
	// under way. Cancel may be called twice and from w's methods not at all.
	Watch(ctx context.Context, room chat.RoomID, w Watcher) (cancel func(), err error)
	// Erase takes what was written out of entries, for good; see Erasure. It
	// returns how many it has changed: entries that are gone, that hold nothing
	// written, that were erased before or that another call erases at the same
	// time count for nothing. When it returns nil no reader meets what was
	// there, and the store has overwritten it as far as that is in its hands
	// (docs/keeping.md), which takes about as long for one entry as for many:
	// name together what goes together. Calls at the same time share the work.
	// It records nothing: append an entry of KindErase afterwards, so that every
	// node and client learns of it. Errors: ErrOtherEpoch, ErrTooLarge (nothing
	// was changed), ErrUnavailable, ErrOverloaded and ctx errors. After any other
	// than ErrTooLarge some entries may be erased, or be by and by: do it again.
	Erase(ctx context.Context, room chat.RoomID, e Erasure) (int, error)
	// Import begins to put a whole room into the store, in place of what it
	// has of that room, which stays in force until Import's Commit.
	Import(ctx context.Context, room chat.RoomID) (Import, error)
	// Healthy reports why the journal cannot append at present, or nil.
	Healthy(ctx context.Context) error
	// Close flushes and stops. Appends under way finish or fail; later ones
	// answer ErrUnavailable. It may be called twice.
	Close() error
}

// MaxBatchBytes bounds the encoded size of what one Read returns, except that
// one entry is always returned.
const MaxBatchBytes = 256 << 10

// DamagedError names a record that the store holds but cannot vouch for. It
// matches ErrDamaged.
type DamagedError struct {
	Room   chat.RoomID
	Seq    uint64 // the damaged or missing record
	Detail string // what is wrong with it, for the log
}

// Error implements error.
func (e *DamagedError) Error() string {
	return fmt.Sprintf("journal: damaged record %d of room %s: %s", e.Seq, e.Room, e.Detail)
}

// Is reports whether target is ErrDamaged.
func (e *DamagedError) Is(target error) bool { return target == ErrDamaged }

// Errors that callers branch on.
var (
	ErrExists      = errors.New("journal: room exists")
	ErrChanged     = errors.New("journal: the room's state has changed")
	ErrTooLarge    = errors.New("journal: entry too large")
	ErrUnavailable = errors.New("journal: unavailable")
	ErrOverloaded  = errors.New("journal: overloaded")
	ErrDamaged     = errors.New("journal: damaged record")
)
