// Command conformance is the Go SDK's guest for the conformance kit: the text
// of a message says what to answer. Package plugintest documents the commands
// and checks the answers. Build it for wasip1.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"parley/sdk/plugin"
)

func init() { plugin.Register(new(guest)) }

func main() {} // the host calls decide, never main

type guest struct {
	config struct {
		Mark   string   `json:"mark"`
		Number int      `json:"number"`
		On     bool     `json:"on"`
		List   []string `json:"list"`
	}
	count int
}

func (g *guest) Configure(b []byte) error {
	if err := plugin.ReadConfig(b, &g.config); err != nil {
		return err
	}
	c := &g.config
	long := len(c.Mark) > 64 || len(c.List) > 8
	for _, s := range c.List {
		long = long || len(s) > 16
	}
	if long || c.Number < -1000 || c.Number > 1000 {
		return errors.New("config: something is longer or larger than it may be")
	}
	return nil
}

// word cuts off the next word.
func word(left *[]byte) []byte {
	w, rest, _ := bytes.Cut(*left, []byte{' '})
	*left = rest
	return w
}

func number(b []byte) (n int) {
	for _, c := range b {
		n = n*10 + int(c-'0')
	}
	return n
}

func tell(code int, format string, args ...any) plugin.Result {
	return plugin.Flag(uint16(code), fmt.Sprintf(format, args...)).Scored(0)
}

func (g *guest) Decide(m *plugin.Message) plugin.Result {
	left := m.Text
	switch verdict := string(word(&left)); verdict {
	case "flag", "hold", "deny":
		build := map[string]func(uint16, string) plugin.Result{"flag": plugin.Flag, "hold": plugin.Hold, "deny": plugin.Deny}[verdict]
		code, score := number(word(&left)), number(word(&left))
		return build(uint16(code), string(left)).Scored(uint16(score))
	case "redact":
		return redact(left)
	case "stripes":
		n, step := number(word(&left)), number(word(&left))
		var spans []plugin.Span
		for i := n - 1; i >= 0; i-- {
			spans = append(spans, plugin.InText(i*step, i*step+1))
		}
		return plugin.Redact(1, "striped", spans...)
	case "read":
		return read(m, string(left))
	case "quote":
		start, end := number(word(&left)), number(word(&left))
		return plugin.Flag(0, string(m.Text[start:end])).Scored(0)
	case "role":
		if m.HasRole(string(left)) {
			return tell(1, "")
		}
		return tell(0, "")
	case "signals":
		return tell(0, "%d %d %d", m.Signals.RecentPerMinute, m.Signals.Repeats, m.Signals.AccountAgeHours)
	case "time":
		return tell(0, "%d", m.TimeMS)
	case "count":
		g.count++
		return tell(0, "%d", g.count)
	case "config":
		on := "off"
		if g.config.On {
			on = "on"
		}
		return tell(0, "%s|%d|%s|%s", g.config.Mark, g.config.Number, on, strings.Join(g.config.List, ","))
	case "error":
		return plugin.Fail()
	case "trap":
		panic("as it was told")
	case "spin":
		for {
			g.count++
		}
	}
	return plugin.Allow()
}

func redact(left []byte) plugin.Result {
	code, score := number(word(&left)), number(word(&left))
	var spans []plugin.Span
	for len(left) > 0 {
		w := word(&left)
		start, end, _ := bytes.Cut(w[1:], []byte{'-'})
		if w[0] == 'n' {
			spans = append(spans, plugin.InNormalized(number(start), number(end)))
		} else {
			spans = append(spans, plugin.InText(number(start), number(end)))
		}
	}
	return plugin.Redact(uint16(code), "masked", spans...).Scored(uint16(score))
}

func read(m *plugin.Message, name string) plugin.Result {
	fields := map[string][]byte{
		"text": m.Text, "normalized": m.Normalized, "user": m.User, "room": m.Room, "roles": m.Roles, "kind": m.Kind,
	}
	field, ok := fields[name]
	if !ok {
		return plugin.Fail()
	}
	return plugin.Flag(uint16(len(field)), string(field)).Scored(0)
}
