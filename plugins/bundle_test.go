package plugins_test

import (
	"bytes"
	"testing"

	"parley/core/cluster/objects"
	"parley/plugins"
)

// A bundle's digest is the source of the files in it, so that who reads one by
// its name has the files that were meant.
func TestBundle(t *testing.T) {
	for _, tt := range []struct{ file, manifest []byte }{
		{[]byte("module"), nil}, {[]byte("module"), []byte{}}, {[]byte("module"), []byte(`{"a":1}`)}, {nil, nil}, {[]byte{}, []byte("x")},
	} {
		b := plugins.Bundle(tt.file, tt.manifest)
		if got, want := string(objects.Sum(b)), plugins.SourceDigest(tt.file, tt.manifest); got != want {
			t.Errorf("%q, %q: the object is named %s, the version %s", tt.file, tt.manifest, got, want)
		}
		file, manifest, err := plugins.Unbundle(b)
		if err != nil || !bytes.Equal(file, tt.file) || !bytes.Equal(manifest, tt.manifest) || (manifest == nil) != (tt.manifest == nil) {
			t.Errorf("got %q, %q, %v, want %q, %q", file, manifest, err, tt.file, tt.manifest)
		}
	}
}

func FuzzUnbundle(f *testing.F) {
	f.Add(plugins.Bundle([]byte("module"), nil))
	f.Add(plugins.Bundle([]byte("module"), []byte("{}")))
	for _, s := range []string{"", "\n", "6 true\n", "-1 false\n", "06 false\nmodule", "6 false\nmodules", "99999999999999999999 true\n", "6  true\nmodule"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		file, manifest, err := plugins.Unbundle(b)
		if err == nil && !bytes.Equal(plugins.Bundle(file, manifest), b) {
			t.Errorf("%q is not the bundle of its parts %q, %q", b, file, manifest)
		}
	})
}
