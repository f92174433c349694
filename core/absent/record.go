package absent

import (
	"bytes"
	"crypto/sha256"
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"parley/core/chat"
	"parley/core/journal"
)

// Entry is one message for one person.
type Entry struct {
	Room  chat.RoomID        `json:"room"`
	Epoch string             `json:"epoch"`
	Seq   uint64             `json:"seq"`
	ID    chat.MessageID     `json:"id"`
	From  chat.UserID        `json:"from"`
	User  chat.UserID        `json:"user"` // who is not there
	Kind  journal.NoticeKind `json:"kind"`
	Time  int64              `json:"ts"`             // Unix ms at which it was said
	Text  string             `json:"text,omitempty"` // only where absent.text is on
	// Texted says that there was a text, which lies apart from the stream
	// (Keys.Texts) so that it can be erased.
	Texted bool `json:"-"`
}

// Key names the news for ever: the same message for the same person has the same
// key however often it is carried or delivered. It has letters, digits and "_"
// only.
func (e *Entry) Key() string {
	sum := sha256.Sum256([]byte(string(e.ID) + "\x00" + string(e.User) + "\x00" + string(e.Kind)))
	return "msg_" + base32.HexEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:15])
}

// Bounds of what is read.
const (
	maxEpoch  = 64
	maxText   = journal.MaxEntryBytes
	maxParcel = 2 * journal.MaxEntryBytes // JSON may write a byte as six, but texts are far below the bound of an entry
)

// check says what of an entry is not as it should be.
func (e *Entry) check() error {
	switch {
	case !chat.ValidRoom(e.Room):
		return fmt.Errorf("room %.80q is no name of a room", e.Room)
	case !chat.ValidUser(e.User):
		return fmt.Errorf("user %.80q is no name of a user", e.User)
	case !chat.ValidUser(e.From):
		return fmt.Errorf("from %.80q is no name of a user", e.From)
	case e.Kind != journal.NoticeMention && e.Kind != journal.NoticeDirect:
		return fmt.Errorf("kind %.80q is not one of mention, direct", e.Kind)
	case e.ID == "" || len(e.ID) > journal.MaxID:
		return fmt.Errorf("the id has %d bytes, want 1 to %d", len(e.ID), journal.MaxID)
	case e.Epoch == "" || len(e.Epoch) > maxEpoch:
		return fmt.Errorf("the epoch has %d bytes, want 1 to %d", len(e.Epoch), maxEpoch)
	case e.Seq == 0:
		return errors.New("the seq is 0")
	case len(e.Text) > maxText:
		return fmt.Errorf("the text has %d bytes, at most %d are allowed", len(e.Text), maxText)
	}
	return nil
}

// fields are the fields of an entry in the stream, in their order there.
var fields = []string{"room", "seq", "epoch", "id", "from", "user", "kind", "time", "texted"}

// Fields is how many names and values AppendFields adds.
var Fields = 2 * len(fields)

// AppendFields adds the entry as the stream has it: name, value, name, value. The
// text is no part of that.
func (e *Entry) AppendFields(to []any) []any {
	texted := ""
	if e.Texted || e.Text != "" {
		texted = "1"
	}
	return append(to, "room", string(e.Room), "seq", e.Seq, "epoch", e.Epoch, "id", string(e.ID), "from", string(e.From),
		"user", string(e.User), "kind", string(e.Kind), "time", e.Time, "texted", texted)
}

// ParseFields reads what AppendFields wrote; fields it does not know are left
// aside.
func ParseFields(kv []string) (Entry, error) {
	if len(kv)%2 != 0 || len(kv) > 4*len(fields) {
		return Entry{}, fmt.Errorf("it has %d names and values", len(kv))
	}
	m := make(map[string]string, len(fields))
	for i := 0; i < len(kv); i += 2 {
		m[kv[i]] = kv[i+1]
	}
	e := Entry{Room: chat.RoomID(m["room"]), Epoch: m["epoch"], ID: chat.MessageID(m["id"]), From: chat.UserID(m["from"]),
		User: chat.UserID(m["user"]), Kind: journal.NoticeKind(m["kind"]), Texted: m["texted"] != "",
		Text: m["text"]} // of an entry that an earlier version has put there
	var err error
	if e.Seq, err = strconv.ParseUint(m["seq"], 10, 64); err != nil {
		return Entry{}, fmt.Errorf("seq %.80q is no number", m["seq"])
	}
	if e.Time, err = strconv.ParseInt(m["time"], 10, 64); err != nil {
		return Entry{}, fmt.Errorf("time %.80q is no number", m["time"])
	}
	return e, e.check()
}

