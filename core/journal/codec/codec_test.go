package codec_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"

	"parley/core/chat"
	"parley/core/journal"
	"parley/core/journal/codec"
)

// entries have every field in every form.
var entries = map[string]journal.Entry{
	"empty": {},
	"full": {
		ID: "01932f3a-0000-7000-8000-00000000abcd", Kind: journal.KindMessage, From: "žaneta",
		Time: 1732000000123, Nonce: "n-1", Text: "hello, wörld ✓", Outcome: chat.Redacted,
		Reasons: []chat.Reason{{Code: "wordlist", Text: "A word was masked.", Source: "plugin:wordlist"}, {}},
		Changes: []journal.Change{{Key: "settings", Value: []byte("{}")}, {Key: "ban/bob"}, {Key: "empty", Value: []byte{}}},
	},
	"settings":       {ID: "x", Kind: journal.KindSettings},
	"erase":          {ID: "x", Kind: journal.KindErase, Erases: []uint64{1, 7, 7, 1 << 40, 3, math.MaxUint64}},
	"many erases":    {Erases: make([]uint64, journal.MaxErases)},
	"role":           {ID: "x", Kind: journal.KindRole},
	"ban":            {ID: "x", Kind: journal.KindBan},
	"unknown words":  {ID: "1", Kind: "reaction", Outcome: "deferred"},
	"before 1970":    {Time: math.MinInt64},
	"far future":     {Time: math.MaxInt64},
	"longest id":     {ID: chat.MessageID(strings.Repeat("i", journal.MaxID))},
	"many reasons":   {Reasons: make([]chat.Reason, journal.MaxReasons)},
	"many changes":   {Changes: make([]journal.Change, journal.MaxChanges)},
	"largest change": {Changes: []journal.Change{{Key: strings.Repeat("k", journal.MaxChangeKey), Value: make([]byte, journal.MaxChangeValue)}}},
	"long":           {Text: strings.Repeat("x", 70000)},
	"largest": {Text: strings.Repeat("x", journal.MaxEntryBytes-
		len("\x00"+"\x01"+"\x00"+"\x00\x00"+"\x00"+"\x00"+"\x00"+"\xf4\xff\x0f"+"\x00"))},
}

