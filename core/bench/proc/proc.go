// Package proc reads what a process and the machine's sockets cost, from the
// Linux kernel's own accounts. It keeps nothing open between calls and may be
// used from any goroutine.
package proc

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// Usage is what a process has used up to now.
type Usage struct {
	CPU time.Duration // user and system, all threads, also those that have ended
	RSS int64         // bytes resident
}

// Sum is the usage of several processes together.
func Sum(pids []int) (all Usage, err error) {
	for _, pid := range pids {
		u, err := Of(pid)
		if err != nil {
			return Usage{}, err
		}
		all.CPU += u.CPU
		all.RSS += u.RSS
	}
	return all, nil
}

// Of returns a process's usage.
func Of(pid int) (Usage, error) {
	cpu, err := cpuTime(pid)
	if err != nil {
		return Usage{}, fmt.Errorf("read the CPU time of process %d: %w", pid, err)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return Usage{}, fmt.Errorf("read the memory of process %d: %w", pid, err)
	}
	rss, err := field(status, "VmRSS:")
	if err != nil {
		return Usage{}, fmt.Errorf("read the memory of process %d: %w", pid, err)
	}
	return Usage{CPU: cpu, RSS: rss << 10}, nil
}

// field returns the number after name, in a text of lines "name  number unit"
// (proc_pid_status(5)).
func field(text []byte, name string) (int64, error) {
	for line := range bytes.Lines(text) {
		if rest, ok := bytes.CutPrefix(line, []byte(name)); ok {
			number, _, _ := strings.Cut(strings.TrimSpace(string(rest)), " ")
			return strconv.ParseInt(number, 10, 64)
		}
	}
	return 0, fmt.Errorf("there is no %q", name)
}

// Sockets is the kernel's memory for sockets, of the whole machine.
type Sockets struct {
	TCP    int   // sockets in use (proc_net_sockstat: "TCP: inuse")
	Buffer int64 // bytes in their queues ("TCP: mem", in pages)
	Slab   int64 // bytes of unreclaimable kernel objects, the sockets among them (/proc/meminfo SUnreclaim)
}

// ReadSockets reads /proc/net/sockstat and /proc/meminfo.
func ReadSockets() (Sockets, error) {
	text, err := os.ReadFile("/proc/net/sockstat")
	if err != nil {
		return Sockets{}, fmt.Errorf("read the sockets' memory: %w", err)
	}
	s, err := parseSockstat(text)
	if err != nil {
		return Sockets{}, fmt.Errorf("read /proc/net/sockstat: %w", err)
	}
	mem, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return Sockets{}, fmt.Errorf("read the kernel's memory: %w", err)
	}
	slab, err := field(mem, "SUnreclaim:")
	if err != nil {
		return Sockets{}, fmt.Errorf("read /proc/meminfo: %w", err)
	}
	s.Slab = slab << 10
	return s, nil
}

func parseSockstat(text []byte) (s Sockets, err error) {
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		if len(words) == 0 || words[0] != "TCP:" {
			continue
		}
		for i := 1; i+1 < len(words); i += 2 {
			n, err := strconv.ParseInt(words[i+1], 10, 64)
			if err != nil {
				return Sockets{}, fmt.Errorf("%s: %w", words[i], err)
			}
			switch words[i] {
			case "inuse":
				s.TCP = int(n)
			case "mem":
				s.Buffer = n * int64(os.Getpagesize())
			}
		}
		return s, nil
	}
	return Sockets{}, fmt.Errorf("there is no line TCP")
}
