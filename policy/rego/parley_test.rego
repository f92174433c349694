# Tests of the default policy. Each one changes the plain question `ask` in the
# one or two places it is about.
package parley_test

import data.parley

# A guest writes into an open public room.
ask := {
	"subject": {"type": "guest", "id": "ann", "roles": [], "room_role": "", "banned": false, "muted": false},
	"action": {"name": "message.send", "role": "", "changes": [], "mode": "", "visibility": "", "slow_mode_s": 0, "seconds": 0, "lift": false},
	"resource": {"type": "room", "id": "lobby", "exists": true, "mode": "open", "visibility": "public", "slow_mode_s": 0, "direct": false},
	"target": {"type": "", "id": "", "self": false, "room_role": "", "banned": false, "muted": false},
	"context": {"transport": "ws", "network": "public", "text_bytes": 5, "slow_wait_s": 0},
}

# change(path, value) is ask with one field changed, as in change("resource/mode", "archived").
change(path, value) := json.patch(ask, [{"op": "replace", "path": path, "value": value}])

also(doc, path, value) := json.patch(doc, [{"op": "replace", "path": path, "value": value}])

# decide answers by the rules alone, whatever the data of the house asks for.
decide(question) := answer if {
	answer := parley.decision with input as question
		with data.parley.guests as {}
		with data.parley.new_accounts as {}
		with data.parley.templates as {}
}

codes(question) := {r.code | some r in decide(question).reasons}

allowed(question) if decide(question).allow

refused(question, code) if {
	not allowed(question)
	codes(question) == {code}
}

test_guest_writes_in_an_open_room if allowed(ask)

test_an_allowed_action_has_no_reasons if codes(ask) == set()

test_guest_connects_joins_and_reads if {
	every action in ["connect", "room.join", "history.read", "members.read"] {
		allowed(change("/action/name", action))
	}
}

test_guest_creates_a_public_room if allowed(change("/action/name", "room.create"))

test_guest_creates_no_private_room if {
	refused(also(change("/action/name", "room.create"), "/resource/visibility", "private"), "not_allowed")
}

test_user_creates_a_private_room if {
	allowed(also(also(change("/action/name", "room.create"), "/resource/visibility", "private"), "/subject/type", "user"))
}

review := change("/action/name", "moderate.review")

test_room_moderators_review if {
	every role in ["owner", "moderator"] {
		allowed(also(review, "/subject/room_role", role))
	}
}

test_global_moderators_review if {
	every role in ["moderator", "admin"] {
		allowed(also(also(review, "/subject/roles", [role]), "/resource/visibility", "private"))
	}
}

test_others_do_not_review if {
	every role in ["", "member"] {
		refused(also(review, "/subject/room_role", role), "moderators_review")
	}
}

test_banned_moderator_does_not_review if {
	refused(also(also(review, "/subject/room_role", "moderator"), "/subject/banned", true), "banned")
}

test_a_muted_moderator_reviews if {
	allowed(also(also(review, "/subject/room_role", "moderator"), "/subject/muted", true))
}

# act(name, mine, theirs) is somebody with the role `mine` in the room doing
# something to somebody with the role `theirs`.
act(name, mine, theirs) := also(also(also(change("/action/name", name), "/subject/room_role", mine), "/target/room_role", theirs), "/target/type", "user")

restraints := ["member.kick", "member.ban", "member.mute"]

test_the_higher_restrain_the_lower if {
	every action in restraints {
		every theirs in ["", "member", "moderator"] {
			allowed(act(action, "owner", theirs))
		}
		every theirs in ["", "member"] {
			allowed(act(action, "moderator", theirs))
		}
		allowed(also(act(action, "", "owner"), "/subject/roles", ["moderator"]))
		allowed(also(act(action, "moderator", ""), "/action/lift", true))
	}
}

test_nobody_restrains_their_equals_or_betters if {
	every action in restraints {
		refused(act(action, "owner", "owner"), "outranked")
		refused(act(action, "moderator", "moderator"), "outranked")
		refused(act(action, "moderator", "owner"), "outranked")
	}
}

test_only_moderators_restrain if {
	every action in restraints {
		every mine in ["", "member"] {
			refused(act(action, mine, ""), "moderators_manage")
		}
	}
}

test_nobody_restrains_themselves if {
	every action in restraints {
		refused(also(act(action, "moderator", "moderator"), "/target/self", true), "yourself")
		refused(also(also(act(action, "", ""), "/subject/roles", ["admin"]), "/target/self", true), "yourself")
	}
}

test_who_is_banned_manages_nothing if {
	every action in array.concat(restraints, ["member.role", "room.configure"]) {
		refused(also(act(action, "owner", ""), "/subject/banned", true), "banned")
	}
	allowed(also(also(act("member.kick", "", ""), "/subject/roles", ["admin"]), "/subject/banned", true))
}

give(mine, theirs, role) := also(act("member.role", mine, theirs), "/action/role", role)