// parcel is what an outbox has of one entry of the log: "epoch seq JSON", the
// JSON being this.
type parcel struct {
	ID   chat.MessageID `json:"id"`
	From chat.UserID    `json:"from"`
	Time int64          `json:"ts"`
	Text string         `json:"text,omitempty"`
	To   []recipient    `json:"to"`
}

type recipient struct {
	User chat.UserID        `json:"user"`
	Kind journal.NoticeKind `json:"kind"`
}

// Pack makes the part of a parcel that is known before the append: whom the
// entry concerns, with the text or without.
func Pack(e *journal.Entry, notify []journal.Notice, text bool) ([]byte, error) {
	p := parcel{ID: e.ID, From: e.From, Time: e.Time}
	if text {
		p.Text = e.Text
	}
	for _, n := range notify {
		p.To = append(p.To, recipient(n))
	}
	b, err := json.Marshal(p)
	if err == nil && len(b) > maxParcel {
		err = fmt.Errorf("it has %d bytes, at most %d are allowed", len(b), maxParcel)
	}
	if err != nil {
		return nil, fmt.Errorf("pack a message for absent people: %w", err)
	}
	return b, nil
}

// Unpack reads a parcel of the room's outbox: an entry for each person.
func Unpack(room chat.RoomID, s string) ([]Entry, error) {
	if len(s) > maxParcel+2*maxEpoch {
		return nil, fmt.Errorf("it has %d bytes, at most %d are allowed", len(s), maxParcel)
	}
	epoch, seq, p, err := openParcel(s)
	if err != nil {
		return nil, err
	}
	if len(p.To) == 0 || len(p.To) > journal.MaxNotices {
		return nil, fmt.Errorf("it is for %d people, want 1 to %d", len(p.To), journal.MaxNotices)
	}
	es := make([]Entry, len(p.To))
	for i, to := range p.To {
		es[i] = Entry{Room: room, Epoch: epoch, Seq: seq, ID: p.ID, From: p.From, User: to.User, Kind: to.Kind, Time: p.Time, Text: p.Text}
		if err := es[i].check(); err != nil {
			return nil, err
		}
	}
	return es, nil
}

// openParcel takes a parcel apart.
func openParcel(s string) (epoch string, seq uint64, p parcel, err error) {
	epoch, s, _ = strings.Cut(s, " ")
	digits, body, ok := strings.Cut(s, " ")
	seq, err = strconv.ParseUint(digits, 10, 64)
	if !ok || err != nil {
		return "", 0, p, errors.New("it does not begin with an epoch and a seq")
	}
	d := json.NewDecoder(bytes.NewReader([]byte(body)))
	if err := d.Decode(&p); err != nil {
		return "", 0, p, fmt.Errorf("read its JSON: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return "", 0, p, errors.New("something follows its JSON")
	}
	return epoch, seq, p, nil
}

// Strip returns a parcel of an outbox without its text, if erased says so of the
// message and there is one. What cannot be read is no parcel, and is not carried.
func Strip(s string, erased func(id chat.MessageID, from chat.UserID) bool) (anew string, changed bool) {
	epoch, seq, p, err := openParcel(s)
	if err != nil || p.Text == "" || !erased(p.ID, p.From) {
		return s, false
	}
	p.Text = ""
	b, err := json.Marshal(p)
	if err != nil { // what was decoded can be encoded
		return s, false
	}
	return fmt.Sprintf("%s %d %s", epoch, seq, b), true
}
