package browsertest

import (
	"bytes"
	"fmt"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/accessibility"
	"github.com/chromedp/chromedp"
)

// scene fills a room as people would, and returns ann's tab.
func scene(t *testing.T) *tab {
	t.Helper()
	s := startServer(t, "plugins:\n  dir: "+built.plugins)
	mia, bob := s.terminal("mia"), s.hello(`"token":"`+s.token("bob", "")+`"`)
	for _, c := range []*terminal{mia, bob, s.terminal("noor"), s.terminal("Zoë")} {
		c.ask(`{"type":"join","room":"lobby"}`, "joined")
	}
	mia.say("lobby", "Morning! The new build is on the small machine.")
	mia.say("lobby", "It starts in no time, even on a cold cache.")
	bob.say("lobby", "Nice. I pulled the network cable in the middle of a sentence and it simply went on afterwards, without a gap.")
	ann := signIn(t, s.http, "lobby", "ann", s.token("ann", ""))
	ann.sees("Morning! The new build is on the small machine.")
	ann.say("That is what I came to hear. Notes are at https://parley.example/notes")
	ann.sees("That is what I came to hear. Notes are at https://parley.example/notes")
	bob.say("lobby", "@ann, do you write the announcement?")
	ann.say("Yes, and no darn typos this time")
	ann.wait("the masked message", `document.querySelector("#log .own .tag")`)
	ann.say("not here")
	ann.sees("not here")
	ann.run(`[...document.querySelectorAll("#log .own .do button")].at(-1).click()`)
	ann.run(`[...document.querySelectorAll("#log .do button")].find((b) => b.textContent === "Yes, erase").click()`)
	ann.wait("what is left of it", `document.getElementById("log").textContent.includes("Erased by its author.")`)
	mia.say("lobby", "Ship it!")
	ann.sees("Ship it!")
	ann.typeInto("#join-room", "kitchen"+enter)
	ann.wait("the room", `document.getElementById("room-note").textContent === "#kitchen"`)
	ann.typeInto("#join-room", "announcements"+enter)
	ann.wait("the room", `document.getElementById("room-title").textContent === "Announcements"`)
	ann.run(`location.hash = "lobby"`)
	ann.sees("Ship it!")
	mia.say("kitchen", "tea is ready")
	mia.say("kitchen", "@ann too strong?")
	bob.say(bob.direct("ann"), "lunch at noon?")
	ann.badges("a mention", "kitchen", "@1 mentions you, 2 unread")
	ann.badges("a direct", "bob", "1 unread")
	ann.run(`document.activeElement.blur()`)
	return ann
}

// TestScreenshots looks at the page in each shape it takes: nothing is cut
// off sideways, and every text can be read. With -shots it keeps the pictures.
func TestScreenshots(t *testing.T) {
	ann := scene(t)
	for _, shape := range []struct {
		name          string
		width, height int64
		scheme, setup string
	}{
		{"desktop-light", 1280, 760, "light", ``},
		{"desktop-dark", 1280, 760, "dark", ``},
		{"tablet", 820, 900, "light", ``},
		{"phone", 390, 780, "light", ``},
		{"phone-dark", 390, 780, "dark", ``},
		{"phone-small", 320, 568, "light", ``},
		{"names", 1280, 760, "light", `document.getElementById("text").focus(); document.execCommand("insertText", false, "@")`},
		{"names-phone", 320, 568, "dark", ``},
		{"erase", 390, 780, "light", `[...document.querySelectorAll("#log .do button")].at(-1).click()`},
		{"erase-dark", 1280, 760, "dark", ``},
		{"phone-rooms", 390, 780, "light", `document.getElementById("show-rooms").click()`},
		{"phone-people", 390, 780, "dark", `document.getElementById("show-people").click()`},
		{"refused", 1280, 760, "light", `location.hash = "announcements"`},
		{"refused-phone", 390, 780, "dark", ``},
		{"signin", 1280, 760, "light", `document.getElementById("signout").click()`},
		{"signin-phone", 390, 780, "dark", ``},
	} {
		ann.size(shape.width, shape.height)
		ann.scheme(shape.scheme)
		if shape.setup != "" {
			ann.run(shape.setup)
		}
		switch shape.name {
		case "names":
			ann.wait("names", `document.querySelectorAll("#names [role=option]").length > 3`)
		case "erase":
			ann.run(`document.getElementById("text").value = ""`)
			ann.wait("the question", `getComputedStyle(document.querySelector("#log .message:focus-within .do")).visibility === "visible"`)
		case "refused":
			ann.wait("the room", `document.getElementById("room-title").textContent === "Announcements"`)
			ann.say("Release party on Friday!")
			ann.wait("a reason", `document.querySelector("#notice .rule") && document.querySelector("#log .failed")`)
		}
		ann.wait("drawing to end", `document.getAnimations().every((a) => a.playState === "finished")`)
		if wide := value[int](ann, `document.documentElement.scrollWidth`); wide > int(shape.width) {
			t.Errorf("%s: the page is %d wide, the window %d", shape.name, wide, shape.width)
		}
		for _, bad := range value[[]string](ann, contrastCheck) {
			t.Errorf("%s: %s", shape.name, bad)
		}
		ann.picture(shape.name)
		if !strings.HasPrefix(shape.name, "names") {
			ann.press("Escape", 27, "", 0)
		}
	}
}

