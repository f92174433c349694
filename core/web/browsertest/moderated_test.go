package browsertest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// TestRefused: a guest who writes into announcements learns why, beside the
// input and in the message, and may take the words elsewhere.
func TestRefused(t *testing.T) {
	s := startServer(t, "")
	ann := join(t, s.http, "announcements", "ann")
	ann.say("may I?")
	ann.wait("a reason", `document.querySelector("#notice .rule")`)
	notice := ann.text("#notice")
	if !strings.HasPrefix(notice, "Not posted.") || !strings.Contains(strings.ToLower(notice), "moderator") {
		t.Errorf("the notice says %q", notice)
	}
	if role := value[string](ann, `document.getElementById("notice").getAttribute("role")`); role != "alert" {
		t.Errorf("the notice has role %q", role)
	}
	ann.wait("the message's own reason", `document.querySelector("#log .failed .foot")?.textContent`) // the log is drawn a moment later
	if foot := ann.text("#log .failed .foot"); !strings.Contains(foot, "Not posted") || !strings.Contains(strings.ToLower(foot), "moderator") {
		t.Errorf("the message says %q", foot)
	}
	ann.run(`[...document.querySelectorAll("#log .failed button")].find((b) => b.textContent === "Edit").click()`)
	ann.wait("the message to go", `!document.querySelector("#log .failed")`)
	if got := value[string](ann, `document.getElementById("text").value`); got != "may I?" {
		t.Errorf("the box holds %q", got)
	}
}

// TestWhy: behind "Why?" the person finds what stands in the way, what would
// change it, and the decision's name; a moderator finds the rule.
func TestWhy(t *testing.T) {
	s := startServer(t, "")
	ann := join(t, s.http, "announcements", "ann")
	ann.say("may I?")
	ann.wait("the message's own reason", `document.querySelector("#log .failed .foot")?.textContent`)
	ask := `[...document.querySelectorAll("#log .failed button")].find((b) => b.textContent === "Why?").`
	ann.run(ask + `focus()`)
	ann.run(ask + `click()`)
	ann.wait("the answer", `document.querySelector("#log .because li")`)
	said := ann.text("#log .because")
	for _, want := range []string{"You cannot post this here just now.", "Moderators of this room may.", "policy · moderators_write", "Operators find this decision as"} {
		if !strings.Contains(said, want) {
			t.Errorf("the answer does not say %q: %q", want, said)
		}
	}
	if strings.Contains(said, "parley.rego") {
		t.Errorf("a guest is told where the rule stands: %q", said)
	}
	if focus := value[string](ann, `document.activeElement.textContent`); focus != "Why?" {
		t.Errorf("the focus went to %q", focus)
	}

	mia := openTab(t, "http://"+s.http+"/#announcements")
	mia.wait("the sign-in form", `!document.getElementById("signin").hidden`)
	mia.click("#token-field summary")
	mia.typeInto("#token", s.token("mia", "moderator")+enter)
	mia.wait("the menu", `document.querySelector('#people-list summary[aria-label="What to do about ann"]')`)
	mia.run(`document.querySelector('#people-list button[aria-label="What keeps them from posting: ann"]').click()`)
	mia.wait("the rule", `document.getElementById("remark").textContent.includes("parley.refusal at parley.rego:")`)
	if remark := mia.text("#remark"); !strings.HasPrefix(remark, "ann cannot post here just now.") {
		t.Errorf("the moderator is told %q", remark)
	}
}

// TestModeratorWrites: with a token of a moderator the same message is posted.
func TestModeratorWrites(t *testing.T) {
	s := startServer(t, "")
	mia := openTab(t, "http://"+s.http+"/#announcements")
	mia.wait("the sign-in form", `!document.getElementById("signin").hidden`)
	mia.click("#token-field summary")
	mia.typeInto("#token", s.token("mia", "moderator")+enter)
	mia.wait("mia", `document.getElementById("my-name").textContent === "mia"`)
	mia.say("news!")
	mia.sees("news!")
	if class := mia.text("#my-class"); class != "Signed in" {
		t.Errorf("got %q", class)
	}
}

