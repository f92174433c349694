package session

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"parley/core/chat"
	"parley/core/evidence"
	"parley/core/journal"
)

func TestErase(t *testing.T) {
	w, mia := court(t)
	defer mia.end()
	k := new(keeper)
	w.srv.d.Evidence = k
	ann, bob := w.user("ann"), w.user("bob")
	defer ann.end()
	defer bob.end()
	for _, c := range []*caller{ann, bob} {
		if e := c.do(`{"type":"join","room":"lobby"}`); e.Type != "joined" {
			t.Fatalf("got %+v", e)
		}
	}
	first := ann.send("n1", "a secret")
	second := ann.send("n2", "another")
	bob.refused("not_author", `{"type":"erase","room":"lobby","seq":%d}`, first.Seq)
	if e := w.at(first.Seq); e.Text != "a secret" {
		t.Fatalf("got %+v after what was refused", e)
	}
	done := ann.ok(`{"type":"erase","room":"lobby","nonce":"e1","seq":%d,"reason":"my mistake"}`, first.Seq)
	if e := w.at(first.Seq); e.Outcome != chat.Erased || e.Text != "" || e.From != "ann" || e.Nonce != "n1" {
		t.Errorf("got %+v, want a tombstone", e)
	}
	if e := w.last(); e.Kind != journal.KindErase || e.From != "ann" || len(e.Erases) != 1 || e.Erases[0] != first.Seq || e.Text != "my mistake" {
		t.Errorf("got %+v, want the record", e)
	}
	if again := ann.do(`{"type":"erase","room":"lobby","nonce":"e1","seq":%d}`, first.Seq); again.Seq != done.Seq || !again.Repeat {
		t.Errorf("a resend: got %+v, want the answer of before", again)
	}
	if again := ann.send("n1", "a secret"); again.Seq != first.Seq || !again.Repeat {
		t.Errorf("the message resent: got %+v, want seq %d again", again, first.Seq)
	}
	mia.ok(`{"type":"erase","room":"lobby","seq":%d}`, second.Seq)
	k.mu.Lock()
	if len(k.erased) < 2 || k.erased[0] != (evidence.Selection{ID: chat.MessageID(first.MessageID)}) {
		t.Errorf("got %+v erased of the evidence, want that of both messages", k.erased)
	}
	k.mu.Unlock()
	for _, seq := range []uint64{999, done.Seq} {
		if e := mia.do(`{"type":"erase","room":"lobby","seq":%d}`, seq); e.Type != "error" || e.Code != "bad_request" {
			t.Errorf("entry %d: got %+v, want it refused", seq, e)
		}
	}
	if e := mia.do(`{"type":"erase","room":"nowhere","seq":1}`); e.Type != "error" || e.Code != "no_room" {
		t.Errorf("no room: got %+v", e)
	}
}

// TestEraseTellsStrangersNothing: whoever may not be in a room hears the same of
// each number, so that nobody finds out how many entries a private room has.
func TestEraseTellsStrangersNothing(t *testing.T) {
	w, mia := court(t)
	defer mia.end()
	bob := w.user("bob")
	defer bob.end()
	mia.ok(`{"type":"configure","room":"lobby","visibility":"private"}`)
	secret := mia.send("n1", "a secret")
	var answers []string
	for _, seq := range []uint64{1, secret.Seq, secret.Seq + 1, 999} { // no text, a text, nothing
		e := bob.do(`{"type":"erase","room":"lobby","seq":%d}`, seq)
		answers = append(answers, fmt.Sprint(e.Type, e.Code, e.Text, e.Reasons))
	}
	if e := answers[0]; !strings.Contains(e, "private_room") {
		t.Errorf("got %s, want the private room to be the reason", e)
	}
	if all := slices.Compact(answers); len(all) != 1 {
		t.Errorf("got %q, want one answer to all of them", all)
	}
}

// TestEvidenceFirst: where the evidence cannot be erased nothing is.
func TestEvidenceFirst(t *testing.T) {
	w, mia := court(t)
	defer mia.end()
	w.srv.d.Evidence = &stubborn{}
	first := mia.send("n1", "a secret")
	if e := mia.do(`{"type":"erase","room":"lobby","seq":%d}`, first.Seq); e.Type != "error" || e.Code != "unavailable" {
		t.Errorf("got %+v, want unavailable", e)
	}
	if e := w.at(first.Seq); e.Text != "a secret" {
		t.Errorf("got %+v, want nothing erased", e)
	}
}

