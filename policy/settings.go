package policy

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"parley/core/spelling"
)

// Bounds of data.parley. What is asked of it for each decision is a walk over
// some of it.
const (
	maxNames    = 32 // periods, networks
	maxWindows  = 32 // of one period
	maxPrefixes = 64 // of one network
	maxRooms    = 64 // names of one template
	maxTemplate = 64 // templates
	maxNewS     = 366 * 24 * 3600
)

// settings is data.parley: what the server reads of a policy's data, and what
// the default policy does. Every key may be absent.
type settings struct {
	TimeZone    string                      `json:"time_zone"`
	Periods     map[string][]windowSetting  `json:"periods"`
	Networks    map[string][]string         `json:"networks"`
	Guests      *guestSetting               `json:"guests"`
	NewAccounts *newSetting                 `json:"new_accounts"`
	Templates   map[string]*templateSetting `json:"templates"`
}

type windowSetting struct {
	Days []string `json:"days"`
	From string   `json:"from"`
	To   string   `json:"to"`
}

type guestSetting struct {
	Networks  []string     `json:"networks"`
	OpenRooms *bool        `json:"open_rooms"`
	Limits    limitSetting `json:"limits"`
}

type newSetting struct {
	YoungerThanS int          `json:"younger_than_s"`
	OpenRooms    *bool        `json:"open_rooms"`
	Invite       *bool        `json:"invite"`
	Direct       *bool        `json:"direct"`
	Limits       limitSetting `json:"limits"`
}

type templateSetting struct {
	Rooms       []string       `json:"rooms"`
	Title       string         `json:"title"`
	Mode        string         `json:"mode"`
	Visibility  string         `json:"visibility"`
	SlowModeS   int            `json:"slow_mode_s"`
	Quiet       []string       `json:"quiet"`
	Networks    []string       `json:"networks"`
	Guests      string         `json:"guests"`
	NewAccounts string         `json:"new_accounts"`
	Limits      limitSetting   `json:"limits"`
	Own         map[string]any `json:"own"` // for rules of the house
}

// limitSetting is the obligations that data may ask for.
type limitSetting struct {
	RateLimit *rateSetting `json:"rate_limit"`
	SlowModeS *int         `json:"slow_mode_s"`
	History   *int         `json:"history"`
	TextBytes *int         `json:"text_bytes"`
}

type rateSetting struct {
	Count *int `json:"count"`
	PerS  *int `json:"per_s"`
}

// factsOf reads data.parley. Whatever cannot be meant is refused: a rule whose
// hours are misspelt must not silently lapse.
func factsOf(data map[string]any) (*facts, error) {
	doc, ok := data["parley"]
	if !ok {
		return new(facts), nil
	}
	f, err := readSettings(doc)
	if err != nil {
		return nil, Problems{{Reason: clip("data.parley"+err.Error(), maxReasonBytes)}}
	}
	return f, nil
}

// at says where in the data an error lies; the text begins with the path.
func at(path string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf(".%s%w", path, err)
}

func wrong(format string, args ...any) error { return fmt.Errorf(": "+format, args...) }

func readSettings(doc any) (*facts, error) {
	top, ok := doc.(map[string]any)
	if !ok {
		return nil, wrong("it is no object")
	}
	known := keysOf(reflect.TypeFor[settings]())
	ours := map[string]any{}
	for _, k := range slices.Sorted(maps.Keys(top)) {
		switch near := spelling.Nearest(k, known); {
		case slices.Contains(known, k):
			ours[k] = top[k]
		case near != "":
			return nil, wrong("it has the key %q; did you mean %s?", clip(k, maxNameBytes), near)
		}
	}
	if err := checkKeys(ours, reflect.TypeFor[settings]()); err != nil {
		return nil, err
	}
	text, err := json.Marshal(ours)
	if err != nil {
		return nil, wrong("%w", err)
	}
	var s settings
	if err := json.Unmarshal(text, &s); err != nil {
		var typ *json.UnmarshalTypeError
		if errors.As(err, &typ) {
			return nil, at(typ.Field, wrong("it is %s and must be %s", valueKinds.Replace(typ.Value), kindOf(typ.Type)))
		}
		return nil, wrong("%w", err)
	}
	return s.facts()
}

func (s *settings) facts() (_ *facts, err error) {
	f := &facts{rooms: map[string]string{}}
	if f.zone, err = zoneOf(s.TimeZone); err != nil {
		return nil, at("time_zone", err)
	}
	if n := max(len(s.Periods), len(s.Networks)); n > maxNames {
		return nil, wrong("it names %d periods or networks, at most %d are allowed", n, maxNames)
	}
	for _, name := range slices.Sorted(maps.Keys(s.Periods)) {
		p, err := readPeriod(name, s.Periods[name])
		if err != nil {
			return nil, at("periods."+name, err)
		}
		f.periods = append(f.periods, p)
	}
	for _, name := range slices.Sorted(maps.Keys(s.Networks)) {
		n, err := readNetwork(name, s.Networks[name])
		if err != nil {
			return nil, at("networks."+name, err)
		}
		f.nets = append(f.nets, n)
	}
	if g := s.Guests; g != nil {
		if err := s.named("networks", g.Networks); err != nil {
			return nil, at("guests", err)
		}
		if err := g.Limits.check(); err != nil {
			return nil, at("guests.limits", err)
		}
	}
	if n := s.NewAccounts; n != nil {
		if n.YoungerThanS < 1 || n.YoungerThanS > maxNewS {
			return nil, at("new_accounts.younger_than_s", wrong("%d is not within 1 and %d", n.YoungerThanS, maxNewS))
		}
		if err := n.Limits.check(); err != nil {
			return nil, at("new_accounts.limits", err)
		}
		f.newFor = time.Duration(n.YoungerThanS) * time.Second
	}
	f.name()
	return f, s.readTemplates(f)
}

