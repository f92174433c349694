package policy

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/open-policy-agent/opa/v1/ast"

	"parley/core/chat"
	"parley/core/gate"
)

// Bounds of a decision document.
const (
	maxReasons     = 8     // shown to one person at once; more are dropped
	maxTextBytes   = 512   // one reason's sentence; more is cut
	maxCodeBytes   = 64    // one reason's code
	maxPlugins     = 64    // names in obligations.plugins
	maxNameBytes   = 64    // one plugin name
	maxSlowModeS   = 21600 // six hours, as core/state bounds the room's own setting
	maxCount       = 1 << 30
	maxRatePeriodS = 86400 // one day
)

// Sentences for people where the policy gave none.
const (
	textDenied      = "The rules of this server do not allow this."
	textPolicyError = "The rules of this server could not decide, so this was refused. Please try again; if it stays so, tell the people who run this server."
)

// codeDenied is the code of a reason for which the policy gave a sentence alone.
const codeDenied = string(chat.CodeDenied)

// source marks the reasons that come from here.
const source = "policy"

// failedReasons is the one reason of every failed decision; shared, read only.
var failedReasons = []chat.Reason{{Code: string(chat.CodePolicyError), Text: textPolicyError, Source: source}}

// decode turns the decision document into a Decision. Unknown names are
// refused rather than skipped: an obligation that is misspelt, or that this
// version does not know, must not silently lapse.
func decode(v ast.Value) (gate.Decision, error) {
	obj, ok := v.(ast.Object)
	if !ok {
		return gate.Decision{}, fmt.Errorf("the decision is a %s, not an object", ast.ValueName(v))
	}
	var d gate.Decision
	hasAllow := false
	err := eachField(obj, "decision", func(name string, v ast.Value) (err error) {
		switch name {
		case "allow":
			var b ast.Boolean
			b, hasAllow = v.(ast.Boolean)
			d.Allow = bool(b)
			if !hasAllow {
				return fmt.Errorf("allow is a %s, not true or false", ast.ValueName(v))
			}
		case "reasons":
			d.Reasons, err = decodeReasons(v)
		case "obligations":
			d.Obligations, err = decodeObligations(v)
		default:
			return fmt.Errorf("the decision has the unknown field %q; it may have allow, reasons, obligations", name)
		}
		return err
	})
	switch {
	case err != nil:
		return gate.Decision{}, err
	case !hasAllow:
		return gate.Decision{}, fmt.Errorf("the decision has no field allow")
	case !d.Allow && len(d.Reasons) == 0:
		d.Reasons = []chat.Reason{{Code: codeDenied, Text: textDenied, Source: source}}
	}
	return d, nil
}

// eachField calls f for each field whose value is not null.
func eachField(obj ast.Object, what string, f func(name string, v ast.Value) error) error {
	return obj.Iter(func(k, v *ast.Term) error {
		name, ok := k.Value.(ast.String)
		if !ok {
			return fmt.Errorf("the %s has a key that is a %s, not a string", what, ast.ValueName(k.Value))
		}
		if _, null := v.Value.(ast.Null); null {
			return nil
		}
		return f(string(name), v.Value)
	})
}

// eachElement calls f for each element of an array or a set, in order.
func eachElement(v ast.Value, what string, f func(v ast.Value) error) error {
	switch v := v.(type) {
	case *ast.Array:
		return v.Iter(func(t *ast.Term) error { return f(t.Value) })
	case ast.Set:
		return v.Iter(func(t *ast.Term) error { return f(t.Value) })
	}
	return fmt.Errorf("%s is a %s, not an array or a set", what, ast.ValueName(v))
}

func decodeReasons(v ast.Value) ([]chat.Reason, error) {
	var out []chat.Reason
	err := eachElement(v, "reasons", func(v ast.Value) error {
		r, err := decodeReason(v)
		if err == nil && len(out) < maxReasons {
			out = append(out, r)
		}
		return err
	})
	return out, err
}

func decodeReason(v ast.Value) (chat.Reason, error) {
	r := chat.Reason{Code: codeDenied, Text: textDenied, Source: source}
	switch v := v.(type) {
	case ast.String:
		r.Text = sentence(string(v))
	case ast.Object:
		err := eachField(v, "reason", func(name string, v ast.Value) error {
			s, ok := v.(ast.String)
			if !ok {
				return fmt.Errorf("the reason's %s is a %s, not a string", name, ast.ValueName(v))
			}
			switch name {
			case "code":
				if !validCode(string(s)) {
					return fmt.Errorf("the reason's code %q is not 1 to %d lower-case letters, digits and underscores", clip(string(s), maxCodeBytes), maxCodeBytes)
				}
				r.Code = string(s)
			case "text":
				r.Text = sentence(string(s))
			default:
				return fmt.Errorf("a reason has the unknown field %q; it may have code, text", name)
			}
			return nil
		})
		if err != nil {
			return r, err
		}
	default:
		return r, fmt.Errorf("a reason is a %s, not a string or {code, text}", ast.ValueName(v))
	}
	return r, nil
}

// validCode reports whether s is 1 to 64 of a-z, 0-9 and '_'.
func validCode(s string) bool {
	if len(s) == 0 || len(s) > maxCodeBytes {
		return false
	}
	for i := 0; i < len(s); i++ {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' {
			return false
		}
	}
	return true
}

// sentence makes a policy's text fit for a person's screen: controls become
// spaces, the length is bounded, and nothing at all becomes the plain sentence.
func sentence(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) {
			return ' '
		}
		return r
	}, s)
	if s = strings.TrimSpace(s); s == "" {
		return textDenied
	}
	return clip(s, maxTextBytes)
}