func TestRoundTrip(t *testing.T) {
	for name, want := range entries {
		t.Run(name, func(t *testing.T) {
			const before = "before"
			b, err := codec.AppendEntry([]byte(before), &want)
			if err != nil {
				t.Fatalf("append: %v", err)
			}
			body, ok := strings.CutPrefix(string(b), before)
			if !ok {
				t.Errorf("got %.20q, want %q kept before the body", b, before)
			}
			var got journal.Entry
			if err := codec.DecodeEntry(&got, 7, body); err != nil {
				t.Fatalf("decode: %v", err)
			}
			want.Seq = 7
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
}

// TestGolden pins the layout. The stores' formats build on it: a change here
// is a new version of each.
func TestGolden(t *testing.T) {
	const full = "\x2401932f3a-0000-7000-8000-00000000abcd" + // id
		"\x03" + // redacted
		"\x02" + "\x08wordlist\x12A word was masked.\x0fplugin:wordlist" + "\x00\x00\x00" + // two reasons
		"\x01" + // message
		"\xf6\xa1\xf5\xb3\xe8\x64" + // time, zigzag
		"\x07žaneta" + "\x03n-1" + "\x11hello, wörld ✓" +
		"\x03" + "\x08settings\x03{}" + "\x07ban/bob\x00" + "\x05empty\x01" // three changes
	const words = "\x011" + "\x00\x08deferred" + "\x00" + "\x00\x08reaction" + "\x00" + "\x00\x00\x00" + "\x00"
	for name, want := range map[string]string{"full": full, "unknown words": words} {
		t.Run(name, func(t *testing.T) {
			e := entries[name]
			if got, err := codec.AppendEntry(nil, &e); string(got) != want || err != nil {
				t.Errorf("got  %q, %v\nwant %q", got, err, want)
			}
		})
	}
}

// TestAnswer checks that an entry begins with its answer.
func TestAnswer(t *testing.T) {
	for name, e := range entries {
		t.Run(name, func(t *testing.T) {
			answer := codec.AppendAnswer(nil, e.ID, e.Outcome, e.Reasons)
			if body, err := codec.AppendEntry(nil, &e); err != nil || !strings.HasPrefix(string(body), string(answer)) {
				t.Errorf("got entry %.80q, %v, want it to begin with %.80q", body, err, answer)
			}
			d := codec.NewDecoder(string(answer))
			id, outcome, reasons := d.Answer()
			if err := d.End(); err != nil || id != e.ID || outcome != e.Outcome || !reflect.DeepEqual(reasons, e.Reasons) {
				t.Errorf("got %q, %q, %+v, %v, want those of %+v", id, outcome, reasons, err, e)
			}
		})
	}
}

func TestTooLarge(t *testing.T) {
	largest := entries["largest"]
	largest.Text += "x"
	for name, e := range map[string]journal.Entry{
		"id":           {ID: chat.MessageID(strings.Repeat("i", journal.MaxID+1))},
		"reasons":      {Reasons: make([]chat.Reason, journal.MaxReasons+1)},
		"changes":      {Changes: make([]journal.Change, journal.MaxChanges+1)},
		"change key":   {Changes: []journal.Change{{Key: strings.Repeat("k", journal.MaxChangeKey+1)}}},
		"change value": {Changes: []journal.Change{{Value: make([]byte, journal.MaxChangeValue+1)}}},
		"all together": largest,
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := codec.AppendEntry([]byte("before"), &e); !errors.Is(err, journal.ErrTooLarge) || string(got) != "before" {
				t.Errorf("got %.20q, %v, want ErrTooLarge and nothing appended", got, err)
			}
		})
	}
}

// TestReviewGolden pins the layout of reviews, and that a word that had no byte
// when it was stored still reads the same.
func TestReviewGolden(t *testing.T) {
	want := journal.Review{Entry: entries["full"], Appeal: true, Record: "9f86d0", By: "mod", Decided: 7}
	want.Entry.Outcome = chat.Held
	want.Entry.Seq = 0
	got, err := codec.AppendReview([]byte("before"), &want)
	if err != nil {
		t.Fatal(err)
	}
	entry, err := codec.AppendEntry(nil, &want.Entry)
	if err != nil {
		t.Fatal(err)
	}
	body := string(binary.AppendUvarint(nil, uint64(len(entry)))) + string(entry) + "\x01" + "\x069f86d0" + "\x03mod" + "\x0e"
	if string(got) != "before"+body {
		t.Errorf("got  %q\nwant %q", got, "before"+body)
	}
	var r journal.Review
	if err := codec.DecodeReview(&r, body); err != nil || !reflect.DeepEqual(r, want) {
		t.Errorf("got %+v, %v, want %+v", r, err, want)
	}
	for n := range body {
		if err := codec.DecodeReview(&r, body[:n]); !errors.Is(err, codec.ErrMalformed) {
			t.Errorf("cut to %d bytes: got %v, want ErrMalformed", n, err)
		}
	}
	var e journal.Entry
	const spelled = "\x00" + "\x00\x04held" + "\x00" + "\x01" + "\x00\x00\x00\x00" + "\x00"
	if err := codec.DecodeEntry(&e, 1, spelled); err != nil || e.Outcome != chat.Held {
		t.Errorf("held, spelled out: got %q, %v, want it read", e.Outcome, err)
	}
	for name, bad := range map[string]journal.Review{
		"digest": {Record: strings.Repeat("f", journal.MaxID+1)},
		"name":   {By: chat.UserID(strings.Repeat("m", journal.MaxID+1))},
		"entry":  {Entry: journal.Entry{Text: strings.Repeat("x", journal.MaxEntryBytes)}},
	} {
		if b, err := codec.AppendReview([]byte("b"), &bad); !errors.Is(err, journal.ErrTooLarge) || string(b) != "b" {
			t.Errorf("%s too long: got %d bytes, %v, want ErrTooLarge", name, len(b), err)
		}
	}
}

func TestMalformed(t *testing.T) {
	e := entries["full"]
	full, err := codec.AppendEntry(nil, &e)
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]string{
		"longer":                 string(full) + "\x00",
		"beyond the bound":       strings.Repeat("\x00", journal.MaxEntryBytes+1),
		"unknown kind":           "\x00\x01\x00\x05\x00\x00\x00\x00\x00",
		"unknown outcome":        "\x00\x06\x00\x01\x00\x00\x00\x00\x00",
		"length beyond 64 bits":  "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02\x01\x00\x01\x00\x00\x00\x00\x00",
		"endless length":         strings.Repeat("\x80", 20),
		"count beyond the body":  "\x00\x01\xff\xff\xff\xff\x0f",
		"count beyond the bound": "\x00\x01\x81\x08" + strings.Repeat("\x00", 3*(journal.MaxReasons+1)) + "\x01\x00\x00\x00\x00\x00",
		"value beyond the body":  "\x00\x01\x00\x01\x00\x00\x00\x00\x01\x00\x03v",
	}
	for n := range full {
		tests[fmt.Sprintf("cut to %d bytes", n)] = string(full[:n])
	}
	for name, body := range tests {
		t.Run(name, func(t *testing.T) {
			var e journal.Entry
			if err := codec.DecodeEntry(&e, 1, body); !errors.Is(err, codec.ErrMalformed) {
				t.Errorf("got %v, want ErrMalformed", err)
			}
		})
	}
}

