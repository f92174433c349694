package absent_test

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"parley/core/absent"
	"parley/core/chat"
	"parley/core/journal"
)

func TestMentions(t *testing.T) {
	var many, ten []string
	for i := range 12 {
		many = append(many, fmt.Sprintf("@u%d", i))
	}
	for i := range 10 {
		ten = append(ten, fmt.Sprintf("u%d", i))
	}
	for _, tc := range []struct {
		name, text string
		want       []string
	}{
		{"nobody", "hello", nil},
		{"one", "@bob", []string{"bob"}},
		{"in a sentence", "hey @bob, are you there?", []string{"bob"}},
		{"at its end", "ask @bob.", []string{"bob"}},
		{"before a colon", "@bob: look", []string{"bob"}},
		{"in brackets", "(@bob)", []string{"bob"}},
		{"in quotes", "“@zoë”", []string{"zoë"}},
		{"names of more than letters", "@a.b-c_d+1 @7 @李", []string{"a.b-c_d+1", "7", "李"}},
		{"a mark is part of a name", "@नमस्ते", []string{"नमस्ते"}},
		{"mail", "write to ann@example.org", nil},
		{"mail of a name", "@ann@example.org", []string{"ann@example.org"}},
		{"glued to a word", "x@bob é@bob 1@bob _@bob", nil},
		{"twice", "@bob @bob @ann", []string{"bob", "ann"}},
		{"spelled otherwise", "@bob @Bob", []string{"bob", "Bob"}},
		{"alone", "@ @@ @, @-bob", nil},
		{"lines", "@a\n@b\t@c", []string{"a", "b", "c"}},
		{"masked", "@*** hello", nil},
		{"not UTF-8", "@bob\xff@ann \xff@cat", []string{"bob", "ann", "cat"}},
		{"too long a name", "@" + strings.Repeat("a", 65) + " @bob", []string{"bob"}},
		{"the longest", "@" + strings.Repeat("a", 64), []string{strings.Repeat("a", 64)}},
		{"more than ten", strings.Join(many, " "), ten},
	} {
		var got []string
		for _, u := range absent.Mentions(tc.text) {
			got = append(got, string(u))
		}
		if !slices.Equal(got, tc.want) {
			t.Errorf("%s: %q: got %q, want %q", tc.name, tc.text, got, tc.want)
		}
	}
}

func FuzzMentions(f *testing.F) {
	for _, s := range []string{"@bob", "a@b @c.", "@@", "@zoë\xff", "(@李)"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		names := absent.Mentions(s)
		if len(names) > absent.MaxMentions {
			t.Fatalf("%d names", len(names))
		}
		for i, u := range names {
			if !chat.ValidUser(u) || slices.Contains(names[:i], u) || !strings.Contains(s, "@"+string(u)) {
				t.Fatalf("%q in %q", u, s)
			}
		}
	})
}

var (
	entry  = journal.Entry{ID: "0197c5f0-8001-7d4c-ae5f-6c2a1b3d5e7f", From: "ann", Time: 1764000000123, Text: "hi @bob \"<&>\""}
	notify = []journal.Notice{{User: "bob", Kind: journal.NoticeMention}, {User: "Zoë", Kind: journal.NoticeDirect}}
)

func TestParcel(t *testing.T) {
	for _, text := range []bool{false, true} {
		b, err := absent.Pack(&entry, notify, text)
		if err != nil {
			t.Fatal(err)
		}
		got, err := absent.Unpack("lobby", "9f3c01d2 42 "+string(b))
		if err != nil {
			t.Fatal(err)
		}
		want := absent.Entry{Room: "lobby", Epoch: "9f3c01d2", Seq: 42, ID: entry.ID, From: "ann", Time: entry.Time}
		if text {
			want.Text = entry.Text
		}
		for i, n := range notify {
			want.User, want.Kind = n.User, n.Kind
			if got[i] != want {
				t.Errorf("got %+v\nwant %+v", got[i], want)
			}
		}
	}
	long := entry
	long.Text = strings.Repeat("\x01", 200<<10)
	if _, err := absent.Pack(&long, notify, true); err == nil {
		t.Error("a parcel beyond the bound: got no error")
	}
}

