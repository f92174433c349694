package evidence

import (
	"log/slog"

	"parley/core/chat"
	"parley/core/moderation"
	"parley/sdk/abi"
)

// Context is what plugins were told beside the message itself. With the text,
// which may still be in the room's history, it makes the input again.
type Context struct {
	Roles   []string    `json:"roles,omitempty"`
	Signals abi.Signals `json:"signals"`
	// Idle is how many plugins the node had where none judged the message, and
	// Exempt that the policy wanted none of them to.
	Idle   int  `json:"idle,omitempty"`
	Exempt bool `json:"exempt,omitempty"`
}

// Message returns what was judged, if its text was that.
func (r *Record) Message(text string) moderation.Message {
	m := moderation.Message{Room: r.Room, User: r.User, Kind: r.Kind, TimeMS: r.Time, Text: text}
	if r.Context != nil {
		m.Roles, m.Signals = r.Context.Roles, r.Context.Signals
	}
	return m
}

// Note is a message of which the decision is to be kept: judged, or by no plugin
// though there were some. Message.Text
// is only hashed, and that in the background.
type Note struct {
	ID      chat.MessageID
	Message moderation.Message
	Result  moderation.Result
	Policy  string // revision
	Exempt  bool   // the policy wanted no plugin to judge it
}

// records makes what is stored of notes.
func records(notes []Note) []Record {
	votes := 0
	for i := range notes {
		votes += len(notes[i].Result.Records)
	}
	rs, context, all := make([]Record, len(notes)), make([]Context, len(notes)), make([]moderation.Vote, 0, votes)
	for i := range notes {
		n := &notes[i]
		all = rs[i].Fill(all, n.ID, &n.Message, &n.Result, n.Policy)
		context[i] = Context{Roles: n.Message.Roles, Signals: n.Message.Signals, Idle: n.Result.Idle, Exempt: n.Exempt}
		rs[i].Context = &context[i]
	}
	return rs
}

// Note queues what becomes the record of a decision, or drops it where too
// much waits. It never blocks on the store, and allocates nothing but room in
// the queue. What n refers to must not be modified afterwards.
func (k *Keeper) Note(n Note) {
	if !k.cfg.Decisions {
		return
	}
	size := 512 + len(n.Message.Text) + 192*len(n.Result.Records)
	k.notesMu.Lock()
	defer k.notesMu.Unlock()
	if k.noteBytes+size > k.cfg.NoteBytes {
		k.notesDropped.Add(1)
		return
	}
	n.Result.Text, n.Result.Input = "", nil // nobody needs them here
	k.notes = append(k.notes, n)
	before := k.noteBytes
	k.noteBytes += size
	if before == 0 {
		signal(k.noted)
	}
	if half := k.cfg.NoteBytes / 2; before < half && k.noteBytes >= half {
		signal(k.crowd)
	}
}

// flushNotes writes the decisions that wait.
func (k *Keeper) flushNotes() {
	k.writing.Lock()
	defer k.writing.Unlock()
	k.flushNotesLocked()
}

func (k *Keeper) flushNotesLocked() {
	k.notesMu.Lock()
	notes := k.notes
	k.notes, k.noteBytes = k.spare, 0
	k.notesMu.Unlock()
	k.spare = nil
	if cap(notes) <= maxSpare {
		k.spare = notes[:0]
	}
	if len(notes) == 0 {
		return
	}
	rs := records(notes)
	clear(notes) // what they refer to is free
	if err := k.store.PutDecisions(rs); err != nil {
		k.notesFailed.Add(uint64(len(rs)))
		k.log.Error("records of decisions could not be written; they are lost", slog.Int("records", len(rs)), slog.Any("error", err))
		return
	}
	k.written.Add(uint64(len(rs)))
}
