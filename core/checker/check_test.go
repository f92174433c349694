package checker

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"parley/core/chat"
	"parley/core/wire"
)

const seeds = 60

func TestCorrectRunsPass(t *testing.T) {
	var sum Report
	for seed := range uint64(seeds) {
		_, run := newWorld(seed, true)
		rep := Check(run)
		if err := rep.Err(); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if !strings.HasSuffix(rep.String(), "no violation") {
			t.Fatalf("seed %d: report %q", seed, rep)
		}
		sum.Acked += rep.Acked
		sum.Repeats += rep.Repeats
		sum.Refused += rep.Refused
		sum.Unknown += rep.Unknown
		sum.Recovered += rep.Recovered
		sum.Resets += rep.Resets
		sum.Delivered += rep.Delivered
		sum.LostAcked += rep.LostAcked
		sum.LostSeen += rep.LostSeen
		sum.Announced += rep.Announced
	}
	// The generator must reach every part of the contract, or passing proves little.
	for name, n := range map[string]int{"acks": sum.Acked, "repeats": sum.Repeats, "refusals": sum.Refused,
		"unknown outcomes": sum.Unknown, "recovered joins": sum.Recovered, "resets": sum.Resets, "deliveries": sum.Delivered,
		"lost acks": sum.LostAcked, "lost entries": sum.LostSeen, "announcements": sum.Announced} {
		if n < seeds/10 {
			t.Errorf("%s over all seeds: got %d, too few to judge", name, n)
		}
	}
}

// spot is one record of a run.
type spot struct {
	log *Log
	at  int
}

func (s spot) rec() *Record { return &s.log.records[s.at] }

// spots returns the records that match, over all logs.
func spots(run Run, match func(l *Log, i int) bool) []spot {
	var out []spot
	for _, l := range run.Logs {
		for i := range l.records {
			if match(l, i) {
				out = append(out, spot{l, i})
			}
		}
	}
	return out
}

func kind(k Kind) func(*Log, int) bool {
	return func(l *Log, i int) bool { return l.records[i].Kind == k }
}

func pick(r *rand.Rand, ss []spot) (spot, bool) {
	if len(ss) == 0 {
		return spot{}, false
	}
	return ss[r.IntN(len(ss))], true
}

func insert(s spot, r Record) { s.log.records = slices.Insert(s.log.records, s.at, r) }

// nextSame finds the next entry of the same room and segment.
func nextSame(l *Log, i int) (int, bool) {
	for j := i + 1; j < len(l.records); j++ {
		switch r := &l.records[j]; {
		case r.Kind == Begin:
			return 0, false
		case r.Room != l.records[i].Room:
		case r.Kind == Entry:
			return j, true
		case r.Kind == Joined, r.Kind == Reset, r.Kind == Left:
			return 0, false
		}
	}
	return 0, false
}

// injection is a seeded fault. Each changes a correct run so that one
// fault is in it, or reports that this run has no place for it.
type injection struct {
	name   string
	want   Fault
	inject func(r *rand.Rand, run *Run) bool
}

