package browsertest

import (
	"strings"
	"testing"

	"github.com/chromedp/cdproto/accessibility"
)

// colours are the means of the checks below: over lays colours on each other,
// ground is what an element lies on, ratio the contrast of WCAG 2.2.
const colours = `
  const channel = (c) => ((c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  const luminance = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const parse = (s) => {
    const [c] = s.match(/(rgba?|color)\([^)]*\)/);
    const n = c.match(/[\d.]+/g).map(Number);
    return [...n.slice(0, 3).map((v) => (c.startsWith("color") ? v * 255 : v)), n[3] ?? 1];
  };
  const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3])).concat(1);
  const up = (e) => (e ? [e, ...up(e.parentElement)] : []);
  const ground = (e) => up(e).map((x) => parse(getComputedStyle(x).backgroundColor)).reverse().reduce((under, l) => over(l, under), [255, 255, 255, 1]);
  const opacity = (e) => up(e).reduce((n, x) => n * getComputedStyle(x).opacity, 1);
  const ratio = (a, b) => { const [x, y] = [luminance(a) + 0.05, luminance(b) + 0.05]; return Math.max(x, y) / Math.min(x, y); };
  const faded = (colour, e, extra = 1) => { const [r, g, b, a] = parse(colour); return over([r, g, b, a * opacity(e) * extra], ground(e)); };
  const shown = (e) => e.checkVisibility({ visibilityProperty: true }) && !e.closest(".sr, .skip, [inert]") && e.getBoundingClientRect().width > 1;
  const named = (e) => JSON.stringify((e.textContent || e.placeholder || "").trim().slice(0, 30)) + " in " + e.tagName + "." + e.className + "#" + e.id;
  const seen = [];`

// contrastCheck lists visible texts below the contrast that WCAG 2.2 asks for
// (1.4.3: 4.5:1, or 3:1 for large text), placeholders among them; what is
// disabled is exempt.
const contrastCheck = `(() => {` + colours + `
  for (const e of document.querySelectorAll("body *")) {
    if (!shown(e) || e.disabled) continue;
    const style = getComputedStyle(e);
    const size = parseFloat(style.fontSize);
    const wanted = size >= 24 || (size >= 18.66 && style.fontWeight >= 700) ? 3 : 4.5;
    const check = (colour, extra, what) => { const r = ratio(faded(colour, e, extra), ground(e)); if (r < wanted) seen.push(what + " has contrast " + r.toFixed(2) + ": " + named(e)); };
    if ([...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim())) check(style.color, 1, "a text");
    if (e.placeholder && !e.value) { const p = getComputedStyle(e, "::placeholder"); check(p.color, Number(p.opacity), "a placeholder"); }
  }
  return seen;
})()`

// edgeCheck lists what has to be seen to be used, and is not set off by 3:1
// (1.4.11): fields, the bar at a message that mentions us, the edge of a badge,
// and what shows where the focus is.
const edgeCheck = `(() => {` + colours + `
  const check = (e, colour, on, what) => { const r = ratio(over(parse(colour), on), on); if (r < 3) seen.push(what + " has contrast " + r.toFixed(2) + ": " + named(e)); };
  for (const e of document.querySelectorAll("input, select, textarea")) if (shown(e)) check(e, getComputedStyle(e).borderTopColor, ground(e.parentElement), "the edge of a field");
  for (const e of document.querySelectorAll(".message.calls")) check(e, getComputedStyle(e).boxShadow, ground(e), "the bar at a mention");
  for (const e of document.querySelectorAll(".badge.calls")) if (shown(e)) check(e, getComputedStyle(e).outlineColor, ground(e), "the edge of a badge");
  for (const e of document.querySelectorAll("button, a, input, textarea, select, summary, [tabindex]")) {
    if (!shown(e) || e.disabled) continue;
    const was = document.activeElement;
    e.focus({ focusVisible: true, preventScroll: true });
    const style = getComputedStyle(e);
    if (document.activeElement !== e || style.outlineStyle === "none" || parseFloat(style.outlineWidth) < 2) seen.push("the focus cannot be seen: " + named(e));
    else check(e, style.outlineColor, ground(parseFloat(style.outlineOffset) < 0 ? e : e.parentElement), "the sign of the focus");
    was?.focus();
  }
  return seen;
})()`

// sizeCheck lists what is too small to be hit with a finger (2.5.8: 24 by 24
// pixels); links and buttons in a sentence are exempt.
const sizeCheck = `(() => {` + colours + `
  for (const e of document.querySelectorAll("button, a, input, textarea, select, summary, [role=option]")) {
    if (!shown(e) || e.closest(".text, .foot")) continue;
    const b = e.getBoundingClientRect();
    if (b.width < 24 || b.height < 24) seen.push(b.width.toFixed(0) + " by " + b.height.toFixed(0) + ": " + named(e));
  }
  return seen;
})()`

