package browsertest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// reviewing makes a plugin folder in which wordlist holds or denies messages
// with the word darn instead of masking it.
func reviewing(t *testing.T, mode string) string {
	t.Helper()
	dir := t.TempDir()
	module, err := os.ReadFile(filepath.Join(built.plugins, "wordlist.wasm"))
	if err != nil {
		t.Fatal(err)
	}
	manifest := fmt.Sprintf(`{"name":"wordlist","config":{"words":["darn"],"mode":%q,"reason":"Somebody should look at this."}}`, mode)
	for name, b := range map[string][]byte{"wordlist.wasm": module, "wordlist.json": []byte(manifest)} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestHeldMessage: the author sees the message as held, nobody else does; a
// moderator approves one with the keyboard and rejects another with a reason.
func TestHeldMessage(t *testing.T) {
	s := startServer(t, "plugins:\n  dir: "+reviewing(t, "hold"))
	ann, bob := join(t, s.http, "lobby", "ann"), join(t, s.http, "lobby", "bob")
	mia := openTab(t, "http://"+s.http+"/#lobby")
	mia.wait("the sign-in form", `!document.getElementById("signin").hidden`)
	mia.click("#token-field summary")
	mia.typeInto("#token", s.token("mia", "moderator")+enter)
	mia.wait("mia", `document.getElementById("my-name").textContent === "mia" && document.getElementById("people-list").children.length > 0`)
	held := func(b *tab) string {
		return fmt.Sprint(value[int](b, `document.querySelectorAll("#log .held").length`))
	}
	for i, text := range []string{"darn <b>one</b>", "darn two"} {
		ann.say(text)
		ann.wait("the held message", fmt.Sprintf(`document.querySelectorAll("#log .held").length === %d`, i+1))
		mia.wait("the queue", fmt.Sprintf(`!document.getElementById("queue").hidden && document.querySelectorAll("#queue-list li").length === %d`, i+1))
	}
	if foot := ann.text("#log .held .foot"); !strings.Contains(foot, "Waiting for review") || !strings.Contains(foot, "plugin wordlist") {
		t.Errorf("the message says %q", foot)
	}
	if n := held(bob); n != "0" || len(bob.messages()) != 0 {
		t.Errorf("bob sees %s held messages and %v", n, bob.messages())
	}
	if hidden := value[bool](bob, `document.getElementById("queue").hidden`); !hidden {
		t.Error("bob sees the queue")
	}
	if count := mia.text("#queue-count"); count != "2 messages wait for review" {
		t.Errorf("the queue says %q", count)
	}

	// By keyboard: open, go to the first button, press it.
	mia.run(`document.querySelector("#queue summary").focus()`)
	mia.press("Enter", 13, enter, 0)
	mia.wait("the open queue", `document.getElementById("queue").open`)
	if got := mia.text("#queue-list .text"); got != "darn <b>one</b>" {
		t.Errorf("the queue shows %q", got)
	}
	mia.press("Tab", 9, "", 0)
	mia.wait("the focus on Approve", `document.activeElement.textContent === "Approve"`)
	mia.press("Enter", 13, enter, 0)
	for _, b := range []*tab{ann, bob, mia} {
		b.sees("darn <b>one</b>")
	}
	mia.wait("the focus on what is left", `document.querySelectorAll("#queue-list li").length === 1 && document.querySelector("#queue-list li").contains(document.activeElement)`)
	ann.wait("one held message left", `document.querySelectorAll("#log .held").length === 1`)

	// What waits is still shown after a reload.
	ann.run(`window.old = true; location.reload()`)
	ann.wait("the held message again", `!window.old && document.querySelector("#log .held .text")?.textContent === "darn two"`)

	mia.typeInto("#queue-list input", "not today"+enter)
	ann.wait("the decision", `document.querySelector("#log .failed .foot")?.textContent.includes("Rejected")`)
	if foot := ann.text("#log .failed .foot"); !strings.Contains(foot, "Not today.") {
		t.Errorf("the rejected message says %q", foot)
	}
	mia.wait("the empty queue", `document.getElementById("queue-count").textContent === "0 messages wait for review"`)
	if got := bob.messages(); len(got) != 1 {
		t.Errorf("bob sees %v, want the approved message alone", got)
	}
}

// TestHeldExpires: the author is told when nobody has looked in time.
func TestHeldExpires(t *testing.T) {
	s := startServer(t, "limits:\n  review_age: 10s\nplugins:\n  dir: "+reviewing(t, "hold"))
	ann := join(t, s.http, "lobby", "ann")
	ann.say("darn one")
	ann.wait("the held message", `document.querySelectorAll("#log .held").length === 1`)
	ann.wait("that it expired", `document.querySelector("#log .failed .foot")?.textContent.includes("Not posted")`)
	if foot := ann.text("#log .failed .foot"); !strings.Contains(foot, "No moderator decided about it within 10 seconds.") {
		t.Errorf("the expired message says %q", foot)
	}
	// It is not shown again after a reload, and the page says nothing of it.
	ann.run(`window.old = true; location.reload()`)
	ann.wait("the log again", `!window.old && document.getElementById("people-list")?.children.length > 0`)
	if n := value[int](ann, `document.querySelectorAll("#log .held, #log .failed").length`); n != 0 {
		t.Errorf("%d messages are shown as held or failed, want none", n)
	}
}

// TestAppeal: who was denied asks a moderator, once.
func TestAppeal(t *testing.T) {
	s := startServer(t, "plugins:\n  dir: "+reviewing(t, "deny"))
	ann := join(t, s.http, "lobby", "ann")
	ann.say("darn town")
	ann.wait("the button", `[...document.querySelectorAll("#log .failed button")].some((b) => b.textContent === "Ask a moderator")`)
	ann.run(`[...document.querySelectorAll("#log .failed button")].find((b) => b.textContent === "Ask a moderator").click()`)
	ann.wait("the held message", `document.querySelector("#log .held .text")?.textContent === "darn town"`)
}
