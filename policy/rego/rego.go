// Package rego holds the default policy: what a server does until its
// operators write rules of their own, and the example they start from. It is
// embedded in the binary and has its tests beside it.
package rego

import (
	"embed"
	"io/fs"

	"parley/policy"
)

// Revision names the default policy in decisions and in the status. Another
// version of the server may have other rules, so the name holds their digest: what
// one recorded is not held against the other.
var Revision = "default:" + Files().Digest()

// Passed is what a trial said of these files: this package's own tests run it, and
// the files in the binary are no others. A server that starts with them need not
// spend a tenth of a second to hear it again.
var Passed = policy.Verdict{Tests: 58}

//go:embed *.rego
var embedded embed.FS

// Files returns the default policy with its tests.
func Files() policy.Files {
	names, err := fs.Glob(embedded, "*.rego")
	if err != nil {
		panic("rego: " + err.Error()) // the pattern is a constant
	}
	files := policy.Files{}
	for _, name := range names {
		if files[name], err = embedded.ReadFile(name); err != nil {
			panic("rego: " + err.Error()) // it was listed
		}
	}
	return files
}
