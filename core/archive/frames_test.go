package archive

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
	"time"

	"parley/core/absent"
	"parley/core/chat"
	"parley/core/journal"
)

// TestFramesOutOfPlace writes archives whose checksums are right and whose order
// is not.
func TestFramesOutOfPlace(t *testing.T) {
	room := Room{ID: "lobby", Top: journal.Position{Epoch: "e1", Seq: 3, ID: "m3"}, First: 1}
	entry := func(seq uint64) []journal.Entry {
		return []journal.Entry{{Seq: seq, ID: "m", Kind: journal.KindMessage, Text: "x"}}
	}
	held := &journal.Review{Entry: journal.Entry{ID: "h", Nonce: "h", Kind: journal.KindMessage, Outcome: chat.Held}}
	decided := &journal.Review{Entry: journal.Entry{ID: "d", Nonce: "d", Kind: journal.KindMessage, Outcome: chat.Rejected}, Decided: 5}
	news := &absent.Note{Entry: absent.Entry{Room: "lobby", Epoch: "e1", Seq: 3, ID: "m3", From: "ann", User: "bob", Kind: journal.NoticeMention}}
	for _, tt := range []struct {
		name string
		make func(w *writer) error
		want string // "" for a good one
	}{
		{"whole", func(w *writer) error {
			return errors.Join(w.room(room), w.state("k", []byte("v")), w.review(held), w.review(decided), w.entries(entry(2)), w.missing(3), w.end())
		}, ""},
		{"begun anew", func(w *writer) error {
			err := errors.Join(w.room(room), w.entries(entry(1)), w.void())
			return errors.Join(err, w.room(room), w.entries(entry(3)), w.end())
		}, ""},
		{"no entries", func(w *writer) error { return errors.Join(w.room(room), w.end()) }, ""},
		{"notes", func(w *writer) error {
			return errors.Join(w.room(room), w.end(), w.note(news), w.note(news))
		}, ""},
		{"note in a room", func(w *writer) error { return errors.Join(w.room(room), w.note(news)) }, "within room lobby"},
		{"room behind notes", func(w *writer) error { return errors.Join(w.note(news), w.room(room), w.end()) }, "behind messages for absent people"},
		{"no note", func(w *writer) error { return w.frame(kindNote, []byte("{}")) }, "cannot be decoded"},
		{"another count of notes", func(w *writer) error { err := w.note(news); w.total.Notes++; return err }, "the trailer counts"},
		{"room in a room", func(w *writer) error { return errors.Join(w.room(room), w.room(room)) }, "begins within"},
		{"room without an end", func(w *writer) error { return w.room(room) }, "has no end"},
		{"entry outside", func(w *writer) error { return w.entries(entry(1)) }, "outside of a room"},
		{"hole", func(w *writer) error { return errors.Join(w.room(room), w.entries(entry(1)), w.entries(entry(3))) }, "not in its place"},
		{"missing twice", func(w *writer) error { return errors.Join(w.room(room), w.missing(1), w.missing(1)) }, "not in its place"},
		{"beyond the top", func(w *writer) error { return errors.Join(w.room(room), w.entries(entry(4))) }, "not in its place"},
		{"before the top", func(w *writer) error { return errors.Join(w.room(room), w.entries(entry(1)), w.end()) }, "ends before"},
		{"state after entries", func(w *writer) error {
			return errors.Join(w.room(room), w.entries(entry(1)), w.state("k", nil))
		}, "state of room lobby is not in its place"},
		{"open after decided", func(w *writer) error { return errors.Join(w.room(room), w.review(decided), w.review(held)) }, "review of room lobby is not in its place"},
		{"decided as open", func(w *writer) error {
			err := errors.Join(w.room(room), w.review(decided))
			if i := bytes.LastIndexByte(w.buf, kindDecided); i >= 0 && err == nil {
				size, n := binary.Uvarint(w.buf[i+1:])
				body := bytes.Clone(w.buf[i+1+n : i+1+n+int(size)])
				w.buf = w.buf[:i]
				return w.frame(kindOpen, body)
			}
			return err
		}, "is not in its place"},
		{"another count", func(w *writer) error {
			return errors.Join(w.room(room), w.entries(entry(3)), w.frame(kindEnd, []byte{7}))
		}, "ends with 7 entries"},
		{"unknown kind", func(w *writer) error { return errors.Join(w.room(room), w.frame('?', nil)) }, "unknown kind"},
		{"second header", func(w *writer) error { return w.frame(kindHeader, []byte("{}")) }, "outside of a room"},
		{"no room", func(w *writer) error { return w.frame(kindRoom, nil) }, "cannot be decoded"},
		{"a name that is none", func(w *writer) error { r := room; r.ID = "No Room"; return w.room(r) }, "no room name"},
		{"a top out of range", func(w *writer) error { r := room; r.Top.Seq = 1 << 62; return w.room(r) }, "out of range"},
		{"no entry", func(w *writer) error { return errors.Join(w.room(room), w.frame(kindEntry, []byte{1, 2})) }, "cannot be decoded"},
		{"no seq", func(w *writer) error { return errors.Join(w.room(room), w.frame(kindEntry, nil)) }, "has no seq"},
		{"no review", func(w *writer) error { return errors.Join(w.room(room), w.frame(kindOpen, []byte{9})) }, "cannot be decoded"},
		{"another total", func(w *writer) error { w.total.Rooms = 9; return nil }, "the trailer counts"},
		{"another digest", func(w *writer) error { w.sum.Write([]byte("x")); return nil }, "digest of the whole"},
		{"a trailer that is none", func(w *writer) error { return w.frame(kindTrailer, []byte("x")) }, "trailer cannot be decoded"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var b bytes.Buffer
			w := &writer{w: &b, sum: sha256.New()}
			if err := errors.Join(w.begin(Header{Created: time.Unix(5, 0)}), tt.make(w), w.finish()); err != nil {
				t.Fatal(err)
			}
			_, _, err := Verify(&b)
			var bad *Error
			switch {
			case tt.want == "" && err != nil:
				t.Errorf("got %v", err)
			case tt.want != "" && (!errors.As(err, &bad) || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("got %v, want it to say %q", err, tt.want)
			}
		})
	}
	if err := (&writer{}).frame(kindEntry, make([]byte, maxPayload+1)); err == nil {
		t.Error("a frame beyond the bound: got no error")
	}
	if _, _, err := Verify(strings.NewReader(Magic + "\x01\x00H\xff\xff\xff\xff\xff\x0f")); err == nil || !strings.Contains(err.Error(), "no number") {
		t.Errorf("a length that is none: got %v", err)
	}
}

