package redis

import (
	"reflect"
	"strings"
	"testing"

	"parley/core/chat"
	"parley/core/journal"
)

func TestParcelsOfTheWrongShape(t *testing.T) {
	after := journal.Position{Epoch: "e", Seq: 3, ID: "x"}
	for _, reply := range []any{nil, "x", []any{"e"}, []any{"e", "x"}, []any{"e", "-1"}, []any{"e", "4", "0-4"}, []any{"e", "4", "4-4", "", "", ""}, []any{"e", int64(4)}} {
		if p, err := readParcel(reply, after); err == nil {
			t.Errorf("parcel %#v: got %+v, want an error", reply, p)
		}
	}
	for _, reply := range []any{nil, "", "at", "at 1 2", "at x 2 ", "at 1 x id"} {
		if word, _, _, _, err := readAccepted(reply); err == nil {
			t.Errorf("answer %#v: got %q, want an error", reply, word)
		}
	}
	if p, err := readParcel([]any{"e", "2"}, after); err != nil || !p.Lost() {
		t.Errorf("a log that ends before the position: got %+v, %v, want it lost", p, err)
	}
	if p, err := readParcel([]any{"f", "9"}, after); err != nil || p.Epoch != "f" || p.After != 0 || p.Lost() {
		t.Errorf("another epoch: got %+v, %v", p, err)
	}
}

// TestMarksOfOthers: what mirror.lua could not read is as good as damaged.
func TestMarksOfOthers(t *testing.T) {
	for _, c := range []Carried{
		{}, {Entry: journal.Entry{ID: "*"}}, {Entry: journal.Entry{ID: "-"}},
		{Entry: journal.Entry{ID: chat.MessageID(strings.Repeat("i", 128))}},
		{Entry: journal.Entry{ID: "i"}, origin: "e"}, {Entry: journal.Entry{ID: "i"}, origin: " 1"},
		{Entry: journal.Entry{ID: "i"}, origin: "e\t 1"}, {Entry: journal.Entry{ID: "i"}, origin: "e -1"},
		{Entry: journal.Entry{ID: "i"}, origin: "e 9007199254740992"},
		{Entry: journal.Entry{ID: "i"}, origin: strings.Repeat("e", 65) + " 1"},
		{Entry: journal.Entry{ID: "i"}, stamp: "x i"}, {Entry: journal.Entry{ID: "i"}, stamp: "-5 i"},
		{Entry: journal.Entry{ID: "i"}, stamp: "5 " + strings.Repeat("i", 200)},
	} {
		if validMarks(&c) {
			t.Errorf("%+v is taken", c)
		}
	}
	if c := (Carried{Entry: journal.Entry{ID: "i"}, origin: "e 7", stamp: "5 i"}); !validMarks(&c) {
		t.Errorf("%+v is refused", c)
	}
}

func TestLaterStamp(t *testing.T) {
	order := []string{"", "0 a", "9 z", "10 a", "10 b", "1732000000000 a"}
	for i, a := range order {
		for k, b := range order {
			if got := laterStamp(a, b); got != (i > k) {
				t.Errorf("%q later than %q: got %v", a, b, got)
			}
		}
	}
}

// TestTwoKeysOfOneEntry: one change holds, the other does not.
func TestTwoKeysOfOneEntry(t *testing.T) {
	c := Carried{Entry: journal.Entry{Seq: 1, ID: "i", Changes: []journal.Change{{Key: "a", Value: []byte("new")}, {Key: "b"}, {Key: "c", Value: []byte("new")}}}, stamp: "5 i"}
	b, err := appendEntry(nil, &c.Entry)
	if err != nil {
		t.Fatal(err)
	}
	c.record = string(b)
	held := map[string]register{"a": {"old", "4 x"}, "b": {"kept", "6 x"}, "c": {nil, "6 x"}}
	record, stamp, changes, err := decideChanges(&c, held)
	if err != nil || stamp != "5 i" {
		t.Fatalf("got stamp %q, %v", stamp, err)
	}
	if want := []any{"a", "=new", "4 x", "5 i", "b", "", "6 x", "", "c", "", "6 x", ""}; !reflect.DeepEqual(changes, want) {
		t.Errorf("got %q, want %q", changes, want)
	}
	e, err := decodeEntry(record, 1)
	if want := []journal.Change{{Key: "a", Value: []byte("new")}, {Key: "b", Value: []byte("kept")}, {Key: "c"}}; err != nil || !reflect.DeepEqual(e.Changes, want) {
		t.Errorf("got %+v, %v, want %+v", e.Changes, err, want)
	}
	if held["a"] != (register{"new", "5 i"}) {
		t.Errorf("the next entry of the parcel finds %+v", held["a"])
	}
}

// FuzzParcel reads what another deployment holds.
func FuzzParcel(f *testing.F) {
	f.Add("e", "41", "0-41", stored(f), "f 7", "5 i", uint64(40), "x")
	f.Add("e", "41", "0-41", stored(f), "", "", uint64(41), "x")
	f.Add("e", "3", "0-3", "", "x", "x", uint64(9), "x")
	f.Fuzz(func(t *testing.T, epoch, top, id, record, origin, stamp string, seq uint64, at string) {
		after := journal.Position{Epoch: "e", Seq: seq, ID: chat.MessageID(at)}
		p, err := readParcel([]any{epoch, top, id, record, origin, stamp}, after)
		if err != nil {
			return
		}
		for i := range p.Entries {
			c := &p.Entries[i]
			if c.record != "" && (!validMarks(c) || string(c.ID) != c.record[2:2+c.record[1]]) {
				t.Errorf("took %+v, whose marks mirror.lua cannot read", c)
			}
			if c.record == "" || len(c.Changes) == 0 {
				continue
			}
			if _, _, _, err := decideChanges(c, map[string]register{c.Changes[0].Key: {"v", "9999999999999 z"}}); err != nil {
				t.Errorf("decide: %v", err)
			}
		}
	})
}
