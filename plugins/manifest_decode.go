package plugins

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"

	"parley/core/chat"
	"parley/core/spelling"
	"parley/sdk/abi"
)

// errManifest carries a line so that an editor can go there.
type errManifest struct {
	line int
	text string
}

func (e *errManifest) Error() string { return fmt.Sprintf("line %d: %s", e.line, e.text) }

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

func (d *manifestDecoder) text(into *string) error { return d.longText(into, maxLabelBytes) }

func (d *manifestDecoder) longText(into *string, most int) error {
	if err := d.value(into, "text"); err != nil {
		return err
	}
	if len(*into) > most {
		return d.errorf("%d bytes, at most %d", len(*into), most)
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

// items reads a list; item reads the one at the index.
func (d *manifestDecoder) items(most int, item func(i int) error) error {
	tok, err := d.dec.Token()
	if err != nil {
		return d.syntax(err)
	}
	if tok != json.Delim('[') {
		return d.errorf("want a list of objects")
	}
	for i := 0; d.dec.More(); i++ {
		if i == most {
			return d.errorf("more than %d items", most)
		}
		if err := item(i); err != nil {
			return err
		}
	}
	if _, err := d.dec.Token(); err != nil {
		return d.syntax(err)
	}
	return nil
}

// word reads a text that is one of a few.
func (d *manifestDecoder) word(into *string, allowed ...string) error {
	if err := d.text(into); err != nil {
		return err
	}
	if !slices.Contains(allowed, *into) {
		return d.errorf("%q: want one of %s", *into, strings.Join(allowed, ", "))
	}
	return nil
}

// whole reads a whole number from least to most.
func (d *manifestDecoder) whole(into *uint64, least, most uint64) error {
	if err := d.value(into, "a whole number"); err != nil {
		return err
	}
	if *into < least || *into > most {
		return d.errorf("%d, want %d to %d", *into, least, most)
	}
	return nil
}

// share reads a number from 0 to 1.
func (d *manifestDecoder) share(into *float64) error {
	if err := d.value(into, "a number from 0 to 1"); err != nil {
		return err
	}
	if !(*into >= 0 && *into <= 1) {
		return d.errorf("%g, want 0 to 1", *into)
	}
	return nil
}

// duration reads a duration as Go writes it.
func (d *manifestDecoder) duration(into *time.Duration, most time.Duration) error {
	var s string
	if err := d.text(&s); err != nil {
		return err
	}
	v, err := time.ParseDuration(s)
	if err != nil || v < 0 || v > most {
		return d.errorf("%q, want a duration such as \"10m\" from 0s to %v", s, most)
	}
	*into = v
	return nil
}

// base64 reads as many bytes as want in standard base64.
func (d *manifestDecoder) base64(into *[]byte, want int) error {
	var s string
	if err := d.text(&s); err != nil {
		return err
	}
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil || len(b) != want {
		return d.errorf("want %d bytes in base64", want)
	}
	*into = b
	return nil
}

func (d *manifestDecoder) signature(into **Signature) error {
	var key, value []byte
	err := d.object("signature.", map[string]func() error{
		"key":   func() error { return d.base64(&key, ed25519.PublicKeySize) },
		"value": func() error { return d.base64(&value, ed25519.SignatureSize) },
	})
	if err == nil && (key == nil || value == nil) {
		err = d.errorf("want both key and value")
	}
	*into = &Signature{Key: key, Value: value}
	return err
}

// raw reads an object and keeps it as it stands.
func (d *manifestDecoder) raw(into *json.RawMessage) error {
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