func TestUnpackRefuses(t *testing.T) {
	good, err := absent.Pack(&entry, notify, false)
	if err != nil {
		t.Fatal(err)
	}
	for name, s := range map[string]string{
		"empty":          "",
		"no seq":         "e",
		"seq 0":          "e 0 " + string(good),
		"seq no number":  "e x " + string(good),
		"no epoch":       " 1 " + string(good),
		"long epoch":     strings.Repeat("e", 65) + " 1 " + string(good),
		"no JSON":        "e 1 x",
		"more JSON":      "e 1 " + string(good) + "{}",
		"nobody":         `e 1 {"id":"m","from":"ann","ts":1,"to":[]}`,
		"too many":       `e 1 {"id":"m","from":"ann","ts":1,"to":[` + strings.Repeat(`{"user":"bob","kind":"mention"},`, 11) + `{"user":"bob","kind":"mention"}]}`,
		"strange user":   `e 1 {"id":"m","from":"ann","ts":1,"to":[{"user":"b b","kind":"mention"}]}`,
		"strange author": `e 1 {"id":"m","from":"","ts":1,"to":[{"user":"bob","kind":"mention"}]}`,
		"strange kind":   `e 1 {"id":"m","from":"ann","ts":1,"to":[{"user":"bob","kind":"x"}]}`,
		"no id":          `e 1 {"from":"ann","ts":1,"to":[{"user":"bob","kind":"mention"}]}`,
		"too long":       "e 1 " + strings.Repeat(" ", 1<<20) + string(good),
	} {
		if es, err := absent.Unpack("lobby", s); err == nil {
			t.Errorf("%s: got %+v", name, es)
		}
	}
	if _, err := absent.Unpack("No Room", "e 1 "+string(good)); err == nil {
		t.Error("no room: got no error")
	}
}

// fieldsOf is an entry as the stream has it.
func fieldsOf(e absent.Entry) (kv []string) {
	for _, v := range e.AppendFields(nil) {
		kv = append(kv, fmt.Sprint(v))
	}
	return kv
}

