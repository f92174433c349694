package main

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// `platform check` finds a webhook that could not be made, before a start does.
func TestCheckOfTheWebhook(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "policy/p.rego", "package parley\n\ndefault decision := {\"allow\": true}\n")
	for _, args := range [][]string{{"init", "-q", "-b", "main"}, {"add", "-A"}, {"-c", "user.name=a", "-c", "user.email=a@example.test", "commit", "-q", "-m", "x"}} {
		cmd := exec.Command("git", args...)
		cmd.Dir = filepath.Join(dir, "policy")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v: %s", args, err, out)
		}
	}
	t.Setenv("HOOK_SECRET", "0123456789abcdef")
	t.Setenv("NO_SECRET", "")
	for _, tt := range []struct{ name, flag, value, want string }{
		{"file", "secret_file", write(t, dir, "good", "0123456789abcdef\n"), "webhook  ok (/v1/hooks/policy)"},
		{"variable", "secret_env", "HOOK_SECRET", "webhook  ok"},
		{"short", "secret_file", write(t, dir, "short", "0123456789\n"), "webhook  refused: policy.git.webhook: the secret of the webhook has 10 bytes"},
		{"long", "secret_file", write(t, dir, "long", strings.Repeat("x", 5000)), "has more than 4096 bytes"},
		{"no file", "secret_file", filepath.Join(dir, "none"), "read policy.git.webhook.secret_file"},
		{"no variable", "secret_env", "NO_SECRET", "the variable NO_SECRET is not set"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out, err := command(t, "check", "--data_dir", filepath.Join(dir, "data"), "--policy.git.url", filepath.Join(dir, "policy"), "--policy.git.webhook."+tt.flag, tt.value)
			if !strings.Contains(out, tt.want) || (err == nil) != strings.Contains(tt.want, "  ok") {
				t.Errorf("got %v and\n%s\nwant %q", err, out, tt.want)
			}
		})
	}
}