// TestDecodingCopiesNoText pins what makes reading cheap.
func TestDecodingCopiesNoText(t *testing.T) {
	body := message(t)
	var e journal.Entry
	if n := testing.AllocsPerRun(100, func() {
		if err := codec.DecodeEntry(&e, 1, body); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("got %v allocations for a message without reasons, want 0", n)
	}
}

// FuzzEntry decodes bodies. Nothing may panic, and what decodes must encode to
// something that decodes to the same.
func FuzzEntry(f *testing.F) {
	for _, e := range entries {
		b, err := codec.AppendEntry(nil, &e)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(b))
	}
	f.Fuzz(func(t *testing.T, body string) {
		var e, again journal.Entry
		if codec.DecodeEntry(&e, 7, body) != nil {
			return
		}
		b, err := codec.AppendEntry(nil, &e)
		if errors.Is(err, journal.ErrTooLarge) { // decoding bounds the whole, not each part
			return
		}
		if err == nil {
			err = codec.DecodeEntry(&again, 7, string(b))
		}
		if err != nil || !reflect.DeepEqual(again, e) {
			t.Errorf("got %+v, %v, want %+v", again, err, e)
		}
	})
}

// message is the body of a chat message of ordinary length.
func FuzzReview(f *testing.F) {
	for _, e := range entries {
		e.Seq = 0
		b, err := codec.AppendReview(nil, &journal.Review{Entry: e, Record: "d", By: "mod", Decided: 5})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(b))
	}
	f.Add("\xff\x01")
	f.Fuzz(func(t *testing.T, body string) {
		var r, again journal.Review
		if codec.DecodeReview(&r, body) != nil {
			return
		}
		b, err := codec.AppendReview(nil, &r)
		if errors.Is(err, journal.ErrTooLarge) { // decoding bounds the whole, not each part
			return
		}
		if err := codec.DecodeReview(&again, string(b)); err != nil || !reflect.DeepEqual(r, again) {
			t.Errorf("decoded %+v, then %+v, %v", r, again, err)
		}
	})
}

func message(t testing.TB) string {
	e := ordinary()
	b, err := codec.AppendEntry(nil, &e)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func ordinary() journal.Entry {
	return journal.Entry{
		ID: "01932f3a-0000-7000-8000-00000000abcd", Kind: journal.KindMessage, From: "ann", Time: 1732000000123,
		Nonce: "01932f3a-0000-7000-8000-00000000ffff", Text: strings.Repeat("x", 120), Outcome: chat.Accepted,
	}
}

func BenchmarkAppendEntry(b *testing.B) {
	e := ordinary()
	buf := make([]byte, 0, 1024)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := codec.AppendEntry(buf, &e); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecodeEntry(b *testing.B) {
	body := message(b)
	var e journal.Entry
	b.ReportAllocs()
	for b.Loop() {
		if err := codec.DecodeEntry(&e, 1, body); err != nil {
			b.Fatal(err)
		}
	}
}
