package config

import (
	"fmt"
	"reflect"
	"strings"
	"time"
)

// Kind says how a key's value is written.
type Kind string

// The kinds of value.
const (
	KindText     Kind = "text"
	KindChoice   Kind = "choice" // one of a few words
	KindBool     Kind = "bool"
	KindCount    Kind = "count"    // a whole number
	KindDuration Kind = "duration" // "15s", "2m30s"
	KindSize     Kind = "size"     // "64KiB" or a number of bytes
	KindList     Kind = "list"     // texts; as a flag or variable separated by commas
	KindRooms    Kind = "rooms"    // see Room; as a flag or variable in YAML's [{id: lobby}] form
)

// Key describes one key.
type Key struct {
	Name    string // dotted, as in the file and as a flag: "limits.frame_bytes"
	Env     string // the environment variable: "PARLEY_LIMITS_FRAME_BYTES"
	Kind    Kind
	Default string // in the form the key is written in; "" is the empty text
	Allowed string // what may stand there, for people
	Zero    string // what 0 or the empty text means, where that is special
	Doc     string // one or two sentences
	Secret  bool   // the value may hold credentials: never print it
}

// Keys lists every key in the order of Config. The caller owns the slice.
func Keys() []Key {
	keys := make([]Key, len(root.fields))
	for i, f := range root.fields {
		keys[i] = f.Key
	}
	return keys
}

// NearestKey returns the key that name was most likely meant to be, or "". It
// is for programs whose flag library refuses unknown flags before Load could.
func NearestKey(name string) string { return nearestKey(name, root.names()) }

// field is a leaf of the schema.
type field struct {
	Key
	index []int        // for reflect.Value.FieldByIndex
	typ   reflect.Type // of the leaf
	enum  []string
	check func(string) error // nil: anything
	rules
}

// rules bound a number; each is in the unit of its kind.
type rules struct {
	zeroOK   bool
	autoOK   bool
	min, max *int64
}

// section is an inner node of the schema.
type section struct {
	name string
	doc  string
}

// schema is what reflection finds in a struct. It is immutable.
type schema struct {
	fields   []*field
	sections []section
	byName   map[string]*field
	isParent map[string]bool
}

var (
	root  = newSchema(reflect.ValueOf(Defaults()))
	rooms = newSchema(reflect.ValueOf(defaultRoom()))
)

const envPrefix = "PARLEY_"

func newSchema(defaults reflect.Value) *schema {
	s := &schema{byName: make(map[string]*field), isParent: make(map[string]bool)}
	s.walk(defaults, "", nil)
	return s
}

func (s *schema) walk(v reflect.Value, prefix string, index []int) {
	for i := range v.NumField() {
		sf := v.Type().Field(i)
		name := join(prefix, sf.Tag.Get("yaml"))
		at := append(index[:len(index):len(index)], i)
		if sf.Type.Kind() == reflect.Struct {
			s.sections = append(s.sections, section{name, sf.Tag.Get("doc")})
			s.isParent[name] = true
			s.walk(v.Field(i), name, at)
			continue
		}
		f := newField(name, sf, v.Field(i))
		f.index = at
		s.fields = append(s.fields, f)
		s.byName[name] = f
	}
}

// newField reads the tags of one leaf. A mistake in a tag is a mistake in this
// package and panics when the program starts, hence in every test.
func newField(name string, sf reflect.StructField, def reflect.Value) *field {
	f := &field{typ: sf.Type}
	f.Name = name
	f.Env = envPrefix + strings.ToUpper(strings.ReplaceAll(name, ".", "_"))
	f.Doc = sf.Tag.Get("doc")
	f.Zero, f.zeroOK = sf.Tag.Lookup("zero")
	f.autoOK = sf.Tag.Get("auto") == "true"
	f.Secret = sf.Tag.Get("secret") == "true"
	if enum, ok := sf.Tag.Lookup("enum"); ok {
		f.enum = strings.Split(enum, "|")
	}
	f.Kind = kindOf(sf.Type, f.enum != nil)
	if check := sf.Tag.Get("check"); check != "" {
		if f.check = checks[check].fn; f.check == nil {
			panic(fmt.Sprintf("config: %s: no check named %q", name, check))
		}
	}
	f.min = f.bound(sf.Tag.Get("min"))
	f.max = f.bound(sf.Tag.Get("max"))
	f.Allowed = f.allowed(checks[sf.Tag.Get("check")].allowed)
	f.Default = format(def)
	return f
}