type stubborn struct{ keeper }

func (*stubborn) EraseMessages([]chat.MessageID) (int, error) {
	return 0, errors.New("the disk is gone")
}

func (*stubborn) Erase(evidence.Selection) (int, error) { return 0, errors.New("the disk is gone") }

func TestEraseUser(t *testing.T) {
	w := reviewWorld(t)
	k := new(keeper)
	w.srv.d.Evidence = k
	ann, bob := w.user("ann", "member"), w.user("bob", "member")
	defer ann.end()
	defer bob.end()
	ann.send("n1", "hello")
	bob.send("n2", "hello ann")
	held := ann.send("n3", "oh darn it")
	done, err := w.srv.EraseUser(context.Background(), "ann", "admin", "by request")
	if err != nil || done != (Erased{Entries: 1, Rooms: 1, Reviews: 1}) {
		t.Fatalf("got %+v, %v", done, err)
	}
	k.mu.Lock()
	if len(k.erased) == 0 || k.erased[0] != (evidence.Selection{User: "ann"}) {
		t.Errorf("got %+v erased of the evidence", k.erased)
	}
	k.mu.Unlock()
	_, es, err := w.store.Read(context.Background(), "lobby", 0, 100)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range es {
		if e.From == "ann" && e.Text != "" || e.From == "bob" && e.Text == "" {
			t.Errorf("got %+v", e)
		}
	}
	open, decided, err := w.store.Reviews(context.Background(), "lobby")
	if err != nil || len(open) != 0 || len(decided) != 1 || string(decided[0].Entry.ID) != held.ReviewID || decided[0].Entry.Outcome != chat.Rejected || len(decided[0].Entry.Reasons) != 0 {
		t.Errorf("got open %+v and decided %+v, %v", open, decided, err)
	}
	if done, err = w.srv.EraseUser(context.Background(), "ann", "admin", "by request"); err != nil || done != (Erased{}) {
		t.Errorf("again: got %+v, %v, want nothing left", done, err)
	}
}

// TestEraseUserFinishes: what an earlier call has erased, and ended before it
// could say so, is told by the next one; and once.
func TestEraseUserFinishes(t *testing.T) {
	w := reviewWorld(t)
	away := new(otherNodes)
	w.srv.d.Absent = away
	ann, bob := w.user("ann", "member"), w.user("bob", "member")
	defer ann.end()
	defer bob.end()
	var seqs []uint64
	for i := range 2*eraseBatch + 3 {
		seqs = append(seqs, ann.send(fmt.Sprint("n", i), "hello").Seq)
	}
	epoch, _, err := w.store.Read(t.Context(), "lobby", 0, 1)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := w.store.Erase(t.Context(), "lobby", journal.Erasure{Epoch: epoch, Seqs: seqs[:9]}); n != 9 || err != nil {
		t.Fatalf("got %d, %v", n, err)
	}
	done, err := w.srv.EraseUser(t.Context(), "ann", "admin", "")
	if err != nil || done != (Erased{Entries: len(seqs) - 9, Rooms: 1}) {
		t.Fatalf("got %+v, %v", done, err)
	}
	told := func() (all []uint64) {
		for after := uint64(0); ; {
			_, es, err := w.store.Read(t.Context(), "lobby", after, 500)
			if err != nil {
				t.Fatal(err)
			}
			if len(es) == 0 {
				return all
			}
			for i := range es {
				all = append(all, es[i].Erases...)
			}
			after = es[len(es)-1].Seq
		}
	}
	if got := told(); !slices.Equal(got, seqs) {
		t.Errorf("the room was told of %d entries, want %d: all, and each once", len(got), len(seqs))
	}
	if done, err := w.srv.EraseUser(t.Context(), "ann", "admin", ""); err != nil || done != (Erased{}) || len(told()) != len(seqs) {
		t.Errorf("again: got %+v, %v and %d told, want nothing new", done, err, len(told()))
	}
	if !slices.Equal(away.erasedOf, []chat.UserID{"ann", "ann"}) {
		t.Errorf("what waits for absent people was erased of %q, want ann's, by each call", away.erasedOf)
	}
	r := must(w.hub.Room(t.Context(), "lobby"))
	one := bob.send("n", "hello too")
	if n, err := w.srv.EraseEntries(t.Context(), r, []uint64{one.Seq}, "admin", ""); n != 1 || err != nil || !slices.Equal(away.erased, []chat.MessageID{chat.MessageID(one.MessageID)}) {
		t.Errorf("got %d, %v, and %q erased of what waits", n, err, away.erased)
	}
}