// TestRedacted: the writer sees what became of the message, and why.
func TestRedacted(t *testing.T) {
	s := startServer(t, "plugins:\n  dir: "+built.plugins)
	ann, bob := join(t, s.http, "lobby", "ann"), join(t, s.http, "lobby", "bob")
	ann.say("well, darn it")
	ann.wait("an explanation", `document.querySelector("#remark .rule")`)
	if remark := ann.text("#remark"); !strings.HasPrefix(remark, "Posted with parts hidden.") || !strings.Contains(remark, "plugin wordlist") {
		t.Errorf("the remark says %q", remark)
	}
	ann.wait("the tag", `document.querySelector("#log .own .tag")`)
	if foot := ann.text("#log .own .foot"); !strings.Contains(foot, "Parts hidden") || !strings.Contains(foot, "wordlist") {
		t.Errorf("the message says %q", foot)
	}
	bob.wait("the masked message", `document.querySelector("#log .message .tag")?.textContent === "Moderated"`)
	for _, b := range []*tab{ann, bob} { // the ack may come before the entry
		b.wait("the masked text", `!document.getElementById("log").textContent.includes("darn")`)
		if got := b.messages(); len(got) != 1 || strings.Contains(got[0], "darn") || !strings.HasPrefix(got[0], "well, ") {
			t.Errorf("got %q", got)
		}
	}
}

// TestSignInProblems: what is wrong is said at the form.
func TestSignInProblems(t *testing.T) {
	s := startServer(t, "")
	s.terminal("ann")
	b := openTab(t, "http://"+s.http+"/")
	b.wait("the sign-in form", `!document.getElementById("signin").hidden`)
	for _, tc := range []struct{ field, keys, want string }{
		{"#guest", "ann", "in use"},
		{"#guest", " b", "guest name must be"}, // "ann b"
	} {
		b.typeInto(tc.field, tc.keys+enter)
		b.wait("the problem "+tc.want, `document.getElementById("signin-problem").textContent.toLowerCase().includes(`+quote(tc.want)+`)`)
	}
	b.click("#token-field summary")
	b.typeInto("#token", "not.a.token"+enter)
	b.wait("the token's problem", `document.getElementById("signin-problem").textContent.toLowerCase().includes("token")`)
}

// TestTooLong: a text beyond the limit is not sent, and stays in the box.
func TestTooLong(t *testing.T) {
	s := startServer(t, "limits:\n  text_bytes: 64")
	ann := join(t, s.http, "lobby", "ann")
	ann.typeInto("#text", strings.Repeat("é", 40))
	ann.wait("a warning", `document.getElementById("room-left").textContent === "16 bytes too long"`)
	ann.click("#send")
	ann.wait("the reason", `document.getElementById("notice").textContent.includes("80 bytes, 64 are allowed")`)
	if got := value[int](ann, `document.getElementById("text").value.length`); got != 40 {
		t.Errorf("the box holds %d characters, want 40", got)
	}
}

// TestSlowMode: what came too soon says how long to wait, and is sent again
// with one click.
func TestSlowMode(t *testing.T) {
	s := startServer(t, "rooms:\n  - id: lobby\n    slow_mode_s: 3")
	ann := join(t, s.http, "lobby", "ann")
	ann.wait("word of slow mode", `document.getElementById("room-note").textContent.includes("every 3 seconds")`)
	var want []string
	for refused := false; !refused; { // on a busy machine the second may come late enough
		want = append(want, fmt.Sprint("message ", len(want)+1))
		ann.say(want[len(want)-1])
		ann.wait("an answer", fmt.Sprintf(`document.querySelectorAll("#log .message:not(.pending)").length === %d`, len(want)))
		refused = value[bool](ann, `document.querySelector("#log .failed") !== null`)
	}
	if len(want) == 1 {
		t.Error("the first message came too soon")
	}
	ann.wait("the wait", `/again in .* second/.test(document.getElementById("notice").textContent)`)
	ann.wait("it to be posted", fmt.Sprintf(`((again) => { again?.click(); return document.querySelectorAll("#log .message:not(.pending, .failed)").length === %d; })(
		[...document.querySelectorAll("#log .failed button")].find((b) => b.textContent === "Send again"))`, len(want)))
	if got := ann.messages(); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestNameClaimed: a guest whose name turns out to be a registered user's is
// told so, and may choose another.
func TestNameClaimed(t *testing.T) {
	s := startServer(t, "")
	ann := join(t, s.http, "lobby", "ann")
	ann.say("hello")
	ann.sees("hello")
	s.hello(fmt.Sprintf(`"token":%q`, s.token("ann", "member")))
	ann.wait("the sign-in form and a reason", `!document.getElementById("signin").hidden && document.getElementById("signin-problem").textContent`)
	ann.run(`document.getElementById("guest").value = ""`)
	ann.typeInto("#guest", "anna"+enter)
	ann.wait("the new name", `document.getElementById("my-name").textContent === "anna"`)
	ann.sees("hello")
}