test_owners_give_every_role_to_those_below if {
	every role in ["owner", "moderator", "member", ""] {
		every theirs in ["moderator", "member", ""] {
			allowed(give("owner", theirs, role))
		}
	}
	refused(give("owner", "owner", "member"), "outranked")
	allowed(also(give("", "owner", "member"), "/subject/roles", ["admin"]))
}

test_moderators_give_membership_alone if {
	allowed(give("moderator", "", "member"))
	allowed(give("moderator", "member", ""))
	refused(give("moderator", "member", "moderator"), "outranked")
	refused(give("moderator", "moderator", ""), "outranked")
	refused(give("moderator", "owner", ""), "outranked")
}

test_others_give_no_role if {
	refused(give("member", "", "member"), "moderators_manage")
	refused(give("", "", "owner"), "moderators_manage")
}

test_whoever_has_a_role_may_step_down if {
	every mine in ["owner", "moderator", "member"] {
		allowed(also(give(mine, mine, ""), "/target/self", true))
	}
	refused(also(give("moderator", "moderator", "owner"), "/target/self", true), "yourself")
	refused(also(give("member", "member", "owner"), "/target/self", true), "moderators_manage")
}

test_guests_are_given_no_role if {
	guest := also(give("owner", "", "member"), "/target/type", "guest")
	refused(guest, "needs_account")
	allowed(also(guest, "/action/role", "")) # and may lose one
}

configure(mine, changes) := also(also(change("/action/name", "room.configure"), "/subject/room_role", mine), "/action/changes", changes)

test_moderators_configure if {
	allowed(configure("moderator", ["slow_mode", "title"]))
	allowed(also(configure("moderator", ["mode"]), "/action/mode", "announce"))
	refused(configure("member", ["title"]), "moderators_manage")
	refused(configure("", ["title"]), "moderators_manage")
}

test_owners_decide_who_is_in_and_whether_it_goes_on if {
	archive := also(configure("moderator", ["mode"]), "/action/mode", "archived")
	refused(configure("moderator", ["visibility"]), "owners_manage")
	refused(archive, "owners_manage")
	refused(also(also(archive, "/action/mode", "open"), "/resource/mode", "archived"), "owners_manage")
	every doc in [configure("owner", ["visibility"]), also(archive, "/subject/room_role", "owner"), also(archive, "/subject/roles", ["moderator"])] {
		allowed(doc)
	}
}

by_author(action) := also(change("/action/name", action), "/target/self", true)

test_authors_edit_their_messages if {
	allowed(by_author("message.edit"))
	refused(change("/action/name", "message.edit"), "not_author")
	refused(also(change("/action/name", "message.edit"), "/subject/room_role", "owner"), "not_author")
	refused(also(by_author("message.edit"), "/subject/muted", true), "muted")
	refused(also(by_author("message.edit"), "/resource/mode", "archived"), "archived")
	allowed(also(by_author("message.edit"), "/context/slow_wait_s", 5))
}

test_authors_and_moderators_redact if {
	allowed(by_author("message.redact"))
	allowed(also(by_author("message.redact"), "/subject/muted", true))
	refused(change("/action/name", "message.redact"), "not_author")
	allowed(also(change("/action/name", "message.redact"), "/subject/room_role", "moderator"))
	refused(also(by_author("message.redact"), "/subject/banned", true), "banned")
}

test_reacting_is_for_readers_too if {
	react := change("/action/name", "message.react")
	allowed(also(react, "/resource/mode", "announce"))
	refused(also(react, "/resource/mode", "read-only"), "read_only")
	refused(also(react, "/subject/muted", true), "muted")
	refused(also(react, "/resource/visibility", "private"), "private_room")
}

test_typing_is_for_those_who_may_write if {
	typing := change("/action/name", "typing")
	allowed(also(typing, "/context/slow_wait_s", 5))
	refused(also(typing, "/resource/mode", "announce"), "moderators_write")
	refused(also(typing, "/subject/muted", true), "muted")
}

test_who_invites if {
	invite := also(change("/action/name", "member.invite"), "/subject/type", "user")
	allowed(invite)
	refused(also(invite, "/subject/type", "guest"), "not_allowed")
	refused(also(invite, "/resource/visibility", "private"), "not_allowed")
	allowed(also(also(invite, "/resource/visibility", "private"), "/subject/room_role", "member"))
	allowed(also(also(invite, "/resource/visibility", "private"), "/subject/roles", ["moderator"]))
	refused(also(invite, "/subject/banned", true), "banned")
}

test_people_with_an_account_open_direct_rooms if {
	open := also(change("/action/name", "direct.open"), "/target/type", "user")
	refused(open, "not_allowed")
	allowed(also(open, "/subject/type", "user"))
	refused(also(also(open, "/subject/type", "user"), "/target/type", "guest"), "needs_account")
	refused(also(also(open, "/subject/type", "user"), "/subject/banned", true), "banned")
}

