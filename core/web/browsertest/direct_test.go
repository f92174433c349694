package browsertest

import "testing"

// TestTalkToOnePerson: a click on a name opens the room of two; the other person
// gets it in their list, by the name of who wrote.
func TestTalkToOnePerson(t *testing.T) {
	s := startServer(t, "")
	enters := func(name string) *tab {
		b := openTab(t, "http://"+s.http+"/#lobby")
		b.wait("the sign-in form", `!document.getElementById("signin").hidden`)
		b.click("#token-field summary")
		b.typeInto("#token", s.token(name, "")+enter)
		b.wait(name, `document.getElementById("my-name").textContent === "`+name+`" && document.getElementById("people-list").children.length > 0`)
		return b
	}
	ann, bob := enters("ann"), enters("bob")
	ann.wait("bob", `[...document.querySelectorAll("#people-list .talk")].some((b) => b.textContent === "bob")`)
	ann.run(`[...document.querySelectorAll("#people-list .talk")].find((b) => b.textContent === "bob").click()`)
	ann.wait("the room of the two", `document.getElementById("room-title").textContent === "bob" && location.hash.startsWith("#dm:")`)
	ann.say("just between us")
	bob.wait("the room in the list, with something unread", `[...document.querySelectorAll("#room-list a.unread")].some((a) => a.textContent.includes("ann"))`)
	bob.run(`[...document.querySelectorAll("#room-list a")].find((a) => a.textContent.includes("ann")).click()`)
	bob.wait("what ann wrote", `document.getElementById("log").textContent.includes("just between us")`)
	bob.say("I hear you")
	ann.wait("the answer", `document.getElementById("log").textContent.includes("I hear you")`)
}
