# Tests of what the data may ask for. `house` is the data; the helpers are those
# of parley_test.rego.
package parley_test

import data.parley

house := {
	"guests": {
		"networks": ["office", "vpn"],
		"open_rooms": false,
		"limits": {"text_bytes": 200, "rate_limit": {"count": 10, "per_s": 60}},
	},
	"new_accounts": {
		"younger_than_s": 86400,
		"open_rooms": false,
		"invite": false,
		"direct": false,
		"limits": {"text_bytes": 500, "slow_mode_s": 20, "rate_limit": {"count": 5, "per_s": 60}},
	},
	"templates": {
		"help": {
			"rooms": ["help-*"],
			"title": "Help",
			"mode": "open",
			"slow_mode_s": 5,
			"guests": "read",
			"new_accounts": "read",
			"quiet": ["night"],
		},
		"team": {
			"rooms": ["team-*"],
			"visibility": "private",
			"networks": ["office"],
			"guests": "none",
			"new_accounts": "none",
		},
		"hall": {
			"rooms": ["hall"],
			"limits": {"text_bytes": 300, "history": 50, "rate_limit": {"count": 30, "per_s": 60}},
		},
	},
}

answer(question) := found if {
	found := parley.decision with input as question
		with data.parley.guests as house.guests
		with data.parley.new_accounts as house.new_accounts
		with data.parley.templates as house.templates
}

goes(question) if answer(question).allow

fails(question, code) if {
	d := answer(question)
	not d.allow
	{r.code | some r in d.reasons} == {code}
}

# fresh is ask with the fields that the server adds from the data.
fresh := json.patch(ask, [
	{"op": "add", "path": "/subject/new_account", "value": false},
	{"op": "add", "path": "/resource/template", "value": ""},
	{"op": "add", "path": "/context/periods", "value": []},
	{"op": "add", "path": "/context/networks", "value": []},
])

# who(type, new) does the action in a room of the template.
who(type, new, action, template) := json.patch(fresh, [
	{"op": "replace", "path": "/subject/type", "value": type},
	{"op": "replace", "path": "/subject/new_account", "value": new},
	{"op": "replace", "path": "/action/name", "value": action},
	{"op": "replace", "path": "/resource/template", "value": template},
])

guest(action, template) := who("guest", false, action, template)

newbie(action, template) := who("user", true, action, template)

settled(action, template) := who("user", false, action, template)

test_without_data_nothing_of_this_holds if {
	every action in ["connect", "room.create", "room.join", "history.read", "message.send"] {
		d := decide(newbie(action, "help"))
		d.allow
		d.obligations == {}
	}
}

test_a_room_without_a_template_has_no_limits if {
	answer(settled("message.send", "")).obligations == {}
	goes(settled("message.send", "gone"))
}

test_a_new_room_begins_as_its_template_says if {
	answer(settled("room.create", "help")).obligations == {"room": {"title": "Help", "mode": "open", "slow_mode_s": 5}}
	answer(settled("room.create", "team")).reasons == {{
		"code": "wrong_network",
		"text": "This room can only be used from certain networks, and yours is not one of them.",
	}}
	inside := also(settled("room.create", "team"), "/context/networks", ["office"])
	answer(inside).obligations == {"room": {"visibility": "private"}}
	goes(inside)
	answer(settled("room.create", "")).obligations == {}
}

test_a_private_template_needs_an_account if {
	inside := also(guest("room.create", "team"), "/context/networks", ["office"])
	d := parley.decision with input as inside
		with data.parley.guests as {}
		with data.parley.new_accounts as {}
		with data.parley.templates as house.templates
	not d.allow
	{r.code | some r in d.reasons} == {"not_allowed"}
}

test_guests_and_new_accounts_open_no_rooms if {
	fails(guest("room.create", ""), "needs_account")
	fails(newbie("room.create", ""), "new_account")
	goes(settled("room.create", ""))
	goes(also(newbie("room.create", ""), "/subject/roles", ["moderator"]))
}

test_new_accounts_approach_nobody if {
	fails(newbie("member.invite", ""), "new_account")
	fails(also(newbie("direct.open", ""), "/target/type", "user"), "new_account")
	goes(settled("member.invite", ""))
	goes(also(settled("direct.open", ""), "/target/type", "user"))
}

test_guests_read_where_they_may_only_read if {
	goes(guest("room.join", "help"))
	goes(guest("history.read", "help"))
	every action in ["message.send", "message.react", "typing"] {
		fails(guest(action, "help"), "needs_account")
	}
	goes(settled("message.send", "help"))
}

test_new_accounts_read_until_they_have_a_role if {
	goes(newbie("room.join", "help"))
	fails(newbie("message.send", "help"), "new_account")
	goes(also(newbie("message.send", "help"), "/subject/room_role", "member"))
}

test_who_is_kept_out_does_not_enter if {
	every action in ["room.join", "history.read", "members.read", "message.send"] {
		fails(also(guest(action, "team"), "/context/networks", ["office"]), "needs_account")
		fails(also(newbie(action, "team"), "/context/networks", ["office"]), "new_account")
		goes(also(settled(action, "team"), "/context/networks", ["office"]))
	}
}

test_quiet_hours if {
	quiet := also(settled("message.send", "help"), "/context/periods", ["night", "weekend"])
	fails(quiet, "quiet_hours")
	fails(also(quiet, "/action/name", "typing"), "quiet_hours")
	goes(also(quiet, "/action/name", "message.react"))
	goes(also(quiet, "/action/name", "room.join"))
	goes(also(quiet, "/context/periods", ["weekend"]))
	goes(also(quiet, "/subject/room_role", "moderator"))
	goes(also(quiet, "/resource/template", "hall"))
}

test_a_room_of_a_network_is_used_from_there if {
	inside := also(settled("room.join", "team"), "/context/networks", ["office", "vpn"])
	goes(inside)
	every action in ["room.join", "history.read", "message.send", "member.invite"] {
		fails(also(also(inside, "/action/name", action), "/context/networks", ["vpn"]), "wrong_network")
	}
	fails(also(also(inside, "/subject/roles", ["admin"]), "/context/networks", []), "wrong_network")
}

test_guests_connect_from_networks if {
	fails(guest("connect", ""), "wrong_network")
	goes(also(guest("connect", ""), "/context/networks", ["vpn"]))
	goes(settled("connect", ""))
}

test_the_narrowest_limit_holds if {
	answer(guest("message.send", "hall")).obligations == {"text_bytes": 200, "rate_limit": {"count": 10, "per_s": 60}}
	answer(newbie("message.send", "hall")).obligations == {"text_bytes": 300, "slow_mode_s": 20, "rate_limit": {"count": 5, "per_s": 60}}
	answer(settled("message.send", "hall")).obligations == {"text_bytes": 300, "rate_limit": {"count": 30, "per_s": 60}}
	answer(newbie("message.send", "")).obligations == {"text_bytes": 500, "slow_mode_s": 20, "rate_limit": {"count": 5, "per_s": 60}}
	answer(settled("history.read", "hall")).obligations == {"history": 50}
	answer(settled("room.join", "hall")).obligations == {"history": 50}
}

test_moderators_have_no_limits if {
	answer(also(settled("message.send", "hall"), "/subject/room_role", "moderator")).obligations == {}
	answer(also(newbie("message.send", "hall"), "/subject/roles", ["moderator"])).obligations == {}
}
