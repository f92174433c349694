package disk

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"

	"parley/core/chat"
	"parley/core/journal"
)

// sampleEntries have every field in every form.
var sampleEntries = map[string]journal.Entry{
	"empty": {},
	"message": {
		ID: "01932f3a-0000-7000-8000-00000000abcd", Kind: journal.KindMessage, From: "ann", Time: 1732000000123,
		Nonce: "n1", Text: "hello, wörld", Outcome: chat.Accepted,
	},
	"redacted": {
		ID: "01932f3a-0000-7000-8000-00000000abcd", Kind: journal.KindMessage, From: "ann", Time: -1, Outcome: chat.Redacted,
		Reasons: []chat.Reason{{Code: "a", Text: "b", Source: "c"}, {}},
	},
	"changes": {
		ID: "x", Kind: journal.KindRole,
		Changes: []journal.Change{{Key: "role/ann", Value: []byte("owner")}, {Key: "gone"}, {Key: "empty", Value: []byte{}}},
	},
	"unknown words":          {ID: "1", Kind: "reaction", Outcome: "held"},
	"upper-case id is text":  {ID: "01932F3A-0000-7000-8000-00000000ABCD"},
	"almost a uuid":          {ID: "01932f3a-0000-7000-8000-00000000abcg"},
	"dashes in wrong places": {ID: "01932f3a000-0-7000-8000-00000000abcd"},
	"long":                   {Text: strings.Repeat("x", 70000)},
}

func TestEntryRoundTrip(t *testing.T) {
	key := entryKey(nil, "lobby", 1, 7)
	for name, want := range sampleEntries {
		t.Run(name, func(t *testing.T) {
			rec := seal(key, appendEntry(nil, &want))
			body, err := unseal(key, rec)
			if err != nil {
				t.Fatalf("unseal: %v", err)
			}
			var got journal.Entry
			if _, err := decodeEntry(&got, 7, body, nil); err != nil {
				t.Fatalf("decode: %v", err)
			}
			want.Seq = 7
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
}

// TestRecordGolden pins the file format: a change here needs a migration.
func TestRecordGolden(t *testing.T) {
	e := sampleEntries["message"]
	got := seal(entryKey(nil, "lobby", 1, 7), appendEntry(nil, &e))
	want := "\x01" + // version
		"\x01\x01\x93\x2f\x3a\x00\x00\x70\x00\x80\x00\x00\x00\x00\x00\xab\xcd" + // id, as a UUID
		"\x01\x02" + // kind message, outcome accepted
		"\xf6\xa1\xf5\xb3\xe8\x64" + // time, zigzag
		"\x03ann\x02n1\x0dhello, w\xc3\xb6rld" +
		"\x00\x00" // no reasons, no changes
	if body := string(got[:len(got)-sumBytes]); body != want {
		t.Errorf("got  %q\nwant %q", body, want)
	}
	if sum, want := got[len(got)-sumBytes:], []byte{0xbc, 0x9a, 0xe3, 0xb8}; !bytes.Equal(sum, want) {
		t.Errorf("got sum %x, want %x", sum, want)
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
	want := head{gen: 300, epoch: "e3", past: []string{"e1", "e2"}, top: 1 << 40, topID: "01932f3a-0000-7000-8000-00000000abcd", first: 9}
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

// FuzzRecords feeds bodies to every decoder. Nothing may panic, and what
// decodes must encode to something that decodes to the same.
func FuzzRecords(f *testing.F) {
	for _, e := range sampleEntries {
		f.Add(appendEntry(nil, &e)[1:])
	}
	r := receipt{at: 5, room: "lobby", gen: 1, user: "ann", nonce: "n", seq: 9, id: "x", outcome: chat.Accepted, reasons: []chat.Reason{{Code: "c"}}}
	f.Add(appendReceipt(nil, &r)[1:])
	h := head{gen: 2, epoch: "e", past: []string{"d"}, top: 5, topID: "01932f3a-0000-7000-8000-00000000abcd", first: 1}
	f.Add(appendSpan(nil, &h)[1:])
	f.Add(appendLineage(nil, &h)[1:])
	f.Fuzz(func(t *testing.T, body []byte) {
		var e, e2 journal.Entry
		if scratch, err := decodeEntry(&e, 1, body, nil); err == nil {
			if _, err := decodeEntry(&e2, 1, appendEntry(nil, &e)[1:], scratch); err != nil || !reflect.DeepEqual(e, e2) {
				t.Errorf("entry: got %+v, %v, want %+v", e2, err, e)
			}
		}
		var r, r2 receipt
		if _, err := decodeReceipt(&r, body, nil); err == nil {
			if _, err := decodeReceipt(&r2, appendReceipt(nil, &r)[1:], nil); err != nil || !reflect.DeepEqual(r, r2) {
				t.Errorf("receipt: got %+v, %v, want %+v", r2, err, r)
			}
		}
		var h, h2 head
		if err := decodeSpan(&h, body); err == nil {
			if err := decodeSpan(&h2, appendSpan(nil, &h)[1:]); err != nil || !reflect.DeepEqual(h, h2) {
				t.Errorf("span: got %+v, %v, want %+v", h2, err, h)
			}
		}
		h, h2 = head{}, head{}
		if err := decodeLineage(&h, body); err == nil {
			if err := decodeLineage(&h2, appendLineage(nil, &h)[1:]); err != nil || !reflect.DeepEqual(h, h2) {
				t.Errorf("lineage: got %+v, %v, want %+v", h2, err, h)
			}
		}
		_, _ = unseal([]byte("key"), body)
	})
}
