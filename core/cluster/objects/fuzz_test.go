package objects

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"
)

// FuzzHead holds that what is read as a head is bounded, and means the same
// when it is written again.
func FuzzHead(f *testing.F) {
	d := string(Sum(nil))
	for _, s := range []string{"", "1\n\n1", "5\n" + d + " " + d + "\n{\"a\":1}", "5\n" + d, "0\n\n1", "9007199254740991\n\nnull", "1\n\n{", "1\nxyz\n1", "\n\n\n", "1\n\n1\nhmac-sha256:00", "hmac-sha256:", "1\n\n\nhmac-sha256:"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		h, err := decodeHead("h", text)
		if err != nil || text == "" {
			if h.Value != nil || h.Names != nil {
				t.Fatalf("%q: got %+v with %v", text, h, err)
			}
			return
		}
		if h.Version == 0 || h.Version >= 1<<53 || len(h.Names) > maxNamed || !json.Valid(h.Value) {
			t.Fatalf("%q: got %+v", text, h)
		}
		names := make([]string, len(h.Names))
		for i, d := range h.Names {
			if !d.Valid() {
				t.Fatalf("%q: names %q", text, d)
			}
			names[i] = string(d)
		}
		again, err := decodeHead("h", strconv.FormatUint(uint64(h.Version), 10)+"\n"+strings.Join(names, " ")+"\n"+string(h.Value))
		if err != nil || !same(h, again) || len(again.Names) != len(h.Names) {
			t.Fatalf("%q: written again: got %+v, %v, want %+v", text, again, err, h)
		}
	})
}
