package policy

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/format"
)

// Format returns those Rego files of files that are not in the form of
// `opa fmt`, in that form. A file that does not parse is a Problem.
func Format(files Files) (Files, error) {
	out := Files{}
	var found Problems
	for _, p := range files.Paths() {
		if !strings.HasSuffix(p, ".rego") {
			continue
		}
		text, err := formatted(p, files[p])
		if err != nil {
			found = append(found, problemsOf(p, err)...)
			continue
		}
		if !bytes.Equal(text, files[p]) {
			out[p] = text
		}
	}
	return out, found.err()
}

func formatted(p string, src []byte) (_ []byte, err error) {
	defer func() { // OPA is a boundary
		if p := recover(); p != nil {
			err = fmt.Errorf("OPA failed on this file: %v", p)
		}
	}()
	return format.SourceWithOpts(p, src, format.Opts{
		RegoVersion: ast.RegoV1, ParserOptions: &ast.ParserOptions{RegoVersion: ast.RegoV1, Capabilities: capabilities()},
	})
}

// unformatted warns of the files that Format would change.
func unformatted(files Files) (found Problems) {
	changed, err := Format(files)
	if err != nil {
		return nil // whoever parses it says so
	}
	for _, p := range changed.Paths() {
		found = append(found, Problem{File: p, Reason: "it is not in the usual form: platform policy fmt writes it"})
	}
	return found
}