// injections fit into a run whose store lost nothing.
var injections = []injection{
	{"an ack is lost", NoAnswer, func(r *rand.Rand, run *Run) bool {
		s, ok := pick(r, spots(*run, kind(Ack)))
		if ok {
			s.log.records = slices.Delete(s.log.records, s.at, s.at+1)
		}
		return ok
	}},
	{"an entry comes twice", Duplicate, func(r *rand.Rand, run *Run) bool {
		s, ok := pick(r, spots(*run, kind(Entry)))
		if ok {
			insert(s, *s.rec())
		}
		return ok
	}},
	{"two entries change places", Reorder, func(r *rand.Rand, run *Run) bool {
		s, ok := pick(r, spots(*run, func(l *Log, i int) bool {
			_, follows := nextSame(l, i)
			return l.records[i].Kind == Entry && follows
		}))
		if ok {
			j, _ := nextSame(s.log, s.at)
			s.log.records[s.at], s.log.records[j] = s.log.records[j], s.log.records[s.at]
		}
		return ok
	}},
	{"an entry is left out", Gap, func(r *rand.Rand, run *Run) bool {
		s, ok := pick(r, spots(*run, func(l *Log, i int) bool {
			_, follows := nextSame(l, i)
			return l.records[i].Kind == Entry && follows
		}))
		if ok {
			s.log.records = slices.Delete(s.log.records, s.at, s.at+1)
		}
		return ok
	}},
	{"the last entry stays away", Gap, func(r *rand.Rand, run *Run) bool {
		s, ok := pick(r, spots(*run, func(l *Log, i int) bool {
			return l.records[i].Kind == Entry && i+1 < len(l.records) && l.records[i+1].Kind == Settled && l.records[i+1].Room == l.records[i].Room
		}))
		if ok {
			s.log.records = slices.Delete(s.log.records, s.at, s.at+1)
		}
		return ok
	}},
	{"the log itself has a hole", Gap, func(r *rand.Rand, run *Run) bool {
		h := &run.Histories[r.IntN(len(run.Histories))]
		if len(h.Entries) < 2 {
			return false
		}
		from := h.Entries[1+r.IntN(len(h.Entries)-1)].Seq
		for i := range h.Entries {
			if h.Entries[i].Seq >= from {
				h.Entries[i].Seq++
			}
		}
		for _, s := range spots(*run, func(l *Log, i int) bool {
			return l.records[i].Room == h.Room && l.records[i].Seq >= from
		}) {
			s.rec().Seq++
		}
		return true
	}},
	{"one client sees another id", Diverged, func(r *rand.Rand, run *Run) bool {
		s, ok := pick(r, spots(*run, kind(Entry)))
		if ok {
			s.rec().ID = "ghost"
		}
		return ok
	}},
	{"one client sees another author", Diverged, func(r *rand.Rand, run *Run) bool {
		s, ok := pick(r, spots(*run, kind(Entry)))
		if ok {
			s.rec().From = "ghost"
		}
		return ok
	}},
	{"a resume slips into another epoch", SilentEpoch, func(r *rand.Rand, run *Run) bool {
		s, ok := pick(r, spots(*run, func(l *Log, i int) bool { return l.records[i].Kind == Joined && l.records[i].Recovered }))
		if ok {
			s.rec().Epoch = "ghost"
		}
		return ok
	}},
	{"the epoch changes under open connections", SilentEpoch, func(r *rand.Rand, run *Run) bool {
		run.Histories[r.IntN(len(run.Histories))].Epoch = "ghost"
		return true
	}},
	{"acks name an epoch nobody was told of", SilentEpoch, func(r *rand.Rand, run *Run) bool {
		s, ok := pick(r, spots(*run, func(l *Log, i int) bool {
			a := &l.records[i]
			last := len(spots(*run, func(l *Log, i int) bool {
				b := &l.records[i]
				return b.Kind == Ack && b.Room == a.Room && b.Seq > a.Seq
			})) == 0 // else what follows runs against time too
			return last && a.Kind == Ack && !a.Repeat && slices.ContainsFunc(l.records, func(e Record) bool { return e.Kind == Entry && e.ID == a.ID })
		}))
		if ok {
			s.rec().Epoch = "ghost"
		}
		return ok
	}},
	{"an acked message is absent at the end", Lost, func(r *rand.Rand, run *Run) bool {
		h := &run.Histories[r.IntN(len(run.Histories))]
		n := len(h.Entries)
		if n == 0 || len(spots(*run, func(l *Log, i int) bool { return l.records[i].Kind == Ack && l.records[i].ID == h.Entries[n-1].ID })) == 0 {
			return false
		}
		h.Entries = h.Entries[:n-1]
		return true
	}},
	{"an acked message is absent in the middle", Lost, func(r *rand.Rand, run *Run) bool {
		s, ok := pick(r, spots(*run, kind(Ack)))
		for i := range run.Histories {
			h := &run.Histories[i]
			h.Entries = slices.DeleteFunc(slices.Clone(h.Entries), func(e wire.EntryEvent) bool { return ok && e.ID == s.rec().ID })
		}
		return ok
	}},
	{"a nonce is posted twice", PostedTwice, func(r *rand.Rand, run *Run) bool {
		return append1(r, run, func(fresh *wire.EntryEvent) { fresh.ID = "fresh" })
	}},
	{"a message whose outcome nobody knows is posted twice", PostedTwice, func(r *rand.Rand, run *Run) bool {
		s, ok := pick(r, spots(*run, func(l *Log, i int) bool {
			return l.records[i].Kind == Unknown && posted(run, l.records[i].Room, l.records[i].Nonce) != nil
		}))
		if ok {
			repost(run, posted(run, s.rec().Room, s.rec().Nonce), func(fresh *wire.EntryEvent) { fresh.ID = "fresh" })
		}
		return ok
	}},
	{"an id is given twice", Duplicate, func(r *rand.Rand, run *Run) bool {
		return append1(r, run, func(fresh *wire.EntryEvent) { fresh.Nonce = "fresh" })
	}},
	{"order runs against time", Inverted, func(r *rand.Rand, run *Run) bool {
		s, ok := pick(r, spots(*run, kind(Ack)))
		if !ok {
			return false
		}
		a := s.rec()
		later, ok := pick(r, spots(*run, func(l *Log, i int) bool {
			b := &l.records[i]
			return b.Kind == Ack && b.Room == a.Room && b.Epoch == a.Epoch && b.Seq > a.Seq
		}))
		if !ok {
			return false
		}
		for i := range s.log.records {
			if rec := &s.log.records[i]; rec.Room == a.Room && rec.Nonce == a.Nonce && rec.Kind != Entry {
				rec.At = later.rec().At + 1
			}
		}
		return true
	}},
	{"a resend gets another answer", AnswerChanged, func(r *rand.Rand, run *Run) bool {
		s, ok := pick(r, spots(*run, kind(Ack)))
		if ok {
			again := *s.rec()
			again.Repeat, again.ID, again.Seq = true, "ghost", again.Seq+1
			insert(spot{s.log, s.at + 1}, again)
		}
		return ok
	}},
	{"a posted message is refused", RefusedPosted, func(r *rand.Rand, run *Run) bool {
		s, ok := pick(r, spots(*run, kind(Ack)))
		if ok {
			*s.rec() = Record{Kind: Refused, At: s.rec().At, Room: s.rec().Room, Nonce: s.rec().Nonce}
		}
		return ok
	}},
	{"a resend of a posted message is refused", RefusedPosted, func(r *rand.Rand, run *Run) bool {
		s, ok := pick(r, spots(*run, kind(Ack)))
		if ok {
			insert(spot{s.log, s.at + 1}, Record{Kind: Refused, At: s.rec().At, Room: s.rec().Room, Nonce: s.rec().Nonce})
		}
		return ok
	}},
	{"an entry comes to who is not in the room", Stray, func(r *rand.Rand, run *Run) bool {
		s, ok := pick(r, spots(*run, kind(Entry)))
		if ok {
			insert(spot{s.log, 1}, *s.rec()) // right after the first hello
		}
		return ok
	}},
	{"a log is not whole", Incomplete, func(r *rand.Rand, run *Run) bool {
		run.Logs[r.IntN(len(run.Logs))].err = ErrFull
		return true
	}},
}

