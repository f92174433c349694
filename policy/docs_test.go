package policy

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"parley/core/gate"
)

// update rewrites the schema from gate.Input: a change of the contract with
// every policy repository, to be made knowingly.
//
//	go test ./policy -run Schema -update
var update = flag.Bool("update", false, "rewrite docs/schema/policy-input.json")

const (
	schemaFile = "../docs/schema/policy-input.json"
	docsFile   = "../docs/policy.md"
)

// schema is the part of JSON Schema that gate.Input needs.
type schema struct {
	Schema      string             `json:"$schema,omitempty"`
	ID          string             `json:"$id,omitempty"`
	Title       string             `json:"title,omitempty"`
	Description string             `json:"description,omitempty"`
	Type        string             `json:"type"`
	Required    []string           `json:"required,omitempty"`
	Properties  map[string]*schema `json:"properties,omitempty"`
	Items       *schema            `json:"items,omitempty"`
}

// schemaOf describes t; prose returns the meaning of the field at a path.
func schemaOf(t *testing.T, typ reflect.Type, at string, prose map[string]string) *schema {
	t.Helper()
	switch typ.Kind() {
	case reflect.String:
		return &schema{Type: "string", Description: prose[at]}
	case reflect.Bool:
		return &schema{Type: "boolean", Description: prose[at]}
	case reflect.Int:
		return &schema{Type: "integer", Description: prose[at]}
	case reflect.Slice:
		return &schema{Type: "array", Description: prose[at], Items: schemaOf(t, typ.Elem(), "", nil)}
	case reflect.Struct:
		s := &schema{Type: "object", Properties: map[string]*schema{}}
		for i := range typ.NumField() {
			name := typ.Field(i).Tag.Get("json")
			if name == "-" {
				continue // no policy sees it
			}
			s.Required = append(s.Required, name)
			s.Properties[name] = schemaOf(t, typ.Field(i).Type, strings.TrimPrefix(at+"."+name, "."), prose)
		}
		return s
	}
	t.Fatalf("%s has a type this test cannot describe: %s", at, typ)
	return nil
}

var fieldRow = regexp.MustCompile("(?m)^\\| `([a-z_.]+)` \\| [a-z ]+ \\| (.*) \\|$")

// TestSchemaIsCurrent holds the schema to gate.Input and to the table in
// docs/policy.md, which gives its descriptions.
func TestSchemaIsCurrent(t *testing.T) {
	docs, err := os.ReadFile(docsFile)
	if err != nil {
		t.Fatal(err)
	}
	prose := map[string]string{}
	for _, m := range fieldRow.FindAllSubmatch(docs, -1) {
		prose[string(m[1])] = strings.ReplaceAll(string(m[2]), "`", "")
	}
	for f := range numFields {
		if prose[f.String()] == "" {
			t.Errorf("%s does not describe the field %s", docsFile, f)
		}
	}
	s := schemaOf(t, reflect.TypeFor[gate.Input](), "", prose)
	s.Schema, s.ID, s.Title = "https://json-schema.org/draft/2020-12/schema", "urn:parley:policy-input:v1", "The question a policy is asked (input)"
	var want bytes.Buffer
	enc := json.NewEncoder(&want)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(s); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.MkdirAll("../docs/schema", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(schemaFile, want.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(schemaFile)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want.Bytes()) {
		t.Errorf("%s is stale: run go test ./policy -run Schema -update and review the difference", schemaFile)
	}
}

// TestDocsListTheBuiltins holds docs/policy.md to the allow-list, and the
// allow-list to what this OPA has.
func TestDocsListTheBuiltins(t *testing.T) {
	docs, err := os.ReadFile(docsFile)
	if err != nil {
		t.Fatal(err)
	}
	_, list, _ := strings.Cut(string(docs), "these builtins and no others:")
	list, _, ok := strings.Cut(list, "and the operators.")
	if !ok {
		t.Fatal("docs/policy.md has no list of builtins")
	}
	listed := strings.Fields(strings.ReplaceAll(list, "`", " "))
	var open []string
	for _, b := range capabilities().Builtins {
		open = append(open, b.Name)
		comparison := slices.Contains([]string{"eq", "equal", "neq", "lt", "lte", "gt", "gte", "assign"}, b.Name)
		if !comparison && !strings.HasPrefix(b.Name, "internal.") && !slices.Contains(listed, b.Name) {
			t.Errorf("docs/policy.md does not list %s", b.Name)
		}
		if b.Nondeterministic {
			t.Errorf("%s is open and not deterministic", b.Name)
		}
	}
	for _, name := range append(listed, pureBuiltins...) {
		if !slices.Contains(open, name) {
			t.Errorf("%s is listed and not open", name)
		}
	}
}

var regoBlock = regexp.MustCompile("(?s)```rego\n(.*?)```")

// TestDocsExamplesCompile takes the examples at their word: the first is a
// policy; the second is a rule and the third its test, which go beside the
// default policy and its tests.
func TestDocsExamplesCompile(t *testing.T) {
	docs, err := os.ReadFile(docsFile)
	if err != nil {
		t.Fatal(err)
	}
	blocks := regoBlock.FindAllSubmatch(docs, -1)
	if len(blocks) != 3 {
		t.Fatalf("got %d examples, want 3", len(blocks))
	}
	if _, err := Compile(t.Context(), Files{"example.rego": blocks[0][1]}, "docs"); err != nil {
		t.Errorf("the smallest policy: %v", err)
	}
	files := Files{"house.rego": blocks[1][1], "house_test.rego": blocks[2][1], "lists/data.json": []byte(`{"guests_read": ["news"]}`)}
	for _, name := range []string{"parley.rego", "parley_test.rego", "settings.rego", "settings_test.rego"} {
		if files[name], err = os.ReadFile("rego/" + name); err != nil {
			t.Fatal(err)
		}
	}
	e, err := Compile(t.Context(), files, "docs")
	if err != nil {
		t.Fatalf("the rule and its test: %v", err)
	}
	in := gate.Sample(gate.MessageSend)
	in.Resource.ID = "news"
	if d := e.Decide(t.Context(), in); d.Allow || d.Reasons[0].Code != "guests_read" {
		t.Errorf("got %+v, want a guest refused", d)
	}
}