// picture keeps a screenshot where -shots asks for it.
func (b *tab) picture(name string) {
	b.t.Helper()
	shot, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
	if err != nil {
		b.t.Fatal(err)
	}
	if _, err := png.DecodeConfig(bytes.NewReader(shot)); err != nil {
		b.t.Fatalf("screenshot %s: %v", name, err)
	}
	if *shots == "" {
		return
	}
	files := []string{filepath.Join(*shots, name+".png")}
	if name == "desktop-light" {
		files = append(files, "../../../docs/screenshot.png")
	}
	for _, f := range files {
		if err := os.WriteFile(f, shot, 0o644); err != nil {
			b.t.Fatal(err)
		}
	}
}

// TestAccessibleNames: a screen reader finds a name on everything that can
// have the focus, and the landmarks of a page.
func TestAccessibleNames(t *testing.T) {
	ann := scene(t)
	tree := call(ann, accessibility.GetFullAXTree, accessibility.GetFullAXTreeParams{})
	roles := make(map[string]int)
	for _, n := range tree.Nodes {
		if n.Ignored {
			continue
		}
		role, name := axText(n.Role), axText(n.Name)
		roles[role]++
		for _, p := range n.Properties {
			if p.Name == "focusable" && name == "" && role != "RootWebArea" {
				t.Errorf("a focusable %s has no name", role)
			}
		}
	}
	for _, role := range []string{"main", "navigation", "complementary", "banner", "log", "status", "textbox", "heading", "list"} {
		if roles[role] == 0 {
			t.Errorf("the page has no %s; it has %v", role, roles)
		}
	}
}

func axText(v *accessibility.Value) string {
	if v == nil {
		return ""
	}
	return strings.Trim(string(v.Value), `"`)
}

// TestKeyboard: Tab reaches everything, first of all the way to skip to the
// message box, each stop can be seen, and Shift+Enter starts a line.
func TestKeyboard(t *testing.T) {
	ann := scene(t)
	ann.run(`document.activeElement.blur()`)
	var stops []string
	for range 40 {
		ann.press("Tab", 9, "", 0)
		stop := value[string](ann, `((e) => e === document.body ? "" : e.dataset.focus ? "skip" : e.id || e.getAttribute("href") || e.className || e.textContent)(document.activeElement)`)
		if stop == "" {
			continue // between the end of the page and its beginning
		}
		if !value[bool](ann, `((e) => { const b = e.getBoundingClientRect(); return b.width > 0 && b.height > 0 && getComputedStyle(e).outlineStyle !== "none"; })(document.activeElement)`) {
			t.Errorf("the focus cannot be seen on %s", stop)
		}
		stops = append(stops, stop)
	}
	order := " " + strings.Join(stops, " ") + " "
	for _, want := range []string{" skip #lobby #kitchen #announcements #dm:", " join-room Join signout ", " scroll ", " text send ", " talk leave "} { // between them the people of the room
		if !strings.Contains(order, want) {
			t.Errorf("Tab does not go%sin a row; it goes%s", want, order)
		}
	}
	ann.typeInto("#text", "one")
	ann.press("Enter", 13, enter, 8)
	ann.typeInto("#text", "two"+enter)
	ann.sees("one\ntwo")
}

// TestDrawers: on a phone the panels open over the conversation, keep the
// focus out of it, and Escape gives it back.
func TestDrawers(t *testing.T) {
	s := startServer(t, "")
	ann := join(t, s.http, "lobby", "ann")
	ann.say(strings.Repeat("wide", 60))
	ann.size(390, 780)
	for _, panel := range []string{"rooms", "people"} {
		inside := fmt.Sprintf(`document.getElementById(%q).contains(document.activeElement)`, panel)
		ann.click("#show-" + panel)
		ann.wait(panel+" to open", inside+` && document.getElementById("talk").inert`)
		ann.press("Escape", 27, "", 0)
		ann.wait(panel+" to close", fmt.Sprintf(`document.activeElement.id === "show-%s" && !document.getElementById("talk").inert`, panel))
	}
	ann.click("#show-rooms")
	ann.typeInto("#join-room", "tea"+enter)
	ann.wait("the new room, and the drawer away", `document.getElementById("room-note").textContent === "#tea" && !document.getElementById("talk").inert`)
}
