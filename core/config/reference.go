package config

import (
	_ "embed"
	"fmt"
	"io"
	"strings"
	"text/template"
)

//go:embed reference.md.tmpl
var referenceText string

var reference = template.Must(template.New("reference").Funcs(template.FuncMap{
	"cell": cell,
	"code": code,
}).Parse(referenceText))

// chapter is one section of the reference with its keys.
type chapter struct {
	Name string // "" for the keys outside sections
	Doc  string
	Keys []Key
}

// WriteReference writes docs/configuration.md: prose from reference.md.tmpl,
// every key from the struct tags of Config.
func WriteReference(w io.Writer) error {
	err := reference.Execute(w, map[string]any{
		"Chapters":    chapters(root),
		"Room":        chapters(rooms)[0].Keys,
		"EnvFile":     EnvFile,
		"MaxFile":     Size(MaxFileBytes),
		"MaxProblems": MaxProblems,
		"MaxRooms":    maxRooms,
	})
	if err != nil {
		return fmt.Errorf("write configuration reference: %w", err)
	}
	return nil
}

// chapters groups keys by their top-level section, in the order of Config.
func chapters(s *schema) []chapter {
	list := []chapter{{}}
	at := map[string]int{"": 0}
	for _, sec := range s.sections {
		if !strings.Contains(sec.name, ".") {
			at[sec.name] = len(list)
			list = append(list, chapter{Name: sec.name, Doc: sec.doc})
		}
	}
	for _, f := range s.fields {
		section, _, nested := strings.Cut(f.Name, ".")
		if !nested {
			section = ""
		}
		c := &list[at[section]]
		c.Keys = append(c.Keys, f.Key)
	}
	return list
}

// cell makes text safe inside a table.
func cell(text string) string { return strings.ReplaceAll(text, "|", `\|`) }

// code shows a value, or a dash for the empty text.
func code(text string) string {
	if text == "" {
		return "empty"
	}
	return "`" + cell(text) + "`"
}
