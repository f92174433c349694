package browsertest

import (
	"context"
	"testing"
	"time"

	"parley/core/client"
)

// TestErasedTextLeavesThePage: for everybody who shows it, its author too, and
// for who comes later; what is left says by whom.
func TestErasedTextLeavesThePage(t *testing.T) {
	s := startServer(t, "")
	ann, bob := join(t, s.http, "lobby", "ann"), join(t, s.http, "lobby", "bob")
	ann.say("a secret thing")
	ann.say("what stays")
	for _, b := range []*tab{ann, bob} {
		b.wait("both messages", `document.querySelectorAll("#log .message").length === 2`)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	mia, err := client.Dial(ctx, client.Options{URL: "ws://" + s.http + "/v1/ws", Token: s.token("mia", "moderator")})
	if err != nil {
		t.Fatal(err)
	}
	defer mia.Close()
	_, entries, err := mia.HistoryAll(ctx, "lobby")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Text == "a secret thing" {
			if _, err := mia.Erase(ctx, "lobby", "e1", e.Seq, "by request"); err != nil {
				t.Fatal(err)
			}
		}
	}
	late := join(t, s.http, "lobby", "cid")
	for _, b := range []*tab{ann, bob, late} {
		b.wait("who took it away, why and when", `[...document.querySelectorAll("#log .message .foot")].some((m) => m.textContent.startsWith("Erased by mia: By request.") && m.querySelector("time"))`)
		if n := value[int](b, `document.documentElement.textContent.includes("a secret thing") ? 1 : 0`); n != 0 {
			t.Error("the page still holds the text")
		}
		if n := value[int](b, `[...document.querySelectorAll("#log .message")].filter((m) => m.textContent.includes("what stays")).length`); n != 1 {
			t.Errorf("got %d of the other message, want it left alone", n)
		}
	}
}

// TestEraseByHand: authors erase their own messages and moderators any, by
// keyboard, asked twice; it is offered to nobody else.
func TestEraseByHand(t *testing.T) {
	s := startServer(t, "")
	ann, bob := join(t, s.http, "lobby", "ann"), join(t, s.http, "lobby", "bob")
	mia := signIn(t, s.http, "lobby", "mia", s.token("mia", "moderator"))
	ann.say("one of mine")
	ann.sees("one of mine")
	bob.say("one of his")
	for _, b := range []*tab{ann, bob, mia} {
		b.sees("one of his")
	}
	offered := func(b *tab) int {
		return value[int](b, `document.querySelectorAll("#log .do button").length`)
	}
	mia.wait("both offered to a moderator", `document.querySelectorAll("#log .do button").length === 2`)
	if a, b := offered(ann), offered(bob); a != 1 || b != 1 {
		t.Errorf("%d messages are offered to ann and %d to bob, want each their own", a, b)
	}

	// From the list of messages: up to hers, Tab to what may be done.
	focused := func(what, js string) { ann.wait(what, `((e) => `+js+`)(document.activeElement)`) }
	ann.run(`document.getElementById("scroll").focus()`)
	ann.press("Tab", 9, "", 0)
	focused("the newest message", `e.matches(".message") && e.textContent.includes("one of his") && e.ariaLabel.startsWith("bob, ")`)
	ann.press("ArrowUp", 38, "", 0)
	focused("hers", `e.matches(".message") && e.textContent.includes("one of mine")`)
	ann.press("ArrowUp", 38, "", 0)
	focused("hers, the first", `e.textContent.includes("one of mine")`)
	ann.press("Tab", 9, "", 0)
	focused("the button", `e.textContent === "Erase" && e.ariaLabel.startsWith("Erase the message of ann, ") && getComputedStyle(e).visibility === "visible"`)
	ann.press("Enter", 13, enter, 0)
	focused("the way out", `e.textContent === "Keep it" && e.parentNode.textContent.includes("for good?")`)
	ann.press("Enter", 13, enter, 0)
	focused("the button again", `e.textContent === "Erase"`)
	ann.press("Enter", 13, enter, 0)
	ann.press("Tab", 9, "", 8)
	focused("the way on", `e.textContent === "Yes, erase"`)
	ann.press("Enter", 13, enter, 0)
	for _, b := range []*tab{ann, bob, mia} {
		b.wait("her message gone", `document.querySelector("#log .message .foot").textContent.startsWith("Erased by its author.") && !document.getElementById("log").textContent.includes("one of mine")`)
	}
	focused("the message that was", `e.matches(".message") && e.textContent.includes("Erased by its author.")`)

	mia.run(`document.querySelector("#log .do button").click()`)
	mia.run(`[...document.querySelectorAll("#log .do button")].find((b) => b.textContent === "Yes, erase").click()`)
	bob.wait("his message gone", `[...document.querySelectorAll("#log .message .foot")].some((f) => f.textContent.startsWith("Erased by mia."))`)
	mia.wait("nothing left to erase", `document.querySelectorAll("#log .do button").length === 0`)
}
