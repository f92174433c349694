package redis

import (
	"context"
	"fmt"
	"strconv"
	"strings"
)

// Persistence is what the settings of the servers make of an acknowledged
// write. Where primaries differ it holds what the worst of them has. What they
// do not tell is empty.
type Persistence struct {
	Mode            Mode
	Primaries       int
	Version         string
	MaxMemoryPolicy string // "noeviction" keeps everything
	AppendOnly      string // "yes" or "no"
	AppendFsync     string // "always", "everysec" or "no"; some hosted servers do not tell
	Replicas        int    // connected to the primary that has fewest
	MinReplicas     string // min-replicas-to-write
	FullCoverage    string // cluster-require-full-coverage, "yes" or "no"
}

// Persistence asks every primary for the settings that decide what an
// acknowledged write is worth.
func (c *Client) Persistence(ctx context.Context) (Persistence, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.CallTimeout)
	defer cancel()
	primaries, err := c.primaries(ctx)
	if err != nil {
		return Persistence{}, err
	}
	all := Persistence{Mode: c.to.mode, Primaries: len(primaries)}
	for i, s := range primaries {
		p, err := askOne(ctx, s)
		if err != nil {
			return Persistence{}, fail("info", s.addr, c.route.learn(ctx, s, err).err)
		}
		if i == 0 {
			all.Version, all.Replicas = p.Version, p.Replicas
		} else if tooOld(p.Version) {
			all.Version = p.Version
		}
		all.Replicas = min(all.Replicas, p.Replicas)
		worse(&all.MaxMemoryPolicy, p.MaxMemoryPolicy, "noeviction")
		worse(&all.AppendOnly, p.AppendOnly, "yes")
		worse(&all.AppendFsync, p.AppendFsync, "always")
		worse(&all.FullCoverage, p.FullCoverage, "no")
		if all.MinReplicas != "0" {
			all.MinReplicas = p.MinReplicas
		}
	}
	return all, nil
}

// worse takes a setting over unless what is there is already not the best.
func worse(have *string, value, best string) {
	if *have == "" || *have == best {
		if value != "" {
			*have = value
		}
	}
}

// askOne asks one primary.
func askOne(ctx context.Context, s *server) (Persistence, error) {
	text, err := s.rdb.Info(ctx).Result()
	if err != nil {
		return Persistence{}, err
	}
	info := parseInfo(text)
	p := Persistence{Version: info["redis_version"], MaxMemoryPolicy: info["maxmemory_policy"]}
	switch info["aof_enabled"] {
	case "0":
		p.AppendOnly = "no"
	case "1":
		p.AppendOnly = "yes"
	}
	p.Replicas, _ = strconv.Atoi(info["connected_slaves"])
	for name, to := range map[string]*string{
		"appendfsync": &p.AppendFsync, "min-replicas-to-write": &p.MinReplicas, "cluster-require-full-coverage": &p.FullCoverage,
	} {
		// Some hosted servers refuse CONFIG; then there is nothing to say.
		if pairs, err := s.rdb.ConfigGet(ctx, name).Result(); err == nil {
			*to = pairs[name]
		}
	}
	return p, nil
}

// Advice returns a sentence for each of the servers' settings that endangers
// data. No sentence means that an acknowledged write survives a power cut.
func (c *Client) Advice(ctx context.Context) ([]string, error) {
	p, err := c.Persistence(ctx)
	if err != nil {
		return nil, err
	}
	return p.Advice(), nil
}

// Advice returns a sentence for each setting that endangers data.
func (p Persistence) Advice() (advice []string) {
	add := func(format string, args ...any) { advice = append(advice, fmt.Sprintf(format, args...)) }
	oldest := "6.2"
	if p.Mode == Cluster {
		oldest = "7.0"
	}
	if tooOld(p.Version) || p.Mode == Cluster && below(p.Version, 7, 0) {
		add("redis is version %s, too old; use %s or newer", p.Version, oldest)
	}
	if p.MaxMemoryPolicy != "" && p.MaxMemoryPolicy != "noeviction" {
		add("maxmemory-policy is %s, so a full server drops parts of rooms without a word; set it to noeviction", p.MaxMemoryPolicy)
	}
	if p.AppendOnly == "no" {
		add("appendonly is off, so a restart of redis loses acknowledged messages; set appendonly yes and appendfsync always")
	} else if p.AppendFsync != "" && p.AppendFsync != "always" {
		add("appendfsync is %s, so a power cut loses the last acknowledged messages; set it to always", p.AppendFsync)
	}
	if p.Mode != Single && p.Replicas > 0 && p.MinReplicas == "0" {
		add("min-replicas-to-write is 0, so a primary that is cut off from its replicas goes on acknowledging messages that the failover drops; set it to 1")
	}
	if p.Mode == Cluster && p.Replicas == 0 && p.FullCoverage == "yes" {
		add("a primary has no replica and cluster-require-full-coverage is yes, so its death stops every room; give it a replica, or set it to no")
	}
	return advice
}

// parseInfo reads the reply to INFO: lines "name:value", and "# section".
func parseInfo(text string) map[string]string {
	m := make(map[string]string)
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			m[name] = value
		}
	}
	return m
}

// tooOld reports whether a version is below 6.2. One that cannot be read is not.
func tooOld(version string) bool { return below(version, 6, 2) }

func below(version string, major, minor int) bool {
	first, rest, _ := strings.Cut(version, ".")
	second, _, _ := strings.Cut(rest, ".")
	x, err1 := strconv.Atoi(first)
	y, err2 := strconv.Atoi(second)
	return err1 == nil && err2 == nil && (x < major || x == major && y < minor)
}
