package gate_test

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"parley/core/gate"
)

// TestEveryActionIsListedAndDocumented holds the list to the constants, and
// docs/policy.md to both.
func TestEveryActionIsListedAndDocumented(t *testing.T) {
	f, err := parser.ParseFile(token.NewFileSet(), "actions.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	docs, err := os.ReadFile("../../docs/policy.md")
	if err != nil {
		t.Fatal(err)
	}
	var declared []string
	ast.Inspect(f, func(n ast.Node) bool {
		d, ok := n.(*ast.GenDecl)
		if !ok || d.Tok != token.CONST {
			return true
		}
		for _, s := range d.Specs {
			name, err := strconv.Unquote(s.(*ast.ValueSpec).Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			declared = append(declared, name)
		}
		return false
	})
	listed := gate.Actions()
	if !slices.Equal(declared, listed) {
		t.Errorf("declared are %v, listed %v", declared, listed)
	}
	for _, name := range listed {
		if !strings.Contains(string(docs), "`"+name+"`") {
			t.Errorf("docs/policy.md says nothing of %s", name)
		}
	}
	listed[0] = "mine"
	if gate.Actions()[0] == "mine" {
		t.Error("the caller changed the list")
	}
}

// TestSamplesAreWhatTheServerAsks: about a server or a room, with a target
// where the action has one.
func TestSamplesAreWhatTheServerAsks(t *testing.T) {
	aimed := []string{gate.MessageEdit, gate.MessageRedact, gate.MemberInvite, gate.MemberRole, gate.MemberKick, gate.MemberBan, gate.MemberMute, gate.DirectOpen}
	server := []string{gate.Connect, gate.AdminRead, gate.AdminWrite}
	for _, name := range gate.Actions() {
		in := gate.Sample(name)
		if in.Action.Name != name || in.Resource.Exists != (name != gate.RoomCreate) {
			t.Errorf("%s: got %+v", name, in)
		}
		if got, want := in.Target != (gate.Target{}), slices.Contains(aimed, name); got != want {
			t.Errorf("%s: got target %+v, want one: %v", name, in.Target, want)
		}
		if got, want := in.Resource.Type == "server", slices.Contains(server, name); got != want {
			t.Errorf("%s: got resource %+v, want the server: %v", name, in.Resource, want)
		}
		if b, err := json.Marshal(in); err != nil || strings.Contains(string(b), "null") {
			t.Errorf("%s: got %s, %v, want no null", name, b, err)
		}
	}
}
