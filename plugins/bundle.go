package plugins

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Bundle puts a plugin's two files into one text, by which a version travels
// between nodes: its SHA-256 is the version's source (see SourceDigest). manifest is nil where
// there is none.
func Bundle(file, manifest []byte) []byte {
	out := make([]byte, 0, len(file)+len(manifest)+32)
	out = fmt.Appendf(out, bundleHead, len(file), manifest != nil)
	return append(append(out, file...), manifest...)
}

// bundleHead is the length of the module and whether a manifest follows it.
const bundleHead = "%d %t\n"

// Unbundle takes a bundle apart. The parts share its memory.
func Unbundle(b []byte) (file, manifest []byte, err error) {
	head, _, ok := bytes.Cut(b[:min(len(b), 64)], []byte{'\n'})
	length, with, ok2 := strings.Cut(string(head), " ")
	n, err := strconv.Atoi(length)
	if !ok || !ok2 || err != nil || with != "true" && with != "false" {
		return nil, nil, errors.New("it does not begin as the files of a plugin do")
	}
	rest := b[len(head)+1:]
	if string(head)+"\n" != fmt.Sprintf(bundleHead, n, with == "true") || n < 0 || n > len(rest) || with == "false" && n != len(rest) {
		return nil, nil, errors.New("its parts do not have the lengths that it says")
	}
	if with == "false" {
		return rest, nil, nil
	}
	return rest[:n:n], rest[n:], nil
}

// MaxBundleBytes is what the files of one plugin may have together.
func (c *Config) MaxBundleBytes() int { return c.Module.FileBytes + maxManifestBytes + 32 }