// TestEverythingCanBeSeenAndHit holds the page to what WCAG 2.2 AA asks of colours
// and sizes, in both schemes, with everything on it that a moderator meets.
func TestEverythingCanBeSeenAndHit(t *testing.T) {
	s := startServer(t, "plugins:\n  dir: "+built.plugins)
	bob := s.hello(`"token":"` + s.token("bob", "") + `"`)
	bob.ask(`{"type":"join","room":"lobby"}`, "joined")
	p := newProxy(t, s.http)
	mia := signIn(t, p.addr(), "lobby", "mia", s.token("mia", "moderator"))
	bob.say("lobby", "@mia, look: https://parley.example/")
	mia.say("well, darn it")
	mia.wait("all of it", `document.querySelector("#log .tag.call") && document.querySelector("#log .own .tag")`)
	mia.typeInto("#join-room", "tea"+enter)
	mia.wait("the room", `document.getElementById("room-note").textContent === "#tea"`)
	bob.say("lobby", "@mia?")
	bob.say(bob.direct("mia"), "psst")
	mia.badges("a mention", "Lobby", "@1 mentions you, 1 unread")
	mia.badges("a direct", "bob", "1 unread")
	for _, step := range []struct{ name, setup, ready string }{
		{"another room", ``, `true`},
		{"the lobby", `location.hash = "lobby"`, `document.querySelector("#log .tag.call") && document.querySelector("#people-list .acts")`},
		{"menus open", `for (const d of document.querySelectorAll("#people details")) d.open = true`, `document.querySelector("#settings-save").checkVisibility()`},
		{"nobody to reach", `document.getElementById("text").value = "soon"; document.getElementById("send-form").requestSubmit()`, `document.querySelector("#log .pending") && document.getElementById("connection").dataset.state !== "online"`},
		{"signing in", `document.getElementById("signout").click(); document.getElementById("token-field").open = true`, `!document.getElementById("signin").hidden`},
	} {
		if step.name == "nobody to reach" {
			p.cut()
		}
		if step.setup != "" {
			mia.run(step.setup)
		}
		mia.wait(step.name, step.ready)
		for _, scheme := range []string{"light", "dark"} {
			mia.scheme(scheme)
			mia.wait("drawing to end", `document.getAnimations().every((a) => a.playState === "finished" || a.effect.target.className === "lamp")`)
			for what, check := range map[string]string{"contrast": contrastCheck, "edges": edgeCheck, "sizes": sizeCheck} {
				for _, bad := range value[[]string](mia, check) {
					t.Errorf("%s, %s, %s: %s", step.name, scheme, what, bad)
				}
			}
		}
	}
}

// TestChecksFind: the checks above find what they are for.
func TestChecksFind(t *testing.T) {
	s := startServer(t, "")
	ann := join(t, s.http, "lobby", "ann")
	ann.run(`const sheet = new CSSStyleSheet(); sheet.replaceSync("#my-class { opacity: .3 } #signout { min-height: 0; height: 12px } #text { border-color: #eee } #join-room::placeholder { opacity: .4 } #signout:focus-visible { outline: none } #send:focus-visible { outline: 3px solid #fff }"); document.adoptedStyleSheets = [sheet]`)
	for check, want := range map[string][]string{contrastCheck: {"#my-class", "#join-room"}, edgeCheck: {"#text", "#signout", "#send"}, sizeCheck: {"#signout"}} {
		found := strings.Join(value[[]string](ann, check), "\n")
		for _, id := range want {
			if !strings.Contains(found, id) {
				t.Errorf("what is wrong with %s is not found:\n%s", id, found)
			}
		}
	}
}

// TestStatesAreTold: what is shown by a bar, a badge or a colour is there in
// words for who hears the page.
func TestStatesAreTold(t *testing.T) {
	ann := scene(t)
	tree := call(ann, accessibility.GetFullAXTree, accessibility.GetFullAXTreeParams{})
	var names []string
	for _, n := range tree.Nodes {
		if !n.Ignored {
			names = append(names, axText(n.Role)+" "+axText(n.Name))
		}
	}
	all := "\n" + strings.Join(names, "\n") + "\n"
	for _, want := range []string{
		"link kitchen @1 mentions you, 2 unread", "link bob 1 unread", "heading Direct messages", "list Direct messages",
		"button bob", "article bob, ", "StaticText Mentions you", "StaticText Erased by its author.", "StaticText Connected", "textbox Message",
	} {
		if !strings.Contains(all, "\n"+want) {
			t.Errorf("nothing is called %q; the page has:%s", want, all)
		}
	}
}
