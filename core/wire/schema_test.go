package wire_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/invopop/jsonschema"
	validator "github.com/santhosh-tekuri/jsonschema/v6"

	"parley/core/chat"
	"parley/core/state"
	"parley/core/wire"
)

// update rewrites the schema and the golden vectors from the code: a change
// of the protocol, to be made knowingly.
//
//	go test ./core/wire -run 'Golden|Schema' -update
var update = flag.Bool("update", false, "rewrite docs/schema/protocol-v1.json and testdata/golden")

const (
	schemaFile = "../../docs/schema/protocol-v1.json"
	schemaID   = "urn:parley:protocol:v1"
)

// shape says what the schema of a command adds to the fields of wire.Command.
type shape struct {
	about    string
	fields   []string // besides type and id
	required []string // besides type
	oneOf    [][]string
	notBoth  []string
}

var commandShapes = map[wire.Type]shape{
	wire.Hello: {about: "Says who the connection speaks for. Answered by welcome.",
		fields: []string{"token", "guest", "secret", "device"}, oneOf: [][]string{{"token"}, {"guest"}}},
	wire.Join: {about: "Enters one room or many. Answered by joined or error, for each room.",
		fields: []string{"room", "since", "rooms"}, oneOf: [][]string{{"room"}, {"rooms"}}},
	wire.Leave: {about: "Leaves a room. Answered by left.",
		fields: []string{"room"}, required: []string{"room"}},
	wire.Send: {about: "Posts a message. Answered by ack or error.",
		fields: []string{"room", "nonce", "text"}, required: []string{"room", "text"}},
	wire.History: {about: "Reads entries of a room's log. Answered by history.",
		fields: []string{"room", "before", "after", "limit"}, required: []string{"room"}, notBoth: []string{"before", "after"}},
	wire.Members: {about: "Asks who is in a room. Answered by members.",
		fields: []string{"room"}, required: []string{"room"}},
	wire.Reviews: {about: "Asks for the messages that wait for a moderator. Answered by reviews.",
		fields: []string{"room"}, required: []string{"room"}},
	wire.Review: {about: "Approves or rejects a held message. Answered by review.",
		fields: []string{"room", "review_id", "action", "reason"}, required: []string{"room", "review_id", "action"}},
	wire.Appeal: {about: "Asks that a moderator looks at a message that was denied, once. Answered by ack.",
		fields: []string{"room", "appeal", "reason"}, required: []string{"room", "appeal"}},
	wire.Refresh: {about: "Puts a new token of the same user in place of the connection's. Answered by refreshed.",
		fields: []string{"token"}, required: []string{"token"}},
	wire.Why: {about: "Asks what keeps oneself, or for a moderator another person, from posting. Answered by why.",
		fields: []string{"room", "text", "user"}, required: []string{"room"}},
	wire.Typing: {about: "Says that one writes in a room. Nothing answers it but an error.",
		fields: []string{"room"}, required: []string{"room"}},
	wire.Direct: {about: "Opens the room of two people, to be joined as any other. Answered by direct.",
		fields: []string{"user"}, required: []string{"user"}},
	wire.Configure: {about: "Changes a room's settings; what is absent stays. Answered by ack.",
		fields: []string{"room", "nonce", "title", "mode", "visibility", "slow_mode_s"}, required: []string{"room"}},
	wire.SlowMode: {about: "Sets the seconds between two messages of one user. Answered by ack.",
		fields: []string{"room", "nonce", "seconds"}, required: []string{"room"}},
	wire.Role: {about: "Gives a role in a room, or takes it away. Answered by ack.",
		fields: []string{"room", "nonce", "user", "role", "reason"}, required: []string{"room", "user", "role"}},
	wire.Kick: {about: "Puts a person out of a room, who loses their role in it. Answered by ack.",
		fields: []string{"room", "nonce", "user", "reason"}, required: []string{"room", "user"}},
	wire.Ban: {about: "Puts a person out of a room and keeps them out. Answered by ack.",
		fields: []string{"room", "nonce", "user", "seconds", "reason"}, required: []string{"room", "user"}},
	wire.Unban: {about: "Lifts a ban. Answered by ack.",
		fields: []string{"room", "nonce", "user", "reason"}, required: []string{"room", "user"}},
	wire.Mute: {about: "Keeps a person from writing in a room. Answered by ack.",
		fields: []string{"room", "nonce", "user", "seconds", "reason"}, required: []string{"room", "user"}},
	wire.Unmute: {about: "Lifts a mute. Answered by ack.",
		fields: []string{"room", "nonce", "user", "reason"}, required: []string{"room", "user"}},
	wire.Erase: {about: "Takes the text of an entry out of the room's log, for good. Answered by ack.",
		fields: []string{"room", "nonce", "seq", "reason"}, required: []string{"room", "seq"}},
	wire.Ping: {about: "Asks for a pong.", fields: []string{"ts"}},
	wire.Pong: {about: "Answers a ping of the server.", fields: []string{"ts"}},
}