func TestFields(t *testing.T) {
	want := absent.Entry{Room: "lobby", Epoch: "e", Seq: 1<<63 + 1, ID: "m", From: "ann", User: "Zoë", Kind: journal.NoticeDirect, Time: -1, Texted: true}
	kv := fieldsOf(want)
	if len(kv) != absent.Fields {
		t.Errorf("got %d names and values, want %d", len(kv), absent.Fields)
	}
	got, err := absent.ParseFields(append(kv, "colour", "red"))
	if err != nil || got != want {
		t.Errorf("got %+v, %v\nwant %+v", got, err, want)
	}
	old := append(slices.Clone(kv[:len(kv)-2]), "text", "hi") // as an earlier version has it
	if got, err := absent.ParseFields(old); err != nil || got.Text != "hi" || got.Texted {
		t.Errorf("got %+v, %v, want the text that lies in the stream", got, err)
	}
	for i := 0; i < len(kv); i += 2 {
		if kv[i] == "texted" { // may be absent
			continue
		}
		bad := slices.Clone(kv)
		bad[i+1] = ""
		if _, err := absent.ParseFields(bad); err == nil {
			t.Errorf("%s is empty: got no error", kv[i])
		}
	}
	for name, kv := range map[string][]string{"odd": {"room"}, "nothing": nil, "much": make([]string, 200)} {
		if _, err := absent.ParseFields(kv); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
}

// TestKey: one key for one message to one person, whatever else changes.
func TestKey(t *testing.T) {
	a := absent.Entry{Room: "lobby", Epoch: "e", Seq: 1, ID: "m", From: "ann", User: "bob", Kind: journal.NoticeMention}
	same := a
	same.Epoch, same.Seq, same.Text = "f", 9, "hi"
	if a.Key() != same.Key() {
		t.Error("the key depends on what may change")
	}
	if k := a.Key(); !regexp.MustCompile(`^msg_[0-9A-V]{24}$`).MatchString(k) {
		t.Errorf("got key %q", k)
	}
	other, direct := a, a
	other.User, direct.Kind = "bo", journal.NoticeDirect
	if a.Key() == other.Key() || a.Key() == direct.Key() {
		t.Error("two have one key")
	}
}

func TestKeysAreInTheSlotsTheyShouldBe(t *testing.T) {
	k := absent.KeysOf("p")
	for _, key := range []string{k.Rooms, k.Stream, k.Dead, k.Tries, k.Counts} {
		if !strings.HasPrefix(key, "p:{absent}:") {
			t.Errorf("got %s", key)
		}
	}
	for _, key := range []string{k.Outbox("lobby"), k.Lost("lobby"), k.Carrying("lobby")} {
		if !strings.HasPrefix(key, "p:{lobby}:") {
			t.Errorf("got %s", key)
		}
	}
}

func FuzzUnpack(f *testing.F) {
	good, err := absent.Pack(&entry, notify, true)
	if err != nil {
		f.Fatal(err)
	}
	f.Add("9f3c01d2 42 " + string(good))
	f.Add(`e 1 {"id":"m","from":"ann","ts":1,"to":[{"user":"bob","kind":"mention"}]}`)
	f.Add("e 1 {}")
	f.Fuzz(func(t *testing.T, s string) {
		es, err := absent.Unpack("lobby", s)
		if err != nil {
			return
		}
		for _, e := range es {
			again, err := absent.ParseFields(fieldsOf(e))
			e.Text, e.Texted = "", e.Text != "" // which lies apart
			if err != nil || again != e {
				t.Fatalf("%+v: the stream gives back %+v, %v", e, again, err)
			}
		}
	})
}

func FuzzParseFields(f *testing.F) {
	f.Add("room\x00lobby\x00seq\x001\x00epoch\x00e\x00id\x00m\x00from\x00ann\x00user\x00bob\x00kind\x00mention\x00time\x001\x00texted\x001")
	f.Add("room\x00lobby")
	f.Fuzz(func(t *testing.T, s string) {
		e, err := absent.ParseFields(strings.Split(s, "\x00"))
		if err == nil && (!chat.ValidUser(e.User) || !chat.ValidRoom(e.Room) || e.Seq == 0) {
			t.Fatalf("took %+v", e)
		}
	})
}

func TestStrip(t *testing.T) {
	b, err := absent.Pack(&entry, notify, true)
	if err != nil {
		t.Fatal(err)
	}
	whole := "9f3c01d2 42 " + string(b)
	yes := func(id chat.MessageID, from chat.UserID) bool { return id == entry.ID && from == "ann" }
	got, changed := absent.Strip(whole, yes)
	want, err := absent.Unpack("lobby", whole)
	if err != nil {
		t.Fatal(err)
	}
	for i := range want {
		want[i].Text = ""
	}
	if es, err := absent.Unpack("lobby", got); !changed || err != nil || !slices.Equal(es, want) {
		t.Errorf("got %v, %+v, %v\nwant %+v", changed, es, err, want)
	}
	for name, s := range map[string]string{"again": got, "no parcel": "e x", "not JSON": "e 1 {"} {
		if anew, changed := absent.Strip(s, yes); changed || anew != s {
			t.Errorf("%s: got %q, %v, want it left alone", name, anew, changed)
		}
	}
	if anew, changed := absent.Strip(whole, func(chat.MessageID, chat.UserID) bool { return false }); changed || anew != whole {
		t.Errorf("another's: got %q, %v", anew, changed)
	}
}

func TestNote(t *testing.T) {
	want := absent.Note{Entry: absent.Entry{Room: "lobby", Epoch: "e", Seq: 7, ID: "m", From: "ann", User: "Zoë", Kind: journal.NoticeDirect, Time: 5, Text: "hi", Texted: true}}
	for _, dead := range []*absent.Death{nil, {Reason: "410 Gone", Tries: 3, Died: time.UnixMilli(1764000000123).UTC()}} {
		want.Dead = dead
		b, err := absent.AppendNote(nil, &want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := absent.ParseNote(b)
		if err != nil || got.Entry != want.Entry || (got.Dead == nil) != (dead == nil) || dead != nil && *got.Dead != *dead {
			t.Errorf("got %+v, %v\nwant %+v", got, err, want)
		}
	}
	long := want
	long.Text = strings.Repeat("\x01", journal.MaxEntryBytes) // six bytes each
	if b, err := absent.AppendNote(nil, &long); err != nil {
		t.Errorf("the longest text: %v", err)
	} else if got, err := absent.ParseNote(b); err != nil || got.Text != long.Text {
		t.Errorf("the longest text comes back with %d bytes, %v", len(got.Text), err)
	}
	long.Text += "x"
	if _, err := absent.AppendNote(nil, &long); err == nil {
		t.Error("a note beyond the bound: got no error")
	}
	for name, d := range map[string]absent.Death{"reason": {Reason: strings.Repeat("x", 2000)}, "tries": {Tries: -1}, "died": {Died: time.UnixMilli(1 << 60)}} {
		n := want
		n.Dead = &d
		if _, err := absent.AppendNote(nil, &n); err == nil {
			t.Errorf("%s: got no error, and ParseNote would have one", name)
		}
	}
	for name, s := range map[string]string{
		"empty": "", "no room": `{"room":"No Room"}`, "more": `{}{}`, "long": strings.Repeat(" ", absent.MaxNote+1),
		"dead": `{"room":"lobby","epoch":"e","seq":1,"id":"m","from":"ann","user":"bob","kind":"direct","ts":1,"dead":{"tries":-1}}`,
	} {
		if n, err := absent.ParseNote([]byte(s)); err == nil {
			t.Errorf("%s: got %+v", name, n)
		}
	}
}

func FuzzParseNote(f *testing.F) {
	f.Add([]byte(`{"room":"lobby","epoch":"e","seq":1,"id":"m","from":"ann","user":"bob","kind":"direct","ts":1,"text":"x","dead":{"reason":"no","tries":1,"died":"2026-11-01T00:00:00Z"}}`))
	f.Add([]byte(`{"room":"lobby"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := absent.ParseNote(b)
		if err != nil {
			return
		}
		again, err := absent.AppendNote(nil, &n)
		if err != nil {
			return // escaped, it is longer
		}
		if m, err := absent.ParseNote(again); err != nil || m.Entry != n.Entry {
			t.Fatalf("%+v comes back as %+v, %v", n, m, err)
		}
	})
}
