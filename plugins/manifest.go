package plugins

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"parley/core/chat"
	"parley/core/spelling"
	"parley/sdk/abi"
)

// Manifest is what NAME.json says about NAME.wasm. Every key is optional.
type Manifest struct {
	Name        string   // if given, equal to the file's name without ".wasm"
	Version     string   // for people
	Description string   // for people
	SHA256      string   // hex; another digest refuses the module
	Kinds       []string // "message", "edit", "nick", "topic"; nil means all
	Rooms       []string // names or patterns ("support-*"); nil means all
	Limits      Limits
	OnError     abi.Verdict     // Allow (open), Deny (closed, the default) or Hold
	Config      json.RawMessage // a JSON object, passed to the guest as it stands; nil for none
}

// Limits are a plugin's own; zero means the server's default.
type Limits struct {
	Fuel        uint64 `json:"fuel"`         // of one decision
	MemoryBytes int    `json:"memory_bytes"` // rounded down to 64 KiB
	InputBytes  int    `json:"input_bytes"`  // of one encoded input
	OutputBytes int    `json:"output_bytes"` // of one encoded result
}

const (
	maxManifestBytes = 1 << 20 // a word list in "config" included
	maxManifestItems = 1_000   // kinds or rooms
	maxLabelBytes    = 1_024   // version or description
)

var kinds = []string{"message", "edit", "nick", "topic"}

// errManifest carries a line so that an editor can go there.
type errManifest struct {
	line int
	text string
}

func (e *errManifest) Error() string { return fmt.Sprintf("line %d: %s", e.line, e.text) }

// ParseManifest decodes a manifest strictly: an unknown or repeated key, a
// value of the wrong type or out of range and anything after the object are
// errors, which name the line, the key and what is allowed.
func ParseManifest(b []byte) (Manifest, error) {
	var m Manifest
	m.OnError = abi.Deny
	if len(b) > maxManifestBytes {
		return m, fmt.Errorf("manifest has %d bytes, at most %d", len(b), maxManifestBytes)
	}
	d := &manifestDecoder{b: b, dec: json.NewDecoder(bytes.NewReader(b))}
	err := d.object("", map[string]func() error{
		"name":        func() error { return d.name(&m.Name) },
		"version":     func() error { return d.text(&m.Version) },
		"description": func() error { return d.text(&m.Description) },
		"sha256":      func() error { return d.digest(&m.SHA256) },
		"kinds":       func() error { return d.list(&m.Kinds, knownKind) },
		"rooms":       func() error { return d.list(&m.Rooms, knownRoom) },
		"on_error":    func() error { return d.onError(&m.OnError) },
		"config":      func() error { return d.config(&m.Config) },
		"limits": func() error {
			return d.object("limits.", map[string]func() error{
				"fuel":         func() error { return number(d, &m.Limits.Fuel, maxFuel) },
				"memory_bytes": func() error { return number(d, &m.Limits.MemoryBytes, maxMemoryBytes) },
				"input_bytes":  func() error { return number(d, &m.Limits.InputBytes, maxInputBytes) },
				"output_bytes": func() error { return number(d, &m.Limits.OutputBytes, maxOutputBytes) },
			})
		},
	})
	if err != nil {
		return m, err
	}
	if _, err := d.dec.Token(); err != io.EOF {
		return m, d.errorf("nothing may follow the object")
	}
	return m, nil
}

// manifestDecoder walks the JSON token by token, so that it always knows where
// it is.
type manifestDecoder struct {
	b   []byte
	dec *json.Decoder
}

func (d *manifestDecoder) errorf(format string, args ...any) error {
	at := min(int(d.dec.InputOffset()), len(d.b))
	return &errManifest{1 + bytes.Count(d.b[:at], []byte{'\n'}), fmt.Sprintf(format, args...)}
}

// syntax turns the decoder's own errors into ones with a line.
func (d *manifestDecoder) syntax(err error) error {
	var bad *json.SyntaxError
	if errors.As(err, &bad) {
		at := min(int(bad.Offset), len(d.b))
		return &errManifest{1 + bytes.Count(d.b[:at], []byte{'\n'}), "not JSON: " + bad.Error()}
	}
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return d.errorf("not JSON: it ends too early")
	}
	return d.errorf("%v", err)
}