// eventShapes holds a value of each event's Go type, and the types it takes.
var eventShapes = []struct {
	types []string
	about string
	value any
}{
	{[]string{"welcome"}, "Answers hello.", wire.WelcomeEvent{}},
	{[]string{"refreshed"}, "Answers refresh.", wire.RefreshedEvent{}},
	{[]string{"joined"}, "Answers join, once for each room.", wire.JoinedEvent{}},
	{[]string{"left"}, "Answers leave, or tells that the connection was put out of the room, and why.", wire.LeftEvent{}},
	{[]string{"ack"}, "Answers send, appeal and what runs a room: the message or the change is durable.", wire.AckEvent{}},
	{[]string{"error"}, "Refuses a command, or says why the connection is about to be closed.", wire.ErrorEvent{}},
	{entryKinds, "One entry of a room's log.", wire.EntryEvent{}},
	{[]string{"history"}, "Answers history.", wire.HistoryEvent{}},
	{[]string{"members"}, "Answers members.", wire.MembersEvent{}},
	{[]string{"reviews"}, "Answers reviews.", wire.ReviewsEvent{}},
	{[]string{"review"}, "Answers review, tells an author of a decision and moderators of a change.", wire.ReviewEvent{}},
	{[]string{"why"}, "Answers why.", wire.WhyEvent{}},
	{[]string{"presence"}, "Somebody came or went.", wire.PresenceEvent{}},
	{[]string{"typing"}, "Somebody writes in a room at the moment.", wire.TypingEvent{}},
	{[]string{"direct"}, "Answers direct, or tells somebody that another person has opened the room of the two or has written there.", wire.DirectEvent{}},
	{[]string{"reset"}, "What follows does not continue what came before.", wire.ResetEvent{}},
	{[]string{"ping", "pong"}, "A ping of the server, or its answer to one.", wire.PingEvent{}},
	{[]string{"close"}, "The last line of a TCP connection.", wire.CloseEvent{}},
}

var entryKinds = []string{"message", "settings", "role", "ban", "kick", "erase"}

// buildSchema makes the schema of protocol v1. The published one allows
// members it does not know, as the protocol does; the strict one is for tests,
// where an unknown member is a mistake.
func buildSchema(strict bool) *jsonschema.Schema {
	r := &jsonschema.Reflector{Anonymous: true, DoNotReference: true, AllowAdditionalProperties: !strict, Mapper: mapType}
	root := &jsonschema.Schema{
		Version: jsonschema.Version, ID: schemaID, Title: "Parley protocol v1",
		Description: "Every object that travels between a Parley server and its clients. Generated from core/wire; explained in docs/protocol.md.",
		AnyOf:       []*jsonschema.Schema{{Ref: "#/$defs/command"}, {Ref: "#/$defs/event"}},
		Definitions: jsonschema.Definitions{},
	}
	command, event := &jsonschema.Schema{}, &jsonschema.Schema{}
	for _, t := range slices.Sorted(maps.Keys(commandShapes)) {
		name := "command-" + string(t)
		root.Definitions[name] = commandSchema(r, t, commandShapes[t])
		command.OneOf = append(command.OneOf, &jsonschema.Schema{Ref: "#/$defs/" + name})
	}
	for _, e := range eventShapes {
		s := r.Reflect(e.value)
		s.Version, s.Description = "", e.about
		setType(s, e.types)
		name := "event-" + e.types[0]
		root.Definitions[name] = s
		event.OneOf = append(event.OneOf, &jsonschema.Schema{Ref: "#/$defs/" + name})
	}
	// A history's entries are entry events.
	if p, ok := root.Definitions["event-history"].Properties.Get("entries"); ok {
		p.Items = &jsonschema.Schema{Ref: "#/$defs/event-message"}
	}
	root.Definitions["command"], root.Definitions["event"] = command, event
	return root
}

