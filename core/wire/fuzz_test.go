package wire_test

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"parley/core/chat"
	"parley/core/journal"
	"parley/core/wire"
)

// FuzzDecode: no frame makes Decode panic or answer with something a client
// could not be sent, and what Decode takes means the same when written out
// and read again. The schema agrees with every frame that is taken.
func FuzzDecode(f *testing.F) {
	for _, tc := range commandVectors {
		f.Add([]byte(tc.frame))
	}
	for _, s := range []string{
		"\xff", `{"type":"send","room":"lobby","text":"` + "\xed\xa0\x80" + `"}`, "\xef\xbb\xbf{}",
		`{"type":"ping","ts":1e3}`, `{"type":"ping","ts":9223372036854775808}`, `{"TYPE":"ping"}`,
		`{"type":"hello","guest":null}`, `{"type":"join","rooms":[]}`, `{"type":"join","rooms":[{}]}`,
		`{"type":"send","room":"` + strings.Repeat("r", 65) + `","text":"x"}`, "{\"type\":\"ping\"}\n",
		strings.Repeat(`{"a":`, 12_000) + "1" + strings.Repeat("}", 12_000),
	} {
		f.Add([]byte(s))
	}
	schema := schemaFor(f, "command", false)
	f.Fuzz(func(t *testing.T, frame []byte) {
		c, err := wire.Decode(frame)
		if len(c.ID) > wire.MaxCommandID {
			t.Errorf("id of %d bytes would be echoed", len(c.ID))
		}
		if err != nil {
			checkRefusal(t, c, err)
			return
		}
		if verr := validate(schema, string(frame)); verr != nil {
			t.Errorf("schema refuses a frame that Decode takes: %v", verr)
		}
		again := c
		if c.Type == wire.Join { // Decode turns room and since into rooms
			again.Room, again.Since = "", nil
		}
		c2, err := wire.Decode(marshal(t, again))
		if err != nil {
			t.Fatalf("decode of %s: %v", marshal(t, again), err)
		}
		if !reflect.DeepEqual(c2, again) {
			t.Errorf("round trip: got %+v, want %+v", c2, again)
		}
	})
}

// checkRefusal: what is refused is refused in words a client may see.
func checkRefusal(t *testing.T, c wire.Command, err *chat.Error) {
	t.Helper()
	if err.Code != chat.CodeBadRequest && err.Code != chat.CodeUnknownType {
		t.Errorf("got code %s", err.Code)
	}
	if len(err.Text) > 512 || !utf8.ValidString(err.Text) {
		t.Errorf("error text of %d bytes is not fit for a client: %q", len(err.Text), err.Text)
	}
	var ev wire.ErrorEvent
	if jerr := json.Unmarshal(wire.Encode(wire.ErrorOf(c.ID, "", err)).JSON(), &ev); jerr != nil || ev.Code != err.Code || ev.ID != c.ID {
		t.Errorf("the answer does not encode: %+v, %v", ev, jerr)
	}
}

// FuzzEncodeEntry: the hand-written encoder says what the general one says,
// for every entry the journal may hold.
func FuzzEncodeEntry(f *testing.F) {
	f.Add("hi", "ann", goldenNonce, uint64(43), int64(1764000000123), false)
	f.Add("\x00\"\\\u2028<&>\x7f😀", "Zoë", "", uint64(1), int64(0), true)
	f.Add("", "", "", ^uint64(0), int64(-1), false)
	f.Add("half \xed\xa0\x80 a surrogate \xff", "ann", "n", uint64(2), int64(5), false)
	f.Add(strings.Repeat("\x01", 20_000), "ann", "n", uint64(3), int64(5), false)
	f.Fuzz(func(t *testing.T, text, from, nonce string, seq uint64, ts int64, redacted bool) {
		e := &journal.Entry{Seq: seq, ID: goldenID, Kind: journal.KindMessage, From: chat.UserID(from),
			Time: ts, Nonce: nonce, Text: text, Outcome: chat.Accepted}
		if redacted {
			e.Outcome = chat.Redacted
		}
		got := string(wire.EncodeEntry("lobby", e).JSON())
		if !json.Valid([]byte(got)) || !utf8.ValidString(got) {
			t.Fatalf("got %q, which no client can read", got)
		}
		for _, s := range []*string{&text, &from, &nonce} {
			*s = strings.ToValidUTF8(*s, "\uFFFD")
		}
		if text != e.Text || from != string(e.From) || nonce != e.Nonce {
			return // EncodeEntry mends what is not UTF-8, Encode refuses it
		}
		if want := string(wire.Encode(wire.EventOf("lobby", e)).JSON()); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	})
}

// FuzzFrame: a parser written from RFC 6455 §5.2, which shares no code with
// the encoder, reads the payload back.
func FuzzFrame(f *testing.F) {
	for _, n := range []int{0, 1, 124, 125, 126, 127, 65534, 65535, 65536, 70000} {
		f.Add(n)
	}
	f.Fuzz(func(t *testing.T, n int) {
		if n < 0 || n > 200_000 {
			return
		}
		checkFrame(t, n)
	})
}
