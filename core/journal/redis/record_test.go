package redis

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"parley/core/chat"
	"parley/core/journal"
	"parley/core/journal/codec"
)

func fullEntry() journal.Entry {
	return journal.Entry{
		Seq: 41, ID: "01890a5d-ac96-774b-bcce-b302099a8057", Kind: journal.KindMessage, From: "ann",
		Time: 1732000000123, Nonce: "n-1", Text: "hi ✓", Outcome: chat.Redacted,
		Reasons: []chat.Reason{{Code: "wordlist", Text: "A word was masked.", Source: "plugin:wordlist"}, {}},
		Changes: []journal.Change{{Key: "settings", Value: []byte("{}")}, {Key: "ban/bob"}, {Key: "empty", Value: []byte{}}},
	}
}

// stored is fullEntry as it is stored.
func stored(t testing.TB) string {
	t.Helper()
	e := fullEntry()
	b, err := appendEntry([]byte("before"), &e)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimPrefix(string(b), "before")
}

// TestRecordGolden pins what lies in the streams of a running cluster.
func TestRecordGolden(t *testing.T) {
	const want = "\x01" + // version
		"\x2401890a5d-ac96-774b-bcce-b302099a8057\x03" + // id, redacted
		"\x02\x08wordlist\x12A word was masked.\x0fplugin:wordlist\x00\x00\x00" + // reasons
		"\x01\xf6\xa1\xf5\xb3\xe8\x64" + // message, time
		"\x03ann\x03n-1\x06hi ✓" +
		"\x03\x08settings\x03{}\x07ban/bob\x00\x05empty\x01" + // changes
		"\xa6<\x1f4" // checksum
	if got := stored(t); got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if got, err := decodeEntry(want, 41); err != nil || !reflect.DeepEqual(got, fullEntry()) {
		t.Errorf("got %+v, %v, want %+v", got, err, fullEntry())
	}
}

func fullReview() journal.Review {
	e := fullEntry()
	e.Seq, e.Changes, e.Outcome = 0, nil, chat.Held
	return journal.Review{Entry: e, Appeal: true, Record: "9f86d0", By: "mod", Decided: 1732000000456}
}

