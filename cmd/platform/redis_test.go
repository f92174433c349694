package main

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
)

func TestCheckReadsRedisSettings(t *testing.T) {
	dir := t.TempDir()
	for _, tt := range []struct {
		args []string
		want string
		ok   bool
	}{
		{[]string{"--redis.url", "redis-cluster://h1,h2,h3"}, "redis    cluster ok", true},
		{[]string{"--redis.url", "redis-sentinel://h1,h2/parley"}, "redis    sentinel ok", true},
		{[]string{"--redis.url", "rediss://h", "--redis.tls.ca_file", filepath.Join(dir, "nothing.pem")}, "redis    refused: redis.tls.ca_file", false},
		{[]string{"--redis.url", "redis://h", "--redis.password_file", filepath.Join(dir, "nothing")}, "redis    refused: redis.password_file", false},
	} {
		out, err := command(t, append([]string{"check", "--data_dir", dir}, tt.args...)...)
		if !strings.Contains(out, tt.want) || !tt.ok && !errors.Is(err, errTold) {
			t.Errorf("%q: got %v, %s, want %q", tt.args, err, out, tt.want)
		}
	}
	if _, err := command(t, "check", "--data_dir", dir, "--redis.url", "redis-sentinel://h1,h2"); err == nil || !strings.Contains(err.Error(), "names no service") {
		t.Errorf("sentinels without a service: got %v", err)
	}
}