// TestEraseUserOfAReplacedLog: where the log is replaced while it is read, seqs of
// the old one are not erased of the new one, in which they may be anybody's.
func TestEraseUserOfAReplacedLog(t *testing.T) {
	w := reviewWorld(t)
	ann := w.user("ann", "member")
	defer ann.end()
	ann.send("n1", "hello")
	store := &replaced{Journal: w.store}
	w.srv.d.Journal = store
	if _, err := w.srv.EraseUser(t.Context(), "ann", "admin", ""); !errors.Is(err, journal.ErrOtherEpoch) || store.erased != 0 {
		t.Errorf("got %v and %d erasures, want ErrOtherEpoch and none", err, store.erased)
	}
}

// replaced is a store whose log is another one, and shorter, when its end is read.
type replaced struct {
	journal.Journal
	erased int
}

func (j *replaced) Read(ctx context.Context, room chat.RoomID, after uint64, limit int) (string, []journal.Entry, error) {
	epoch, es, err := j.Journal.Read(ctx, room, after, limit)
	if len(es) == 0 {
		epoch = "another"
	}
	return epoch, es, err
}

func (j *replaced) Erase(context.Context, chat.RoomID, journal.Erasure) (int, error) {
	j.erased++
	return 0, nil
}

func TestEraseEntries(t *testing.T) {
	w, mia := court(t)
	defer mia.end()
	a, b := mia.send("n1", "one"), mia.send("n2", "two")
	r := must(w.hub.Room(t.Context(), "lobby"))
	if n, err := w.srv.EraseEntries(t.Context(), r, []uint64{a.Seq, b.Seq, 500}, "admin", ""); n != 2 || err != nil {
		t.Fatalf("got %d, %v, want 2", n, err)
	}
	if e := w.last(); e.From != "admin" || len(e.Erases) != 2 {
		t.Errorf("got %+v, want one record of both", e)
	}
	if n, err := w.srv.EraseEntries(t.Context(), r, []uint64{500}, "admin", ""); n != 0 || err != nil {
		t.Errorf("nothing: got %d, %v", n, err)
	}
}

// at reads one entry of the lobby.
func (w *world) at(seq uint64) journal.Entry {
	w.t.Helper()
	_, es, err := w.store.Journal.Read(w.t.Context(), "lobby", seq-1, 1)
	if err != nil || len(es) != 1 {
		w.t.Fatal(es, err)
	}
	return es[0]
}

// TestDeniedIsForgotten: what somebody might have appealed goes with the rest.
func TestDeniedIsForgotten(t *testing.T) {
	w := reviewWorld(t)
	ann, bob := w.user("ann", "member"), w.user("bob", "member")
	defer ann.end()
	defer bob.end()
	denied, other := ann.send("n1", "damn"), bob.send("n2", "damn")
	if denied.Appeal == "" || other.Appeal == "" {
		t.Fatalf("got %+v and %+v, want appeals", denied, other)
	}
	if _, err := w.srv.EraseUser(context.Background(), "ann", "admin", ""); err != nil {
		t.Fatal(err)
	}
	if e := ann.do(`{"type":"appeal","room":"lobby","appeal":%q}`, denied.Appeal); e.Type != "error" || e.Code != "no_appeal" {
		t.Errorf("got %+v, want no appeal", e)
	}
	if e := bob.do(`{"type":"appeal","room":"lobby","appeal":%q}`, other.Appeal); e.Type != "ack" {
		t.Errorf("got %+v, want bob's appeal taken", e)
	}
	for _, d := range w.srv.appeals.m {
		if d.entry.From == "ann" && d.entry.Text != "" {
			t.Errorf("got %+v remembered", d.entry)
		}
	}
}

// board is a Spread that two nodes share.
type board struct {
	mu   sync.Mutex
	list []journal.Forgotten
	err  error
}