// object reads one object, whose keys may be those of fields, each once.
func (d *manifestDecoder) object(prefix string, fields map[string]func() error) error {
	tok, err := d.dec.Token()
	if err != nil {
		return d.syntax(err)
	}
	if tok != json.Delim('{') {
		return d.errorf("want an object")
	}
	seen := make(map[string]bool)
	for d.dec.More() {
		tok, err := d.dec.Token()
		if err != nil {
			return d.syntax(err)
		}
		key, _ := tok.(string) // the decoder lets nothing else be a key
		read, ok := fields[key]
		switch {
		case !ok:
			return d.errorf("unknown key %q%s", prefix+key, suggest(key, fields))
		case seen[key]:
			return d.errorf("key %q is repeated", prefix+key)
		}
		seen[key] = true
		if err := read(); err != nil {
			var at *errManifest
			if errors.As(err, &at) && !strings.Contains(at.text, `"`+prefix+key) {
				at.text = fmt.Sprintf("%q: %s", prefix+key, at.text)
			}
			return err
		}
	}
	if _, err := d.dec.Token(); err != nil {
		return d.syntax(err)
	}
	return nil
}

// value decodes the next value.
func (d *manifestDecoder) value(into any, want string) error {
	err := d.dec.Decode(into)
	var kind *json.UnmarshalTypeError
	if errors.As(err, &kind) {
		return d.errorf("got %s, want %s", kind.Value, want)
	}
	if err != nil {
		return d.syntax(err)
	}
	return nil
}

func (d *manifestDecoder) text(into *string) error {
	if err := d.value(into, "text"); err != nil {
		return err
	}
	if len(*into) > maxLabelBytes {
		return d.errorf("%d bytes, at most %d", len(*into), maxLabelBytes)
	}
	return nil
}

func (d *manifestDecoder) name(into *string) error {
	if err := d.text(into); err != nil {
		return err
	}
	if !validName(*into) {
		return d.errorf("%q is not a plugin name: want %s", *into, nameRule)
	}
	return nil
}

func (d *manifestDecoder) digest(into *string) error {
	if err := d.text(into); err != nil {
		return err
	}
	if b, err := hex.DecodeString(*into); err != nil || len(b) != 32 {
		return d.errorf("want 64 hexadecimal digits")
	}
	*into = strings.ToLower(*into)
	return nil
}

func (d *manifestDecoder) list(into *[]string, allowed func(string) string) error {
	if err := d.value(into, "a list of texts"); err != nil {
		return err
	}
	if len(*into) > maxManifestItems {
		return d.errorf("%d items, at most %d", len(*into), maxManifestItems)
	}
	for _, s := range *into {
		if complaint := allowed(s); complaint != "" {
			return d.errorf("%s", complaint)
		}
	}
	return nil
}

func knownKind(s string) string {
	if slices.Contains(kinds, s) {
		return ""
	}
	return fmt.Sprintf("unknown kind %q: want one of %s", s, strings.Join(kinds, ", "))
}

func knownRoom(s string) string {
	if _, err := path.Match(s, ""); err != nil || s == "" || len(s) > chat.MaxRoomBytes*2 {
		return fmt.Sprintf("%q is neither a room nor a pattern like \"support-*\"", s)
	}
	return ""
}

func (d *manifestDecoder) onError(into *abi.Verdict) error {
	var s string
	if err := d.value(&s, "text"); err != nil {
		return err
	}
	switch s {
	case "open":
		*into = abi.Allow
	case "closed":
		*into = abi.Deny
	case "hold":
		*into = abi.Hold
	default:
		return d.errorf("%q: want open, closed or hold", s)
	}
	return nil
}

func (d *manifestDecoder) config(into *json.RawMessage) error {
	if err := d.value(into, "an object"); err != nil {
		return err
	}
	if !bytes.HasPrefix(bytes.TrimSpace(*into), []byte("{")) {
		return d.errorf("want an object")
	}
	return nil
}

// number reads a whole number from 1 to most.
func number[N uint64 | int](d *manifestDecoder, into *N, most uint64) error {
	if err := d.value(into, "a whole number"); err != nil {
		return err
	}
	if *into < 1 || uint64(*into) > most {
		return d.errorf("%d, want 1 to %d", *into, most)
	}
	return nil
}

const nameRule = "1 to 64 lower-case letters, digits and hyphens"

func validName(s string) bool {
	if s == "" || len(s) > 64 {
		return false
	}
	for i := 0; i < len(s); i++ {
		if c := s[i]; !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' && i > 0) {
			return false
		}
	}
	return true
}

// suggest says which key was meant, or which there are.
func suggest(key string, fields map[string]func() error) string {
	names := make([]string, 0, len(fields))
	for name := range fields {
		names = append(names, name)
	}
	slices.Sort(names)
	if best := spelling.Nearest(key, names); best != "" {
		return fmt.Sprintf("; did you mean %q?", best)
	}
	return "; known are " + strings.Join(names, ", ")
}
