package wire_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"strings"
	"testing"

	"parley/core/wire"
)

const protocolFile = "../../docs/protocol.md"

// TestProtocolExamples holds every example of docs/protocol.md against Decode
// and the strict schema, and asks for one of each command and event.
func TestProtocolExamples(t *testing.T) {
	doc := readFile(t, protocolFile)
	commands, events := schemaFor(t, "command", true), schemaFor(t, "event", true)
	shown := make(map[string]bool)
	for i, line := range strings.Split(doc, "\n") {
		line = strings.TrimSpace(line)
		dir, text, _ := strings.Cut(line, " ")
		if strings.HasPrefix(line, "{") { // typed by hand
			dir, text = "->", line
		}
		if !strings.HasPrefix(text, "{") {
			continue
		}
		schema := events
		switch dir {
		case "->":
			schema = commands
			if _, err := wire.Decode([]byte(text)); err != nil {
				t.Errorf("line %d: %v", i+1, err)
			}
		case "<-":
		default:
			continue
		}
		if err := validate(schema, text); err != nil {
			t.Errorf("line %d: %v", i+1, err)
		}
		typ, _, _ := strings.Cut(strings.TrimPrefix(text, `{"type":"`), `"`)
		shown[dir+typ] = true
	}
	for typ := range commandShapes {
		if !shown["->"+string(typ)] {
			t.Errorf("command %s has no example", typ)
		}
	}
	for _, e := range eventShapes {
		for _, typ := range e.types {
			if !shown["<-"+typ] {
				t.Errorf("event %s has no example", typ)
			}
		}
	}
}

// TestProtocolCodes asks for a table row for each error and close code.
func TestProtocolCodes(t *testing.T) {
	doc := readFile(t, protocolFile)
	for _, code := range constants(t, "../chat/chat.go", "Code") {
		if !strings.Contains(doc, "\n| `"+strings.Trim(code, `"`)+"` | ") {
			t.Errorf("error code %s is not in the table", code)
		}
	}
	for _, code := range constants(t, "close.go", "CloseCode") {
		if !strings.Contains(doc, fmt.Sprintf("\n| %s | ", code)) {
			t.Errorf("close code %s is not in the table", code)
		}
	}
}

// constants returns the values of a file's constants of the given type.
func constants(t *testing.T, file, typ string) []string {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var values []string
	ast.Inspect(f, func(n ast.Node) bool {
		if v, ok := n.(*ast.ValueSpec); ok && len(v.Values) == 1 {
			if id, ok := v.Type.(*ast.Ident); ok && id.Name == typ {
				values = append(values, v.Values[0].(*ast.BasicLit).Value)
			}
		}
		return true
	})
	if len(values) == 0 {
		t.Fatalf("%s has no constants of type %s", file, typ)
	}
	return values
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