# A talk between two, as one of the two finds it.
talk := also(also(also(ask, "/resource/direct", true), "/resource/visibility", "private"), "/subject/room_role", "member")

test_the_two_talk if {
	every action in ["room.join", "history.read", "members.read", "message.send", "typing"] {
		allowed(also(talk, "/action/name", action))
	}
}

test_no_third_person_is_in_a_talk_between_two if {
	every action in ["room.join", "history.read", "members.read", "message.send", "typing"] {
		stranger := also(also(talk, "/action/name", action), "/subject/room_role", "")
		refused(stranger, "private_room")
		refused(also(stranger, "/subject/roles", ["moderator"]), "direct_room")
		refused(also(stranger, "/subject/roles", ["admin"]), "direct_room")
		refused(also(also(stranger, "/subject/roles", ["admin"]), "/resource/visibility", "public"), "direct_room")
	}
	refused(also(also(also(talk, "/action/name", "moderate.review"), "/subject/room_role", ""), "/subject/roles", ["admin"]), "direct_room")
}

test_nobody_is_added_to_a_talk_between_two if {
	invite := also(talk, "/action/name", "member.invite")
	refused(invite, "direct_room")
	give := also(also(also(talk, "/action/name", "member.role"), "/action/role", "member"), "/target/type", "user")
	refused(also(give, "/subject/roles", ["admin"]), "direct_room")
	refused(also(also(talk, "/action/name", "room.configure"), "/subject/roles", ["admin"]), "direct_room")
}

test_either_of_two_may_step_down if {
	step := also(also(talk, "/action/name", "member.role"), "/target/self", true)
	allowed(also(step, "/action/role", ""))
}

test_administrators_run_the_server if {
	every action in ["admin.read", "admin.write"] {
		allowed(also(change("/action/name", action), "/subject/roles", ["admin"]))
		refused(also(change("/action/name", action), "/subject/roles", ["moderator"]), "not_allowed")
		refused(change("/action/name", action), "not_allowed")
	}
}

test_unknown_action_is_refused if refused(change("/action/name", "server.stop"), "not_allowed")

test_announce_mode_is_written_by_moderators if {
	refused(change("/resource/mode", "announce"), "moderators_write")
	allowed(also(change("/resource/mode", "announce"), "/action/name", "history.read"))
	allowed(also(change("/resource/mode", "announce"), "/subject/room_role", "moderator"))
	allowed(also(change("/resource/mode", "announce"), "/subject/room_role", "owner"))
	refused(also(change("/resource/mode", "announce"), "/subject/room_role", "member"), "moderators_write")
	allowed(also(change("/resource/mode", "announce"), "/subject/roles", ["admin", "staff"]))
}

test_no_name_of_a_room_means_anything_by_itself if allowed(change("/resource/id", "announcements"))

test_read_only_and_archived_refuse_even_moderators if {
	refused(also(change("/resource/mode", "read-only"), "/subject/roles", ["admin"]), "read_only")
	refused(also(change("/resource/mode", "archived"), "/subject/room_role", "owner"), "archived")
	allowed(also(change("/resource/mode", "archived"), "/action/name", "history.read"))
}

test_private_rooms_are_for_insiders_and_global_moderators if {
	private := change("/resource/visibility", "private")
	every action in ["room.join", "history.read", "members.read", "message.send"] {
		refused(also(private, "/action/name", action), "private_room")
		allowed(also(also(private, "/action/name", action), "/subject/room_role", "member"))
		allowed(also(also(private, "/action/name", action), "/subject/roles", ["moderator"]))
	}
}

test_banned_is_refused_everywhere_in_the_room if {
	banned := change("/subject/banned", true)
	every action in ["room.join", "history.read", "message.send"] {
		refused(also(banned, "/action/name", action), "banned")
	}
	allowed(also(banned, "/action/name", "connect"))
}

test_muted_reads_but_does_not_write if {
	muted := change("/subject/muted", true)
	refused(muted, "muted")
	allowed(also(muted, "/action/name", "room.join"))
}

test_slow_mode_says_how_long if {
	slow := change("/context/slow_wait_s", 7)
	refused(slow, "slow_mode")
	decide(slow).reasons == {{
		"code": "slow_mode",
		"text": "Slow mode is on: please wait 7 more seconds before your next message.",
	}}
	allowed(also(slow, "/subject/room_role", "moderator"))
	allowed(also(slow, "/action/name", "history.read"))
}

test_slow_mode_counts_one_second if {
	some r in decide(change("/context/slow_wait_s", 1)).reasons
	contains(r.text, "1 more second before")
}

test_every_reason_has_a_code_and_a_sentence if {
	worst := also(also(also(change("/subject/banned", true), "/subject/muted", true), "/resource/mode", "announce"), "/context/slow_wait_s", 3)
	reasons := decide(worst).reasons
	count(reasons) == 4
	every r in reasons {
		r.code != ""
		endswith(r.text, ".")
	}
}
