package redis

import (
	"context"
	"fmt"
	"strconv"
	"strings"
)

// Persistence is what a server's settings make of an acknowledged write. What
// the server does not tell is empty.
type Persistence struct {
	Version         string
	MaxMemoryPolicy string // "noeviction" keeps everything
	AppendOnly      string // "yes" or "no"
	AppendFsync     string // "always", "everysec" or "no"; some hosted servers do not tell
}

// Persistence asks the server for the settings that decide what an
// acknowledged write is worth.
func (c *Client) Persistence(ctx context.Context) (Persistence, error) {
	reply, err := c.Do(ctx, "info")
	if err != nil {
		return Persistence{}, err
	}
	text, _ := reply.(string)
	info := parseInfo(text)
	p := Persistence{Version: info["redis_version"], MaxMemoryPolicy: info["maxmemory_policy"]}
	switch info["aof_enabled"] {
	case "0":
		p.AppendOnly = "no"
	case "1":
		p.AppendOnly = "yes"
	}
	// Some hosted servers refuse CONFIG; then there is nothing to say.
	if reply, err := c.Do(ctx, "config", "get", "appendfsync"); err == nil {
		if pair, ok := reply.([]any); ok && len(pair) == 2 {
			p.AppendFsync = fmt.Sprint(pair[1])
		}
	}
	return p, nil
}

// Advice returns a sentence for each of the server's settings that endangers
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
	if tooOld(p.Version) {
		add("redis is version %s, too old; use 6.2 or newer", p.Version)
	}
	if p.MaxMemoryPolicy != "" && p.MaxMemoryPolicy != "noeviction" {
		add("maxmemory-policy is %s, so a full server drops parts of rooms without a word; set it to noeviction", p.MaxMemoryPolicy)
	}
	if p.AppendOnly == "no" {
		add("appendonly is off, so a restart of redis loses acknowledged messages; set appendonly yes and appendfsync always")
	} else if p.AppendFsync != "" && p.AppendFsync != "always" {
		add("appendfsync is %s, so a power cut loses the last acknowledged messages; set it to always", p.AppendFsync)
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
func tooOld(version string) bool {
	major, rest, _ := strings.Cut(version, ".")
	minor, _, _ := strings.Cut(rest, ".")
	x, err1 := strconv.Atoi(major)
	y, err2 := strconv.Atoi(minor)
	return err1 == nil && err2 == nil && (x < 6 || x == 6 && y < 2)
}