func kindOf(t reflect.Type, enum bool) Kind {
	switch t {
	case reflect.TypeFor[time.Duration]():
		return KindDuration
	case reflect.TypeFor[Size]():
		return KindSize
	case reflect.TypeFor[[]string]():
		return KindList
	case reflect.TypeFor[[]Room]():
		return KindRooms
	}
	switch t.Kind() {
	case reflect.Bool:
		return KindBool
	case reflect.Int, reflect.Int64:
		return KindCount
	case reflect.String:
		if enum {
			return KindChoice
		}
		return KindText
	}
	panic(fmt.Sprintf("config: no kind for %v", t))
}

// bound reads a min or max tag, which is written as the key's own values are.
func (f *field) bound(tag string) *int64 {
	if tag == "" {
		return nil
	}
	n, err := parseNumber(f.Kind, tag)
	if err != nil {
		panic(fmt.Sprintf("config: %s: bound %q: %v", f.Name, tag, err))
	}
	return &n
}

// allowed says in words what may stand in the field.
func (f *field) allowed(byCheck string) string {
	var b strings.Builder
	switch f.Kind {
	case KindText:
		b.WriteString(byCheck)
		if byCheck == "" {
			b.WriteString("text")
		}
	case KindChoice:
		words := make([]string, 0, len(f.enum))
		for _, w := range f.enum {
			if w != "" {
				words = append(words, w)
			}
		}
		b.WriteString(strings.Join(words, ", "))
	case KindBool:
		b.WriteString("true or false")
	case KindCount:
		b.WriteString("a whole number")
	case KindDuration:
		b.WriteString("a time with its unit, such as 15s or 2m30s")
	case KindSize:
		b.WriteString("a number of bytes, or one with KiB, MiB or GiB")
	case KindList:
		fmt.Fprintf(&b, "a list; each item is %s", byCheck)
	case KindRooms:
		b.WriteString("a list of {id, title, mode, visibility, slow_mode_s}")
	}
	switch {
	case f.min != nil && f.max != nil:
		fmt.Fprintf(&b, ", %s to %s", f.number(*f.min), f.number(*f.max))
	case f.min != nil:
		fmt.Fprintf(&b, ", at least %s", f.number(*f.min))
	case f.max != nil:
		fmt.Fprintf(&b, ", at most %s", f.number(*f.max))
	}
	if f.autoOK {
		b.WriteString(", or auto")
	}
	if f.zeroOK {
		fmt.Fprintf(&b, "; %s = %s", f.zeroWord(), f.Zero)
	}
	return b.String()
}

// zeroWord names the value that zero stands for.
func (f *field) zeroWord() string {
	switch f.Kind {
	case KindText, KindChoice, KindList, KindRooms:
		return "empty"
	}
	return "0"
}

// number writes n as a value of the field.
func (f *field) number(n int64) string {
	return format(reflect.ValueOf(n).Convert(f.typ))
}

// format writes a value in the form that a flag or variable takes.
func format(v reflect.Value) string {
	switch x := v.Interface().(type) {
	case time.Duration:
		return formatDuration(x)
	case Size:
		return x.String()
	case []string:
		return strings.Join(x, ",")
	case []Room:
		items := make([]string, len(x))
		for i, r := range x {
			items[i] = formatRoom(r)
		}
		return "[" + strings.Join(items, ", ") + "]"
	}
	return fmt.Sprint(v.Interface())
}

// formatDuration drops the zero parts of 1h0m0s.
func formatDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// formatRoom writes a room as a YAML flow mapping, leaving defaults out.
func formatRoom(r Room) string {
	parts := []string{fmt.Sprintf("id: %s", r.ID)}
	if r.Title != "" {
		parts = append(parts, fmt.Sprintf("title: %q", r.Title))
	}
	def := defaultRoom()
	if r.Mode != def.Mode {
		parts = append(parts, fmt.Sprintf("mode: %s", r.Mode))
	}
	if r.Visibility != def.Visibility {
		parts = append(parts, fmt.Sprintf("visibility: %s", r.Visibility))
	}
	if r.SlowModeS != 0 {
		parts = append(parts, fmt.Sprintf("slow_mode_s: %d", r.SlowModeS))
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

func join(prefix, name string) string {
	if prefix == "" {
		return name
	}
	return prefix + "." + name
}
