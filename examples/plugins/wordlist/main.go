// Command wordlist is a moderation plugin that masks, refuses or flags words
// from its configuration. It is a guest: build it for wasip1, see README.md.
//
// It works on the host's normalised text, in which case, invisible characters
// and look-alike letters of other alphabets are gone already, and adds what is
// a matter of taste: accents, digits and signs that stand for letters ("h3ck"),
// letters set apart ("h e c k", "h-e-c-k") and letters repeated ("heeeck").
// Only whole words match, so that "class" holds no bad word.
package main

import (
	"fmt"

	"parley/sdk/abi"
	"parley/sdk/plugin"
)

func init() { plugin.Register(new(judge)) }

func main() {} // the host calls decide, never main

// Codes of the rules, which people see as "rule_CODE".
const codeWord = 1

// config is what "config" in wordlist.json may say.
type config struct {
	Words  []string `json:"words"`  // Latin letters, accents are ignored; at least 2 letters each
	Mode   string   `json:"mode"`   // "redact" (the default), "deny", "hold" or "flag"
	Reason string   `json:"reason"` // told to the author instead of the default
}

// judge is the plugin. Before Configure it knows no words and lets all pass.
type judge struct {
	verdict abi.Verdict
	reason  string
	words   index
	spans   [abi.MaxSpans]plugin.Span
}

// Configure takes the word list.
func (j *judge) Configure(b []byte) error {
	c := config{Mode: "redact"}
	if err := plugin.ReadConfig(b, &c); err != nil {
		return fmt.Errorf("wordlist: %w", err)
	}
	switch c.Mode {
	case "redact":
		j.verdict, j.reason = abi.Redact, "A word that is not welcome here was masked."
	case "deny":
		j.verdict, j.reason = abi.Deny, "It contains a word that is not welcome here; say it without."
	case "hold":
		j.verdict, j.reason = abi.Hold, "It contains a word that a moderator looks at first."
	case "flag":
		j.verdict, j.reason = abi.Flag, "It contains a word from the list."
	default:
		return fmt.Errorf("wordlist: config: mode %q is not one of redact, deny, hold, flag", c.Mode)
	}
	if c.Reason != "" {
		j.reason = c.Reason
	}
	return j.words.build(c.Words)
}

// Decide judges one message. It allocates nothing.
func (j *judge) Decide(m *plugin.Message) plugin.Result {
	text, n := m.Normalized, 0
	for at := 0; at < len(text); {
		start, end := j.words.find(text, at)
		if end == 0 {
			break
		}
		if j.verdict != abi.Redact {
			return plugin.Result{Verdict: j.verdict, Code: codeWord, Score: 1000, Reason: j.reason}
		}
		if n == len(j.spans) { // a message of nothing but such words: mask on to its end
			j.spans[n-1] = plugin.InNormalized(int(j.spans[n-1].Start), len(text))
			break
		}
		j.spans[n] = plugin.InNormalized(start, end)
		n++
		at = end
	}
	r := plugin.Redact(codeWord, j.reason, j.spans[:n]...)
	r.Score = 1000 * min(uint16(n), 1)
	return r
}
