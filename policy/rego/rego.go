// Package rego holds the default policy: what a server does until its
// operators write rules of their own, and the example they start from. It is
// embedded in the binary and has its tests beside it.
package rego

import (
	"embed"
	"fmt"
	"io/fs"

	"parley/policy"
)

// Revision names the default policy in decisions and in the status.
const Revision = "default"

//go:embed *.rego
var files embed.FS

// Files returns the default policy with its tests.
func Files() policy.Files {
	out := policy.Files{}
	entries, err := fs.ReadDir(files, ".")
	for _, e := range entries {
		var b []byte
		if b, err = files.ReadFile(e.Name()); err != nil {
			break
		}
		out[e.Name()] = b
	}
	if err != nil { // the files are part of the binary
		panic(fmt.Sprintf("policy/rego: read embedded policy: %v", err))
	}
	return out
}
