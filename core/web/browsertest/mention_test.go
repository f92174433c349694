package browsertest

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/accessibility"
	"github.com/chromedp/chromedp"

	"parley/core/absent"
	"parley/core/chat"
)

// TestMentionsAreTheServers: whom a text mentions is one rule; the page finds the
// same names in it as the server does when it looks for who is away.
func TestMentionsAreTheServers(t *testing.T) {
	s := startServer(t, "")
	b := openTab(t, "http://"+s.http+"/")
	b.run(`import("./mentions.js").then((m) => (window.mentions = m.mentions))`)
	b.wait("the module", `window.mentions`)
	texts := []string{
		"hello", "@bob", "hey @bob, are you there?", "ask @bob.", "@bob: look", "(@bob)", "“@zoë”", "@a.b-c_d+1 @7 @李", "@नमस्ते",
		"write to ann@example.org", "@ann@example.org", "x@bob é@bob 1@bob _@bob", "@bob @bob @ann", "@bob @Bob", "@ @@ @, @-bob @@bob",
		"@a\n@b\t@c", "@*** hello", "@" + strings.Repeat("a", 65) + " @bob", "@" + strings.Repeat("ö", 32) + " @" + strings.Repeat("ö", 33),
		"@a @b @c @d @e @f @g @h @i @j @k @l", "https://x.org/@bob", "@bob👋 👋@ann", "@e\u0301 @\u0301x", "@½ @٣ @ⅷ",
	}
	for _, text := range texts {
		want := absent.Mentions(text)
		in, _ := json.Marshal(text)
		got := value[[]chat.UserID](b, `[...new Set(mentions(`+string(in)+`).map((m) => m.name))]`)
		if !slices.Equal(got, want) {
			t.Errorf("%q: the page finds %q, the server %q", text, got, want)
		}
	}
}

// TestMentioned: who is mentioned finds it at the message, in words, and at the
// room in the list; a message that names somebody else, or oneself, is like any other.
func TestMentioned(t *testing.T) {
	s := startServer(t, "")
	ann, bob := join(t, s.http, "lobby", "ann"), s.terminal("bob")
	ann.say("I am @ann")
	ann.sees("I am @ann")
	bob.say("lobby", "hi @ann, see https://parley.example/@ann")
	bob.say("lobby", "and @annabel <b>@ann</b>?")
	bob.say("lobby", "@carl and @annabel only")
	ann.sees("@carl and @annabel only")
	got := value[[]string](ann, `[...document.querySelectorAll("#log .message")].map((m) => (m.querySelector(".tag.call")?.textContent ?? "") + "|" + [...m.querySelectorAll("mark")].map((e) => e.textContent).join(" "))`)
	if want := []string{"|@ann", "Mentions you|@ann", "Mentions you|@ann", "|"}; !slices.Equal(got, want) {
		t.Errorf("tags and marks: got %q, want %q", got, want)
	}
	if !value[bool](ann, `[...document.querySelectorAll("#log .message.calls")].every((m) => getComputedStyle(m).boxShadow !== "none") && document.querySelectorAll("#log b b").length === 0`) {
		t.Error("a message that mentions us has no bar at its side")
	}
	ann.typeInto("#join-room", "tea"+enter)
	ann.wait("the room", `document.getElementById("room-note").textContent === "#tea"`)
	bob.say("lobby", "nothing for anybody")
	ann.badges("one unread", "Lobby", "1 unread")
	bob.say("lobby", "@ann!")
	ann.badges("two, one of them for us", "Lobby", "@1 mentions you, 2 unread")
	bob.say("lobby", "@ann?")
	ann.badges("two for us", "Lobby", "@2 mention you, 3 unread")
	ann.wait("the title", `document.title.startsWith("(3) ")`)
	ann.size(390, 780)
	name := `document.getElementById("show-rooms").innerText`
	ann.wait("word of it where the list is a drawer", name+`.includes("something unread")`)
	ann.click("#show-rooms")
	ann.wait("the drawer to stand still", `document.getElementById("talk").inert && document.getAnimations().every((a) => a.playState === "finished")`)
	ann.click(`#room-list a[href="#lobby"]`)
	ann.sees("@ann?")
	ann.wait("all of it read", `!document.querySelector(".badge") && !document.title.startsWith("(") && !`+name+`.includes("unread")`)
}

