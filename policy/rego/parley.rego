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
# Beside it lies parley_test.rego. The server runs those tests before it takes a
# policy, and refuses the policy when one fails. Try yours with
#
#     platform check                        (or: opa test FOLDER)
package parley

# The answer. `allow` is the verdict; `reasons` are shown to the person who
# asked, so write them for people. Obligations (limits under which an allowed
# action goes ahead) may be added as "obligations": {...}.
decision := {
	"allow": allowed,
	"reasons": refusal,
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

# --- Kinds of action ----------------------------------------------------------

# Actions that let somebody see what is in a room.
reading if input.action.name in {"room.join", "history.read", "members.read"}

# Actions that add to a room.
writing if input.action.name == "message.send"

# Actions that need an existing room.
entering if reading

entering if writing

# Looking through the messages that plugins held, approving and rejecting them.
reviewing if input.action.name == "moderate.review"

# --- What is permitted --------------------------------------------------------

# Guests and users may connect.
permitted if input.action.name == "connect"

# Everybody, guests too, may open a public room.
permitted if {
	input.action.name == "room.create"
	input.resource.visibility != "private"
}

# A private room is opened by people with an account, not by guests.
permitted if {
	input.action.name == "room.create"
	input.resource.visibility == "private"
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
	not permitted
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

# The room of this name is always one, whatever its settings say.
announcing if input.resource.id == "announcements"

refusal contains {
	"code": "moderators_write",
	"text": "Only moderators write in this room. You can read everything here.",
} if {
	writing
	announcing
	not moderator
}

# Whoever opens a room with an account owns it, and an owner writes. So this room
# is not for the first comer. (A guest may open it: guests own nothing.)
refusal contains {
	"code": "moderators_open",
	"text": "Only moderators of this server open the announcements room.",
} if {
	input.action.name == "room.create"
	input.resource.id == "announcements"
	input.subject.type == "user"
	not global_moderator
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
	writing
	wait := input.context.slow_wait_s
	wait > 0
	not moderator
	unit := seconds(wait)
}

seconds(1) := "second"

seconds(n) := "seconds" if n != 1
