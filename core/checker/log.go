// Package checker judges what the clients of one run did and saw against the
// delivery contract (docs/delivery.md): one dense order per room for
// everyone, nothing acknowledged lost, nothing posted twice, no silent gap.
//
// Each client writes a Log, in memory or as JSON lines; Check reads all of
// them and the rooms' final history, and returns a Report that names client,
// room, seq and nonce of what broke. It judges by the logs alone and knows
// nothing of the server, so it serves one node, a cluster and a chaos run
// alike.
//
// A Log may be written from any goroutine. Check starts nothing and changes
// none of its arguments.
package checker

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"time"

	"parley/core/chat"
	"parley/core/wire"
)

// Kind says what a record tells.
type Kind string

// The kinds of record.
const (
	Begin   Kind = "begin"   // a connection of user From begins; what follows belongs to it
	Send    Kind = "send"    // a message is about to be written, the first time or again
	Ack     Kind = "ack"     // the server acknowledged it
	Refused Kind = "refused" // the server, or a moderator, refused it for good
	Held    Kind = "held"    // it waits for a moderator: it may turn up later, once, under this id
	Unknown Kind = "unknown" // no answer came, and nobody will ask again
	Joined  Kind = "joined"
	Left    Kind = "left"
	Entry   Kind = "entry" // an entry of a room's log arrived
	Reset   Kind = "reset"
	// Settled is the client's word that it has waited, joined, until all that
	// could come had come: its position must then be the room's top.
	Settled Kind = "settled"
)

// Record is one line of a log.
type Record struct {
	Kind Kind  `json:"kind"`
	At   int64 `json:"at"` // ns on the clock that the log names

	Room      chat.RoomID    `json:"room,omitempty"`
	Nonce     string         `json:"nonce,omitempty"`
	Epoch     string         `json:"epoch,omitempty"`
	Seq       uint64         `json:"seq,omitempty"`
	ID        chat.MessageID `json:"id,omitempty"`
	From      chat.UserID    `json:"from,omitempty"`
	Repeat    bool           `json:"repeat,omitempty"`
	Recovered bool           `json:"recovered,omitempty"`
}

// Log is what one client did and saw, in its own order.
type Log struct {
	Client string // names the client in violations
	// Clock names the clock of Record.At. Times of logs with different clocks
	// are never compared.
	Clock string

	mu      sync.Mutex
	records []Record
	out     *json.Encoder // nil: memory only
	err     error         // the first error of out, or ErrFull
}

// MaxRecords bounds one log; a run that needs more is split into rooms.
const MaxRecords = 8 << 20

// ErrFull says that a log has reached MaxRecords and is incomplete.
var ErrFull = fmt.Errorf("checker: the log holds %d records, no more fit", MaxRecords)

// clock is this process's: monotonic, named by chance.
var clock = struct {
	name string
	zero time.Time
}{rand.Text(), time.Now()}

// NewLog begins a log in memory.
func NewLog(client string) *Log { return &Log{Client: client, Clock: clock.name} }

// head is the first line of a log file.
type head struct {
	Client string `json:"client"`
	Clock  string `json:"clock"`
}

// Tee also writes each further record to w, as a JSON line. Err tells of a
// write that failed.
func (l *Log) Tee(w io.Writer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.out = json.NewEncoder(w)
	l.err = l.out.Encode(head{l.Client, l.Clock})
}

// Err returns why the log is incomplete, or nil.
func (l *Log) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// Records returns a copy of what was recorded.
func (l *Log) Records() []Record {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]Record(nil), l.records...)
}

// Add records r now.
func (l *Log) Add(r Record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r.At = int64(time.Since(clock.zero))
	l.addLocked(r)
}

func (l *Log) addLocked(r Record) {
	if len(l.records) >= MaxRecords {
		l.err = ErrFull
		return
	}
	l.records = append(l.records, r)
	if l.out != nil && l.err == nil {
		l.err = l.out.Encode(r)
	}
}

