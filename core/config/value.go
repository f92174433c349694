package config

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"parley/core/chat"
	"parley/core/gate"
	"parley/core/redis"
	"parley/core/spelling"
	"parley/core/state"
)

// set parses text as a value of f and stores it in dst. The error is what a
// person reads after the key's name; it does not say what is allowed.
func (f *field) set(dst reflect.Value, text string) error {
	switch f.Kind {
	case KindText, KindChoice:
		if err := f.checkText(text); err != nil {
			return err
		}
		dst.SetString(text)
	case KindBool:
		if text != "true" && text != "false" {
			return fmt.Errorf("%s is not true or false", f.quote(text))
		}
		dst.SetBool(text == "true")
	case KindCount, KindDuration, KindSize:
		n, err := f.parse(text)
		if err != nil {
			return err
		}
		if dst.OverflowInt(n) {
			return fmt.Errorf("%s is too large", f.quote(text))
		}
		dst.SetInt(n)
	case KindList:
		items := splitList(text)
		for _, item := range items {
			if err := f.checkText(item); err != nil {
				return err
			}
		}
		dst.Set(reflect.ValueOf(items))
	default:
		return fmt.Errorf("%s cannot be read as %s", f.quote(text), f.Kind)
	}
	return nil
}

// checkText judges a text, a choice or an item of a list.
func (f *field) checkText(text string) error {
	if !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return fmt.Errorf("%s holds control characters or is not UTF-8", f.quote(text))
	}
	if f.Kind == KindChoice {
		if slices.Contains(f.enum, text) {
			return nil
		}
		err := fmt.Sprintf("%s is not among the choices", f.quote(text))
		if near := spelling.Nearest(text, f.enum); near != "" {
			err += fmt.Sprintf("; did you mean %q?", near)
		}
		return errors.New(err)
	}
	if text == "" {
		if f.zeroOK && f.Kind != KindList {
			return nil
		}
		return errors.New("must not be empty")
	}
	if f.check != nil {
		if err := f.check(text); err != nil {
			return fmt.Errorf("%s %w", f.quote(text), err)
		}
	}
	return nil
}

// parse reads a number and judges its bounds.
func (f *field) parse(text string) (int64, error) {
	if f.autoOK && text == "auto" {
		return int64(Auto), nil
	}
	n, err := parseNumber(f.Kind, text)
	switch {
	case err != nil:
		return 0, fmt.Errorf("%s %w", f.quote(text), err)
	case n == 0 && f.zeroOK:
	case f.min != nil && n < *f.min:
		return 0, fmt.Errorf("%s is too small", f.quote(text))
	case f.max != nil && n > *f.max:
		return 0, fmt.Errorf("%s is too large", f.quote(text))
	}
	return n, nil
}

func parseNumber(kind Kind, text string) (int64, error) {
	switch kind {
	case KindDuration:
		d, err := time.ParseDuration(text)
		if err != nil {
			if _, err := strconv.ParseFloat(text, 64); err == nil {
				return 0, errors.New("has no unit")
			}
			return 0, errors.New("is not a time")
		}
		return int64(d), nil
	case KindSize:
		s, err := ParseSize(text)
		if err != nil {
			return 0, errors.New("is not a size")
		}
		return int64(s), nil
	default:
		n, err := parseCount(text)
		if errors.Is(err, strconv.ErrRange) {
			return 0, errors.New("is out of range")
		}
		if err != nil {
			return 0, errors.New("is not a whole number")
		}
		return n, nil
	}
}

// splitList splits at commas; the empty text is the empty list.
func splitList(text string) []string {
	if strings.TrimSpace(text) == "" {
		return nil
	}
	items := strings.Split(text, ",")
	for i := range items {
		items[i] = strings.TrimSpace(items[i])
	}
	return items
}

// quote shows a value in a message: shortened, and not at all when it may hold
// a password.
func (f *field) quote(text string) string {
	if f.Secret {
		return "the value"
	}
	return shorten(text)
}

const maxShown = 64 // bytes of a value that a message repeats

func shorten(text string) string {
	if len(text) <= maxShown {
		return strconv.Quote(text)
	}
	cut := maxShown
	for cut > 0 && !utf8.RuneStart(text[cut]) {
		cut--
	}
	return strconv.Quote(text[:cut]) + "..."
}

// checks judge texts by name of the check tag. Each error continues a
// sentence that begins with the value.
var checks = map[string]struct {
	allowed string
	fn      func(string) error
}{
	"addr":     {"host:port, such as 127.0.0.1:8080 or :8080", checkAddr},
	"path":     {"a path", func(string) error { return nil }},
	"relpath":  {"a path inside the repository", checkRelPath},
	"origin":   {"a web origin, such as https://chat.example.org", checkOrigin},
	"redisurl": {"redis://HOST:PORT/DB, redis-sentinel://H1,H2,H3/SERVICE/DB, redis-cluster://H1,H2,H3, the same with rediss, or unix://PATH", redis.CheckURL},
	"prefix":   {"1 to 32 lower-case letters, digits, '-' or '_'", redis.CheckPrefix},
	"nodename": {"1 to 64 letters, digits, '.', '-' or '_'", checkNodeName},
	"giturl":   {"an https, http, ssh or file URL, git@host:path, or a folder", checkGitURL},
	"envname":  {"the name of a variable", checkEnvName},
	"gitref":   {"a branch or tag name", checkGitRef},
	"cidr":     {"a network or an address, such as 10.0.0.0/8", checkNetwork},
	"action":   {"an action the policy is asked about, such as typing; see docs/policy.md", checkAction},
	"ed25519":  {"32 bytes in base64", checkEd25519},
	"sample":   {"ACTION=SHARE with a share from 0 to 1, such as message.send=0.01 or *=0.1", checkSample},
	"field":    {"a field of the input, such as subject.id", checkField},
	"keep":     {"role:NAME ACTION [ROOM] or user:NAME ACTION [ROOM], such as role:admin moderate.review", checkKeep},
	"room":     {"1 to 64 of a-z 0-9 - _ . : beginning with a letter or digit", checkRoom},
	"title":    {fmt.Sprintf("at most %d bytes of text", state.MaxTitleBytes), checkTitle},
}

