package doctor

import (
	"fmt"
	"path"
	"strings"
)

// setting is a sysctl that a chat server wants to be at least a value.
type setting struct {
	key   string // as sysctl(8) writes it
	least int64
	why   string // one line, also the comment in the file
	// ship puts it into the file. Not for limits that most systems have far
	// above least: a file would lower them.
	ship bool
}

// settings are checked one by one.
var settings = []setting{
	{"net.core.somaxconn", 4096, "connections that wait to be accepted; Go asks for as many as this allows, and a reconnect storm overflows less", true},
	{"net.ipv4.tcp_max_syn_backlog", 4096, "handshakes under way; a reconnect storm overflows less", true},
	{"net.ipv4.tcp_syncookies", 1, "a full handshake queue still lets real clients in", true},
	{"fs.file-max", 1_048_576, "open files of the whole machine; each connection is one", false},
	{"fs.nr_open", 1_048_576, "the most that a process's own limit of open files may be", false},
}

// The other recommendations, which have checks of their own.
const (
	portRange     = "10240 65535" // from above the ports that Parley listens on by default
	leastPorts    = 28_232        // Linux's default, 32768 to 60999
	keepaliveTime = 60
	keepaliveIntv = 10
	keepaliveCnt  = 3
)

// SysctlFile returns deploy/sysctl.d/60-parley.conf: the sysctls that the checks
// recommend and that fit any machine, with the reason.
func SysctlFile() string {
	var b strings.Builder
	b.WriteString("# Kernel settings for a machine that runs Parley: copy to /etc/sysctl.d/ and run\n" +
		"#   sysctl --system\n# `platform doctor` says which of them this machine needs.\n")
	add := func(why, key, value string) { fmt.Fprintf(&b, "\n# %s\n%s = %s\n", why, key, value) }
	for _, s := range settings {
		if s.ship {
			add(s.why, s.key, fmt.Sprint(s.least))
		}
	}
	add("ports for outgoing connections: Redis, and a reverse proxy on this machine", "net.ipv4.ip_local_port_range", portRange)
	add("KeepAlive of other programs and of sockets that only switch it on; Parley sets its own values for each connection", "net.ipv4.tcp_keepalive_time", fmt.Sprint(keepaliveTime))
	fmt.Fprintf(&b, "net.ipv4.tcp_keepalive_intvl = %d\nnet.ipv4.tcp_keepalive_probes = %d\n", keepaliveIntv, keepaliveCnt)
	return b.String()
}

// sysctlPath is where a sysctl stands.
func sysctlPath(key string) string { return path.Join("/proc/sys", strings.ReplaceAll(key, ".", "/")) }

// sysctlCommand sets one now; the file keeps it.
func sysctlCommand(key, value string) string {
	return fmt.Sprintf("sysctl -w %s=%q", key, value)
}

func (c Config) setting(s setting) Check {
	v, err := c.numbers(sysctlPath(s.key), 1)
	if err != nil {
		return unknown(s.key, err)
	}
	check := Check{Name: s.key, State: OK, Found: fmt.Sprint(v[0])}
	if v[0] < s.least {
		check.State = Warn
		check.Change = fmt.Sprintf("at least %d: %s", s.least, s.why)
		check.Command = sysctlCommand(s.key, fmt.Sprint(s.least))
	}
	return check
}

// spareFiles are for what is open besides connections: store, plugins, policy,
// listeners, Redis.
const spareFiles = 512

