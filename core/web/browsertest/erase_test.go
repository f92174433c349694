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