// restless is a journal whose rooms begin another epoch while they are read.
type restless struct {
	journal.Journal
	times int
	epoch string
}

func (r *restless) Reviews(context.Context, chat.RoomID) (open, decided []journal.Review, err error) {
	return nil, nil, nil
}

func (r *restless) Info(context.Context, chat.RoomID) (journal.Info, error) {
	r.epoch += "x"
	return journal.Info{Top: journal.Position{Epoch: r.epoch, Seq: 2, ID: "b"}, First: 1}, nil
}

func (r *restless) Read(_ context.Context, _ chat.RoomID, after uint64, _ int) (string, []journal.Entry, error) {
	if r.times > 0 {
		r.times--
		return "another", nil, nil
	}
	if after == 0 {
		return r.epoch, []journal.Entry{{Seq: 1, ID: "a"}}, nil
	}
	return r.epoch, []journal.Entry{{Seq: 2, ID: "b"}, {Seq: 3, ID: "c"}}, nil
}

func TestALogThatIsReplacedMeanwhile(t *testing.T) {
	s := &summer{}
	if err := walk(t.Context(), &restless{times: attempts - 1}, "lobby", s); err != nil || s.d.Entries != 2 || s.d.Top.Seq != 2 {
		t.Errorf("got %+v, %v, want two entries", s.d, err)
	}
	if err := walk(t.Context(), &restless{times: attempts}, "lobby", s); !errors.Is(err, errMoved) {
		t.Errorf("got %v, want it given up", err)
	}
}
