package redis

import (
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"

	"parley/core/chat"
	"parley/core/journal"
)

func fullEntry() journal.Entry {
	return journal.Entry{
		Seq: 41, ID: "01890a5d-ac96-774b-bcce-b302099a8057", Kind: journal.KindMessage, From: "žaneta",
		Time: 1732000000123, Nonce: "n-1", Text: "hi ✓", Outcome: chat.Redacted,
		Reasons: []chat.Reason{{Code: "wordlist", Text: "A word was masked.", Source: "plugin:wordlist"}, {}},
		Changes: []journal.Change{{Key: "settings", Value: []byte("{}")}, {Key: "ban/bob"}, {Key: "empty", Value: []byte{}}},
	}
}

func TestEntryRoundTrip(t *testing.T) {
	tests := []struct {
		name string
		e    journal.Entry
	}{
		{"full", fullEntry()},
		{"empty", journal.Entry{Seq: 1}},
		{"before 1970", journal.Entry{Seq: 1, Time: math.MinInt64}},
		{"far future", journal.Entry{Seq: math.MaxUint64, Time: math.MaxInt64}},
		{"longest id", journal.Entry{Seq: 1, ID: chat.MessageID(strings.Repeat("i", maxIDBytes))}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := decodeEntry(string(appendEntry(nil, &tt.e)), tt.e.Seq)
			if err != nil || !reflect.DeepEqual(got, tt.e) {
				t.Errorf("got %+v, %v, want %+v", got, err, tt.e)
			}
		})
	}
}

// TestIDPlace pins the bytes that append.lua reads.
func TestIDPlace(t *testing.T) {
	e := fullEntry()
	b := appendEntry(nil, &e)
	if got := string(b[2 : 2+b[1]]); got != string(e.ID) {
		t.Errorf("got id %q after the version and its length, want %q", got, e.ID)
	}
}

func TestEveryFlippedBitIsDamage(t *testing.T) {
	e := fullEntry()
	b := appendEntry(nil, &e)
	for i := range len(b) * 8 {
		b[i/8] ^= 1 << (i % 8)
		if _, err := decodeEntry(string(b), 1); !errors.Is(err, errShape) {
			t.Errorf("bit %d flipped: got %v, want errShape", i, err)
		}
		b[i/8] ^= 1 << (i % 8)
	}
	for n := range b {
		if _, err := decodeEntry(string(b[:n]), 1); !errors.Is(err, errShape) {
			t.Errorf("cut to %d bytes: got %v, want errShape", n, err)
		}
	}
}

func TestDamagedBatch(t *testing.T) {
	e := fullEntry()
	good := string(appendEntry(nil, &e))
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
		if rc, err := readAppendReply(reply); err == nil {
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

func FuzzDecodeEntry(f *testing.F) {
	e := fullEntry()
	f.Add(string(appendEntry(nil, &e)))
	f.Add(string(appendEntry(nil, &journal.Entry{})))
	f.Add("")
	f.Add("\x01\xff")
	f.Fuzz(func(t *testing.T, s string) {
		// Most inputs end at the checksum, so give them a right one as well.
		for _, in := range []string{s, resum(s)} {
			e, err := decodeEntry(in, 7)
			if err != nil {
				continue
			}
			again, err := decodeEntry(string(appendEntry(nil, &e)), 7)
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
	f.Add("e1 41 " + string(appendAnswer(nil, &e)))
	f.Add("e1 41")
	f.Add("e1 18446744073709551616 ")
	f.Add(" 1 ")
	f.Fuzz(func(t *testing.T, s string) {
		rc, err := decodeReceipt(s)
		if err != nil {
			return
		}
		if rc.Epoch == "" || rc.Seq == 0 || len(rc.Epoch) > maxEpochBytes {
			t.Errorf("decoded %q to %+v", s, rc)
		}
	})
}

func FuzzMessage(f *testing.F) {
	e := fullEntry()
	f.Add("parley:{lobby}:new", "e1 41 "+string(appendEntry(nil, &e)))
	f.Add("parley:{lobby}:new", "e1 x")
	f.Add("parley:{lobby", "")
	f.Add("", "e1 1 ")
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
func (c *counter) Doubt()                          { c.doubts++ }

func BenchmarkCodec(b *testing.B) {
	e := fullEntry()
	e.Changes, e.Reasons = nil, nil
	e.Text = strings.Repeat("x", 120)
	s := string(appendEntry(nil, &e))
	b.Run("encode", func(b *testing.B) {
		b.ReportAllocs()
		buf := make([]byte, 0, 1024)
		for b.Loop() {
			buf = appendEntry(buf[:0], &e)
		}
	})
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := decodeEntry(s, 1); err != nil {
				b.Fatal(err)
			}
		}
	})
}