// append1 puts a further entry on top of one room, delivered to everyone, that
// resembles an old one in all but what change says.
func append1(r *rand.Rand, run *Run, change func(fresh *wire.EntryEvent)) bool {
	h := &run.Histories[r.IntN(len(run.Histories))]
	if len(h.Entries) == 0 {
		return false
	}
	repost(run, &h.Entries[r.IntN(len(h.Entries))], change)
	return true
}

// posted is the entry of a message, nil if it has none.
func posted(run *Run, room chat.RoomID, nonce string) *wire.EntryEvent {
	for _, h := range run.Histories {
		for i := range h.Entries {
			if e := &h.Entries[i]; h.Room == room && e.Nonce == nonce {
				return e
			}
		}
	}
	return nil
}

// repost puts a copy of an entry on top of its room, with the change.
func repost(run *Run, old *wire.EntryEvent, change func(fresh *wire.EntryEvent)) {
	fresh := *old
	h := &run.Histories[slices.IndexFunc(run.Histories, func(h History) bool { return h.Room == old.Room })]
	fresh.Seq = uint64(len(h.Entries)) + 1
	change(&fresh)
	h.Entries = append(slices.Clone(h.Entries), fresh)
	for _, l := range run.Logs {
		at := slices.IndexFunc(l.records, func(r Record) bool { return r.Kind == Settled && r.Room == h.Room })
		insert(spot{l, at}, Record{Kind: Entry, Room: h.Room, Seq: fresh.Seq, ID: fresh.ID, From: fresh.From, Nonce: fresh.Nonce})
	}
}

func TestEachSeededFaultIsFoundAndNothingElse(t *testing.T) { seeded(t, injections, false) }

// seeded injects each fault into many runs.
func seeded(t *testing.T, list []injection, losses bool) {
	for _, tt := range list {
		t.Run(tt.name, func(t *testing.T) {
			found := 0
			for seed := range uint64(seeds) {
				_, run := newWorld(seed, losses)
				if !tt.inject(rand.New(rand.NewPCG(seed, 2)), &run) {
					continue
				}
				found++
				rep := Check(run)
				if got, want := slices.Sorted(maps.Keys(rep.Found)), []Fault{tt.want}; !slices.Equal(got, want) {
					t.Fatalf("seed %d: found %v, want %v\n%s", seed, got, want, rep)
				}
				if rep.Err() == nil || len(rep.Violations) == 0 || rep.Violations[0].Text == "" || !strings.Contains(rep.String(), rep.Violations[0].String()) {
					t.Fatalf("seed %d: the report does not name the fault: %s", seed, rep)
				}
			}
			if found < seeds/3 {
				t.Errorf("the fault fitted into %d of %d runs, too few", found, seeds)
			}
		})
	}
}

