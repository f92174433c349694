package bench

import (
	"strings"
	"testing"
	"time"

	"parley/policy/rego"
)

func TestPolicy(t *testing.T) {
	l := tiny()
	l.Publishers, l.Merges, l.Duration = 0, 2, time.Second
	cfg := config(l)
	cfg.Rules = rego.Files()
	sections := runMode(t, "policy", cfg)
	if len(sections) != 3 {
		t.Fatalf("got %d sections, want the cache, the webhook and polling", len(sections))
	}
	for _, name := range []string{"cache hit rate", "decisions", "evaluated", "commands"} {
		if v := figure(t, sections[0], name); v <= 0 || name == "cache hit rate" && v >= 100 {
			t.Errorf("got %v as %s, want a plausible figure", v, name)
		}
	}
	for _, s := range sections[1:] {
		if got := figure(t, s, "merges"); got != 2 {
			t.Errorf("%s: got %v merges, want 2", s.Title, got)
		}
		p50, p99, most := figure(t, s, "to live p50"), figure(t, s, "to live p99"), figure(t, s, "to live max")
		if p50 <= 0 || p99 < p50 || most < p99 {
			t.Errorf("%s: got %v, %v and %v ms, want rising times", s.Title, p50, p99, most)
		}
		if got := figure(t, s, "commands answered"); got <= 0 {
			t.Errorf("%s: got %v commands answered, want some", s.Title, got)
		}
	}
}

func TestPolicyThatGoesWrong(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"a target":  {func(c *Config) { c.Target = "tcp://127.0.0.1:1" }, "--target"},
		"no rules":  {func(c *Config) { c.Rules = nil }, "needs rules"},
		"no merges": {func(c *Config) { c.Load.Merges = 0 }, "--merges"},
		"broken rules": {func(c *Config) {
			c.Rules = map[string][]byte{changed: []byte("package parley\n\nallow if {\n")}
		}, "was refused"},
		"rules that refuse": {func(c *Config) {
			c.Rules = map[string][]byte{changed: []byte("package parley\n\ndefault decision := {\"allow\": true}\n\n" +
				"decision := {\"allow\": false} if input.action.name == \"message.send\"\n")}
		}, "send: the server says denied"},
	} {
		t.Run(name, func(t *testing.T) {
			l := tiny()
			l.Publishers, l.Merges, l.Duration = 0, 1, time.Second
			cfg := config(l)
			cfg.Rules = rego.Files()
			tt.change(&cfg)
			mode, err := Find("policy")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := New(cfg).Run(within(t), mode); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}