func commandSchema(r *jsonschema.Reflector, t wire.Type, sh shape) *jsonschema.Schema {
	s := r.Reflect(wire.Command{})
	s.Version, s.Description = "", sh.about
	keep := append([]string{"type", "id"}, sh.fields...)
	for p := s.Properties.Oldest(); p != nil; {
		next := p.Next()
		if !slices.Contains(keep, p.Key) {
			s.Properties.Delete(p.Key)
		}
		p = next
	}
	setType(s, []string{string(t)})
	s.Required = append([]string{"type"}, sh.required...)
	anyPosition(s)
	if rooms, ok := s.Properties.Get("rooms"); ok {
		anyPosition(rooms.Items)
	}
	if text, ok := s.Properties.Get("text"); ok && slices.Contains(sh.required, "text") {
		text.MinLength = new(uint64(1))
	}
	for _, alt := range sh.oneOf {
		s.OneOf = append(s.OneOf, &jsonschema.Schema{Required: alt})
	}
	if sh.notBoth != nil {
		s.Not = &jsonschema.Schema{Required: sh.notBoth}
	}
	return s
}

// anyPosition lets since lack members: what is no position of this server's is
// taken, and nothing is recovered from it.
func anyPosition(s *jsonschema.Schema) {
	if since, ok := s.Properties.Get("since"); ok {
		since.Required = nil
	}
}

func setType(s *jsonschema.Schema, types []string) {
	t := &jsonschema.Schema{Type: "string", Const: types[0]}
	if len(types) > 1 {
		t.Const = nil
		for _, v := range types {
			t.Enum = append(t.Enum, v)
		}
	}
	s.Properties.Set("type", t)
}

// mapType gives the identifiers their shapes.
func mapType(t reflect.Type) *jsonschema.Schema {
	text := func(pattern string, most uint64, about string) *jsonschema.Schema {
		return &jsonschema.Schema{Type: "string", Pattern: pattern, MaxLength: &most, Description: about}
	}
	switch t {
	case reflect.TypeFor[chat.RoomID]():
		return text(`^[a-z0-9][a-z0-9_.:-]*$`, chat.MaxRoomBytes, "a room name")
	case reflect.TypeFor[chat.UserID]():
		return text(``, chat.MaxUserBytes, "a user name")
	case reflect.TypeFor[chat.MessageID]():
		return text(``, 64, "names one entry for ever")
	case reflect.TypeFor[chat.Outcome]():
		return &jsonschema.Schema{Type: "string", Enum: []any{"accepted", "redacted", "held", "rejected", "expired"}}
	case reflect.TypeFor[chat.Class]():
		return &jsonschema.Schema{Type: "string", Enum: []any{"guest", "user"}}
	case reflect.TypeFor[chat.Code]():
		return &jsonschema.Schema{Type: "string", Pattern: `^[a-z][a-z0-9_]*$`, Description: "see docs/protocol.md; treat an unknown one as internal"}
	case reflect.TypeFor[state.Mode]():
		return &jsonschema.Schema{Type: "string", Enum: []any{"open", "announce", "read-only", "archived"}}
	}
	if t.Kind() == reflect.Uint64 {
		return &jsonschema.Schema{Type: "integer", Minimum: json.Number("0"), Maximum: json.Number("9007199254740991")} // 2^53-1
	}
	return nil
}

func marshalSchema(t testing.TB, s *jsonschema.Schema) []byte {
	t.Helper()
	raw, err := json.Marshal(s)
	if err != nil {
		t.Fatalf("encode schema: %v", err)
	}
	var out bytes.Buffer
	if err := json.Indent(&out, raw, "", "  "); err != nil {
		t.Fatal(err)
	}
	out.WriteByte('\n')
	return out.Bytes()
}

