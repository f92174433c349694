package wire_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"parley/core/chat"
	"parley/core/journal"
	"parley/core/wire"
)

const goldenDir = "testdata/golden"

// vector is one file of testdata/golden: a frame, and what it means. Clients
// in other languages read them too, so the names are part of the contract.
type vector struct {
	About string `json:"about,omitempty"`
	// A command, as the client sends it and as the server understands it; or
	// the error it is answered with.
	Frame   string          `json:"frame,omitempty"`
	Command json.RawMessage `json:"command,omitempty"`
	Error   json.RawMessage `json:"error,omitempty"`
	// An event: the header of its WebSocket frame in hex, and the payload,
	// which is also the TCP line.
	Header string `json:"header,omitempty"`
	Line   string `json:"line,omitempty"`
}

const (
	goldenID    = chat.MessageID("0197c5f0-8001-7d4c-ae5f-6c2a1b3d5e7f")
	goldenNonce = "6f1c4d0e-0b55-4f0e-9f3e-0a4c8a6f2f11"
)

// commandVectors lists every command, and every kind of frame that is none.
var commandVectors = []struct{ name, about, frame string }{
	{"hello-token", "a user with a token", `{"type":"hello","id":"1","token":"eyJhbGciOiJIUzI1NiJ9.e30.x","device":"bot/1.0"}`},
	{"hello-guest", "a guest who comes back", `{"type":"hello","id":"1","guest":"ann","secret":"q1l9sE0PZ2Yw","device":"web"}`},
	{"hello-guest-any", "a guest without a wish", `{"type":"hello","guest":""}`},
	{"hello-unicode", "names are not only ASCII", `{"type":"hello","guest":"Zoë"}`},
	{"join", "one room", `{"type":"join","id":"2","room":"lobby"}`},
	{"join-since", "one room, resumed", `{"type":"join","id":"2","room":"lobby","since":{"epoch":"9f3c01d2","seq":40,"id":"0197c5f0-70aa-7b1c-8a2d-4c0e9f1b3a5d"}}`},
	{"join-rooms", "many rooms, some resumed", `{"type":"join","id":"2","rooms":[{"room":"lobby","since":{"epoch":"9f3c01d2","seq":0}},{"room":"announcements"}]}`},
	{"join-since-nothing", "no position: nothing is recovered", `{"type":"join","rooms":[{"room":"0","since":{}}]}`},
	{"leave", "", `{"type":"leave","id":"3","room":"lobby"}`},
	{"send", "", `{"type":"send","id":"4","room":"lobby","nonce":"` + goldenNonce + `","text":"hi"}`},
	{"send-no-nonce", "the server makes a nonce up", `{"type":"send","room":"lobby","text":"hi"}`},
	{"send-escapes", "every escape of RFC 8259 §7", `{"type":"send","room":"lobby","text":"\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00 é😀"}`},
	{"history", "the newest entries", `{"type":"history","id":"5","room":"lobby"}`},
	{"history-before", "", `{"type":"history","id":"5","room":"lobby","before":43,"limit":50}`},
	{"history-after", "", `{"type":"history","id":"5","room":"lobby","after":12}`},
	{"history-oldest", "the oldest entries", `{"type":"history","id":"5","room":"lobby","after":0}`},
	{"members", "", `{"type":"members","id":"6","room":"lobby"}`},
	{"ping", "", `{"type":"ping","id":"7","ts":1764000000123}`},
	{"pong", "", `{"type":"pong","ts":1764000000123}`},
	{"reviews", "the queue, or one's own held messages", `{"type":"reviews","id":"9","room":"lobby"}`},
	{"review-approve", "", `{"type":"review","id":"10","room":"lobby","review_id":"0197c5f0-8001-7d4c-ae5f-6c2a1b3d5e7f","action":"approve"}`},
	{"review-reject", "", `{"type":"review","id":"10","room":"lobby","review_id":"0197c5f0-8001-7d4c-ae5f-6c2a1b3d5e7f","action":"reject","reason":"no addresses here, please"}`},
	{"appeal", "", `{"type":"appeal","id":"11","room":"lobby","appeal":"K5J2XQWE3NNCTTDXZQ4WQFVBLA","reason":"it is the name of a town"}`},
	{"refresh", "a new token of the same user", `{"type":"refresh","id":"12","token":"eyJhbGciOiJIUzI1NiJ9.e30.y"}`},
	{"typing", "", `{"type":"typing","room":"lobby"}`},
	{"direct", "the room of oneself and another person", `{"type":"direct","id":"22","user":"Zoë"}`},
	{"why", "what keeps oneself from posting", `{"type":"why","id":"21","room":"lobby"}`},
	{"why-text", "this text", `{"type":"why","id":"21","room":"lobby","text":"write to ann@example.org"}`},
	{"why-user", "of another person, for a moderator", `{"type":"why","room":"lobby","user":"Zoë","text":"hi"}`},
	{"configure", "what is absent stays", `{"type":"configure","id":"13","room":"lobby","nonce":"c1","title":"The lobby","mode":"announce","visibility":"private","slow_mode_s":30}`},
	{"configure-off", "the empty title and no slow mode", `{"type":"configure","room":"lobby","title":"","slow_mode_s":0}`},
	{"slow-mode", "", `{"type":"slow_mode","id":"14","room":"lobby","seconds":30}`},
	{"slow-mode-off", "", `{"type":"slow_mode","room":"lobby"}`},
	{"role", "", `{"type":"role","id":"15","room":"lobby","user":"ann","role":"moderator"}`},
	{"role-none", "takes the role away", `{"type":"role","room":"lobby","user":"Zoë","role":"none","reason":"thank you"}`},
	{"kick", "", `{"type":"kick","id":"16","room":"lobby","user":"bob","reason":"please calm down"}`},
	{"ban", "for good", `{"type":"ban","id":"17","room":"lobby","nonce":"b1","user":"bob"}`},
	{"ban-hour", "for an hour", `{"type":"ban","room":"lobby","user":"bob","seconds":3600,"reason":"spam"}`},
	{"unban", "", `{"type":"unban","id":"18","room":"lobby","user":"bob"}`},
	{"mute", "", `{"type":"mute","id":"19","room":"lobby","user":"bob","seconds":600,"reason":"too many capitals"}`},
	{"unmute", "", `{"type":"unmute","id":"20","room":"lobby","user":"bob"}`},
	{"erase", "one's own message, or anybody's for a moderator", `{"type":"erase","id":"22","room":"lobby","nonce":"e1","seq":43,"reason":"by request"}`},
	{"unknown-member", "ignored, so that newer clients may talk to older servers", `{"type":"leave","room":"lobby","colour":{"a":[1]}}`},

	{"bad-direct-nobody", "", `{"type":"direct"}`},
	{"bad-direct-name", "", `{"type":"direct","user":"ann bob"}`},
	{"bad-empty", "no bytes at all", ``},
	{"bad-not-json", "", `hello`},
	{"bad-array", "", `[]`},
	{"bad-truncated", "", `{"type":"send","room":"lob`},
	{"bad-trailing", "anything after the object is refused", `{"type":"ping"}{"type":"ping"}`},
	{"bad-duplicate", "duplicate members are refused", `{"type":"send","room":"lobby","text":"a","text":"b"}`},
	{"bad-wrong-type", "", `{"type":"send","id":"4","room":7,"text":"x"}`},
	{"bad-surrogate", "half a surrogate pair is not text", `{"type":"send","room":"lobby","text":"\ud83d"}`},
	{"bad-no-type", "", `{"id":"1"}`},
	{"bad-unknown-type", "the reply echoes the id", `{"type":"shout","id":"8"}`},
	{"bad-id-long", "", `{"type":"ping","id":"` + strings.Repeat("x", 65) + `"}`},
	{"bad-hello-both", "", `{"type":"hello","id":"1","token":"t","guest":"ann"}`},
	{"bad-hello-neither", "", `{"type":"hello","id":"1"}`},
	{"bad-hello-name", "", `{"type":"hello","id":"1","guest":"ann lee"}`},
	{"bad-hello-device", "", `{"type":"hello","guest":"ann","device":"` + strings.Repeat("d", 129) + `"}`},
	{"bad-hello-secret", "", `{"type":"hello","guest":"ann","secret":"` + strings.Repeat("s", 257) + `"}`},
	{"bad-join-nothing", "", `{"type":"join","id":"2"}`},
	{"bad-join-both", "", `{"type":"join","id":"2","room":"lobby","rooms":[{"room":"lobby"}]}`},
	{"bad-join-twice", "", `{"type":"join","id":"2","rooms":[{"room":"lobby"},{"room":"lobby"}]}`},
	{"bad-join-position", "", `{"type":"join","room":"lobby","since":{"epoch":"` + strings.Repeat("e", 65) + `","seq":1}}`},
	{"bad-room-name", "", `{"type":"leave","id":"3","room":"Lobby"}`},
	{"bad-room-missing", "", `{"type":"members","id":"3"}`},
	{"bad-nonce", "", `{"type":"send","id":"4","room":"lobby","nonce":"a b","text":"x"}`},
	{"bad-send-empty", "", `{"type":"send","id":"4","room":"lobby","text":""}`},
	{"bad-history-both", "", `{"type":"history","id":"5","room":"lobby","before":4,"after":2}`},
	{"bad-history-limit", "", `{"type":"history","id":"5","room":"lobby","limit":1001}`},
	{"bad-review-id", "", `{"type":"review","id":"10","room":"lobby","action":"approve"}`},
	{"bad-review-action", "", `{"type":"review","id":"10","room":"lobby","review_id":"0197c5f0","action":"delete"}`},
	{"bad-review-reason", "", `{"type":"review","id":"10","room":"lobby","review_id":"0197c5f0","action":"reject","reason":"` + strings.Repeat("x", 501) + `"}`},
	{"bad-appeal", "", `{"type":"appeal","id":"11","room":"lobby"}`},
	{"bad-refresh", "", `{"type":"refresh","id":"12"}`},
	{"bad-refresh-long", "", `{"type":"refresh","token":"` + strings.Repeat("t", wire.MaxToken+1) + `"}`},
	{"bad-why-room", "", `{"type":"why","id":"21"}`},
	{"bad-why-user", "", `{"type":"why","id":"21","room":"lobby","user":"bob smith"}`},
	{"bad-configure-nothing", "", `{"type":"configure","id":"13","room":"lobby"}`},
	{"bad-configure-title", "", `{"type":"configure","room":"lobby","title":"` + strings.Repeat("t", 201) + `"}`},
	{"bad-configure-mode", "", `{"type":"configure","room":"lobby","mode":"loud"}`},
	{"bad-configure-mode-empty", "what is empty is not absent", `{"type":"configure","room":"lobby","mode":"","slow_mode_s":0}`},
	{"bad-configure-visibility", "", `{"type":"configure","room":"lobby","visibility":"secret"}`},
	{"bad-configure-slow-mode", "", `{"type":"configure","room":"lobby","slow_mode_s":21601}`},
	{"bad-configure-nonce", "", `{"type":"configure","room":"lobby","title":"x","nonce":"a b"}`},
	{"bad-slow-mode", "", `{"type":"slow_mode","id":"14","room":"lobby","seconds":-1}`},
	{"bad-role", "", `{"type":"role","id":"15","room":"lobby","user":"ann","role":"king"}`},
	{"bad-role-nobody", "", `{"type":"role","room":"lobby","role":"owner"}`},
	{"bad-kick-nobody", "", `{"type":"kick","id":"16","room":"lobby"}`},
	{"bad-kick-name", "", `{"type":"kick","room":"lobby","user":"bob smith"}`},
	{"bad-kick-reason", "", `{"type":"kick","room":"lobby","user":"bob","reason":"` + strings.Repeat("x", 501) + `"}`},
	{"bad-ban-seconds", "", `{"type":"ban","room":"lobby","user":"bob","seconds":315360001}`},
	{"bad-erase-seq", "", `{"type":"erase","id":"22","room":"lobby"}`},
	{"bad-erase-reason", "", `{"type":"erase","room":"lobby","seq":1,"reason":"` + strings.Repeat("x", 501) + `"}`},
	{"bad-seq-negative", "", `{"type":"history","id":"5","room":"lobby","before":-1}`},
}