func (b *board) Forget(_ context.Context, ids []chat.MessageID, u chat.UserID) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, id := range ids {
		b.list = append(b.list, journal.Forgotten{ID: id, At: int64(1000 * (1 + len(b.list)))})
	}
	if u != "" {
		b.list = append(b.list, journal.Forgotten{User: u, At: int64(1000 * (1 + len(b.list)))})
	}
	return b.err
}

func (b *board) Forgotten(_ context.Context, since int64, skip, limit int) (out []journal.Forgotten, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, f := range b.list {
		if f.At >= since {
			out = append(out, f)
		}
	}
	out = out[min(skip, len(out)):]
	return out[:min(limit, len(out))], b.err
}

// TestOtherNodesForget: what one node erases is erased of every node's evidence,
// once, also of one that comes later.
func TestOtherNodesForget(t *testing.T) {
	w, mia := court(t)
	defer mia.end()
	shared := new(board)
	w.srv.d.Spread, w.srv.d.Evidence = shared, new(keeper)
	first := mia.send("n1", "a secret")
	mia.ok(`{"type":"erase","room":"lobby","seq":%d}`, first.Seq)
	if _, err := w.srv.EraseUser(t.Context(), "ann", "admin", ""); err != nil {
		t.Fatal(err)
	}
	other := &Server{d: Deps{Spread: shared, Evidence: new(keeper)}}
	f := forgetter{s: other, done: map[journal.Forgotten]bool{}}
	for range 3 {
		if err := f.look(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	want := []evidence.Selection{{ID: chat.MessageID(first.MessageID)}, {User: "ann", Before: 2001}}
	if got := other.d.Evidence.(*keeper).erased; !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	for i := range 3 * forgetPage {
		if err := shared.Forget(t.Context(), []chat.MessageID{chat.MessageID(fmt.Sprint("id", i))}, ""); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.look(t.Context()); err != nil || len(other.d.Evidence.(*keeper).erased) != 2+3*forgetPage {
		t.Errorf("got %d erased, %v, want all of several pages", len(other.d.Evidence.(*keeper).erased), err)
	}
	if len(f.done) > 62 || f.since == 0 {
		t.Errorf("%d are remembered since %d, want those of the last minute", len(f.done), f.since)
	}
	shared.err = errors.New("redis is gone")
	if err := f.look(t.Context()); err == nil {
		t.Error("a list that cannot be read: got no error")
	}
	if e := mia.do(`{"type":"erase","room":"lobby","seq":%d}`, first.Seq); e.Type != "error" || e.Code != "unavailable" {
		t.Errorf("got %+v, want unavailable", e)
	}
}

// TestATimeToComeHidesNothing: what somebody listed with a wrong clock does not
// keep a node from erasing what is listed after it.
func TestATimeToComeHidesNothing(t *testing.T) {
	now := time.Now().UnixMilli()
	shared := &board{list: []journal.Forgotten{{ID: "ahead", At: now + time.Hour.Milliseconds()}}}
	k := new(keeper)
	f := forgetter{s: &Server{d: Deps{Spread: shared, Evidence: k}}, done: map[journal.Forgotten]bool{}}
	if err := f.look(t.Context()); err != nil {
		t.Fatal(err)
	}
	shared.list = append(shared.list, journal.Forgotten{ID: "m1", At: now})
	for range 2 {
		if err := f.look(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if want := []evidence.Selection{{ID: "ahead"}, {ID: "m1"}}; !slices.Equal(k.erased, want) {
		t.Errorf("got %+v, want %+v", k.erased, want)
	}
}

// TestErasingIsDear: a client that erases one message after the other waits, long
// before it would with what costs less.
func TestErasingIsDear(t *testing.T) {
	w := newWorld(t, func(s *setup) { s.cfg.CommandsPerSecond, s.cfg.CommandsBurst = 1, 60 })
	w.law()
	mia := w.user("mia")
	defer mia.end()
	if e := mia.do(`{"type":"join","room":"lobby"}`); e.Type != "joined" {
		t.Fatalf("got %+v", e)
	}
	first := mia.send("n1", "a secret")
	for range 2 {
		mia.ok(`{"type":"erase","room":"lobby","seq":%d}`, first.Seq)
	}
	if e := mia.do(`{"type":"erase","room":"lobby","seq":%d}`, first.Seq); e.Type != "error" || e.Code != "rate_limited" {
		t.Errorf("got %+v, want rate_limited", e)
	}
	mia.send("n2", "and so on")
}