func checkNetwork(s string) error {
	if _, err := netip.ParseAddr(s); err == nil {
		return nil
	}
	if _, err := netip.ParsePrefix(s); err != nil {
		return errors.New("is no network")
	}
	return nil
}

func checkAction(s string) error {
	if slices.Contains(gate.Actions(), s) {
		return nil
	}
	if near := spelling.Nearest(s, gate.Actions()); near != "" {
		return fmt.Errorf("is no action of the policy; did you mean %q?", near)
	}
	return errors.New("is no action of the policy")
}

func checkEd25519(s string) error {
	if b, err := base64.StdEncoding.DecodeString(s); err != nil || len(b) != ed25519.PublicKeySize {
		return errors.New("is no ed25519 public key in base64")
	}
	return nil
}

func checkAddr(s string) error {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return errors.New("is not host:port")
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || strconv.FormatUint(n, 10) != port {
		return errors.New("has no port from 0 to 65535")
	}
	if strings.ContainsAny(host, " /@\\") {
		return errors.New("has a malformed host")
	}
	return nil
}

func checkRelPath(s string) error {
	if path.IsAbs(s) || strings.Contains(s, "\\") || path.Clean(s) == ".." || strings.HasPrefix(path.Clean(s), "../") {
		return errors.New("leads out of the repository")
	}
	return nil
}

func checkOrigin(s string) error {
	u, err := url.Parse(s)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "" {
		return errors.New("is not a web origin")
	}
	if u.Path != "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil || strings.ContainsAny(s, "?#*") {
		return errors.New("must be scheme, host and port only")
	}
	return nil
}

// checkNodeName is core/cluster.CheckName in this package's words.
func checkNodeName(s string) error {
	if len(s) > 64 || strings.ContainsFunc(s, func(c rune) bool {
		return !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '.' || c == '-' || c == '_')
	}) {
		return errors.New("is not a node's name")
	}
	return nil
}

func checkGitURL(s string) error {
	if strings.HasPrefix(s, "-") { // never let a value become an option of a git command
		return errors.New("begins with a dash")
	}
	scheme, _, ok := strings.Cut(s, "://")
	if !ok {
		return nil // a folder, or git's short form of an ssh URL
	}
	if !slices.Contains([]string{"https", "http", "ssh", "file"}, scheme) {
		return errors.New("has a scheme that is not allowed")
	}
	if u, err := url.Parse(s); err != nil || (u.Host == "" && u.Path == "") {
		return errors.New("is not a URL")
	}
	return nil
}

// checkEnvName takes what a shell can set. Variables of our own prefix are keys
// of the configuration.
func checkEnvName(s string) error {
	for i, r := range s {
		if r != '_' && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') && (i == 0 || r < '0' || r > '9') {
			return errors.New("is no name of a variable")
		}
	}
	if strings.HasPrefix(s, envPrefix) {
		return errors.New("begins with " + envPrefix)
	}
	return nil
}

// checkGitRef keeps to the part of git-check-ref-format(1) that matters here.
func checkGitRef(s string) error {
	if strings.HasPrefix(s, "-") || strings.HasPrefix(s, "/") || strings.HasSuffix(s, "/") ||
		strings.Contains(s, "..") || strings.ContainsAny(s, " ~^:?*[\\") {
		return errors.New("is not a ref name")
	}
	return nil
}

func checkRoom(s string) error {
	if !chat.ValidRoom(chat.RoomID(s)) {
		return errors.New("is not a room name")
	}
	return nil
}

func checkSample(s string) error {
	action, share, ok := strings.Cut(s, "=")
	if !ok || action == "" {
		return errors.New("has no action and share")
	}
	if f, err := strconv.ParseFloat(share, 64); err != nil || !(f >= 0 && f <= 1) {
		return errors.New("has no share from 0 to 1")
	}
	return nil
}

// checkField knows the form alone; the decision log knows the names.
func checkField(s string) error {
	if group, name, ok := strings.Cut(s, "."); !ok || group == "" || name == "" || strings.ContainsAny(s, " \"'") {
		return errors.New("is no field of an input")
	}
	return nil
}

func checkKeep(s string) error {
	words := strings.Fields(s)
	if len(words) < 2 || len(words) > 3 {
		return errors.New("is not who, an action and maybe a room")
	}
	if what, name, _ := strings.Cut(words[0], ":"); name == "" || what != "role" && what != "user" {
		return errors.New("does not begin with role:NAME or user:NAME")
	}
	if len(words) == 3 {
		return checkRoom(words[2])
	}
	return nil
}

func checkTitle(s string) error {
	if len(s) > state.MaxTitleBytes {
		return errors.New("is too long")
	}
	return nil
}
