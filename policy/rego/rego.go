// Package rego holds the default policy: what a server does until its
// operators write rules of their own, and the example they start from. It is
// embedded in the binary and has its tests beside it.
package rego

import (
	_ "embed" // the two files below

	"parley/policy"
)

// Revision names the default policy in decisions and in the status.
const Revision = "default"

//go:embed parley.rego
var rules []byte

//go:embed parley_test.rego
var tests []byte

// Files returns the default policy with its tests.
func Files() policy.Files {
	return policy.Files{"parley.rego": rules, "parley_test.rego": tests}
}