// accesses is what a template may leave to guests and to new accounts.
var accesses = []string{"", "none", "read", "write"}

func (s *settings) readTemplates(f *facts) error {
	if len(s.Templates) > maxTemplate {
		return at("templates", wrong("it has %d templates, at most %d are allowed", len(s.Templates), maxTemplate))
	}
	for _, name := range slices.Sorted(maps.Keys(s.Templates)) {
		t := s.Templates[name]
		if t == nil {
			t = &templateSetting{}
		}
		if err := s.readTemplate(f, name, t); err != nil {
			return at("templates."+name, err)
		}
	}
	slices.SortFunc(f.shapes, shapesInOrder)
	return nil
}

func (s *settings) readTemplate(f *facts, name string, t *templateSetting) error {
	if len(t.Rooms) < 1 || len(t.Rooms) > maxRooms {
		return at("rooms", wrong("it has %d names, 1 to %d are allowed", len(t.Rooms), maxRooms))
	}
	for _, room := range t.Rooms {
		if err := f.fit(room, name); err != nil {
			return at("rooms", err)
		}
	}
	settings := newRoom()
	settings.Title, settings.SlowModeS = t.Title, t.SlowModeS
	if t.Mode != "" {
		settings.Mode = t.Mode
	}
	if t.Visibility != "" {
		settings.Visibility = t.Visibility
	}
	if err := checkRoom(&settings); err != nil {
		return wrong("%w", err)
	}
	for key, access := range map[string]string{"guests": t.Guests, "new_accounts": t.NewAccounts} {
		if !slices.Contains(accesses, access) {
			return at(key, wrong("%q is not one of none, read, write", clip(access, maxNameBytes)))
		}
	}
	if t.NewAccounts != "" && s.NewAccounts == nil {
		return at("new_accounts", wrong("nothing says what a new account is; set data.parley.new_accounts.younger_than_s"))
	}
	for _, p := range t.Quiet {
		if _, ok := s.Periods[p]; !ok {
			return at("quiet", wrong("there is no period %q in data.parley.periods", clip(p, maxNameBytes)))
		}
	}
	if err := s.named("networks", t.Networks); err != nil {
		return err
	}
	return at("limits", t.Limits.check())
}

// named checks that the networks that key lists exist.
func (s *settings) named(key string, networks []string) error {
	for _, n := range networks {
		if _, ok := s.Networks[n]; !ok {
			return at(key, wrong("there is no network %q in data.parley.networks", clip(n, maxNameBytes)))
		}
	}
	return nil
}

// fit enters a room's name, or names with a star, for a template.
func (f *facts) fit(room, template string) error {
	prefix, suffix, star := strings.Cut(room, "*")
	s := shape{prefix, suffix, template}
	taken := f.rooms[room]
	for _, other := range f.shapes {
		if star && other.prefix == prefix && other.suffix == suffix {
			taken = other.template
		}
	}
	switch {
	case room == "" || strings.Contains(suffix, "*") || len(room) > maxNameBytes:
		return wrong("%q is neither a room's name nor one with a star for any letters, such as team-*", clip(room, maxNameBytes))
	case taken != "":
		return wrong("%q belongs to the template %s already", room, taken)
	case star:
		f.shapes = append(f.shapes, s)
	default:
		f.rooms[room] = template
	}
	return nil
}

func (l *limitSetting) check() error {
	for _, n := range []struct {
		key       string
		value     *int
		low, high int
	}{{"slow_mode_s", l.SlowModeS, 0, maxSlowModeS}, {"history", l.History, 0, maxCount}, {"text_bytes", l.TextBytes, 0, maxCount}} {
		if n.value != nil && (*n.value < n.low || *n.value > n.high) {
			return at(n.key, wrong("%d is not within %d and %d", *n.value, n.low, n.high))
		}
	}
	r := l.RateLimit
	switch {
	case r == nil:
	case r.Count == nil || r.PerS == nil:
		return at("rate_limit", wrong("it needs both count and per_s"))
	case *r.Count < 0 || *r.Count > maxCount:
		return at("rate_limit.count", wrong("%d is not within 0 and %d", *r.Count, maxCount))
	case *r.PerS < 1 || *r.PerS > maxRatePeriodS:
		return at("rate_limit.per_s", wrong("%d is not within 1 and %d", *r.PerS, maxRatePeriodS))
	}
	return nil
}
