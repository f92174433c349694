package policy_test

import (
	"testing"

	"parley/core/gate"
	"parley/policy"
	"parley/policy/rego"
)

func TestDefaultPolicyCompiles(t *testing.T) {
	e, err := policy.Compile(t.Context(), rego.Files(), rego.Revision)
	if err != nil {
		t.Fatal(err)
	}
	t.Log(e.Reads())
	d := e.Decide(t.Context(), &gate.Input{Action: gate.Action{Name: gate.Connect}})
	t.Log(d)
}
