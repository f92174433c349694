// Package plugin is the Go SDK for Parley's moderation plugins. A plugin looks
// at one message and gives a verdict; it can let it pass, flag it, mask parts
// of it, hold it or refuse it, and can never write anything itself.
//
//	package main
//
//	import "parley/sdk/plugin"
//
//	func init() {
//		plugin.Register(plugin.Func(func(m *plugin.Message) plugin.Result {
//			if len(m.Text) > 500 {
//				return plugin.Deny(1, "Keep it under 500 bytes.")
//			}
//			return plugin.Allow()
//		}))
//	}
//
//	func main() {}
//
// Build it with the standard Go toolchain and put it in the server's plugin
// folder:
//
//	GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -o NAME.wasm .
//
// The host runs a plugin without files, network, clock or randomness of its
// own, meters its work, and resets its memory after each decision, so a
// decision depends on the message and the configuration alone. A guest runs on
// one goroutine. Natively (in go test) the package exports nothing to a host;
// Try runs a judge through the same encoding and checks the host applies.
//
// docs/plugin-abi.md specifies what passes between host and guest.
package plugin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"parley/sdk/abi"
)

// Message is one message to judge. Its slices point into the input buffer:
// they are valid until Decide returns and must not be modified.
type Message struct {
	Text       []byte // what was written, UTF-8, in Normalization Form C
	Normalized []byte // Text for matching: lower case, look-alikes and invisible characters folded away
	User       []byte
	Room       []byte
	Roles      []byte // sorted, '\n' between them
	Kind       []byte // "message", "edit", "nick" or "topic"
	TimeMS     int64  // Unix ms at which the server accepted it
	Signals    abi.Signals
}

// HasRole reports whether the author has a role, such as "moderator".
func (m *Message) HasRole(role string) bool {
	for rest := m.Roles; len(rest) > 0; {
		one, after, _ := bytes.Cut(rest, []byte{'\n'})
		if string(one) == role {
			return true
		}
		rest = after
	}
	return false
}

// Span is a run of bytes of one field to mask, on UTF-8 boundaries.
type Span = abi.Span

// InText marks the bytes start to end of Message.Text.
func InText(start, end int) Span {
	return Span{Field: abi.FieldText, Start: uint32(start), Length: uint32(end - start)}
}

// InNormalized marks the bytes start to end of Message.Normalized. The host
// masks the characters of the text that they came from.
func InNormalized(start, end int) Span {
	return Span{Field: abi.FieldNormalized, Start: uint32(start), Length: uint32(end - start)}
}

// Result is a judge's answer; build it with Allow, Flag, Redact, Hold or Deny.
type Result struct {
	Verdict abi.Verdict
	// Code is the plugin's own number for the rule that fired. People see it
	// as "rule_CODE".
	Code uint16
	// Score says how sure the judge is, 0 to 1000; the functions below say
	// 1000, Scored another.
	Score uint16
	// Reason is one sentence for the author of the message, at most 256 bytes;
	// the rest is cut off.
	Reason string
	// Spans are what to mask, for Redact alone. They may be in any order and
	// may overlap; of more than 256, neighbours are joined. The slice is
	// sorted in place, and may be reused by the next decision.
	Spans []Span
}

// Allow lets the message pass.
func Allow() Result { return Result{} }

// Flag lets the message pass and marks it for moderators.
func Flag(code uint16, reason string) Result {
	return Result{Verdict: abi.Flag, Code: code, Score: maxScore, Reason: reason}
}

// Redact lets the message pass with the spans masked. Without spans it is
// Allow.
func Redact(code uint16, reason string, spans ...Span) Result {
	if len(spans) == 0 {
		return Allow()
	}
	return Result{Verdict: abi.Redact, Code: code, Score: maxScore, Reason: reason, Spans: spans}
}

// Hold keeps the message back until a moderator has looked at it.
func Hold(code uint16, reason string) Result {
	return Result{Verdict: abi.Hold, Code: code, Score: maxScore, Reason: reason}
}

// Deny refuses the message.
func Deny(code uint16, reason string) Result {
	return Result{Verdict: abi.Deny, Code: code, Score: maxScore, Reason: reason}
}

// Fail says that the judge could not judge, which counts as a failure.
func Fail() Result { return Result{Verdict: abi.Error} }

// maxScore is the score of who is certain.
const maxScore = 1000

// Scored returns r with another score, 0 to 1000.
func (r Result) Scored(score uint16) Result {
	r.Score = score
	return r
}

// Judge decides on messages. Decide should allocate little: memory it asks for
// counts as work, and the host ends a decision that works too much.
type Judge interface {
	Decide(m *Message) Result
}

// Configurer is a Judge that takes a configuration: the "config" of the
// plugin's manifest, as JSON. It is called once before the first decision,
// and not at all when the manifest has none. An error refuses the plugin; its
// text reaches the operator.
type Configurer interface {
	Configure(json []byte) error
}

// ReadConfig decodes a configuration into a struct as encoding/json does, but
// an unknown key and anything behind the object are errors too, so that a
// mistake in a manifest is told instead of ignored.
func ReadConfig(config []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(config))
	d.DisallowUnknownFields()
	err := d.Decode(into)
	var kind *json.UnmarshalTypeError
	if errors.As(err, &kind) {
		return fmt.Errorf("config: %q is a %s, want %s", kind.Field, kind.Value, kind.Type)
	}
	if err != nil {
		return fmt.Errorf("config: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("config: something follows the object")
	}
	return nil
}

// Func is a function as a Judge.
type Func func(m *Message) Result

// Decide calls f.
func (f Func) Decide(m *Message) Result { return f(m) }

// registered is the guest's one judge.
var registered Judge

// Register makes j the plugin's judge. Call it once, from an init function:
// the host never calls main.
func Register(j Judge) {
	if registered != nil {
		panic("plugin: Register was called twice; a module has one judge")
	}
	registered = j
}
