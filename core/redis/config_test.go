package redis_test

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"parley/core/redis"
)

func TestOpenChecksSettings(t *testing.T) {
	tests := []struct {
		name string
		edit func(*redis.Config)
		want string // part of the error, "" for none
	}{
		{"plain", func(c *redis.Config) {}, ""},
		{"TLS with a password", func(c *redis.Config) { c.URL = "rediss://ann:p%40ss@db.example:6380/" }, ""},
		{"database 3", func(c *redis.Config) { c.URL = "redis://db.example/3" }, ""},
		{"socket", func(c *redis.Config) { c.URL = "unix:///run/redis.sock" }, ""},
		{"socket without a path", func(c *redis.Config) { c.URL = "unix://" }, "names no socket"},
		{"IPv6 without a port", func(c *redis.Config) { c.URL = "redis://[::1]" }, ""},
		{"empty", func(c *redis.Config) { c.URL = "" }, "redis.url is empty"},
		{"not a URL", func(c *redis.Config) { c.URL = "redis://ann:secret@host:%zz" }, "cannot be parsed"},
		{"host and port alone", func(c *redis.Config) { c.URL = "//localhost:6379" }, "no scheme"},
		{"another scheme", func(c *redis.Config) { c.URL = "http://localhost:6379" }, `scheme "http" is unknown`},
		{"no host", func(c *redis.Config) { c.URL = "redis://:6379" }, "names no host"},
		{"port out of range", func(c *redis.Config) { c.URL = "redis://h:70000" }, "not between 1 and 65535"},
		{"no database", func(c *redis.Config) { c.URL = "redis://h/main" }, "not a database number"},
		{"options in the URL", func(c *redis.Config) { c.URL = "redis://h?max_retries=3" }, "not supported"},
		{"bad prefix", func(c *redis.Config) { c.Prefix = "a:b" }, `redis.prefix "a:b"`},
		{"empty prefix", func(c *redis.Config) { c.Prefix = "" }, "redis.prefix"},
		{"no deadline", func(c *redis.Config) { c.CallTimeout = 0 }, "redis.call_timeout"},
		{"negative dial timeout", func(c *redis.Config) { c.DialTimeout = -time.Second }, "redis.dial_timeout"},
		{"no probes", func(c *redis.Config) { c.ProbeEvery = 0 }, "redis.probe_every"},
		{"impatient", func(c *redis.Config) { c.ProbeTimeout = c.ProbeEvery }, "redis.probe_timeout"},
		{"no connections", func(c *redis.Config) { c.PoolSize = 0 }, "redis.pool_size"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := redis.Defaults()
			cfg.URL = "redis://localhost:6379"
			tt.edit(&cfg)
			c, err := redis.Open(cfg, slog.New(slog.DiscardHandler))
			if c != nil {
				defer c.Close()
			}
			switch {
			case tt.want == "" && err != nil:
				t.Errorf("got error %v, want none", err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("got error %v, want one with %q", err, tt.want)
			}
		})
	}
}

func TestErrorsHideThePassword(t *testing.T) {
	for _, url := range []string{"http://ann:hunter2@h", "redis://ann:hunter2@h/x", "redis://ann:hunter2@h:%zz", "redis://ann:hunter2@:1"} {
		cfg := redis.Defaults()
		cfg.URL = url
		if _, err := redis.Open(cfg, slog.New(slog.DiscardHandler)); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("open %s: got error %v, want one without the password", url, err)
		}
	}
}

func FuzzURL(f *testing.F) {
	for _, s := range []string{"", "redis://h", "rediss://u:p@h:1/0", "redis://[::1]:6379", "redis://h:0", "::"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, url string) {
		cfg := redis.Defaults()
		cfg.URL = url
		c, err := redis.Open(cfg, slog.New(slog.DiscardHandler))
		if err == nil {
			if err := c.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		}
	})
}
