package redis

import (
	"context"
	"fmt"
	"strconv"
	"strings"
)

// Advice asks the server for the settings that decide what an acknowledged
// write is worth, and returns a sentence for each that endangers data. No
// sentence means that an acknowledged write survives a power cut.
func (c *Client) Advice(ctx context.Context) ([]string, error) {
	reply, err := c.Do(ctx, "info")
	if err != nil {
		return nil, err
	}
	text, _ := reply.(string)
	info := parseInfo(text)
	var advice []string
	add := func(format string, args ...any) { advice = append(advice, fmt.Sprintf(format, args...)) }
	if v := info["redis_version"]; tooOld(v) {
		add("redis is version %s, too old; use 6.2 or newer", v)
	}
	if p := info["maxmemory_policy"]; p != "" && p != "noeviction" {
		add("maxmemory-policy is %s, so a full server drops parts of rooms without a word; set it to noeviction", p)
	}
	if info["aof_enabled"] == "0" {
		add("appendonly is off, so a restart of redis loses acknowledged messages; set appendonly yes and appendfsync always")
		return advice, nil
	}
	// Some hosted servers refuse CONFIG; then there is nothing to say.
	if reply, err := c.Do(ctx, "config", "get", "appendfsync"); err == nil {
		if pair, ok := reply.([]any); ok && len(pair) == 2 && pair[1] != "always" {
			add("appendfsync is %v, so a power cut loses the last acknowledged messages; set it to always", pair[1])
		}
	}
	return advice, nil
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
