// Package doctor looks at the machine that a server runs on and says what
// would hurt it: limits that are too low, settings that do not do what they
// seem to, a disk or a clock that cannot be relied on.
//
// Everything is read, nothing is changed; a file of a few KiB is written to the
// data folder and removed. What the system keeps in files is looked up below a
// root, so that the checks can be tried on any machine; sockets, disk and clock
// are this machine's own. Where a system does not tell, a check is Unknown and
// not a failure. Run may be called from any goroutine.
package doctor

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"parley/core/liveness"
	"parley/core/redis"
)

// State is what a check came to.
type State string

// The states, from good to bad. Unknown says that the system did not tell.
const (
	OK      State = "ok"
	Unknown State = "unknown"
	Warn    State = "warn" // it works, but not under load, or not for ever
	Bad     State = "bad"  // it will fail, or lose data
)

// Check is one finding.
type Check struct {
	Name    string `json:"name"`
	State   State  `json:"state"`
	Found   string `json:"found"`             // what is, with figures
	Change  string `json:"change,omitempty"`  // what to change and why
	Command string `json:"command,omitempty"` // that does it
}

// Config says what the server is going to ask of the machine.
type Config struct {
	Root        string          // where /proc and /sys are found; "" = "/"
	DataDir     string          // need not exist yet
	Connections int             // limits.connections; 0 = no limit
	Liveness    liveness.Config // what is set on each connection
	Redis       Persistence     // nil: the embedded store is used
}

// Persistence is asked for what Redis keeps; *redis.Client answers.
type Persistence interface {
	Persistence(ctx context.Context) (redis.Persistence, error)
}

// assumed is how many connections are planned for where no limit is
// configured: what one small machine serves.
const assumed = 10_000

// planned returns how many connections to plan for, and in words why.
func (c Config) planned() (n int, why string) {
	if c.Connections > 0 {
		return c.Connections, fmt.Sprintf("limits.connections %d", c.Connections)
	}
	return assumed, fmt.Sprintf("%d connections (limits.connections is not set)", assumed)
}

// Run makes all checks, in a fixed order. ctx bounds those that wait for Redis
// or the disk.
func Run(ctx context.Context, cfg Config) []Check {
	if cfg.Root == "" {
		cfg.Root = "/"
	}
	checks := []Check{cfg.openFiles()}
	for _, s := range settings {
		checks = append(checks, cfg.setting(s))
	}
	checks = append(checks, cfg.localPorts(), cfg.tcpMemory(), cfg.conntrack(), cfg.keepalive(), cfg.keepaliveSysctls(),
		cfg.cpus(), cfg.memory(), clock(), cfg.clockSource())
	checks = append(checks, cfg.disk(ctx)...)
	if cfg.Redis != nil {
		checks = append(checks, cfg.redis(ctx))
	}
	return checks
}

// Worst returns the worst state among checks: Bad, Warn or OK. Unknown is OK
// here, because a system that does not tell is not a system that is wrong.
func Worst(checks []Check) State {
	worst := OK
	for _, c := range checks {
		if c.State == Bad || c.State == Warn && worst == OK {
			worst = c.State
		}
	}
	return worst
}

// maxFile bounds what is read of one file of the system, in bytes.
const maxFile = 64 << 10

// text reads a file below the root.
func (c Config) text(name string) (string, error) {
	f, err := os.Open(filepath.Join(c.Root, name))
	if err != nil {
		return "", err
	}
	defer f.Close()
	buf := make([]byte, maxFile)
	n, err := f.Read(buf)
	if err != nil {
		return "", fmt.Errorf("read %s: %w", name, err)
	}
	return strings.TrimSpace(string(buf[:n])), nil
}

// numbers reads the whole numbers in a file below the root.
func (c Config) numbers(name string, want int) ([]int64, error) {
	text, err := c.text(name)
	if err != nil {
		return nil, err
	}
	fields := strings.Fields(text)
	if len(fields) < want {
		return nil, fmt.Errorf("read %s: got %q, want %d numbers", name, text, want)
	}
	list := make([]int64, want)
	for i := range list {
		if list[i], err = strconv.ParseInt(fields[i], 10, 64); err != nil {
			return nil, fmt.Errorf("read %s: %w", name, err)
		}
	}
	return list, nil
}

// counter finds "NAME NUMBER" among the lines of a file below the root.
func (c Config) counter(file, name string) (n int64, ok bool) {
	text, err := c.text(file)
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == name {
			n, err := strconv.ParseInt(f[1], 10, 64)
			return n, err == nil
		}
	}
	return 0, false
}

// unknown is a check that could not be made.
func unknown(name string, err error) Check {
	return Check{Name: name, State: Unknown, Found: err.Error()}
}