// openFiles compares RLIMIT_NOFILE with the connections. Go raises the soft
// limit to the hard one when a program starts, so the hard one counts.
func (c Config) openFiles() Check {
	const name = "open files"
	text, err := c.text("/proc/self/limits")
	if err != nil {
		return unknown(name, err)
	}
	for line := range strings.Lines(text) {
		rest, ok := strings.CutPrefix(line, "Max open files")
		f := strings.Fields(rest)
		if !ok || len(f) < 2 {
			continue
		}
		var hard int64
		if _, err := fmt.Sscan(f[1], &hard); err != nil && f[1] != "unlimited" {
			return unknown(name, fmt.Errorf("read /proc/self/limits: hard limit %q: %w", f[1], err))
		}
		n, why := c.planned()
		check := Check{Name: name, State: OK, Found: fmt.Sprintf("soft %s, hard %s (Go raises soft to hard); %s", f[0], f[1], why)}
		if need := int64(n) + spareFiles; f[1] != "unlimited" && hard < need {
			check.State = Warn
			if c.Connections > 0 {
				check.State = Bad // this limit will be reached before the configured one
			}
			check.Change = fmt.Sprintf("a hard limit of at least %d: each connection is an open file, and %d are for everything else; with systemd LimitNOFILE=%[1]d, with Docker --ulimit nofile=%[1]d", need, spareFiles)
			check.Command = fmt.Sprintf("ulimit -Hn %d", need)
		}
		return check
	}
	return unknown(name, fmt.Errorf("read /proc/self/limits: no line about open files"))
}

// localPorts bounds outgoing connections from one address to one other.
func (c Config) localPorts() Check {
	const name = "net.ipv4.ip_local_port_range"
	v, err := c.numbers(sysctlPath(name), 2)
	if err != nil {
		return unknown(name, err)
	}
	n, why := c.planned()
	count := v[1] - v[0] + 1
	check := Check{Name: name, State: OK, Found: fmt.Sprintf("%d to %d, %d ports", v[0], v[1], count)}
	if count < leastPorts || count < int64(n) {
		check.State = Warn
		check.Change = fmt.Sprintf("more ports: a reverse proxy on this machine needs one for each connection to Parley's one address, and %s is more than it has; clients that connect directly need none", why)
		if count >= int64(n) {
			check.Change = fmt.Sprintf("at least Linux's usual %d ports", leastPorts)
		}
		check.Command = sysctlCommand(name, portRange)
	}
	return check
}

const (
	pageBytes = 4096
	// tcpBytes is what one connection may hold in socket buffers while it is
	// slow: the smallest send buffer that is of use and as much to read.
	tcpBytes = 8 << 10
)

// tcpMemory checks that the kernel does not begin to save TCP memory while
// every connection holds a little.
func (c Config) tcpMemory() Check {
	const name = "net.ipv4.tcp_mem"
	v, err := c.numbers(sysctlPath(name), 3)
	if err != nil {
		return unknown(name, err)
	}
	n, why := c.planned()
	need := int64(n) * tcpBytes / pageBytes
	check := Check{Name: name, State: OK, Found: fmt.Sprintf("pressure from %d MiB, at most %d MiB", v[1]*pageBytes>>20, v[2]*pageBytes>>20)}
	if v[1] < need {
		check.State = Warn
		check.Change = fmt.Sprintf("pressure from at least %d MiB: below it the kernel shrinks the buffers of every socket, and %s with %d KiB each need that much", need*pageBytes>>20, why, tcpBytes>>10)
		check.Command = sysctlCommand(name, fmt.Sprintf("%d %d %d", need*3/4, need, need*3/2))
	}
	return check
}

// conntrack checks the connection table of the packet filter, where one is
// loaded: what does not fit is dropped without a word to either side.
func (c Config) conntrack() Check {
	const name = "net.netfilter.nf_conntrack_max"
	v, err := c.numbers(sysctlPath(name), 1)
	if err != nil {
		return Check{Name: name, State: OK, Found: "connections are not tracked here"}
	}
	n, why := c.planned()
	check := Check{Name: name, State: OK, Found: fmt.Sprint(v[0])}
	if need := int64(n) * 2; v[0] < need {
		check.State = Warn
		check.Change = fmt.Sprintf("at least %d: packets of connections beyond it are dropped, and %s leave entries behind when they end", need, why)
		check.Command = sysctlCommand(name, fmt.Sprint(need))
	}
	return check
}
