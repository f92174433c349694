package config

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// maxRooms bounds the list of rooms in one configuration.
const maxRooms = 1000

// file decodes the YAML file over l.cfg.
func (l *loader) file(name string, data []byte) {
	if len(data) > MaxFileBytes {
		l.report(Problem{Source: name}, "", "the file is larger than %v; move what does not belong here elsewhere", Size(MaxFileBytes))
		return
	}
	doc := l.document(Problem{Source: name}, data)
	if doc == nil {
		return
	}
	d := decoder{l: l, source: Problem{Source: name}, schema: root}
	d.mapping(doc, "", "", reflect.ValueOf(&l.cfg).Elem())
}

var (
	yamlLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)
	// Errors of yaml's parser count lines from 0, those of its scanner from 1
	// (parser.fail in decode.go of yaml v3.0.6); these are the parser's.
	yamlFromZero = regexp.MustCompile(`^(did not find expected |found undefined tag handle|found duplicate %|found incompatible YAML)`)
	// The one error that names no line wherever it is.
	yamlAnchor = regexp.MustCompile(`^unknown anchor '([^']+)' referenced$`)
)

// syntaxError splits an error of the yaml package about data into its line, 0
// when it is not known, and the rest.
func syntaxError(err error, data []byte) (line int, text string) {
	text = err.Error()
	m := yamlLine.FindStringSubmatch(text)
	if m == nil {
		return 0, text
	}
	text = text[len(m[0]):]
	line, _ = strconv.Atoi(m[1])
	if a := yamlAnchor.FindStringSubmatch(text); a != nil {
		before, _, _ := bytes.Cut(data, []byte("*"+a[1]))
		return bytes.Count(before, []byte{'\n'}) + 1, text
	}
	if m[1] == "" {
		line = 1 // no line is given for the first
	} else if yamlFromZero.MatchString(text) {
		line++
	}
	if strings.Contains(text, "cannot start any token") { // a tab, mostly
		text += "; YAML is indented with spaces, not tabs"
	}
	return line, text
}

// unprintable finds the first byte that no YAML file may hold (YAML 1.2.2,
// section 5.1), because yaml does not say where it is.
func unprintable(data []byte) (line int, found bool) {
	line = 1
	for len(data) > 0 {
		r, n := utf8.DecodeRune(data)
		switch {
		case r == '\n':
			line++
		case r == utf8.RuneError && n == 1, r < ' ' && r != '\t' && r != '\r', r == 0x7f:
			return line, true
		}
		data = data[n:]
	}
	return 0, false
}

// document parses at most one YAML document; nil means that it is empty or
// that the problem has been reported.
func (l *loader) document(at Problem, data []byte) *yaml.Node {
	if line, found := unprintable(data); found {
		if at.Key == "" {
			at.Line = line
		}
		l.report(at, at.Key, "holds a control character or is not UTF-8")
		return nil
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc yaml.Node
	err := dec.Decode(&doc)
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err == nil {
		var second yaml.Node
		if next := dec.Decode(&second); next == nil {
			if len(second.Content) == 1 {
				at = position(at, second.Content[0])
			}
			l.report(at, "", "a second YAML document begins here; a configuration has one")
			return nil
		} else if !errors.Is(next, io.EOF) {
			err = next
		}
	}
	if err != nil {
		line, text := syntaxError(err, data)
		if at.Key == "" {
			at.Line = line
		}
		l.report(at, at.Key, "not valid YAML: %s", text)
		return nil
	}
	if len(doc.Content) != 1 || isNull(doc.Content[0]) {
		return nil
	}
	return doc.Content[0]
}

// decoder walks the nodes of one struct's worth of YAML.
type decoder struct {
	l      *loader
	source Problem // names the file, variable or flag
	schema *schema
	within string // "rooms[3]" while an item is decoded, else ""
}

// key names a key as problems show it.
func (d decoder) key(name string) string {
	if d.within == "" || name == "" {
		return d.within + name
	}
	return d.within + "." + name
}

// report files a problem at a node.
func (d decoder) report(n *yaml.Node, name, format string, args ...any) {
	at := d.at(n, name)
	// rules between keys know a whole list, not its items
	top, _, _ := strings.Cut(d.key(name), "[")
	d.l.report(at, top, format, args...)
}

func (d decoder) at(n *yaml.Node, name string) Problem {
	at := d.source
	if at.Key != "" { // a variable or flag that holds YAML
		at.Key += " " + d.key(name)
		return at
	}
	at = position(at, n)
	at.Key = d.key(name)
	return at
}

func position(at Problem, n *yaml.Node) Problem {
	if at.Key == "" {
		at.Line, at.Column = n.Line, n.Column
	}
	return at
}

// mapping decodes one mapping node, whose keys begin with prefix.
func (d decoder) mapping(n *yaml.Node, name, prefix string, dst reflect.Value) {
	if isNull(n) {
		return // a section whose keys are all commented out
	}
	if n.Kind != yaml.MappingNode {
		d.report(n, name, "is %s; allowed: keys with values, one a line", describe(n))
		return
	}
	seen := make(map[string]int)
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if k.Kind != yaml.ScalarNode || k.ShortTag() != "!!str" {
			d.report(k, name, "%s is not a key", describe(k))
			continue
		}
		if line, dup := seen[k.Value]; dup {
			d.report(k, join(prefix, printable(k.Value)), "is set twice, first on line %d; keep one", line)
			continue
		}
		seen[k.Value] = k.Line
		d.entry(k, v, join(prefix, k.Value), dst)
	}
}