// TestSchemaFile fails when the types have changed and the schema has not.
func TestSchemaFile(t *testing.T) {
	got := marshalSchema(t, buildSchema(false))
	if *update {
		if err := os.WriteFile(schemaFile, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(schemaFile)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is stale: run go test ./core/wire -run 'Golden|Schema' -update and review the difference", schemaFile)
	}
}

// schemaFor compiles "command" or "event" of the strict or published schema.
func schemaFor(t testing.TB, which string, strict bool) *validator.Schema {
	t.Helper()
	doc, err := validator.UnmarshalJSON(bytes.NewReader(marshalSchema(t, buildSchema(strict))))
	if err != nil {
		t.Fatal(err)
	}
	c := validator.NewCompiler()
	if err := c.AddResource(schemaID, doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile(schemaID + "#/$defs/" + which)
	if err != nil {
		t.Fatalf("compile schema: %v", err)
	}
	return s
}

func validate(s *validator.Schema, text string) error {
	v, err := validator.UnmarshalJSON(strings.NewReader(text))
	if err != nil {
		return err
	}
	return s.Validate(v)
}

// TestSchemaRefuses proves that the schema is more than "an object".
func TestSchemaRefuses(t *testing.T) {
	for name, tc := range map[string]struct{ which, text string }{
		"no type":                {"command", `{"room":"lobby"}`},
		"unknown command":        {"command", `{"type":"shout","room":"lobby"}`},
		"hello without identity": {"command", `{"type":"hello"}`},
		"hello with both":        {"command", `{"type":"hello","token":"t","guest":"ann"}`},
		"bad room name":          {"command", `{"type":"leave","room":"Lobby"}`},
		"send without text":      {"command", `{"type":"send","room":"lobby","text":""}`},
		"join of nothing":        {"command", `{"type":"join"}`},
		"before and after":       {"command", `{"type":"history","room":"lobby","before":3,"after":1}`},
		"negative seq":           {"event", `{"type":"reset","room":"lobby","epoch":"e","seq":-1}`},
		"ack without epoch":      {"event", `{"type":"ack","room":"lobby","seq":1,"message_id":"m","outcome":"accepted"}`},
		"unknown outcome":        {"event", `{"type":"ack","room":"lobby","epoch":"e","seq":1,"message_id":"m","outcome":"maybe"}`},
		"bad entry in history":   {"event", `{"type":"history","room":"lobby","epoch":"e","entries":[{"type":"message"}],"more":false}`},
	} {
		t.Run(name, func(t *testing.T) {
			if err := validate(schemaFor(t, tc.which, false), tc.text); err == nil {
				t.Errorf("schema accepts %s", tc.text)
			}
		})
	}
}

// TestBoundsAreThoseOfState holds what this package repeats to core/state.
func TestBoundsAreThoseOfState(t *testing.T) {
	var modes []string
	for _, m := range state.Modes {
		modes = append(modes, string(m))
	}
	if !slices.Equal(wire.Modes, modes) || !slices.Equal(wire.Visibilities, []string{string(state.Public), string(state.Private)}) ||
		!slices.Equal(wire.Roles, []string{string(state.RoleOwner), string(state.RoleModerator), string(state.RoleMember), wire.NoRole}) {
		t.Error("the words are not those of core/state")
	}
	if wire.MaxSlowModeS != state.MaxSlowModeS || wire.MaxTitle != state.MaxTitleBytes {
		t.Error("the bounds are not those of core/state")
	}
}

// TestSchemaAllowsNewMembers keeps the published schema as open as the
// protocol, and the strict one strict.
func TestSchemaAllowsNewMembers(t *testing.T) {
	const text = `{"type":"left","room":"lobby","colour":"blue"}`
	if err := validate(schemaFor(t, "event", false), text); err != nil {
		t.Errorf("published schema refuses an unknown member: %v", err)
	}
	if err := validate(schemaFor(t, "event", true), text); err == nil {
		t.Error("strict schema accepts an unknown member")
	}
}
