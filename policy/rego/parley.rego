# The default policy of Parley.
#
# The server asks one question at a time: may this subject do this action to
# this resource? The question is the document `input`; docs/policy.md lists
# every field. The answer is the document `decision` below.
#
# How this file is built, so that you can change it with confidence:
#
#   - `permitted` says what is allowed at all. Nothing else is.
#   - `refusal contains …` says, in words, why something is not. Any refusal
#     wins over `permitted`. Every rule is independent: add one, delete one, and
#     the others keep their meaning. Order does not matter.
#
# Its sister settings.rego has the rules that data asks for: templates of rooms,
# quiet hours, limits for newcomers, networks. Beside them lie their tests,
# parley_test.rego and settings_test.rego. The server runs those tests before it takes a
# policy, and refuses the policy when one fails. Try yours with
#
#     platform check                        (or: opa test FOLDER)
package parley

# The answer. `allow` is the verdict; `reasons` are shown to the person who
# asked, so write them for people. Obligations are limits under which an allowed
# action goes ahead; settings.rego has some.
decision := {
	"allow": allowed,
	"reasons": refusal,
	"obligations": obligations,
}

default allowed := false

allowed if {
	permitted
	count(refusal) == 0
}

# --- Who is who ---------------------------------------------------------------

# A global role comes with the token and counts in every room.
global_moderator if "moderator" in input.subject.roles

global_moderator if "admin" in input.subject.roles

# A room's own moderators count in that room only.
moderator if global_moderator

moderator if input.subject.room_role in {"owner", "moderator"}

# Someone the room knows: owner, moderator or member.
insider if input.subject.room_role != ""

# Who may act on whom in a room goes by rank: the higher on the lower. Global
# moderators stand above a room's own people.
ranks := {"owner": 3, "moderator": 2, "member": 1, "": 0}

default rank := 0

rank := 4 if global_moderator

rank := ranks[input.subject.room_role] if not global_moderator

outranks if rank > ranks[input.target.room_role]

# --- Kinds of action ----------------------------------------------------------

# Actions that let somebody see what is in a room.
reading if input.action.name in {"room.join", "history.read", "members.read"}

# Actions that add to a room.
writing if input.action.name in {"message.send", "message.edit", "message.react", "typing"}

# Actions on a message that is there already; the target is its author.
revising if input.action.name in {"message.edit", "message.redact"}

# Actions that need an existing room.
entering if reading

entering if writing

entering if revising

# Looking through the messages that plugins held, approving and rejecting them.
reviewing if input.action.name == "moderate.review"

# Acting on another person in the room; the target is that person.
restraining if input.action.name in {"member.kick", "member.ban", "member.mute"}

# Actions of those who run a room.
managing if restraining

managing if input.action.name in {"room.configure", "member.role"}

# Opening the room of two people; the target is the other one.
opening_direct if input.action.name == "direct.open"

# The room of two people. The server gives it its name, and both of them a role.
direct if input.resource.direct

# --- What is permitted --------------------------------------------------------

# Guests and users may connect.
permitted if input.action.name == "connect"

# Everybody, guests too, may open a public room.
permitted if {
	creating
	not private_at_first
}

# A private room is opened by people with an account, not by guests.
permitted if {
	creating
	private_at_first
	input.subject.type == "user"
}

# A public room is open to everybody; the rules below narrow writing down.
permitted if {
	entering
	input.resource.visibility == "public"
}

# A private room is open to those it knows, and to global moderators.
permitted if {
	entering
	input.resource.visibility == "private"
	insider
}

permitted if {
	entering
	input.resource.visibility == "private"
	global_moderator
}

# Held messages are decided by the moderators of the room and of the server.
permitted if {
	reviewing
	moderator
}

# Moderators kick, ban and mute those below them.
permitted if {
	restraining
	moderator
	outranks
}

# Owners and global moderators give any role to those below them.
permitted if {
	input.action.name == "member.role"
	rank >= 3
	outranks
}

# Moderators let people in as members, and take that back.
permitted if {
	input.action.name == "member.role"
	rank == 2
	outranks
	input.action.role in {"", "member"}
}

# Whoever has a role may step down.
permitted if {
	input.action.name == "member.role"
	input.target.self
	ranks[input.action.role] < ranks[input.subject.room_role]
}

# Moderators set a room up. What decides who is in it, and whether it goes on,
# is for owners and global moderators.
permitted if {
	input.action.name == "room.configure"
	moderator
	not owners_decide
}

permitted if {
	input.action.name == "room.configure"
	rank >= 3
}

owners_decide if "visibility" in input.action.changes

owners_decide if {
	"mode" in input.action.changes
	"archived" in {input.action.mode, input.resource.mode}
}

# Into a public room everybody with an account may invite, into a private one
# those it knows.
permitted if {
	input.action.name == "member.invite"
	input.resource.visibility == "public"
	input.subject.type == "user"
}

permitted if {
	input.action.name == "member.invite"
	insider
}

permitted if {
	input.action.name == "member.invite"
	global_moderator
}

# A talk between two is opened by people with an account.
permitted if {
	opening_direct
	input.subject.type == "user"
}

# The server itself is for its administrators.
permitted if {
	input.action.name in {"admin.read", "admin.write"}
	"admin" in input.subject.roles
}

# --- Why something is refused -------------------------------------------------

