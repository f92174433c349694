package browsertest

import (
	"os/exec"
	"strings"
	"testing"
)

// signIn opens a tab and signs in with a token.
func signIn(t *testing.T, addr, room, name, token string) *tab {
	t.Helper()
	b := openTab(t, "http://"+addr+"/#"+room)
	b.wait("the sign-in form", `!document.getElementById("signin").hidden`)
	b.click("#token-field summary")
	b.typeInto("#token", token+enter)
	b.wait(name+" in "+room, `!document.getElementById("app").hidden && document.getElementById("my-name").textContent === `+quote(name)+` && document.getElementById("people-list").children.length > 0`)
	return b
}

// set chooses or writes a value of the form, as a person does.
func (b *tab) set(id, value string) {
	b.t.Helper()
	b.run(`document.getElementById(` + quote(id) + `).value = ` + quote(value))
}

// TestRoomSettings: whoever runs the room is offered the form, what they save
// holds at once, and what others change meanwhile is not undone.
func TestRoomSettings(t *testing.T) {
	s := startServer(t, "")
	ann := join(t, s.http, "lobby", "ann")
	if !value[bool](ann, `document.getElementById("settings").hidden`) {
		t.Error("ann is offered the settings")
	}
	mia, max := signIn(t, s.http, "lobby", "mia", s.token("mia", "moderator")), signIn(t, s.http, "lobby", "max", s.token("max", "moderator"))
	mia.wait("the form", `!document.getElementById("settings").hidden`)
	mia.click("#settings summary")
	if got := mia.text("#settings-done") + value[string](mia, `document.getElementById("set-title").value`) + value[string](mia, `document.getElementById("set-mode").value`); got != "Lobbyopen" {
		t.Errorf("the form begins with %q", got)
	}

	mia.typeInto("#set-title", " of the house")
	max.click("#settings summary")
	max.set("set-slow", "30")
	max.click("#settings-save")
	max.wait("it saved", `document.getElementById("settings-done").textContent === "Saved."`)
	ann.wait("the note", `document.getElementById("room-note").textContent.includes("one message every 30 seconds")`)
	mia.wait("what max set", `document.getElementById("set-slow").value === "30"`)
	mia.set("set-mode", "announce")
	mia.click("#settings-save")
	ann.wait("the new title", `document.getElementById("room-title").textContent === "Lobby of the house"`)
	ann.wait("both in force", `document.getElementById("room-note").textContent.includes("only moderators write here") && document.getElementById("room-note").textContent.includes("30 seconds")`)
	max.wait("what mia set", `document.getElementById("set-mode").value === "announce"`)

	mia.set("set-slow", "99999")
	mia.click("#settings-save")
	mia.wait("why not", `document.getElementById("settings-problem").textContent.includes("21600")`)
	mia.click("#settings-form button[type=reset]")
	mia.wait("as it was", `document.getElementById("set-slow").value === "30" && document.getElementById("settings-problem").textContent === ""`)

	// A guest is out of a room that has become private, and is told by which
	// decision; who comes back sees it as private.
	mia.set("set-visibility", "private")
	mia.click("#settings-save")
	ann.wait("why", `document.getElementById("notice").textContent.includes("This room is private")`)
	if said := ann.text("#notice .rule"); !strings.Contains(said, "policy · private_room, decision 0") {
		t.Errorf("ann is told %q, without what an operator finds it by", said)
	}
	mia.run(`window.old = true; location.reload()`)
	mia.wait("the settings again", `!window.old && document.getElementById("set-visibility")?.value === "private" && !document.getElementById("settings").hidden`)
}

// TestTokenIsRenewed: a token that ends soon is replaced where one is, with the
// new one's roles, and the tab remembers the new one.
func TestTokenIsRenewed(t *testing.T) {
	s := startServer(t, "")
	short, err := exec.Command(built.platform, "token", "--config", s.config(), "--user", "mia", "--ttl", "2m").Output()
	if err != nil {
		t.Fatal(err)
	}
	mia := signIn(t, s.http, "lobby", "mia", strings.TrimSpace(string(short)))
	mia.wait("the form", `!document.getElementById("renew").hidden && document.getElementById("renew-text").textContent.includes("Your sign-in ends in")`)
	mia.typeInto("#renew-token", s.token("bob", "moderator")+enter)
	mia.wait("why not", `document.getElementById("renew-problem").textContent.includes("another user")`)
	mia.run(`document.getElementById("renew-token").value = ""`)
	mia.typeInto("#renew-token", s.token("mia", "moderator")+enter)
	mia.wait("the form gone, and what moderators are offered", `document.getElementById("renew").hidden && !document.getElementById("settings").hidden`)
	mia.say("still here")
	mia.sees("still here")
	mia.run(`window.old = true; location.reload()`)
	mia.wait("mia again, without the form", `!window.old && document.getElementById("my-name")?.textContent === "mia" && document.getElementById("settings")?.hidden === false && document.getElementById("renew")?.hidden === true`)
}
