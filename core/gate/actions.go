package gate

import "slices"

// The actions a policy is asked about. A policy must treat an action it does
// not know as it treats any other: its default decides.
const (
	Connect       = "connect"
	RoomCreate    = "room.create"
	RoomJoin      = "room.join" // asked again while the person is in the room
	RoomConfigure = "room.configure"
	HistoryRead   = "history.read"
	MembersRead   = "members.read"
	MessageSend   = "message.send"
	MessageEdit   = "message.edit" // the target wrote it
	MessageRedact = "message.redact"
	MessageReact  = "message.react"
	Typing        = "typing"
	MemberInvite  = "member.invite"
	MemberRole    = "member.role"
	MemberKick    = "member.kick"
	MemberBan     = "member.ban"  // and to lift a ban
	MemberMute    = "member.mute" // and to lift a mute
	DirectOpen    = "direct.open"
	// ModerateReview: see the room's review queue, approve and reject.
	ModerateReview = "moderate.review"
	// AdminRead and AdminWrite: look at the server, and change it.
	AdminRead  = "admin.read"
	AdminWrite = "admin.write"
)

// actions is every action, in the order of the constants.
var actions = []string{
	Connect, RoomCreate, RoomJoin, RoomConfigure, HistoryRead, MembersRead, MessageSend, MessageEdit, MessageRedact, MessageReact,
	Typing, MemberInvite, MemberRole, MemberKick, MemberBan, MemberMute, DirectOpen, ModerateReview, AdminRead, AdminWrite,
}

// Actions lists every action. The caller owns the slice.
func Actions() []string { return slices.Clone(actions) }

// Sample is a plain question about the action, as a guest in an open room
// would ask it of somebody else: for the trial of a new policy and for tests.
func Sample(action string) *Input {
	in := &Input{
		Subject:  Subject{Type: "guest", ID: "ann", Roles: []string{}},
		Action:   Action{Name: action, Changes: []string{}},
		Resource: Resource{Type: "room", ID: "lobby", Exists: true, Mode: "open", Visibility: "public"},
		Context:  Context{Transport: "ws", Network: "public", Periods: []string{}, Networks: []string{}},
	}
	switch action {
	case Connect:
		in.Resource = Resource{Type: "server", Exists: true}
	case AdminRead, AdminWrite:
		in.Resource, in.Context.Transport = Resource{Type: "server", Exists: true}, "admin"
	case RoomCreate:
		in.Resource.Exists = false
	case RoomConfigure:
		in.Action.Changes, in.Action.Mode, in.Action.Visibility = []string{"mode"}, "announce", "public"
	case MessageSend:
		in.Context.TextBytes = 5
	case MessageEdit, MessageRedact, MemberInvite, MemberRole, MemberKick, MemberBan, MemberMute, DirectOpen:
		in.Target = Target{Type: "user", ID: "bob"}
	}
	if action == MemberRole {
		in.Action.Role = "member"
	}
	return in
}
