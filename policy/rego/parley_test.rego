# Tests of the default policy. Each one changes the plain question `ask` in the
# one or two places it is about.
package parley_test

import data.parley

# A guest writes into an open public room.
ask := {
	"subject": {"type": "guest", "id": "ann", "roles": [], "room_role": "", "banned": false, "muted": false},
	"action": {"name": "message.send"},
	"resource": {"type": "room", "id": "lobby", "exists": true, "mode": "open", "visibility": "public", "slow_mode_s": 0},
	"context": {"transport": "ws", "network": "public", "text_bytes": 5, "slow_wait_s": 0},
}

# change(path, value) is ask with one field changed, as in change("resource/mode", "archived").
change(path, value) := json.patch(ask, [{"op": "replace", "path": path, "value": value}])

also(doc, path, value) := json.patch(doc, [{"op": "replace", "path": path, "value": value}])

codes(question) := out if {
	answer := parley.decision with input as question
	out := {r.code | some r in answer.reasons}
}

allowed(question) if {
	parley.decision.allow with input as question
}

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

test_unknown_action_is_refused if refused(change("/action/name", "server.stop"), "not_allowed")

test_announce_mode_is_written_by_moderators if {
	refused(change("/resource/mode", "announce"), "moderators_write")
	allowed(also(change("/resource/mode", "announce"), "/action/name", "history.read"))
	allowed(also(change("/resource/mode", "announce"), "/subject/room_role", "moderator"))
	allowed(also(change("/resource/mode", "announce"), "/subject/room_role", "owner"))
	refused(also(change("/resource/mode", "announce"), "/subject/room_role", "member"), "moderators_write")
}

test_announcements_is_an_announcement_room_in_any_mode if {
	refused(change("/resource/id", "announcements"), "moderators_write")
	allowed(also(change("/resource/id", "announcements"), "/action/name", "room.join"))
	allowed(also(change("/resource/id", "announcements"), "/subject/roles", ["moderator"]))
	allowed(also(change("/resource/id", "announcements"), "/subject/roles", ["admin", "staff"]))
}

test_only_moderators_and_guests_open_announcements if {
	fresh := also(change("/action/name", "room.create"), "/resource/id", "announcements")
	refused(also(fresh, "/subject/type", "user"), "moderators_open")
	allowed(also(also(fresh, "/subject/type", "user"), "/subject/roles", ["moderator"]))
	allowed(fresh)
}

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
	parley.decision.reasons == {{
		"code": "slow_mode",
		"text": "Slow mode is on: please wait 7 more seconds before your next message.",
	}} with input as slow
	allowed(also(slow, "/subject/room_role", "moderator"))
	allowed(also(slow, "/action/name", "history.read"))
}

test_slow_mode_counts_one_second if {
	some r in parley.decision.reasons with input as change("/context/slow_wait_s", 1)
	contains(r.text, "1 more second before")
}

test_every_reason_has_a_code_and_a_sentence if {
	worst := also(also(also(change("/subject/banned", true), "/subject/muted", true), "/resource/mode", "announce"), "/context/slow_wait_s", 3)
	reasons := parley.decision.reasons with input as worst
	count(reasons) == 4
	every r in reasons {
		r.code != ""
		endswith(r.text, ".")
	}
}