# Whatever is not permitted gets a reason too, so nobody faces a bare "no".
refusal contains {
	"code": "private_room",
	"text": "This room is private. Ask one of its members to let you in.",
} if {
	entering
	not permitted
}

refusal contains {
	"code": "not_allowed",
	"text": "The rules of this server do not allow this.",
} if {
	not entering
	not reviewing
	not managing
	not permitted
}

refusal contains {
	"code": "moderators_manage",
	"text": "Only moderators of this room may do this.",
} if {
	managing
	not moderator
	not permitted
}

refusal contains {
	"code": "owners_manage",
	"text": "Only owners of this room may do this.",
} if {
	input.action.name == "room.configure"
	moderator
	not permitted
}

refusal contains {
	"code": "outranked",
	"text": "You may do this to those with a lower role than yours, and only up to your own.",
} if {
	input.action.name != "room.configure"
	managing
	moderator
	not input.target.self
	not permitted
}

refusal contains {
	"code": "yourself",
	"text": "You cannot do this to yourself.",
} if {
	managing
	moderator
	input.target.self
	not permitted
}

# Nor does a moderator of the whole server, who outranks everybody here.
refusal contains {
	"code": "yourself",
	"text": "You cannot do this to yourself.",
} if {
	restraining
	input.target.self
	permitted
}

# A guest's name is nobody's: the next one could come by it, and by the role.
refusal contains {
	"code": "needs_account",
	"text": "Only people with an account who have been on this server can be given a role.",
} if {
	input.action.name == "member.role"
	permitted
	input.action.role != ""
	input.target.type != "user"
}

# A talk between two is between two: no third person reads along, whatever their
# role on the server.
refusal contains {
	"code": "direct_room",
	"text": "This is a talk between two people, and you are not one of them.",
} if {
	entering
	direct
	not insider
	permitted
}

refusal contains {
	"code": "direct_room",
	"text": "This is a talk between two people, and you are not one of them.",
} if {
	reviewing
	direct
	not insider
	permitted
}

# Nobody is added to it, and it stays private. Either may step down.
refusal contains {
	"code": "direct_room",
	"text": "A talk between two people stays between them.",
} if {
	direct
	not restraining
	not stepping_down
	managing
	permitted
}

refusal contains {
	"code": "direct_room",
	"text": "A talk between two people stays between them.",
} if {
	direct
	input.action.name == "member.invite"
	permitted
}

stepping_down if {
	input.action.name == "member.role"
	input.target.self
	input.action.role == ""
}

# A guest's name may be somebody else's tomorrow, who would read the talk.
refusal contains {
	"code": "needs_account",
	"text": "A talk between two needs two people with an account who have been on this server.",
} if {
	opening_direct
	permitted
	input.target.type != "user"
}

# Whoever was banned from a talk does not open it again.
refusal contains {
	"code": "banned",
	"text": "You are banned from this room.",
} if {
	opening_direct
	input.subject.banned
}

# What somebody has written is changed by them alone.
refusal contains {
	"code": "not_author",
	"text": "Only the author of a message may change it.",
} if {
	input.action.name == "message.edit"
	not input.target.self
}

# It is taken back by its author, or away by a moderator.
refusal contains {
	"code": "not_author",
	"text": "Only the author of a message and moderators may remove it.",
} if {
	input.action.name == "message.redact"
	not input.target.self
	not moderator
}

refusal contains {
	"code": "moderators_review",
	"text": "Only moderators see the messages that wait for review here.",
} if {
	reviewing
	not permitted
}

# Somebody who was banned here decides nothing here, whatever role is left.
refusal contains {
	"code": "banned",
	"text": "You are banned from this room.",
} if {
	reviewing
	input.subject.banned
	not global_moderator
}

refusal contains {
	"code": "banned",
	"text": "You are banned from this room.",
} if {
	managing
	input.subject.banned
	not global_moderator
}

refusal contains {
	"code": "banned",
	"text": "You are banned from this room.",
} if {
	input.action.name == "member.invite"
	input.subject.banned
}

# Banned people neither enter, nor read, nor write. Leaving is always possible.
refusal contains {
	"code": "banned",
	"text": "You are banned from this room.",
} if {
	entering
	input.subject.banned
}

# Muted people read on.
refusal contains {
	"code": "muted",
	"text": "You are muted in this room: you can read, but not write.",
} if {
	writing
	input.subject.muted
}

# In an announcement room everybody reads and moderators write.
announcing if input.resource.mode == "announce"

refusal contains {
	"code": "moderators_write",
	"text": "Only moderators write in this room. You can read everything here.",
} if {
	writing
	input.action.name != "message.react"
	announcing
	not moderator
}

refusal contains {
	"code": "read_only",
	"text": "This room is read-only at the moment.",
} if {
	writing
	input.resource.mode == "read-only"
}

refusal contains {
	"code": "archived",
	"text": "This room is archived. Its history stays, but nobody can write any more.",
} if {
	writing
	input.resource.mode == "archived"
}

# Slow mode asks for time between two messages of one person. The server counts
# the seconds (a policy has no clock); the code slow_mode tells clients to try
# again by themselves.
refusal contains {
	"code": "slow_mode",
	"text": sprintf("Slow mode is on: please wait %d more %s before your next message.", [wait, unit]),
} if {
	input.action.name == "message.send"
	wait := input.context.slow_wait_s
	wait > 0
	not moderator
	unit := seconds(wait)
}

seconds(1) := "second"

seconds(n) := "seconds" if n != 1