func TestGoldenCommands(t *testing.T) {
	commands := schemaFor(t, "command", false)
	for _, tc := range commandVectors {
		t.Run(tc.name, func(t *testing.T) {
			c, cerr := wire.Decode([]byte(tc.frame))
			v := vector{About: tc.about, Frame: tc.frame}
			if cerr != nil {
				v.Error = wire.Encode(wire.ErrorOf(c.ID, c.Room, cerr)).JSON()
			} else {
				v.Command = marshal(t, c)
				if err := validate(commands, tc.frame); err != nil {
					t.Errorf("schema refuses what Decode takes: %v", err)
				}
			}
			compare(t, "command-"+tc.name, v)
			if refused := strings.HasPrefix(tc.name, "bad-"); refused != (cerr != nil) {
				t.Errorf("got error %v, want refused %v", cerr, refused)
			}
		})
	}
}

// eventVectors lists every event.
func eventVectors() []struct {
	name, about string
	frame       wire.Frame
} {
	entry := &journal.Entry{Seq: 43, ID: goldenID, Kind: journal.KindMessage, From: "ann",
		Time: 1764000000123, Nonce: goldenNonce, Text: "hi", Outcome: chat.Accepted}
	redacted := *entry
	redacted.Text, redacted.Outcome = "you ****", chat.Redacted
	escapes := *entry
	escapes.Text = "\"\\/\b\f\n\r\t\x00\x1f\x7f<&>\u2028é😀"
	settings := &journal.Entry{Seq: 1, ID: goldenID, Kind: journal.KindSettings, From: "mia", Time: 1764000000000,
		Changes: []journal.Change{{Key: "settings", Value: []byte(`{"mode":"announce","visibility":"public","slow_mode_s":0}`)}}}
	role := &journal.Entry{Seq: 2, ID: goldenID, Kind: journal.KindRole, From: "mia", Time: 1764000000000,
		Changes: []journal.Change{{Key: "role/ann", Value: []byte(`"moderator"`)}}}
	unban := &journal.Entry{Seq: 3, ID: goldenID, Kind: journal.KindBan, From: "mia", Time: 1764000000000,
		Changes: []journal.Change{{Key: "ban/bob"}}}
	kick := &journal.Entry{Seq: 4, ID: goldenID, Kind: journal.KindKick, From: "mia", Time: 1764000000000, Text: "please calm down",
		Changes: []journal.Change{{Key: "role/bob"}}}
	erased := *entry
	erased.Text, erased.Outcome = "", chat.Erased
	erase := &journal.Entry{Seq: 45, ID: goldenID, Kind: journal.KindErase, From: "mia", Time: 1764000009000, Text: "by request", Erases: []uint64{41, 43}}
	reasons := []chat.Reason{{Code: "wordlist", Text: "a word on this server's list was masked", Source: "plugin:wordlist"}}
	long := func(n int) *journal.Entry { e := *entry; e.Text = strings.Repeat("x", n); return &e }
	denied := chat.Errorf(chat.CodeDenied, "the message was refused")
	denied.Reasons = []chat.Reason{{Code: "announce_only", Text: "only moderators write in this room", Source: "policy"}}
	appealable := *denied
	appealable.Reasons, appealable.Appeal = reasons, "K5J2XQWE3NNCTTDXZQ4WQFVBLA"
	recorded := *denied
	recorded.Decision = "06h1f93qbr000001"
	held := journal.Review{Entry: journal.Entry{ID: goldenID, Kind: journal.KindMessage, From: "ann", Time: 1764000000123, Nonce: goldenNonce,
		Text: "write to ann@example.org", Outcome: chat.Held, Reasons: reasons}, Appeal: true, Record: strings.Repeat("0a", 32)}
	rejected := held
	rejected.Entry.Text, rejected.Entry.Outcome, rejected.By, rejected.Decided = "", chat.Rejected, "mia", 1764000060000
	rejected.Entry.Reasons = []chat.Reason{{Code: "rejected", Text: "no addresses here, please", Source: "moderator"}}
	expired := held
	expired.Entry.Text, expired.Entry.Outcome, expired.Decided = "", chat.Expired, 1764604800123
	expired.Entry.Reasons = []chat.Reason{{Code: "expired", Text: "no moderator decided about it within 7 days", Source: "limits"}}
	approved := held
	approved.Entry.Text, approved.Entry.Outcome, approved.Entry.Reasons, approved.By, approved.Decided = "", chat.Accepted, nil, "mia", 1764000060000
	limits := wire.Limits{FrameBytes: 65536, TextBytes: 4096, CommandsPerSecond: 20, RoomsPerConnection: 200, HistoryEntries: 200}
	return []struct {
		name, about string
		frame       wire.Frame
	}{
		{"welcome-guest", "", wire.Encode(wire.WelcomeEvent{Type: wire.Welcome, ID: "1", Protocol: 1, User: "ann", Class: chat.ClassGuest, Session: "0197c5f0a1b2", Secret: "q1l9sE0PZ2Yw", HeartbeatMS: 15000, ReconnectJitterMS: 5000, Limits: limits})},
		{"welcome-user", "", wire.Encode(wire.WelcomeEvent{Type: wire.Welcome, Protocol: 1, User: "mia", Class: chat.ClassUser, Roles: []string{"moderator"}, Session: "0197c5f0a1b3", HeartbeatMS: 15000, ReconnectJitterMS: 5000})},
		{"joined", "", wire.Encode(wire.JoinedEvent{Type: wire.Joined, ID: "2", Room: "lobby", Epoch: "9f3c01d2", Seq: 43, LastID: goldenID, Title: "Lobby", Mode: "open", Count: 3})},
		{"joined-recovered", "", wire.Encode(wire.JoinedEvent{Type: wire.Joined, Room: "announcements", Epoch: "9f3c01d2", Seq: 43, LastID: goldenID, Recovered: true, Mode: "announce", SlowModeS: 30, Role: "moderator", Count: 1})},
		{"joined-private", "a room that not everybody may join", wire.Encode(wire.JoinedEvent{Type: wire.Joined, Room: "team", Epoch: "9f3c01d2", Seq: 1, LastID: goldenID, Mode: "open", Visibility: "private", Role: "owner", Count: 1})},
		{"joined-empty", "a room without entries", wire.Encode(wire.JoinedEvent{Type: wire.Joined, Room: "new", Epoch: "9f3c01d2", Mode: "open", Count: 1})},
		{"welcome-expires", "the token ends", wire.Encode(wire.WelcomeEvent{Type: wire.Welcome, ID: "1", Protocol: 1, User: "mia", Class: chat.ClassUser, Session: "0197c5f0a1b3", ExpiresTS: 1764003600000, HeartbeatMS: 15000, ReconnectJitterMS: 5000})},
		{"refreshed", "", wire.Encode(wire.RefreshedEvent{Type: wire.Refreshed, ID: "12", Roles: []string{"moderator"}, ExpiresTS: 1764003600000})},
		{"left", "", wire.Encode(wire.LeftEvent{Type: wire.Left, ID: "3", Room: "lobby"})},
		{"left-kicked", "", wire.Encode(wire.LeftEvent{Type: wire.Left, Room: "lobby", Code: "kicked", Text: "please calm down", By: "mia"})},
		{"left-banned", "for a time", wire.Encode(wire.LeftEvent{Type: wire.Left, Room: "lobby", Code: "banned", Text: "spam", By: "mia", UntilTS: 1764003600000})},
		{"left-denied", "the policy has changed, or what it reads", wire.Encode(wire.LeftEvent{Type: wire.Left, Room: "lobby", Code: "denied", Text: "This room is private.", Reasons: []chat.Reason{{Code: "private_room", Text: "This room is private.", Source: "policy"}}, Decision: "06h1f93qbr000002"})},
		{"ack", "", wire.EncodeAck("4", "lobby", &journal.Receipt{Epoch: "9f3c01d2", Seq: 43, ID: goldenID, Outcome: chat.Accepted})},
		{"ack-no-id", "", wire.EncodeAck("", "lobby", &journal.Receipt{Epoch: "9f3c01d2", Seq: 43, ID: goldenID, Outcome: chat.Redacted})},
		{"ack-redacted", "", wire.EncodeAck("4", "lobby", &journal.Receipt{Epoch: "9f3c01d2", Seq: 43, ID: goldenID, Outcome: chat.Redacted, Reasons: reasons})},
		{"ack-repeat", "", wire.EncodeAck("4", "lobby", &journal.Receipt{Epoch: "9f3c01d2", Seq: 43, ID: goldenID, Outcome: chat.Accepted, Repeat: true})},
		{"ack-held", "it has no seq", wire.EncodeAck("4", "lobby", &journal.Receipt{Epoch: "9f3c01d2", ID: goldenID, Outcome: chat.Held, Reasons: reasons})},
		{"ack-rejected", "a resend after the decision", wire.EncodeAck("4", "lobby", &journal.Receipt{Epoch: "9f3c01d2", ID: goldenID, Outcome: chat.Rejected, Reasons: rejected.Entry.Reasons, Repeat: true})},
		{"reviews", "as a moderator sees them", wire.Encode(wire.ReviewsEvent{Type: wire.Reviews, ID: "9", Room: "lobby", All: true,
			Open: []wire.ReviewItem{wire.ItemOf(&held, true)}, Decided: []wire.ReviewItem{wire.ItemOf(&rejected, true)}})},
		{"reviews-own", "as the author does", wire.Encode(wire.ReviewsEvent{Type: wire.Reviews, ID: "9", Room: "lobby", Open: []wire.ReviewItem{wire.ItemOf(&held, false)}})},
		{"review-rejected", "the author is told", wire.Encode(wire.ReviewEvent{Type: wire.Review, Room: "lobby", ReviewItem: wire.ItemOf(&rejected, false)})},
		{"review-expired", "nobody decided", wire.Encode(wire.ReviewEvent{Type: wire.Review, Room: "lobby", ReviewItem: wire.ItemOf(&expired, false)})},
		{"review-approved", "the answer to the moderator", wire.Encode(wire.ReviewEvent{Type: wire.Review, ID: "10", Room: "lobby", ReviewItem: wire.ItemOf(&approved, true), Seq: 44})},
		{"error-appeal", "it may be appealed", wire.Encode(wire.ErrorOf("4", "lobby", &appealable))},
		{"error-decision", "a decision of the policy, which operators can look up", wire.Encode(wire.ErrorOf("5", "announcements", &recorded))},
		{"error-denied", "", wire.Encode(wire.ErrorOf("4", "announcements", denied))},
		{"error-wait", "", wire.Encode(wire.ErrorOf("4", "lobby", &chat.Error{Code: chat.CodeSlowMode, Text: "this room takes one message in 30 s", Retry: 12_500_000_000}))},
		{"error-retry", "at once, with backoff", wire.Encode(wire.ErrorOf("4", "lobby", &chat.Error{Code: chat.CodeUnavailable, Text: "the store does not answer", Retry: -1}))},
		{"message", "", wire.EncodeEntry("lobby", entry)},
		{"message-redacted", "", wire.EncodeEntry("lobby", &redacted)},
		{"message-erased", "in history, or replayed; of an erased kick too", wire.EncodeEntry("lobby", &erased)},
		{"erase", "the text of entries 41 and 43 is gone", wire.EncodeEntry("lobby", erase)},
		{"message-escapes", "", wire.EncodeEntry("lobby", &escapes)},
		{"message-300", "a two-byte length (RFC 6455 §5.2)", wire.EncodeEntry("lobby", long(300))},
		{"settings", "", wire.EncodeEntry("lobby", settings)},
		{"role", "", wire.EncodeEntry("lobby", role)},
		{"kick", "the change takes the role that they had", wire.EncodeEntry("lobby", kick)},
		{"ban-lifted", "a change without a value deletes", wire.EncodeEntry("lobby", unban)},
		{"history", "", wire.Encode(wire.HistoryEvent{Type: wire.History, ID: "5", Room: "lobby", Epoch: "9f3c01d2", Entries: []wire.EntryEvent{wire.EventOf("lobby", settings), wire.EventOf("lobby", entry)}, More: true})},
		{"history-empty", "", wire.Encode(wire.HistoryEvent{Type: wire.History, Room: "lobby", Epoch: "9f3c01d2"})},
		{"members", "", wire.Encode(wire.MembersEvent{Type: wire.Members, ID: "6", Room: "lobby", Count: 2, Users: []chat.UserID{"ann", "Zoë"}})},
		{"members-many", "above the naming bound", wire.Encode(wire.MembersEvent{Type: wire.Members, Room: "lobby", Count: 512})},
		{"why", "nothing stands in the way", wire.Encode(wire.WhyEvent{Type: wire.Why, ID: "21", Room: "lobby", User: "ann", May: true, Blocks: []wire.WhyBlock{}})},
		{"why-blocked", "as the person is told", wire.Encode(wire.WhyEvent{Type: wire.Why, ID: "21", Room: "lobby", User: "ann", Blocks: []wire.WhyBlock{
			{By: wire.ByPolicy, Code: "muted", Text: "You are muted in this room.", UntilTS: 1764000600000, Change: "It ends with the mute, which a moderator may lift before.", Source: "policy"},
			{By: wire.BySlowMode, Code: "slow_mode", Text: "Slow mode: please wait 12 more seconds.", UntilTS: 1764000012000, Change: "Wait until then.", Source: "policy"}}})},
		{"why-moderator", "as a moderator is told of another", wire.Encode(wire.WhyEvent{Type: wire.Why, Room: "lobby", User: "bob", May: true, Outcome: chat.Held, Revision: "git:9c1e0a",
			Note: "bob is not connected to this node; taken for a guest without roles", Blocks: []wire.WhyBlock{
				{By: wire.ByPlugin, Code: "rule_2", Text: "This looks like an address.", Change: "Change the text, or let a moderator look at it.", Source: "plugin:pii",
					Plugin: &wire.WhyPlugin{Name: "pii", Version: "1.0", Digest: strings.Repeat("0a", 32), Part: "enforce", Verdict: "hold", Code: 2}},
				{By: wire.ByPolicy, Code: "quiet_hours", Text: "This room sleeps at night.", Change: "Nothing the person can do; the operators change the rules.", Source: "policy",
					Rule: &wire.WhyRule{File: "night.rego", Line: 12, Name: "parley.refusal", Words: "Quiet hours."}}}})},
		{"presence-join", "", wire.Encode(wire.PresenceEvent{Type: wire.Presence, Room: "lobby", Event: "join", User: "bob", Count: 3})},
		{"presence-leave", "", wire.Encode(wire.PresenceEvent{Type: wire.Presence, Room: "lobby", Event: "leave", User: "bob", Count: 2})},
		{"presence-count", "", wire.Encode(wire.PresenceEvent{Type: wire.Presence, Room: "lobby", Event: "count", Count: 512})},
		{"direct", "the answer to direct", wire.Encode(wire.DirectEvent{Type: wire.Direct, ID: "22", Room: "dm:4x2hm6kbrgzc5wv7d3nqptaeyu2jlsoi", User: "bob", New: true})},
		{"direct-told", "somebody has written to one who is not in the room", wire.Encode(wire.DirectEvent{Type: wire.Direct, Room: "dm:4x2hm6kbrgzc5wv7d3nqptaeyu2jlsoi", User: "ann"})},
		{"typing", "", wire.Encode(wire.TypingEvent{Type: wire.Typing, Room: "lobby", User: "bob"})},
		{"reset", "", wire.Encode(wire.ResetEvent{Type: wire.Reset, Room: "lobby", Epoch: "a41b77e0", Seq: 7, LastID: goldenID})},
		{"ping", "", wire.Encode(wire.PingEvent{Type: wire.Ping, TS: 1764000000123})},
		{"pong", "", wire.Encode(wire.PingEvent{Type: wire.Pong, ID: "7", TS: 1764000000123})},
		{"close", "", wire.Encode(wire.CloseEvent{Type: wire.Close, Code: int(wire.CloseRestart), Reason: "going_away", Reconnect: true, RetryAfterMS: 5000})},
	}
}

