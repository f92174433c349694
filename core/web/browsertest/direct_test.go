package browsertest

import (
	"testing"

	"github.com/chromedp/chromedp"
)

// badges is what the entry of a room in the lists says besides its name, "" for
// nothing; name is how it is called for people.
func (b *tab) badges(what, name, want string) {
	b.t.Helper()
	b.wait(what+": "+quote(want), `[...document.querySelectorAll("#room-list a, #direct-list a")].some((a) =>
		a.querySelector(".label").textContent === `+quote(name)+` && [...a.querySelectorAll(".badge")].map((e) => e.textContent).join(" ") === `+quote(want)+`)`)
}

// TestTalkToOnePerson: a name in the list of people is a button that opens the
// room of two, by keyboard as well; the other person gets it in a list of its
// own, by the name of who wrote.
func TestTalkToOnePerson(t *testing.T) {
	s := startServer(t, "")
	ann, bob := signIn(t, s.http, "lobby", "ann", s.token("ann", "")), signIn(t, s.http, "lobby", "bob", s.token("bob", ""))
	if !value[bool](ann, `document.getElementById("directs").hidden`) {
		t.Error("ann is shown a list of directs before there is one")
	}
	const talk = `[...document.querySelectorAll("#people-list .talk")].find((b) => b.textContent === "bob")`
	ann.wait("bob", talk)
	ann.run(talk + `.focus()`)
	ann.press("Enter", 13, enter, 0)
	ann.wait("the room of the two", `document.getElementById("room-title").textContent === "bob" && location.hash.startsWith("#dm:")`)
	ann.say("just between us")
	bob.badges("the room in the list, with something unread", "ann", "1 unread")
	bob.wait("it named in the title", `document.title.startsWith("(1) ")`)
	if n := value[int](bob, `document.querySelectorAll("#room-list a").length`); n != 1 {
		t.Errorf("bob has %d rooms beside the direct, want the lobby alone", n)
	}
	bob.run(`document.querySelector("#direct-list a").click()`)
	bob.sees("just between us")
	bob.say("I hear you")
	ann.sees("I hear you")
	bob.wait("nothing unread", `!document.querySelector(".badge") && !document.title.startsWith("(")`)
}

// TestUnreadSurvivesReload: what was unread in a room and a direct is unread
// after a reload, what was written meanwhile is counted, and what was read is not.
func TestUnreadSurvivesReload(t *testing.T) {
	s := startServer(t, "")
	ann := signIn(t, s.http, "lobby", "ann", s.token("ann", ""))
	bob := s.hello(`"token":"` + s.token("bob", "") + `"`)
	ann.typeInto("#join-room", "tea"+enter)
	ann.wait("the room", `document.getElementById("room-note").textContent === "#tea"`)
	bob.say("tea", "read by ann")
	ann.sees("read by ann")
	ann.run(`location.hash = "lobby"`)
	ann.wait("the lobby", `document.getElementById("room-note").textContent === "#lobby"`)
	bob.say("tea", "one")
	bob.say("tea", "two for @ann")
	room := bob.direct("ann")
	bob.say(room, "psst")
	ann.badges("the room", "tea", "@1 mentions you, 2 unread")
	ann.badges("the direct", "bob", "1 unread")

	ann.run(`window.old = true; location.reload()`)
	ann.wait("the page again", `!window.old && document.getElementById("my-name")?.textContent === "ann"`)
	ann.badges("the room again", "tea", "@1 mentions you, 2 unread")
	ann.badges("the direct again", "bob", "1 unread")

	ann.do(chromedp.Navigate("about:blank"))
	bob.say("tea", "three")
	bob.say(room, "are you there?")
	ann.do(chromedp.Navigate("http://" + s.http + "/#lobby"))
	ann.wait("the page once more", `document.getElementById("my-name")?.textContent === "ann"`)
	ann.badges("what came meanwhile", "tea", "@1 mentions you, 3 unread")
	ann.badges("and in the direct", "bob", "2 unread")
	ann.wait("all of it in the title", `document.title.startsWith("(5) ")`)

	ann.click(`#room-list a[href="#tea"]`)
	ann.sees("three")
	ann.wait("the line above the first unread", `document.querySelector("#log .new + .message .text")?.textContent === "one"`)
	ann.badges("the room, read", "tea", "")
	ann.run(`window.old = true; location.reload()`)
	ann.wait("the page", `!window.old && document.getElementById("my-name")?.textContent === "ann"`)
	ann.badges("the direct, unread as before", "bob", "2 unread")
	ann.badges("the room, read as before", "tea", "")
}

// TestRoomsOfAPerson: who has an account finds their rooms and directs in a new
// tab, what one tab has read is read in the other, and signing out forgets it.
func TestRoomsOfAPerson(t *testing.T) {
	s := startServer(t, "")
	ann := signIn(t, s.http, "lobby", "ann", s.token("ann", ""))
	bob := s.hello(`"token":"` + s.token("bob", "") + `"`)
	room := bob.direct("ann")
	bob.say(room, "one")
	ann.badges("the direct", "bob", "1 unread")
	other := signIn(t, s.http, "lobby", "ann", s.token("ann", ""))
	other.badges("the direct in the other tab", "bob", "1 unread")
	other.run(`document.querySelector("#direct-list a").click()`)
	other.sees("one")
	ann.badges("read in the other tab", "bob", "")
	bob.say(room, "two")
	other.sees("two")
	ann.badges("read as it came", "bob", "")
	ann.click("#signout")
	ann.wait("the sign-in form", `!document.getElementById("signin").hidden`)
	if kept := value[string](ann, `JSON.stringify(localStorage) + JSON.stringify(sessionStorage)`); kept != `{"parley of ann":"{}"}{"parley":"{\"identity\":null,\"rooms\":[]}"}` {
		t.Errorf("after signing out the browser keeps %s", kept)
	}
}

// TestGuestsLeaveNothing: a guest's name is anybody's tomorrow; what was read
// outlives a reload and not the tab.
func TestGuestsLeaveNothing(t *testing.T) {
	s := startServer(t, "")
	ann := join(t, s.http, "lobby", "ann")
	ann.say("hello")
	ann.sees("hello")
	ann.wait("a mark", `sessionStorage.getItem("parley of ann")?.includes('"lobby"')`)
	if n := value[int](ann, `localStorage.length`); n != 0 {
		t.Errorf("%d things of a guest are kept beyond the tab", n)
	}
}
