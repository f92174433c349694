package policy

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
)

// Bounds of one policy. A policy is text that people review, so these are
// generous; they keep a mistaken folder or a hostile repository from taking
// the node's memory.
const (
	MaxFiles     = 256     // files of one policy
	MaxFileBytes = 1 << 20 // one file
	MaxBytes     = 4 << 20 // all files together
	MaxPathBytes = 200     // one path
)

// Files is a policy as a set of files: slash-separated relative path to
// content. A path ends in ".rego" (rules, or tests when it ends in
// "_test.rego"), or its last element is "data.json" or "data.yaml", whose
// content appears under data at the path of its folder, as in an OPA bundle.
// Files and its contents must not change once handed over.
type Files map[string][]byte

// Wanted reports whether a file at path belongs to a policy. Sources skip all
// other files (a README, a license) without reading them, and everything below
// a folder or file whose name begins with a dot.
func Wanted(p string) bool {
	for elem := range strings.SplitSeq(p, "/") {
		if strings.HasPrefix(elem, ".") {
			return false
		}
	}
	return strings.HasSuffix(p, ".rego") || isData(p)
}

func isData(p string) bool {
	base := path.Base(p)
	return base == "data.json" || base == "data.yaml" || base == "data.yml"
}

func isTest(p string) bool { return strings.HasSuffix(p, "_test.rego") }

// CheckPath returns why p cannot be the path of a policy file, or nil.
func CheckPath(p string) error {
	switch {
	case p == "":
		return fmt.Errorf("the path is empty")
	case len(p) > MaxPathBytes:
		return fmt.Errorf("the path has %d bytes, at most %d are allowed", len(p), MaxPathBytes)
	case path.IsAbs(p) || path.Clean(p) != p || p == ".." || strings.HasPrefix(p, "../"):
		return fmt.Errorf("the path %q is not a clean relative path", p)
	}
	for _, r := range p {
		if r < ' ' || r > '~' || r == '\\' || r == ':' {
			return fmt.Errorf("the path %q has the character %q; use printable ASCII without backslash and colon", p, r)
		}
	}
	if !Wanted(p) {
		return fmt.Errorf("the file %q is neither *.rego nor data.json or data.yaml, or lies under a dot folder", p)
	}
	return nil
}

// Check returns every bound that f breaks, or nil.
func (f Files) Check() error {
	var found Problems
	if len(f) == 0 {
		return Problems{{Reason: "there is no .rego file; the smallest policy is: package parley, then: default decision := {\"allow\": true}"}}
	}
	if len(f) > MaxFiles {
		return Problems{{Reason: fmt.Sprintf("there are %d files, at most %d are allowed", len(f), MaxFiles)}}
	}
	total := 0
	for _, p := range f.Paths() {
		if err := CheckPath(p); err != nil {
			found = append(found, Problem{File: p, Reason: err.Error()})
		}
		if n := len(f[p]); n > MaxFileBytes {
			found = append(found, Problem{File: p, Reason: fmt.Sprintf("the file has %d bytes, at most %d are allowed", n, MaxFileBytes)})
		}
		total += len(f[p])
	}
	if total > MaxBytes {
		found = append(found, Problem{Reason: fmt.Sprintf("the files have %d bytes together, at most %d are allowed", total, MaxBytes)})
	}
	return found.err()
}

// Paths returns the paths in order, so that every step that walks the files
// reports the same first problem on every node.
func (f Files) Paths() []string { return slices.Sorted(maps.Keys(f)) }

// Digest names the content: the first 12 hex digits of a SHA-256 over all
// paths and contents. Equal files have equal digests on every node.
func (f Files) Digest() string {
	h := sha256.New()
	var n [8]byte
	for _, p := range f.Paths() {
		for _, b := range [][]byte{[]byte(p), f[p]} {
			binary.LittleEndian.PutUint64(n[:], uint64(len(b)))
			h.Write(n[:])
			h.Write(b)
		}
	}
	return hex.EncodeToString(h.Sum(nil))[:12]
}

// Problem is one reason why a policy was refused.
type Problem struct {
	File   string `json:"file,omitempty"` // path within the policy; "" for the policy as a whole
	Line   int    `json:"line,omitempty"` // from 1; 0 when no line is to blame
	Reason string `json:"reason"`
}

// String is the problem in the form editors and terminals link: file:line: reason.
func (p Problem) String() string {
	switch {
	case p.File == "":
		return p.Reason
	case p.Line == 0:
		return p.File + ": " + p.Reason
	}
	return fmt.Sprintf("%s:%d: %s", p.File, p.Line, p.Reason)
}

// Problems is the error of a refused policy: at least one Problem, ordered by
// file and line. Get at it with errors.As.
type Problems []Problem

// Bounds of a refusal: what a person reads before fixing and trying again.
const (
	maxProblems    = 20
	maxReasonBytes = 500
)

// Error joins the problems, one a line.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// err returns ps as an error in order and within bounds, or nil when empty.
func (ps Problems) err() error {
	if len(ps) == 0 {
		return nil
	}
	slices.SortStableFunc(ps, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line))
	})
	ps = slices.Compact(ps)
	for i := range ps {
		ps[i].Reason = clip(ps[i].Reason, maxReasonBytes)
	}
	if n := len(ps); n > maxProblems {
		ps = append(ps[:maxProblems:maxProblems], Problem{Reason: fmt.Sprintf("and %d more", n-maxProblems)})
	}
	return ps
}
