package doctor

import (
	"fmt"
	"net"
	"time"

	"parley/core/liveness"
)

// keepalive sets the configuration on a real connection and reads back what
// the kernel made of it.
func (c Config) keepalive() Check {
	const name = "keepalive in force"
	got, err := applied(c.Liveness)
	if err != nil {
		return unknown(name, err)
	}
	l := c.Liveness
	want := liveness.Effective{KeepAlive: l.KeepAliveIdle > 0, Idle: l.KeepAliveIdle, Interval: l.KeepAliveInterval, Count: l.KeepAliveCount, UserTimeout: l.UserTimeout}
	if !want.KeepAlive { // then only the switch is set
		want.Idle, want.Interval, want.Count = got.Idle, got.Interval, got.Count
	}
	check := Check{Name: name, State: OK, Found: describe(got)}
	switch {
	case got != want:
		check.State = Warn
		check.Change = "the kernel does not hold what liveness.* says: " + describe(want)
	case !got.KeepAlive && l.Ping == 0:
		check.State = Bad
		check.Change = "both heartbeats and KeepAlive are off, so a peer that vanished keeps its connection for ever: set liveness.ping or liveness.keepalive_idle"
	case !got.KeepAlive:
		check.Found += "; heartbeats find dead peers"
	}
	return check
}

// describe says in words what an Effective does.
func describe(e liveness.Effective) string {
	text := "KeepAlive off"
	if e.KeepAlive {
		text = fmt.Sprintf("first probe after %v, then every %v, %d of them", e.Idle, e.Interval, e.Count)
	}
	if e.UserTimeout > 0 {
		text += fmt.Sprintf(", user timeout %v", e.UserTimeout)
		if e.KeepAlive {
			text += " (which decides, not the number of probes)"
		}
	}
	if after := e.GivesUp(); after > 0 {
		text += fmt.Sprintf("; the kernel gives a silent peer up %v after its last packet", after)
	}
	return text
}

// applied makes a connection on loopback, applies cfg to the accepted side, as
// the listeners do, and reads it back.
func applied(cfg liveness.Config) (e liveness.Effective, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return e, err
	}
	defer l.Close()
	client, err := net.DialTimeout("tcp", l.Addr().String(), time.Second)
	if err != nil {
		return e, err
	}
	defer client.Close()
	server, err := l.Accept()
	if err != nil {
		return e, err
	}
	defer server.Close()
	c := server.(*net.TCPConn)
	if err := liveness.Apply(c, cfg); err != nil {
		return e, err
	}
	rc, err := c.SyscallConn()
	if err != nil {
		return e, err
	}
	return liveness.ReadBack(rc)
}

// keepaliveSysctls says what a socket gets for which nobody sets values.
func (c Config) keepaliveSysctls() Check {
	const name = "net.ipv4.tcp_keepalive_*"
	var v [3]int64
	for i, key := range [...]string{"time", "intvl", "probes"} {
		n, err := c.numbers(sysctlPath("net.ipv4.tcp_keepalive_"+key), 1)
		if err != nil {
			return unknown(name, err)
		}
		v[i] = n[0]
	}
	dead := time.Duration(v[0]+v[1]*v[2]) * time.Second
	check := Check{Name: name, State: OK, Found: fmt.Sprintf("%d s, %d s, %d probes: %v; Parley's connections do not use them, because values set for a socket win", v[0], v[1], v[2], dead)}
	if most := time.Duration(keepaliveTime+keepaliveIntv*keepaliveCnt) * time.Second; dead > most {
		check.Change = fmt.Sprintf("nothing for Parley; a proxy or Redis that only switches KeepAlive on would find a dead peer after %v instead of %v", dead, most)
		check.Command = fmt.Sprintf("sysctl -w net.ipv4.tcp_keepalive_time=%d net.ipv4.tcp_keepalive_intvl=%d net.ipv4.tcp_keepalive_probes=%d", keepaliveTime, keepaliveIntv, keepaliveCnt)
	}
	return check
}
