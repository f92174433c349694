package browsertest

import (
	"fmt"
	"strings"
	"testing"

	"parley/core/redis/redistest"
)

// here waits until the tab's list of people is these, in any order, and its count
// says the same.
func (b *tab) here(names ...string) {
	b.t.Helper()
	b.wait("these people: "+strings.Join(names, ", "), fmt.Sprintf(`((want) => document.getElementById("people-count").textContent === String(want.length) &&
		JSON.stringify([...document.querySelectorAll("#people-list .label")].map((e) => e.textContent).sort()) === JSON.stringify(want.sort()))(%s)`, "["+`"`+strings.Join(names, `","`)+`"]`))
}

// TestPeopleOfAllNodes: who is here and who writes is shown whatever node they
// are connected to, and who was at a node that died leaves.
func TestPeopleOfAllNodes(t *testing.T) {
	store := redistest.Start(t, redistest.Options{})
	shared := "redis:\n  url: " + store.URL()
	one, two := startServer(t, shared), startServer(t, shared)
	ann, bob := join(t, one.http, "lobby", "ann"), join(t, two.http, "lobby", "bob")
	carl, dora := two.terminal("carl"), one.terminal("dora")
	for _, c := range []*terminal{carl, dora} {
		c.ask(`{"type":"join","room":"lobby"}`, "joined")
	}
	for _, b := range []*tab{ann, bob} {
		b.here("ann", "bob", "carl", "dora")
	}
	bob.typeInto("#text", "over h")
	ann.wait("bob to write at the other node", `document.getElementById("typing").textContent === "bob is typing"`)
	bob.typeInto("#text", "ere @ann"+enter)
	ann.sees("over here @ann")
	ann.wait("bob to have said it, and ann to be told", `document.getElementById("typing").textContent === "" && document.querySelector("#log .tag.call")`)

	// In another room meanwhile, which nobody shows, people come and go unnamed.
	ann.typeInto("#join-room", "tea"+enter)
	ann.here("ann")
	carl.ask(`{"type":"leave","room":"lobby"}`, "left")
	bob.here("ann", "bob", "dora")
	ann.run(`location.hash = "lobby"`)
	ann.here("ann", "bob", "dora")

	two.kill()
	bob.wait("the loss to be shown", `document.getElementById("connection").dataset.state !== "online"`)
	ann.here("ann", "dora")
	two.start()
	bob.run(`document.getElementById("retry").click()`)
	bob.wait("bob to be back", `document.getElementById("connection").dataset.state === "online" && !document.getElementById("app").hidden`)
	for _, b := range []*tab{ann, bob} {
		b.here("ann", "bob", "dora")
	}
}

// TestPeopleKeepTheFocus: who comes and goes takes nobody's focus and closes
// nobody's menu.
func TestPeopleKeepTheFocus(t *testing.T) {
	s := startServer(t, "")
	bob, zoe := s.terminal("bob"), s.terminal("zoe")
	for _, c := range []*terminal{bob, zoe} {
		c.ask(`{"type":"join","room":"lobby"}`, "joined")
	}
	mia := signIn(t, s.http, "lobby", "mia", s.token("mia", "moderator"))
	mia.here("mia", "bob", "zoe")
	const menu = `document.querySelector('#people-list summary[aria-label="What to do about zoe"]')`
	mia.run(menu + `.focus()`)
	mia.press("Enter", 13, enter, 0)
	mia.wait("the menu", menu+`.parentElement.open`)
	bob.ask(`{"type":"leave","room":"lobby"}`, "left")
	mia.here("mia", "zoe")
	bob.ask(`{"type":"join","room":"lobby"}`, "joined")
	mia.here("mia", "bob", "zoe")
	if !value[bool](mia, menu+`.parentElement.open && document.activeElement === `+menu) {
		t.Error("the menu has closed, or lost the focus, when somebody came")
	}
	zoe.ask(`{"type":"leave","room":"lobby"}`, "left")
	mia.here("mia", "bob")
	if got := value[string](mia, `document.activeElement.textContent`); got != "bob" {
		t.Errorf("the focus went to %q, want the neighbour", got)
	}
}
