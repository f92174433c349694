package policy

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/open-policy-agent/opa/v1/ast"
)

// FuzzDecision decodes arbitrary decision documents: any answer is within the
// bounds, and what was not understood is an error.
func FuzzDecision(f *testing.F) {
	for _, s := range []string{
		`{"allow": true}`, `{"allow": false, "reasons": ["x", {"code": "a", "text": "b"}]}`,
		`{"allow": true, "obligations": {"rate_limit": {"count": 1, "per_s": 1}, "slow_mode_s": 1, "plugins": ["a"], "history": 1, "text_bytes": 1, "room": {"title": "a", "mode": "open", "slow_mode_s": 1}}}`,
		`{"allow": null}`, `[]`, `{"allow": true, "reasons": [[[]]]}`, `{"allow": true, "obligations": {"history": 1e400}}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := ast.ValueFromReader(bytes.NewReader(b))
		if err != nil {
			return
		}
		d, err := decode(v)
		if err != nil {
			return
		}
		if d.Failed || d.Cached || len(d.Reasons) > maxReasons || (!d.Allow && len(d.Reasons) == 0) || len(d.Obligations.Plugins) > maxPlugins {
			t.Errorf("out of bounds: %+v", d)
		}
		for _, r := range d.Reasons {
			if !validCode(r.Code) || r.Text == "" || len(r.Text) > maxTextBytes || !utf8.ValidString(r.Text) || strings.ContainsAny(r.Text, "\n\x00") {
				t.Errorf("bad reason: %+v", r)
			}
		}
	})
}

// FuzzPath checks that an accepted path stays below any folder it is joined to.
func FuzzPath(f *testing.F) {
	for _, s := range []string{"p.rego", "a/b/data.json", "../p.rego", "/p.rego", "a//p.rego", "a/./p.rego", ".git/p.rego", `a\p.rego`, "c:p.rego", "a\x00.rego"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, p string) {
		if CheckPath(p) != nil {
			return
		}
		if !filepath.IsLocal(filepath.FromSlash(p)) || filepath.ToSlash(filepath.Clean(p)) != p || len(p) > MaxPathBytes {
			t.Errorf("accepted %q", p)
		}
	})
}
