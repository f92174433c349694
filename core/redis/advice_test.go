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
			cfg.URL, cfg.DialTimeout, cfg.CallTimeout = server.URL(), redistest.Patience, redistest.Patience
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

func TestAdviceOnSeveralServers(t *testing.T) {
	base := Persistence{Mode: Cluster, Primaries: 3, Version: "7.0.15", MaxMemoryPolicy: "noeviction", AppendOnly: "yes", AppendFsync: "always",
		Replicas: 1, MinReplicas: "1", FullCoverage: "yes"}
	for _, tt := range []struct {
		name string
		edit func(*Persistence)
		want string
	}{
		{"as it should be", func(*Persistence) {}, ""},
		{"a primary may be alone", func(p *Persistence) { p.MinReplicas = "0" }, "min-replicas-to-write is 0"},
		{"the same behind sentinels", func(p *Persistence) { p.Mode, p.MinReplicas = Sentinel, "0" }, "min-replicas-to-write is 0"},
		{"one server has no failover", func(p *Persistence) { p.Mode, p.MinReplicas = Single, "0" }, ""},
		{"no replica", func(p *Persistence) { p.Replicas, p.MinReplicas = 0, "0" }, "cluster-require-full-coverage is yes"},
		{"no replica, others go on", func(p *Persistence) { p.Replicas, p.FullCoverage = 0, "no" }, ""},
		{"no sharded channels", func(p *Persistence) { p.Version = "6.2.14" }, "use 7.0 or newer"},
		{"not told", func(p *Persistence) { p.MinReplicas, p.FullCoverage = "", "" }, ""},
	} {
		p := base
		tt.edit(&p)
		got := strings.Join(p.Advice(), "; ")
		if tt.want == "" && got != "" || !strings.Contains(got, tt.want) {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestPersistenceIsTheWorstOfACluster(t *testing.T) {
	cluster := redistest.StartCluster(t, 3, 0, redistest.Options{AppendOnly: true})
	cluster.Masters[1].Do("CONFIG", "SET", "appendfsync", "everysec")
	cluster.Masters[2].Do("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
	cfg := Defaults()
	cfg.URL, cfg.DialTimeout, cfg.CallTimeout = cluster.URL(), redistest.Patience, redistest.Patience
	c, err := Open(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	p, err := c.Persistence(t.Context())
	if err != nil || p.Primaries != 3 || p.AppendOnly != "yes" || p.AppendFsync != "everysec" || p.MaxMemoryPolicy != "allkeys-lru" || p.FullCoverage != "yes" {
		t.Errorf("got %+v, %v", p, err)
	}
}
