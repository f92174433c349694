package browsertest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

func TestTwoTabsTalk(t *testing.T) {
	s := startServer(t, "")
	ann, bob := join(t, s.http, "lobby", "ann"), join(t, s.http, "lobby", "bob")
	ann.say("hello bob")
	bob.sees("hello bob")
	bob.say("hello ann, see https://parley.example/docs.")
	ann.sees("hello ann, see https://parley.example/docs.")
	for _, b := range []*tab{ann, bob} {
		b.wait("both names", `document.getElementById("people-list").textContent.includes("ann") && document.getElementById("people-list").textContent.includes("bob")`)
		if got, want := b.messages(), []string{"hello bob", "hello ann, see https://parley.example/docs."}; !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if got := value[string](ann, `document.querySelector("#log a").getAttribute("href")`); got != "https://parley.example/docs" {
		t.Errorf("link: got %q", got)
	}
	if got := ann.text("#connection-text"); got != "Connected" {
		t.Errorf("connection: got %q", got)
	}
}

// TestTyping: who writes is shown to others until they are silent for a while,
// or have said it.
func TestTyping(t *testing.T) {
	s := startServer(t, "")
	ann, bob := join(t, s.http, "lobby", "ann"), join(t, s.http, "lobby", "bob")
	// Those who write go on writing until it is shown: on a busy machine one has
	// been silent for too long by the time the other is seen.
	shows := func(b *tab, want string, writing ...func()) {
		t.Helper()
		tick := time.NewTicker(300 * time.Millisecond)
		defer tick.Stop()
		is := `/^(` + want + `)$/.test(document.getElementById("typing").textContent)`
		for end := time.Now().Add(patience); len(writing) > 0 && !value[bool](b, is) && time.Now().Before(end); <-tick.C {
			for _, write := range writing {
				write()
			}
		}
		b.wait("the words "+quote(want), is)
	}
	term := s.terminal("carl")
	term.ask(`{"type":"join","room":"lobby"}`, "joined")
	anns := func() {
		ann.run(`document.getElementById("text").value = ""`)
		ann.typeInto("#text", "hello b")
	}
	carls := func() {
		if _, err := term.conn.Write([]byte(`{"type":"typing","room":"lobby"}` + "\n")); err != nil {
			t.Fatal(err)
		}
	}
	shows(bob, "ann is typing", anns)
	shows(bob, "ann and carl are typing|carl and ann are typing", anns, carls)
	shows(ann, "carl is typing", carls) // and nothing of her own
	ann.typeInto("#text", "ob"+enter)
	bob.sees("hello bob")
	shows(bob, "") // ann has said it, and carl says nothing more
	shows(ann, "")
	if got := bob.text("#text"); got != "" {
		t.Errorf("bob's box holds %q", got)
	}
	bob.typeInto("#text", "   ")
	bob.typeInto("#text", "x")
	shows(ann, "bob is typing")
}

// TestHostileText: what people write is text and nothing else.
func TestHostileText(t *testing.T) {
	s := startServer(t, "")
	ann := join(t, s.http, "lobby", "ann")
	term := s.terminal("mallory")
	for _, text := range []string{`<img src=x onerror="document.title='owned'">`, `<script>document.title="owned"</script>`, `javascript:alert(1)`, `https://x/"><b>y`, `{{.Name}} ${1+1}`} {
		term.say("lobby", text)
		ann.sees(text)
	}
	if n := value[int](ann, `document.querySelectorAll("#log img, #log script, #log b b").length`); n != 0 {
		t.Errorf("%d elements came out of text", n)
	}
	if title := value[string](ann, `document.title`); strings.Contains(title, "owned") {
		t.Errorf("got title %q", title)
	}
}

// TestResume: a tab that loses its network and comes back has every message
// once, in order, its own included.
func TestResume(t *testing.T) {
	s := startServer(t, "limits:\n  commands_per_second: 0")
	p := newProxy(t, s.http)
	ann, bob := join(t, p.addr(), "lobby", "ann"), join(t, s.http, "lobby", "bob")
	want := []string{"before"}
	ann.say("before")
	bob.sees("before")
	for round := range 3 {
		p.cut()
		ann.wait("the loss to be shown", `document.getElementById("connection").dataset.state !== "online"`)
		ann.say(fmt.Sprintf("written offline %d", round))
		ann.wait("one pending message", `document.querySelectorAll("#log .pending").length === 1`)
		for i := range 30 {
			text := fmt.Sprintf("meanwhile %d.%d", round, i)
			bob.say(text)
			want = append(want, text)
		}
		bob.sees(want[len(want)-1])
		p.restore()
		ann.run(`document.getElementById("retry").click()`)
		want = append(want, fmt.Sprintf("written offline %d", round))
		ann.sees(want[len(want)-1])
		bob.sees(want[len(want)-1])
		for name, b := range map[string]*tab{"ann": ann, "bob": bob} {
			if got := b.messages(); !slices.Equal(got, want) {
				t.Fatalf("round %d, %s:\ngot  %q\nwant %q", round, name, got, want)
			}
		}
		if name := ann.text("#my-name"); name != "ann" {
			t.Errorf("came back as %q", name)
		}
	}
}

// TestSilentNetwork: a connection that stays open and says nothing is found
// out and replaced without anybody's help.
func TestSilentNetwork(t *testing.T) {
	s := startServer(t, "liveness:\n  ping: 1s\n  pong: 900ms")
	p := newProxy(t, s.http)
	ann, bob := join(t, p.addr(), "lobby", "ann"), join(t, s.http, "lobby", "bob")
	ann.say("one")
	bob.sees("one")
	p.stall()
	bob.say("two")
	bob.sees("two") // before hers, also where he is taken for silent too
	ann.say("three")
	ann.sees("two")
	ann.sees("three")
	bob.sees("three")
	if got, want := ann.messages(), []string{"one", "two", "three"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestServerKilled: the server dies without a word and starts again; what was
// acked is there, and the guest is who it was.
func TestServerKilled(t *testing.T) {
	s := startServer(t, "")
	ann := join(t, s.http, "lobby", "ann")
	ann.say("survives")
	ann.sees("survives")
	s.kill()
	ann.wait("the loss to be shown", `document.getElementById("connection").dataset.state !== "online"`)
	ann.say("written while it was down")
	s.start()
	ann.sees("written while it was down")
	if got, want := ann.messages(), []string{"survives", "written while it was down"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestReload: the tab remembers who and where.
func TestReload(t *testing.T) {
	s := startServer(t, "")
	ann := join(t, s.http, "lobby", "ann")
	ann.say("hello")
	ann.sees("hello")
	ann.typeInto("#join-room", "tea"+enter)
	ann.wait("the room", `document.getElementById("room-note").textContent === "#tea"`)
	ann.do(chromedp.Reload())
	ann.wait("the room again", `document.getElementById("room-note").textContent === "#tea" && document.getElementById("room-list").children.length === 2`)
	if name := ann.text("#my-name"); name != "ann" {
		t.Errorf("came back as %q", name)
	}
	ann.run(`location.hash = "lobby"`)
	ann.sees("hello")
	ann.click("#signout")
	ann.wait("the sign-in form", `!document.getElementById("signin").hidden`)
	if kept := value[string](ann, `sessionStorage.getItem("parley")`); strings.Contains(kept, "secret") {
		t.Errorf("after signing out the tab remembers %s", kept)
	}
}

// TestUnread: messages elsewhere are counted where the eye is.
func TestUnread(t *testing.T) {
	s := startServer(t, "")
	ann := join(t, s.http, "lobby", "ann")
	ann.typeInto("#join-room", "tea"+enter)
	ann.wait("the room", `document.getElementById("room-note").textContent === "#tea"`)
	term := s.terminal("bob")
	term.say("lobby", "over here")
	term.say("lobby", "and again")
	ann.wait("a count", `document.querySelector("#room-list .badge")?.textContent === "2 unread"`)
	ann.wait("the title", `document.title.startsWith("(2) ")`)
	ann.click(`#room-list a[href="#lobby"]`)
	ann.sees("and again")
	ann.wait("the count to go", `!document.querySelector("#room-list .badge") && !document.title.startsWith("(")`)
	ann.wait("the line above the first unread", `document.querySelector("#log .new + .message .text")?.textContent === "over here"`)
}

// TestHistory: older messages come on scrolling, the page stays bounded, and
// the way back leads to the newest.
func TestHistory(t *testing.T) {
	s := startServer(t, "limits:\n  commands_per_second: 0")
	term := s.terminal("bob")
	const total = 700
	for i := 1; i <= total; i++ {
		term.say("lobby", fmt.Sprintf("message %d", i))
	}
	ann := join(t, s.http, "lobby", "ann")
	ann.sees(fmt.Sprintf("message %d", total))
	for n := 50; n < total; n += 50 {
		top := fmt.Sprintf("message %d", total-n+1)
		ann.wait("the page before "+top, `document.querySelector("#log .message .text").textContent !== `+quote(top)+
			` || (document.getElementById("scroll").scrollTop = 0, false)`)
	}
	ann.sees("message 1")
	got := ann.messages()
	if len(got) > 500 {
		t.Errorf("the page holds %d messages, at most 500 are kept", len(got))
	}
	for i, text := range got {
		if want := fmt.Sprintf("message %d", i+1); text != want {
			t.Fatalf("message at %d: got %q, want %q", i, text, want)
		}
	}
	term.say("lobby", "live meanwhile")
	ann.wait("word of it", `document.getElementById("latest").textContent.startsWith("1 new message")`)
	ann.click("#latest")
	ann.sees("live meanwhile")
	ann.wait("to be at the end", `document.getElementById("latest").hidden`)
	if got := ann.messages(); got[len(got)-1] != "live meanwhile" || got[len(got)-2] != fmt.Sprintf("message %d", total) {
		t.Errorf("the newest are %q", got[len(got)-2:])
	}
}
