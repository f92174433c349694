package e2e

import (
	"strings"
	"testing"
)

// TestABadConfigurationStopsTheStart checks that run and check both say which
// key on which line is wrong, and what was probably meant.
func TestABadConfigurationStopsTheStart(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		keys settings
		want []string
	}{
		{"an unknown key", settings{"limits.text_byte": 5}, []string{"parley.yaml:", "limits.text_byte", "limits.text_bytes"}},
		{"a wrong type", settings{"limits.connections_per_ip": "many"}, []string{"parley.yaml:", "limits.connections_per_ip", "whole number"}},
		{"a value out of range", settings{"log.level": "loud"}, []string{"parley.yaml:", "log.level", "debug"}},
	}
	for _, tt := range tests {
		for _, command := range []string{"run", "check"} {
			t.Run(tt.name+" with "+command, func(t *testing.T) {
				out, code := newNode(t, tt.keys).Platform(command)
				if code == 0 {
					t.Errorf("got exit code 0: %s", out)
				}
				for _, want := range tt.want {
					if !strings.Contains(out, want) {
						t.Errorf("the output does not say %q: %s", want, out)
					}
				}
			})
		}
	}
}

// TestCheckPassesWhatRuns checks a configuration without starting.
func TestCheckPassesWhatRuns(t *testing.T) {
	t.Parallel()
	n := newNode(t, nil)
	if out, code := n.Platform("check"); code != 0 {
		t.Errorf("check: exit code %d: %s", code, out)
	}
	n.Start()
	n.Stop()
}
