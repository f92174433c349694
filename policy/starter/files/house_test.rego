# Tests of the rules of this house. The helpers are those of parley_test.rego.
package parley_test

in_news(type) := also(change("/resource/id", "news"), "/subject/type", type)

test_guests_only_read_in_news if {
	refused(in_news("guest"), "guests_read")
	allowed(in_news("user"))
	allowed(also(in_news("guest"), "/action/name", "room.join"))
}

test_guests_write_elsewhere if allowed(ask)