func TestGoldenEvents(t *testing.T) {
	events := schemaFor(t, "event", true)
	for _, tc := range eventVectors() {
		t.Run(tc.name, func(t *testing.T) {
			ws, line := tc.frame.WebSocket(), tc.frame.Line()
			compare(t, "event-"+tc.name, vector{About: tc.about,
				Header: hex.EncodeToString(ws[:len(ws)-len(line)]), Line: string(line)})
			if err := validate(events, string(tc.frame.JSON())); err != nil {
				t.Errorf("schema: %v", err)
			}
		})
	}
}

// TestGoldenFilesAreUsed fails for a file that no vector stands for.
func TestGoldenFilesAreUsed(t *testing.T) {
	known := make(map[string]bool)
	for _, tc := range commandVectors {
		known["command-"+tc.name+".json"] = true
	}
	for _, tc := range eventVectors() {
		known["event-"+tc.name+".json"] = true
	}
	files, err := os.ReadDir(goldenDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !known[f.Name()] {
			t.Errorf("%s/%s belongs to no vector", goldenDir, f.Name())
		}
	}
}

// compare holds v against its file, or writes the file.
func compare(t *testing.T, name string, v vector) {
	t.Helper()
	var got bytes.Buffer
	enc := json.NewEncoder(&got)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(goldenDir, name+".json")
	if *update {
		if err := os.WriteFile(file, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v; write it with -update", err)
	}
	if !bytes.Equal(got.Bytes(), want) {
		t.Errorf("%s: got\n%s\nwant\n%s\na change here is a change of the protocol", file, got.Bytes(), want)
	}
}

func marshal(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