// clip cuts s to at most n bytes on a rune boundary and marks the cut.
func clip(s string, n int) string {
	const mark = "…"
	if len(s) <= n {
		return s
	}
	n -= len(mark)
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + mark
}

func decodeObligations(v ast.Value) (gate.Obligations, error) {
	var o gate.Obligations
	obj, ok := v.(ast.Object)
	if !ok {
		return o, fmt.Errorf("obligations is a %s, not an object", ast.ValueName(v))
	}
	err := eachField(obj, "obligations", func(name string, v ast.Value) (err error) {
		switch name {
		case "rate_limit":
			o.RateLimit, err = decodeRateLimit(v)
		case "slow_mode_s":
			o.SlowModeS, err = decodeInt(name, v, 0, maxSlowModeS)
		case "plugins":
			o.Plugins, err = decodePlugins(v)
		case "history":
			o.History, err = decodeInt(name, v, 0, maxCount)
		case "text_bytes":
			o.TextBytes, err = decodeInt(name, v, 0, maxCount)
		case "room":
			o.Room, err = decodeRoom(v)
		default:
			return fmt.Errorf("obligations has the unknown field %q; it may have rate_limit, slow_mode_s, plugins, history, text_bytes, room", name)
		}
		return err
	})
	return o, err
}

func decodeRateLimit(v ast.Value) (*gate.RateLimit, error) {
	obj, ok := v.(ast.Object)
	if !ok {
		return nil, fmt.Errorf("rate_limit is a %s, not {count, per_s}", ast.ValueName(v))
	}
	var count, perS *int
	err := eachField(obj, "rate_limit", func(name string, v ast.Value) (err error) {
		switch name {
		case "count":
			count, err = decodeInt("rate_limit.count", v, 0, maxCount)
		case "per_s":
			perS, err = decodeInt("rate_limit.per_s", v, 1, maxRatePeriodS)
		default:
			return fmt.Errorf("rate_limit has the unknown field %q; it has count, per_s", name)
		}
		return err
	})
	switch {
	case err != nil:
		return nil, err
	case count == nil || perS == nil:
		return nil, fmt.Errorf("rate_limit needs both count and per_s")
	}
	return &gate.RateLimit{Count: *count, PerS: *perS}, nil
}

// decodeRoom reads what a new room begins with; what is absent is as in a room
// that nobody has configured.
func decodeRoom(v ast.Value) (*gate.RoomSettings, error) {
	obj, ok := v.(ast.Object)
	if !ok {
		return nil, fmt.Errorf("room is a %s, not {title, mode, visibility, slow_mode_s}", ast.ValueName(v))
	}
	room := newRoom()
	err := eachField(obj, "room", func(name string, v ast.Value) (err error) {
		into := map[string]*string{"title": &room.Title, "mode": &room.Mode, "visibility": &room.Visibility}[name]
		switch {
		case name == "slow_mode_s":
			var n *int
			if n, err = decodeInt("room.slow_mode_s", v, 0, maxSlowModeS); err == nil {
				room.SlowModeS = *n
			}
			return err
		case into == nil:
			return fmt.Errorf("room has the unknown field %q; it may have title, mode, visibility, slow_mode_s", name)
		}
		s, ok := v.(ast.String)
		if !ok {
			return fmt.Errorf("room.%s is a %s, not a string", name, ast.ValueName(v))
		}
		*into = string(s)
		return nil
	})
	if err == nil {
		err = checkRoom(&room)
	}
	if err != nil {
		return nil, err
	}
	return &room, nil
}

// newRoom is what a room begins with of which nothing else is said.
func newRoom() gate.RoomSettings { return gate.RoomSettings{Mode: "open", Visibility: "public"} }

// maxTitleBytes bounds a room's title, as core/state does.
const maxTitleBytes = 200

// checkRoom names the first setting that no room can have.
func checkRoom(r *gate.RoomSettings) error {
	switch {
	case !slices.Contains([]string{"open", "announce", "read-only", "archived"}, r.Mode):
		return fmt.Errorf("mode %q is not one of open, announce, read-only, archived", clip(r.Mode, maxCodeBytes))
	case r.Visibility != "public" && r.Visibility != "private":
		return fmt.Errorf("visibility %q is neither public nor private", clip(r.Visibility, maxCodeBytes))
	case r.SlowModeS < 0 || r.SlowModeS > maxSlowModeS:
		return fmt.Errorf("slow_mode_s %d is not within 0 and %d", r.SlowModeS, maxSlowModeS)
	case len(r.Title) > maxTitleBytes || !utf8.ValidString(r.Title):
		return fmt.Errorf("the title has %d bytes, at most %d of UTF-8 are allowed", len(r.Title), maxTitleBytes)
	}
	return nil
}

func decodePlugins(v ast.Value) ([]string, error) {
	out := []string{} // not nil: an empty list means no plugin
	err := eachElement(v, "plugins", func(v ast.Value) error {
		s, ok := v.(ast.String)
		switch {
		case !ok:
			return fmt.Errorf("plugins has a %s, not a name", ast.ValueName(v))
		case len(s) == 0 || len(s) > maxNameBytes:
			return fmt.Errorf("plugins has a name of %d bytes, 1 to %d are allowed", len(s), maxNameBytes)
		case len(out) == maxPlugins:
			return fmt.Errorf("plugins has more than %d names", maxPlugins)
		}
		out = append(out, string(s))
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func decodeInt(name string, v ast.Value, low, high int) (*int, error) {
	num, ok := v.(ast.Number)
	if !ok {
		return nil, fmt.Errorf("%s is a %s, not a number", name, ast.ValueName(v))
	}
	n, ok := num.Int()
	if !ok || n < low || n > high {
		return nil, fmt.Errorf("%s is %s, not a whole number within %d and %d", name, clip(num.String(), 40), low, high)
	}
	return &n, nil
}