// entry decodes one key and its value.
func (d decoder) entry(k, v *yaml.Node, name string, dst reflect.Value) {
	if v.Anchor != "" || v.Kind == yaml.AliasNode {
		d.report(v, printable(name), "anchors and aliases are not supported; write the value out")
		return
	}
	if d.schema.isParent[name] {
		d.mapping(v, name, name, dst)
		return
	}
	f, known := d.schema.byName[name]
	if !known {
		d.report(k, printable(name), "no such key%s", d.l.suggest(func() string { return nearestKey(name, d.schema.names()) }))
		return
	}
	if d.within == "" {
		d.l.origins[name] = d.at(v, name)
	}
	d.value(f, v, dst.FieldByIndex(f.index))
}

// value decodes a leaf.
func (d decoder) value(f *field, v *yaml.Node, dst reflect.Value) {
	switch f.Kind {
	case KindList:
		d.list(f, v, dst)
	case KindRooms:
		d.rooms(f, v, dst)
	default:
		if !tagFits(f.Kind, v) {
			d.report(v, f.Name, "is %s; allowed: %s", describe(v), f.Allowed)
			return
		}
		if err := f.set(dst, v.Value); err != nil {
			d.report(v, f.Name, "%v; allowed: %s", err, f.Allowed)
		}
	}
}

// list decodes a sequence of texts.
func (d decoder) list(f *field, v *yaml.Node, dst reflect.Value) {
	if v.Kind != yaml.SequenceNode {
		d.report(v, f.Name, "is %s; allowed: %s", describe(v), f.Allowed)
		return
	}
	items := make([]string, 0, len(v.Content))
	for _, n := range v.Content {
		if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!str" {
			d.report(n, f.Name, "has an item that is %s; allowed: %s", describe(n), f.Allowed)
			continue
		}
		if err := f.checkText(n.Value); err != nil {
			d.report(n, f.Name, "%v; allowed: %s", err, f.Allowed)
			continue
		}
		items = append(items, n.Value)
	}
	dst.Set(reflect.ValueOf(items))
}

// rooms decodes the list of rooms, each over defaultRoom.
func (d decoder) rooms(f *field, v *yaml.Node, dst reflect.Value) {
	if v.Kind != yaml.SequenceNode {
		d.report(v, f.Name, "is %s; allowed: %s", describe(v), f.Allowed)
		return
	}
	if len(v.Content) > maxRooms {
		d.report(v, f.Name, "lists %d rooms; allowed: at most %d", len(v.Content), maxRooms)
		return
	}
	list := make([]Room, 0, len(v.Content))
	first := make(map[string]bool)
	for i, n := range v.Content {
		room := defaultRoom()
		item := decoder{l: d.l, source: d.source, schema: rooms, within: f.Name + "[" + strconv.Itoa(i) + "]"}
		before := len(d.l.problems) + d.l.more
		item.mapping(n, "", "", reflect.ValueOf(&room).Elem())
		switch {
		case len(d.l.problems)+d.l.more > before:
		case room.ID == "":
			item.report(n, "id", "is missing; allowed: %s", rooms.byName["id"].Allowed)
		case first[string(room.ID)]:
			item.report(n, "id", "%q is listed twice; keep one", room.ID)
		}
		first[string(room.ID)] = true
		list = append(list, room)
	}
	dst.Set(reflect.ValueOf(list))
}

// roomsText decodes rooms given as YAML in a flag or variable.
func (l *loader) roomsText(f *field, text string, at Problem) {
	if len(text) > MaxFileBytes {
		l.report(at, f.Name, "is longer than %v", Size(MaxFileBytes))
		return
	}
	doc := l.document(at, []byte(text))
	if doc == nil {
		if strings.TrimSpace(text) == "" {
			l.dst(f).Set(reflect.ValueOf([]Room(nil)))
		}
		return
	}
	decoder{l: l, source: at, schema: root}.rooms(f, doc, l.dst(f))
}

// tagFits says whether a scalar has the YAML type that the kind asks for. 0 is
// a duration without a unit that cannot be misread.
func tagFits(kind Kind, v *yaml.Node) bool {
	if v.Kind != yaml.ScalarNode {
		return false
	}
	tag := v.ShortTag()
	switch kind {
	case KindBool:
		return tag == "!!bool"
	case KindCount:
		return tag == "!!int"
	case KindSize, KindDuration: // 15 gets "has no unit" from the parser
		return tag == "!!int" || tag == "!!str" || tag == "!!float"
	default:
		return tag == "!!str"
	}
}

// describe says what a node is, for people.
func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias"
	}
	switch n.ShortTag() {
	case "!!null":
		return "empty (write \"\" for an empty text)"
	case "!!bool":
		return "true or false"
	case "!!int", "!!float":
		return "a number (put a text that looks like one in quotes)"
	case "!!str":
		return "a text"
	case "!!timestamp":
		return "a date (put it in quotes to make it a text)"
	}
	return "of an unknown type"
}

func isNull(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null"
}
