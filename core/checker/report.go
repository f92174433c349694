package checker

import (
	"fmt"
	"slices"
	"strings"

	"parley/core/chat"
)

// Fault is a way to break the delivery contract.
type Fault string

// The faults Check finds.
const (
	// Gap: a connection missed an entry between two others, or the history
	// has a hole, or a settled client stands below the top.
	Gap Fault = "gap"
	// Reorder: a connection got an entry after one with a higher seq.
	Reorder Fault = "reorder"
	// Duplicate: a connection got an entry twice, or one id has two seqs.
	Duplicate Fault = "duplicate"
	// Diverged: one seq of one epoch has two ids.
	Diverged Fault = "diverged"
	// SilentEpoch: the epoch changed and no reset or join said so.
	SilentEpoch Fault = "silent_epoch"
	// Lost: an acknowledged or delivered entry is not in the history.
	Lost Fault = "lost"
	// PostedTwice: one nonce of one user has two seqs in a room.
	PostedTwice Fault = "posted_twice"
	// Inverted: a message sent after another was acknowledged has a lower seq.
	Inverted Fault = "inverted"
	// NoAnswer: a message was sent and neither answered nor given up.
	NoAnswer Fault = "no_answer"
	// AnswerChanged: a resend was acknowledged with another seq or id.
	AnswerChanged Fault = "answer_changed"
	// RefusedPosted: a message that was refused for good was posted.
	RefusedPosted Fault = "refused_posted"
	// Stray: an entry arrived of a room the connection had not joined.
	Stray Fault = "stray"
	// Splintered: a room had more generations than the store has lost tails, or
	// an epoch that had ended came back.
	Splintered Fault = "splintered"
	// Incomplete: a log says that it is not whole, so nothing is proven.
	Incomplete Fault = "incomplete"
)

// Violation is one breach. Fields that do not apply are zero.
type Violation struct {
	Fault  Fault
	Client string
	Room   chat.RoomID
	Epoch  string
	Seq    uint64
	Nonce  string
	Text   string // one sentence that names all of the above
}

// String returns the fault and the sentence.
func (v Violation) String() string { return string(v.Fault) + ": " + v.Text }

// Report is the outcome of Check.
type Report struct {
	Clients, Rooms           int
	Sends, Resends           int // distinct messages, further writes of them
	Acked, Refused, Unknown  int // messages by how they ended
	Held                     int // messages that wait for a moderator, or were approved unseen
	Repeats                  int // acks of a nonce that was known
	Delivered                int // entries that arrived
	Joins, Recovered, Resets int
	Entries                  int           // in the final history
	Generations              int           // epochs, over all rooms
	LostAcked, LostSeen      int           // messages acknowledged in, and entries delivered of, an earlier generation that the history does not hold
	Announced                int           // times a client was told that a room has another epoch
	Found                    map[Fault]int // breaches of each fault; empty when clean
	Violations               []Violation   // the first Run.Keep of each fault
}

// OK reports whether nothing was found.
func (r *Report) OK() bool { return len(r.Found) == 0 }

// String is the counts on one line and each kept violation on its own.
func (r *Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d clients, %d rooms: %d messages sent and %d resent, %d acked (%d as repeats), %d refused, %d unknown; %d entries delivered, %d in history; %d joins (%d recovered), %d resets; %d generations",
		r.Clients, r.Rooms, r.Sends, r.Resends, r.Acked, r.Repeats, r.Refused, r.Unknown, r.Delivered, r.Entries, r.Joins, r.Recovered, r.Resets, r.Generations)
	if r.LostSeen > 0 || r.LostAcked > 0 {
		fmt.Fprintf(&b, ", %d entries lost with theirs (%d acked), %d announcements", r.LostSeen, r.LostAcked, r.Announced)
	}
	if r.OK() {
		return b.String() + "; no violation"
	}
	for _, f := range r.faults() {
		fmt.Fprintf(&b, "\n%s: %d", f, r.Found[f])
	}
	for _, v := range r.Violations {
		b.WriteString("\n  " + v.String())
	}
	return b.String()
}

func (r *Report) faults() []Fault {
	fs := make([]Fault, 0, len(r.Found))
	for f := range r.Found {
		fs = append(fs, f)
	}
	slices.Sort(fs)
	return fs
}

// Err is nil, or an error that says what String says.
func (r *Report) Err() error {
	if r.OK() {
		return nil
	}
	return fmt.Errorf("the delivery contract was broken: %s", r)
}

// judge gathers violations into a report.
type judge struct {
	report Report
	keep   int                    // violations kept of each fault
	known  map[Violation]struct{} // without Text: each breach counts once
	kept   map[Fault]int
}

func (j *judge) find(v Violation, format string, args ...any) {
	if _, again := j.known[v]; again {
		return
	}
	j.known[v] = struct{}{}
	j.report.Found[v.Fault]++
	if j.kept[v.Fault] >= j.keep {
		return
	}
	j.kept[v.Fault]++
	v.Text = fmt.Sprintf(format, args...)
	j.report.Violations = append(j.report.Violations, v)
}
