# The rules of this house. The file parley.rego beside this one says who may do
# what in general; what is special here stands in files of its own, like this
# one, so that both can change without each other.
package parley

# Guests read in the rooms of lists/data.json and write elsewhere.
refusal contains {
	"code": "guests_read",
	"text": "Guests can read here. Sign in to write.",
} if {
	input.action.name == "message.send"
	input.subject.type == "guest"
	input.resource.id in data.lists.guests_read
}
