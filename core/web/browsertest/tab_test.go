package browsertest

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	cdplog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// tab is one browser tab. Whatever it throws, and whatever the page's security
// policy blocks, fails the test.
type tab struct {
	t   *testing.T
	ctx context.Context

	mu       sync.Mutex
	problems []string
}

func openTab(t *testing.T, url string) *tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(built.browser)
	b := &tab{t: t, ctx: ctx}
	t.Cleanup(func() {
		cancel()
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, p := range b.problems {
			t.Errorf("the page: %s", p)
		}
	})
	if err := chromedp.Listen(ctx, b.heard); err != nil {
		t.Fatal(err)
	}
	call(b, cdplog.Enable, cdp.Empty{})
	call(b, emulation.SetFocusEmulationEnabled, emulation.SetFocusEmulationEnabledParams{Enabled: true})
	b.do(chromedp.Navigate(url))
	return b
}

// heard collects what must not happen.
func (b *tab) heard(ev any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch ev := ev.(type) {
	case *runtime.EventExceptionThrown:
		b.problems = append(b.problems, fmt.Sprintf("threw: %s %v", ev.ExceptionDetails.Text, ev.ExceptionDetails.Exception))
	case *cdplog.EventEntryAdded:
		if e := ev.Entry; strings.Contains(e.Text, "Content Security Policy") || strings.Contains(e.Text, "violates") {
			b.problems = append(b.problems, e.Text)
		}
	}
}

// call sends one protocol command.
func call[P, R any](b *tab, c cdp.Command[P, R], params P) R {
	b.t.Helper()
	r, err := chromedp.Call(b.ctx, c, params)
	if err != nil {
		b.t.Fatalf("%s: %v", c.Method, err)
	}
	return r
}

// join opens a tab and signs in as a guest.
func join(t *testing.T, addr, room, name string) *tab {
	t.Helper()
	b := openTab(t, "http://"+addr+"/#"+room)
	b.wait("the sign-in form", `!document.getElementById("signin").hidden`)
	b.typeInto("#guest", name+enter)
	b.wait(name+" in "+room, `!document.getElementById("app").hidden && document.getElementById("my-name").textContent === `+quote(name))
	b.wait("people", `document.getElementById("people-list").children.length > 0`)
	return b
}

func (b *tab) do(actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		b.t.Fatal(err)
	}
}

// value evaluates an expression.
func value[T any](b *tab, js string) T {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](js))
	if err != nil {
		b.t.Fatalf("%s: %v", js, err)
	}
	return v
}

// run evaluates a statement.
func (b *tab) run(js string) {
	b.t.Helper()
	b.do(chromedp.Evaluate[chromedp.Void](js))
}

// wait asks until the expression is true.
func (b *tab) wait(what, js string) {
	b.t.Helper()
	tick := time.NewTicker(30 * time.Millisecond)
	defer tick.Stop()
	end := time.After(patience)
	for {
		if value[bool](b, "Boolean("+js+")") {
			return
		}
		select {
		case <-tick.C:
		case <-end:
			b.t.Fatalf("waited %v for %s; the page shows:\n%s", patience, what, value[string](b, `document.body.innerText`))
		}
	}
}

// enter is the Enter key, at the end of what is typed.
const enter = "\r"

// typeInto types as a person does; each key is one event, so that the page may
// keep a key from doing what it does by itself.
func (b *tab) typeInto(selector, text string) {
	b.t.Helper()
	b.do(chromedp.Focus(chromedp.CSS(selector)))
	call(b, input.InsertText, input.InsertTextParams{Text: strings.TrimSuffix(text, enter)})
	if strings.HasSuffix(text, enter) {
		b.press("Enter", 13, enter, 0)
	}
}

// press presses one key. modifiers: 8 is Shift.
func (b *tab) press(key string, code int64, text string, modifiers int64) {
	b.t.Helper()
	for _, typ := range []input.DispatchKeyEventType{input.DispatchKeyEventTypeKeyDown, input.DispatchKeyEventTypeKeyUp} {
		p := input.DispatchKeyEventParams{Type: typ, Key: key, Code: key, WindowsVirtualKeyCode: code, Modifiers: modifiers}
		if typ == input.DispatchKeyEventTypeKeyDown {
			p.Text = text
		}
		call(b, input.DispatchKeyEvent, p)
	}
}

func (b *tab) click(selector string) {
	b.t.Helper()
	b.do(chromedp.Click(chromedp.CSS(selector)))
}

func (b *tab) say(text string) {
	b.t.Helper()
	b.typeInto("#text", text+enter)
}

// size gives the tab a window of that many CSS pixels.
func (b *tab) size(width, height int64) {
	b.t.Helper()
	b.do(chromedp.EmulateViewport(width, height))
}

// scheme makes the tab prefer "light" or "dark".
func (b *tab) scheme(name string) {
	b.t.Helper()
	call(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: name}}})
}

// messages are the texts the tab shows, in order.
func (b *tab) messages() []string {
	b.t.Helper()
	return value[[]string](b, `[...document.querySelectorAll("#log .message .text")].map((e) => e.textContent)`)
}

// sees waits until a message is shown, and posted.
func (b *tab) sees(text string) {
	b.t.Helper()
	b.wait("the message "+text, fmt.Sprintf(`[...document.querySelectorAll("#log .message:not(.pending, .failed) .text")].some((e) => e.textContent === %s)`, quote(text)))
}

func (b *tab) text(selector string) string {
	b.t.Helper()
	return value[string](b, `document.querySelector(`+quote(selector)+`).textContent`)
}

func quote(s string) string { return fmt.Sprintf("%q", s) }