// storedReview is fullReview as it is stored.
func storedReview(t testing.TB) string {
	t.Helper()
	r := fullReview()
	b, err := appendReview(nil, &r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestReviewGolden pins what lies in the hashes of a running cluster.
func TestReviewGolden(t *testing.T) {
	const want = "\x01" + // version
		"\x6d\x2401890a5d-ac96-774b-bcce-b302099a8057\x04" + // length of the entry, id, held
		"\x02\x08wordlist\x12A word was masked.\x0fplugin:wordlist\x00\x00\x00" + // reasons
		"\x01\xf6\xa1\xf5\xb3\xe8\x64" + // message, time
		"\x03ann\x03n-1\x06hi ✓\x00" +
		"\x01\x069f86d0\x03mod\x90\xa7\xf5\xb3\xe8\x64" + // appeal, record, by, decided
		"" // checksum
	got := storedReview(t)
	if got[:len(got)-sumBytes] != want {
		t.Errorf("got  %q\nwant %q and a checksum", got, want)
	}
	if r, err := decodeReview(got); err != nil || !reflect.DeepEqual(r, fullReview()) {
		t.Errorf("got %+v, %v, want %+v", r, err, fullReview())
	}
}

// TestIDPlace pins the bytes that append.lua reads.
func TestIDPlace(t *testing.T) {
	for _, id := range []chat.MessageID{"", fullEntry().ID, chat.MessageID(strings.Repeat("i", journal.MaxID))} {
		b, err := appendEntry(nil, &journal.Entry{ID: id})
		if err != nil {
			t.Fatal(err)
		}
		if got := string(b[2 : 2+int(b[1])]); got != string(id) {
			t.Errorf("got id %q after the version and its length, want %q", got, id)
		}
	}
}

func TestEveryFlippedBitIsDamage(t *testing.T) {
	b := []byte(stored(t))
	for i := range len(b) * 8 {
		b[i/8] ^= 1 << (i % 8)
		if _, err := decodeEntry(string(b), 1); !errors.Is(err, errSum) {
			t.Errorf("bit %d flipped: got %v, want errSum", i, err)
		}
		b[i/8] ^= 1 << (i % 8)
	}
	for n := range b {
		if _, err := decodeEntry(string(b[:n]), 1); err == nil {
			t.Errorf("cut to %d bytes: got no error", n)
		}
	}
}

func TestDamage(t *testing.T) {
	for name, c := range map[string]struct {
		rec  string
		want error
	}{
		"short":                 {"\x01\x00\x00\x00", errShort},
		"version of the future": {resum("\x02" + stored(t)[1:]), errVersion},
		"another body":          {resum("\x01body"), codec.ErrMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := decodeEntry(c.rec, 1); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

func TestDamagedBatch(t *testing.T) {
	good := stored(t)
	tests := []struct {
		name  string
		pairs []string
		want  int
		bad   uint64 // the damaged seq, 0 for none
	}{
		{"nothing", nil, 0, 0},
		{"sound", []string{"0-1", good, "0-2", good}, 2, 0},
		{"damaged later", []string{"0-1", good, "0-2", "x"}, 1, 0},
		{"damaged first", []string{"0-8", "", "0-9", good}, 0, 8},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			es, err := decodeBatch("lobby", tt.pairs)
			if len(es) != tt.want || (err != nil) != (tt.bad != 0) {
				t.Fatalf("got %d entries, %v, want %d", len(es), err, tt.want)
			}
			if err == nil {
				return
			}
			damaged, ok := errors.AsType[*journal.DamagedError](err)
			if !ok || damaged.Seq != tt.bad || damaged.Room != "lobby" {
				t.Errorf("got %v, want a DamagedError of seq %d", err, tt.bad)
			}
		})
	}
}

func TestRepliesOfTheWrongShape(t *testing.T) {
	if es, err := decodeBatch("lobby", []string{"1732000000123-0", ""}); !errors.Is(err, journal.ErrUnavailable) {
		t.Errorf("a stranger's stream id: got %d entries, %v, want ErrUnavailable", len(es), err)
	}
	for _, reply := range []any{nil, int64(1), "", "3", "0", "0 e", "0 e x", "0 e 0", "1 e 1 \x05", []any{"0"}} {
		if rc, err := readAppendReply(reply, journal.ActAppend); err == nil {
			t.Errorf("append reply %#v: got %+v, want an error", reply, rc)
		}
	}
	for _, reply := range []any{nil, int64(1), []any{}, []any{"e", "1"}, []any{"e", "x", "", ""}, []any{"e", "1", "", "7-7"},
		[]any{"e", "1", "", "", "k"}, []any{"e", int64(1), "", ""}, []any{"e", "-1", "", ""}} {
		if info, err := readInfoReply(reply); err == nil {
			t.Errorf("info reply %#v: got %+v, want an error", reply, info)
		}
	}
}

// FuzzRecord feeds records: as they are, and with a right checksum, since most
// end there.
func FuzzRecord(f *testing.F) {
	f.Add(stored(f))
	f.Add("")
	f.Add("\x01\xff")
	f.Fuzz(func(t *testing.T, s string) {
		for _, in := range []string{s, resum(s)} {
			e, err := decodeEntry(in, 7)
			if err != nil {
				continue
			}
			b, err := appendEntry(nil, &e)
			if errors.Is(err, journal.ErrTooLarge) { // decoding bounds the whole, not each part
				continue
			}
			again, err := decodeEntry(string(b), 7)
			if err != nil || !reflect.DeepEqual(again, e) {
				t.Errorf("decoded %+v, then %+v, %v", e, again, err)
			}
		}
	})
}

// resum gives s the checksum of its own content.
func resum(s string) string {
	sum := checksum(s)
	return s + string([]byte{byte(sum), byte(sum >> 8), byte(sum >> 16), byte(sum >> 24)})
}

func FuzzDecodeReceipt(f *testing.F) {
	e := fullEntry()
	f.Add("e1 41 " + string(codec.AppendAnswer(nil, e.ID, e.Outcome, e.Reasons)))
	f.Add("e1 41")
	f.Add("e1 18446744073709551616 ")
	f.Add(" 1 ")
	f.Fuzz(func(t *testing.T, s string) {
		rc, err := decodeReceipt(s)
		if err != nil {
			return
		}
		if rc.Epoch == "" || len(rc.Epoch) > maxEpochBytes {
			t.Errorf("decoded %q to %+v", s, rc)
		}
	})
}

func FuzzMessage(f *testing.F) {
	f.Add("parley:{lobby}:new", "e1 41 "+stored(f))
	f.Add("parley:{lobby}:new", "e1 x")
	f.Add("parley:{lobby", "")
	f.Add("", "e1 1 ")
	f.Add("parley:{lobby}:new", "e1 0 "+storedReview(f))
	f.Add("parley:{lobby}:new", "e1 0 ")
	f.Fuzz(func(t *testing.T, channel, payload string) {
		var w watches
		w.init("parley")
		var got counter
		r := &watched{}
		r.list.Store(&[]*watch{{to: &got}})
		w.rooms["lobby"] = r
		w.Message(channel, payload)
		if want := 1; channel == w.channel("lobby") && got.entries+got.doubts != want {
			t.Errorf("got %+v for %q, want one delivery or one doubt", got, payload)
		}
	})
}

type counter struct{ entries, doubts int }

func (c *counter) Appended(string, *journal.Entry) { c.entries++ }
func (c *counter) Reviewed(*journal.Review)        { c.entries++ }
func (c *counter) Doubt()                          { c.doubts++ }
