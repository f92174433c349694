package browsertest

import (
	"strings"
	"testing"
)

// TestModeratorActsOnPeople: from the list of people, and only a moderator is
// offered it. Who is put out is told why, and may not write there any more.
func TestModeratorActsOnPeople(t *testing.T) {
	s := startServer(t, "")
	bob, ann := join(t, s.http, "lobby", "bob"), join(t, s.http, "lobby", "ann")
	mia := openTab(t, "http://"+s.http+"/#lobby")
	mia.wait("the sign-in form", `!document.getElementById("signin").hidden`)
	mia.click("#token-field summary")
	mia.typeInto("#token", s.token("mia", "moderator")+enter)
	mia.wait("everybody with a menu but mia", `document.querySelectorAll("#people-list li").length === 3 && document.querySelectorAll("#people-list .acts").length === 2`)
	if n := value[int](ann, `document.querySelectorAll("#people-list .acts").length`); n != 0 {
		t.Errorf("ann is offered %d menus", n)
	}
	press := func(label, name string) {
		mia.wait("the menu", `document.querySelector('#people-list summary[aria-label="What to do about `+name+`"]')`)
		mia.run(`document.querySelector('#people-list summary[aria-label="What to do about ` + name + `"]').click()`)
		mia.run(`document.querySelector('#people-list button[aria-label="` + label + `: ` + name + `"]').click()`)
	}

	press("Mute for 10 minutes", "bob")
	ann.wait("word of it", `[...document.querySelectorAll("#log .event")].some((e) => e.textContent.includes("mia muted bob"))`)
	bob.say("may I?")
	bob.wait("why not", `document.getElementById("notice").textContent.includes("You are muted in this room")`)
	if n := value[int](ann, `document.querySelectorAll("#log .event button").length`); n != 0 {
		t.Errorf("ann is offered %d ways to lift it", n)
	}
	mia.wait("a way to lift it", `document.querySelector('#log .event button[aria-label="Lift this for bob"]')`)
	mia.run(`document.querySelector('#log .event button[aria-label="Lift this for bob"]').click()`)
	ann.wait("word of it", `[...document.querySelectorAll("#log .event")].some((e) => e.textContent.includes("let speak again: bob"))`)
	press("Unmute", "bob") // once more does no harm

	press("Put out", "bob")
	bob.wait("why", `document.getElementById("notice").textContent.includes("mia put you out of this room")`)
	bob.wait("no way to write", `document.getElementById("text").disabled`)
	for _, b := range []*tab{ann, mia} {
		b.wait("bob gone", `document.querySelectorAll("#people-list li").length === 2`)
	}
	press("Ban for an hour", "ann")
	ann.wait("why", `document.getElementById("notice").textContent.includes("mia banned you from this room")`)
	if said := ann.text("#notice"); !strings.Contains(said, "come back in") {
		t.Errorf("ann is told %q, and not for how long", said)
	}
}
