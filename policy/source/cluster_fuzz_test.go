package source

import (
	"encoding/json"
	"strings"
	"testing"

	"parley/core/cluster/objects"
)

// FuzzShared holds that what other nodes say of a policy is read within its
// bounds, or refused.
func FuzzShared(f *testing.F) {
	id, d := strings.Repeat("ab", 20), strings.Repeat("cd", 32)
	f.Add([]byte(`{"format":1,"ref":"main","want":"` + id + `","commit":"` + id + `","object":"` + d + `","node":"a-00000000"}`))
	f.Add([]byte(`{"format":1,"ref":"main","want":"` + id + `","commit":"` + id + `","object":"` + d + `","pin":{"revision":"` + id + `","by":"ann","at":"2026-11-26T15:00:00Z"}}`))
	f.Add([]byte(`{"format":1,"accepts":[{"revision":"git:` + id + `","by":"olga","at":"2026-11-26T15:00:00Z","node":"a-00000000"}]}`))
	f.Add([]byte(`{"source":"git","revision":"git:` + id + `","refused":{"revision":"x","why":"y"},"live":{"revision":"z","nodes":3,"took_ms":5}}`))
	f.Add([]byte(`{"format":2}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, b []byte) {
		h := objects.Head{Name: "h", Version: 1, Value: json.RawMessage(b)}
		if v, err := decodeHanded(h); err == nil {
			if !wholeID(v.Want) || !wholeID(v.Commit) || !v.Object.Valid() || v.Pin != nil && !wholeID(v.Pin.Revision) || strings.ContainsFunc(v.Node, control) {
				t.Fatalf("got %+v", v)
			}
		} else if v != (handed{}) {
			t.Fatalf("got %+v with %v", v, err)
		}
		if l, err := decodeAccepts(h); err == nil {
			for _, a := range l.Accepts {
				if !strings.HasPrefix(a.Revision, "git:") || strings.ContainsFunc(a.By+a.Node, control) || len(a.By) > maxName {
					t.Fatalf("got %+v", a)
				}
			}
		} else if len(l.Accepts) > 0 {
			t.Fatalf("got %+v with %v", l, err)
		}
		if n, err := decodeInfo(b); err == nil && (len(n.Revision) > maxName || strings.ContainsFunc(n.Revision, control)) {
			t.Fatalf("got %+v", n)
		}
	})
}
