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