// TestNamesAreOffered: "@" offers who is here and who has written, and everything
// is done by keys; a screen reader is told what there is and what is chosen.
func TestNamesAreOffered(t *testing.T) {
	s := startServer(t, "")
	for _, name := range []string{"bob", "Bengt", "Zoë"} {
		s.terminal(name).ask(`{"type":"join","room":"lobby"}`, "joined")
	}
	s.terminal("bella").say("lobby", "only passing by")
	ann := join(t, s.http, "lobby", "ann")
	ann.sees("only passing by")
	offers := func(what, chosen string, want ...string) {
		t.Helper()
		ann.wait(what, `JSON.stringify([...document.querySelectorAll("#names [role=option] .label")].map((e) => e.textContent)) === `+quote(string(must(json.Marshal(append([]string{}, want...))))))
		if chosen == "" {
			return
		}
		ann.wait(chosen+" chosen", `((box) => box.role === "combobox" && box.ariaExpanded === "true" && document.getElementById(box.getAttribute("aria-activedescendant")).textContent.endsWith(`+quote(chosen)+`)
			&& document.querySelectorAll("#names [aria-selected=true]").length === 1)(document.getElementById("text"))`)
	}
	holds := func(want string) {
		t.Helper()
		ann.wait("the box to hold "+quote(want), `document.getElementById("text").value === `+quote(want)+` && document.activeElement.id === "text"`)
	}
	down := func() { ann.press("ArrowDown", 40, "", 0) }
	ann.wait("everybody", `document.querySelectorAll("#people-list li").length === 4`)

	ann.typeInto("#text", "hey @")
	offers("all of them", "Bengt", "Bengt", "bob", "Zoë", "bella")
	ann.typeInto("#text", "b")
	offers("those with a b", "Bengt", "Bengt", "bob", "bella")
	if said := ann.text("#names-said"); !strings.HasPrefix(said, "3 names to choose from") {
		t.Errorf("a screen reader is told %q", said)
	}
	tree := call(ann, accessibility.GetFullAXTree, accessibility.GetFullAXTreeParams{})
	options := 0
	for _, n := range tree.Nodes {
		if axText(n.Role) == "option" && !n.Ignored {
			options++
		}
		if axText(n.Role) == "combobox" && axText(n.Name) != "Message" && axText(n.Name) != "Who writes" && axText(n.Name) != "Who enters" {
			t.Errorf("a combobox is called %q", axText(n.Name))
		}
	}
	if options != 3 {
		t.Errorf("a screen reader finds %d options, want 3", options)
	}
	down()
	offers("the same", "bob", "Bengt", "bob", "bella")
	ann.press("ArrowUp", 38, "", 0)
	ann.press("ArrowUp", 38, "", 0)
	offers("the same", "bella", "Bengt", "bob", "bella")
	ann.press("Tab", 9, "", 0)
	holds("hey @bella ")
	offers("nothing more", "")
	ann.typeInto("#text", "and @zoe")
	offers("who is meant without the dots", "Zoë", "Zoë")
	ann.press("Enter", 13, enter, 0)
	holds("hey @bella and @Zoë ")
	ann.typeInto("#text", "@bo")
	offers("bob", "bob", "bob")
	ann.press("Escape", 27, "", 0)
	offers("nothing after Escape", "")
	ann.typeInto("#text", "b")
	offers("nor at the next letter", "")
	if role := value[bool](ann, `document.getElementById("text").getAttribute("role") === null`); !role {
		t.Error("the box is a combobox with nothing to choose")
	}
	ann.press("Enter", 13, enter, 0)
	ann.sees("hey @bella and @Zoë @bob")

	ann.say("@bob") // the whole name: Enter sends
	ann.sees("@bob")
	ann.typeInto("#text", "mail ann@b")
	offers("nothing in an address", "")
	ann.run(`document.getElementById("text").value = ""`)
	ann.size(320, 568)
	ann.typeInto("#text", "@b")
	offers("those with a b", "Bengt", "Bengt", "bob", "bella")
	if !value[bool](ann, `((b) => b.top >= 0 && b.left >= 0 && b.right <= innerWidth && b.bottom <= innerHeight)(document.getElementById("names").getBoundingClientRect())`) {
		t.Error("on a small phone the names do not fit into the window")
	}
	ann.do(chromedp.Click(chromedp.CSS("#name-1")))
	holds("@bob ")
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}