// Sending records a message right before each write of it.
func (l *Log) Sending(room chat.RoomID, nonce string) {
	l.Add(Record{Kind: Send, Room: room, Nonce: nonce})
}

// Answered records how a message ended for its sender: acknowledged, refused
// for good, or unknown because nobody answered.
func (l *Log) Answered(room chat.RoomID, nonce string, ack *wire.AckEvent, refused bool) {
	switch {
	case ack != nil && ack.Outcome == chat.Held:
		l.Add(Record{Kind: Held, Room: room, Nonce: nonce, ID: ack.MessageID, Repeat: ack.Repeat})
	case ack != nil && (ack.Outcome == chat.Rejected || ack.Outcome == chat.Expired):
		l.Add(Record{Kind: Refused, Room: room, Nonce: nonce})
	case ack != nil:
		l.Add(Record{Kind: Ack, Room: room, Nonce: nonce, Epoch: ack.Epoch, Seq: ack.Seq, ID: ack.MessageID, Repeat: ack.Repeat})
	case refused:
		l.Add(Record{Kind: Refused, Room: room, Nonce: nonce})
	default:
		l.Add(Record{Kind: Unknown, Room: room, Nonce: nonce})
	}
}

// Settles records that the client stands at the end of the room's log.
func (l *Log) Settles(room chat.RoomID) { l.Add(Record{Kind: Settled, Room: room}) }

// Observe records an event of the protocol; those that say nothing about
// delivery are ignored. A welcome begins a new connection. Acks carry no nonce
// and are recorded by Answered.
func (l *Log) Observe(event any) {
	switch e := event.(type) {
	case *wire.WelcomeEvent:
		l.Add(Record{Kind: Begin, From: e.User})
	case *wire.JoinedEvent:
		l.Add(Record{Kind: Joined, Room: e.Room, Epoch: e.Epoch, Seq: e.Seq, ID: e.LastID, Recovered: e.Recovered})
	case *wire.LeftEvent:
		l.Add(Record{Kind: Left, Room: e.Room})
	case *wire.ResetEvent:
		l.Add(Record{Kind: Reset, Room: e.Room, Epoch: e.Epoch, Seq: e.Seq, ID: e.LastID})
	case *wire.EntryEvent:
		l.Add(Record{Kind: Entry, Room: e.Room, Seq: e.Seq, ID: e.ID, From: e.From, Nonce: e.Nonce})
	}
}

// maxLine bounds one line of a log file: names and ids are all short.
const maxLine = 4 << 10

// ReadLog reads what Tee wrote. A last line without its end is left out: the
// writer may have been killed.
func ReadLog(r io.Reader) (*Log, error) {
	sc := bufio.NewScanner(r)
	sc.Buffer(make([]byte, 0, maxLine), maxLine)
	sc.Split(wholeLines)
	var h head
	if !sc.Scan() {
		if err := sc.Err(); err != nil {
			return nil, fmt.Errorf("read log: %w", err)
		}
		return nil, fmt.Errorf("read log: there is no first line")
	}
	if err := json.Unmarshal(sc.Bytes(), &h); err != nil {
		return nil, fmt.Errorf("read log: line 1: %w", err)
	}
	l := &Log{Client: h.Client, Clock: h.Clock}
	for n := 2; sc.Scan(); n++ {
		var rec Record
		if err := json.Unmarshal(sc.Bytes(), &rec); err != nil {
			return nil, fmt.Errorf("read log of %s: line %d: %w", h.Client, n, err)
		}
		l.addLocked(rec)
	}
	if err := sc.Err(); err != nil {
		return nil, fmt.Errorf("read log of %s: %w", h.Client, err)
	}
	return l, l.err
}

func wholeLines(data []byte, _ bool) (advance int, token []byte, err error) {
	if i := bytes.IndexByte(data, '\n'); i >= 0 {
		return i + 1, data[:i], nil
	}
	return 0, nil, nil
}
