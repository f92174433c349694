package gitsync

import "testing"

func TestTrickNames(t *testing.T) {
	for name, want := range map[string]bool{
		"": true, ".": true, "..": true, ".git": true, ".GIT": true, "a/b": true, "a\x00b": true, "/": true,
		"a": false, "...": false, ".github": false, "..a": false, "a..b": false,
	} {
		if got := trick(name); got != want {
			t.Errorf("%q: got %v, want %v", name, got, want)
		}
	}
}
