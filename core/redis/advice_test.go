package redis

import (
	"log/slog"
	"strings"
	"testing"

	"parley/core/redis/redistest"
)

func TestAdvice(t *testing.T) {
	tests := []struct {
		name string
		opts redistest.Options
		want []string // part of each sentence, in order
	}{
		{"as it should be", redistest.Options{AppendOnly: true}, nil},
		{"no file", redistest.Options{}, []string{"appendonly is off"}},
		{"a second at risk", redistest.Options{AppendOnly: true, AppendFsync: "everysec"}, []string{"appendfsync is everysec"}},
		{"a cache", redistest.Options{Args: []string{"--maxmemory-policy", "allkeys-lru"}}, []string{"maxmemory-policy is allkeys-lru", "appendonly is off"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			server := redistest.Start(t, tt.opts)
			cfg := Defaults()
			cfg.URL = server.URL()
			c, err := Open(cfg, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			got, err := c.Advice(t.Context())
			if err != nil || len(got) != len(tt.want) {
				t.Fatalf("got %q, %v, want %d sentences", got, err, len(tt.want))
			}
			for i := range got {
				if !strings.Contains(got[i], tt.want[i]) {
					t.Errorf("sentence %d: got %q, want one with %q", i, got[i], tt.want[i])
				}
			}
			server.Stop()
			if _, err := c.Advice(t.Context()); err == nil {
				t.Error("without a server: got no error")
			}
		})
	}
}

func TestTooOld(t *testing.T) {
	for version, want := range map[string]bool{"5.0.14": true, "6.0.16": true, "6.2.0": false, "7.0.15": false, "10.1": false, "": false, "unstable": false, "7": false} {
		if got := tooOld(version); got != want {
			t.Errorf("version %q: got %v, want %v", version, got, want)
		}
	}
}