func TestAnAckThatWasOverwrittenIsLostAndDiverged(t *testing.T) {
	_, run := newWorld(3, false)
	s, ok := pick(rand.New(rand.NewPCG(1, 1)), spots(run, kind(Ack)))
	if !ok {
		t.Fatal("the run has no ack")
	}
	for _, h := range run.Histories {
		for i := range h.Entries {
			if h.Entries[i].ID == s.rec().ID {
				h.Entries[i].ID = "another"
			}
		}
	}
	rep := Check(run)
	if rep.Found[Lost] != 1 || rep.Found[Diverged] == 0 {
		t.Errorf("got %v, want one lost and some diverged", rep.Found)
	}
}

// An ack that names the place of another entry says that its message stands
// where it does not.
func TestAnAckOfAnotherPlaceIsFound(t *testing.T) {
	for seed := range uint64(seeds) {
		_, run := newWorld(seed, false)
		s, ok := pick(rand.New(rand.NewPCG(seed, 2)), spots(run, kind(Ack)))
		if !ok {
			continue
		}
		s.rec().Seq++
		if rep := Check(run); rep.Found[Diverged]+rep.Found[PostedTwice] == 0 {
			t.Errorf("seed %d: found %v, want that the message is not at its seq", seed, rep.Found)
		}
	}
}

func TestReportKeepsAFewOfEachFault(t *testing.T) {
	_, run := newWorld(5, false)
	for _, h := range run.Histories {
		for i := range h.Entries {
			h.Entries[i].ID = chat.MessageID(fmt.Sprint("other", i))
		}
	}
	run.Keep = 2
	rep := Check(run)
	if rep.Found[Diverged] <= 2 {
		t.Fatalf("got %d diverged, too few to test with", rep.Found[Diverged])
	}
	kept := make(map[Fault]int)
	for _, v := range rep.Violations {
		kept[v.Fault]++
	}
	for f, n := range kept {
		if n > 2 {
			t.Errorf("%s: %d kept, want at most 2", f, n)
		}
	}
}

func TestWhatAStoreMayForget(t *testing.T) {
	entry := func(seq uint64, id chat.MessageID) wire.EntryEvent {
		return wire.EntryEvent{Type: "message", Room: "r", Seq: seq, ID: id, From: "ann", Nonce: "n" + string(id)}
	}
	log := func() *Log {
		l := NewLog("ann")
		l.Observe(&wire.WelcomeEvent{User: "ann"})
		for i, id := range []chat.MessageID{"a", "b", "c"} {
			l.Sending("r", "n"+string(id))
			l.Answered("r", "n"+string(id), &wire.AckEvent{Epoch: "e1", Seq: uint64(i + 1), MessageID: id}, false)
		}
		return l
	}
	tests := []struct {
		name    string
		epoch   string
		entries []wire.EntryEvent
		trimmed bool
		losses  int
		want    []Fault
	}{
		{"retention", "e1", []wire.EntryEvent{entry(3, "c")}, true, 0, nil},
		{"retention unsaid", "e1", []wire.EntryEvent{entry(3, "c")}, false, 0, []Fault{Lost}},
		{"a lossy store", "e2", []wire.EntryEvent{entry(1, "a"), entry(2, "x")}, false, 1, nil},
		{"a lossy store in the same epoch", "e1", []wire.EntryEvent{entry(1, "a"), entry(2, "b")}, false, 1, []Fault{Lost}},
		{"a store that may not", "e2", []wire.EntryEvent{entry(1, "a"), entry(2, "b")}, false, 0, []Fault{Lost}},
		{"history twice", "e1", []wire.EntryEvent{entry(1, "a"), entry(2, "b"), entry(2, "b"), entry(3, "c")}, false, 0, []Fault{Duplicate}},
		{"history out of order", "e1", []wire.EntryEvent{entry(2, "b"), entry(1, "a"), entry(3, "c")}, false, 0, []Fault{Reorder}},
		{"an absurd seq", "e1", []wire.EntryEvent{entry(1, "a"), entry(2, "b"), entry(3, "c"), entry(1<<60, "d")}, false, 0, []Fault{Gap}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			rep := Check(Run{Logs: []*Log{log()}, Histories: []History{{"r", tt.epoch, tt.entries}}, Trimmed: tt.trimmed, Losses: tt.losses})
			if got := slices.Sorted(maps.Keys(rep.Found)); !slices.Equal(got, tt.want) {
				t.Errorf("got %v, want %v\n%s", got, tt.want, rep)
			}
		})
	}
	t.Run("no history at all", func(t *testing.T) {
		rep := Check(Run{Logs: []*Log{log()}})
		if rep.Found[Incomplete] != 1 {
			t.Errorf("got %v, want incomplete", rep.Found)
		}
	})
}

func BenchmarkCheck(b *testing.B) {
	_, run := newWorld(1, true)
	b.ReportAllocs()
	for b.Loop() {
		Check(run)
	}
}
