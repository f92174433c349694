package disk

import (
	"bytes"
	"errors"
	"reflect"
	"testing"

	"parley/core/chat"
	"parley/core/journal"
	"parley/core/journal/codec"
)

var sampleEntry = journal.Entry{
	ID: "01932f3a-0000-7000-8000-00000000abcd", Kind: journal.KindMessage, From: "ann", Time: 1732000000123,
	Nonce: "n1", Text: "hello, wörld", Outcome: chat.Accepted,
}

// TestRecordGolden pins the file format: a change here needs a migration.
func TestRecordGolden(t *testing.T) {
	key := entryKey(nil, "lobby", 1, 7)
	rec, err := appendEntry(nil, &sampleEntry)
	if err != nil {
		t.Fatal(err)
	}
	const want = "\x01" + // version
		"\x2401932f3a-0000-7000-8000-00000000abcd\x02\x00" + // id, accepted, no reasons
		"\x01" + // kind message
		"\xf6\xa1\xf5\xb3\xe8\x64" + // time, zigzag
		"\x03ann\x02n1\x0dhello, wörld" +
		"\x00" + // no changes
		"\xec\xf0\x01\xa4" // checksum of key and record
	if got := string(seal(key, rec)); got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	var got journal.Entry
	body, err := unseal(key, []byte(want))
	if err == nil {
		err = codec.DecodeEntry(&got, 7, string(body))
	}
	wantEntry := sampleEntry
	wantEntry.Seq = 7
	if err != nil || !reflect.DeepEqual(got, wantEntry) {
		t.Errorf("got %+v, %v, want %+v", got, err, wantEntry)
	}
}

func TestUnseal(t *testing.T) {
	key := []byte("key")
	good := seal(key, []byte{recordVersion, 'b', 'o', 'd', 'y'})
	for _, c := range []struct {
		name     string
		key, rec []byte
		want     error
	}{
		{"good", key, good, nil},
		{"missing", key, nil, errMissing},
		{"short", key, good[:4], errShort},
		{"another key", []byte("kez"), good, errSum},
		{"cut", key, good[:len(good)-1], errSum},
		{"version of the future", key, seal(key, []byte{recordVersion + 1, 'x'}), errVersion},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := unseal(c.key, c.rec); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
	for i := range good {
		for bit := range 8 {
			bad := bytes.Clone(good)
			bad[i] ^= 1 << bit
			if _, err := unseal(key, bad); err == nil {
				t.Errorf("bit %d of byte %d flipped: got no error", bit, i)
			}
		}
	}
}

func TestHeadRoundTrip(t *testing.T) {
	want := head{gen: 300, epoch: "e3", past: []string{"e1", "e2"}, top: 1 << 40, topID: "01932f3a-0000-7000-8000-00000000abcd", first: 9, reviews: 4}
	var got head
	if err := decodeSpan(&got, appendSpan(nil, &want)[1:]); err != nil {
		t.Fatalf("span: %v", err)
	}
	if err := decodeLineage(&got, appendLineage(nil, &want)[1:]); err != nil {
		t.Fatalf("lineage: %v", err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// TestSpanOfSchema1 pins that a room without reviews has the span it always
// had.
func TestSpanOfSchema1(t *testing.T) {
	const old = "\x02id\x01\x05\x02"
	var h head
	if err := decodeSpan(&h, []byte(old)); err != nil || h.gen != 1 || h.top != 5 || h.first != 2 || h.reviews != 0 {
		t.Errorf("got %+v, %v, want generation 1, entries 2 to 5", h, err)
	}
	if got := string(appendSpan(nil, &h)[1:]); got != old {
		t.Errorf("got %q, want %q", got, old)
	}
}

func TestReceiptRoundTrip(t *testing.T) {
	want := sampleReceipt
	var got receipt
	if err := decodeReceipt(&got, appendReceipt(nil, &want)[1:]); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
}

var sampleReceipt = receipt{
	at: 5, room: "lobby", gen: 300, user: "ann", nonce: "n", seq: 1 << 40, id: "01932f3a-0000-7000-8000-00000000abcd",
	outcome: chat.Redacted, reasons: []chat.Reason{{Code: "c", Text: "t", Source: "s"}, {}},
}

// FuzzRecords feeds bodies to every decoder of this package. Nothing may
// panic, and what decodes must encode to something that decodes to the same.
func FuzzRecords(f *testing.F) {
	f.Add(appendReceipt(nil, &sampleReceipt)[1:])
	h := head{gen: 2, epoch: "e", past: []string{"d"}, top: 5, topID: "01932f3a-0000-7000-8000-00000000abcd", first: 1}
	f.Add(appendSpan(nil, &h)[1:])
	f.Add(appendLineage(nil, &h)[1:])
	h.reviews = 3
	f.Add(appendSpan(nil, &h)[1:])
	f.Fuzz(func(t *testing.T, body []byte) {
		var r, r2 receipt
		if decodeReceipt(&r, body) == nil {
			if err := decodeReceipt(&r2, appendReceipt(nil, &r)[1:]); err != nil || !reflect.DeepEqual(r, r2) {
				t.Errorf("receipt: got %+v, %v, want %+v", r2, err, r)
			}
		}
		var h, h2 head
		if decodeSpan(&h, body) == nil {
			if err := decodeSpan(&h2, appendSpan(nil, &h)[1:]); err != nil || !reflect.DeepEqual(h, h2) {
				t.Errorf("span: got %+v, %v, want %+v", h2, err, h)
			}
		}
		h, h2 = head{}, head{}
		if decodeLineage(&h, body) == nil {
			if err := decodeLineage(&h2, appendLineage(nil, &h)[1:]); err != nil || !reflect.DeepEqual(h, h2) {
				t.Errorf("lineage: got %+v, %v, want %+v", h2, err, h)
			}
		}
		key := []byte("key")
		_, _ = unseal(key, body)
		if got, err := unseal(key, seal(key, append([]byte{recordVersion}, body...))); err != nil || !bytes.Equal(got, body) {
			t.Errorf("sealed: got %q, %v, want %q", got, err, body)
		}
	})
}
