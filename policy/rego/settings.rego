# What the data says: templates of rooms, quiet hours, limits for guests and for
# new accounts, networks.
#
# None of it holds until the data asks for it. The data is the file
# parley/data.yaml (or .json), found under data.parley; docs/policy.md lists
# what may stand in it, and the server refuses what cannot be meant. Moments,
# networks and ages have names there. The server says which of them fit the
# question: input.context.periods, input.context.networks,
# input.subject.new_account and input.resource.template.
package parley

# The template that the room's name fits, where there is one. Most rooms have
# none, and most accounts are not new: what is said of templates and newcomers
# stands in sets of its own, which are looked at only where they may matter.
template := data.parley.templates[input.resource.template]

refusal contains why if {
	input.resource.template != ""
	some why in template_refusal
}

refusal contains why if {
	input.subject.new_account == true
	not trusted
	some why in newcomer_refusal
}

# Whom a room has given a role, and moderators, are trusted beyond what is left
# to guests and to new accounts.
trusted if insider

trusted if moderator

newcomer if {
	input.subject.new_account == true
	not trusted
}

# Guests have no account that could be old.
stranger if {
	input.subject.type == "guest"
	not trusted
}

# --- New rooms ----------------------------------------------------------------

creating if input.action.name == "room.create"

# A new room is private where its template makes it so.
private_at_first if input.resource.visibility == "private"

private_at_first if template.visibility == "private"

# A new room begins as its template says.
obligations["room"] := object.filter(template, ["title", "mode", "visibility", "slow_mode_s"]) if {
	input.action.name == "room.create"
	template
}

refusal contains {
	"code": "needs_account",
	"text": "Guests do not open rooms here. Sign in to open one.",
} if {
	input.action.name == "room.create"
	data.parley.guests.open_rooms == false
	stranger
}

newcomer_refusal contains {
	"code": "new_account",
	"text": "Your account is new here. It cannot open rooms yet.",
} if {
	input.action.name == "room.create"
	data.parley.new_accounts.open_rooms == false
}

newcomer_refusal contains {
	"code": "new_account",
	"text": "Your account is new here. It cannot invite others yet.",
} if {
	input.action.name == "member.invite"
	data.parley.new_accounts.invite == false
}

newcomer_refusal contains {
	"code": "new_account",
	"text": "Your account is new here. It cannot write to others directly yet.",
} if {
	input.action.name == "direct.open"
	data.parley.new_accounts.direct == false
}

# --- Who enters and who writes ------------------------------------------------

# A template may keep guests out, or let them read alone.
template_refusal contains {
	"code": "needs_account",
	"text": "This room is for people with an account. Sign in to enter.",
} if {
	entering
	stranger
	template.guests == "none"
}

template_refusal contains {
	"code": "needs_account",
	"text": "Guests can read here. Sign in to write.",
} if {
	writing
	stranger
	template.guests == "read"
}

# It may do the same with new accounts, until a moderator gives them a role.
template_refusal contains {
	"code": "new_account",
	"text": "Your account is new here, and this room is not open to new accounts yet.",
} if {
	entering
	newcomer
	template.new_accounts == "none"
}

template_refusal contains {
	"code": "new_account",
	"text": "Your account is new here. You can read in this room, and write a little later.",
} if {
	writing
	newcomer
	template.new_accounts == "read"
}

# --- Quiet hours --------------------------------------------------------------

# In quiet hours everybody reads and reacts, and moderators write.
template_refusal contains {
	"code": "quiet_hours",
	"text": "These are quiet hours in this room: you can read, and write again when they are over.",
} if {
	writing
	input.action.name != "message.react"
	some period in template.quiet
	period in input.context.periods
	not moderator
}

# --- Networks -----------------------------------------------------------------

# A network is named, and the person is in none of those named.
outside(networks) if {
	count(networks) > 0
	every network in networks {
		not network in input.context.networks
	}
}

# A template may name the networks its rooms can be used from, by anybody.
template_refusal contains {
	"code": "wrong_network",
	"text": "This room can only be used from certain networks, and yours is not one of them.",
} if outside(template.networks)

# Guests may be asked to come from certain networks.
refusal contains {
	"code": "wrong_network",
	"text": "Guests can only connect from certain networks. Sign in to connect from elsewhere.",
} if {
	input.action.name == "connect"
	stranger
	outside(data.parley.guests.networks)
}

# --- Limits -------------------------------------------------------------------

# The limits that count for this question. Where there are several, the
# narrowest of each kind holds. Moderators have none.
limits contains template.limits if {
	input.resource.template != ""
	not moderator
}

limits contains limit if {
	input.subject.type == "guest"
	limit := data.parley.guests.limits
	not trusted
}

limits contains limit if {
	input.subject.new_account == true
	limit := data.parley.new_accounts.limits
	not trusted
}

obligations[name] := value if {
	count(limits) > 0
	some name, value in narrowest
}

narrowest["text_bytes"] := min({limit.text_bytes | some limit in limits}) if input.action.name == "message.send"

narrowest["slow_mode_s"] := max({limit.slow_mode_s | some limit in limits}) if input.action.name == "message.send"

narrowest["history"] := min({limit.history | some limit in limits}) if reading

# Of two rates the slower one.
narrowest["rate_limit"] := {"count": rates[0][1], "per_s": rates[0][2]} if {
	input.action.name == "message.send"
	rates := sort([[rate.count / rate.per_s, rate.count, rate.per_s] |
		some limit in limits
		rate := limit.rate_limit
	])
}
