// Package proxy finds out who a client is that comes through a proxy: from
// the X-Forwarded-For header of an HTTP request, or from the PROXY protocol
// header at the beginning of a connection (HAProxy, "The PROXY protocol
// versions 1 & 2", 2020). Either is believed only from networks the operator
// trusts, because anybody can write one.
//
// It holds no state; its functions may be called from any goroutine.
package proxy

import (
	"fmt"
	"net/netip"
	"strings"
)

// Networks are the networks of trusted proxies. The zero value trusts nobody.
type Networks []netip.Prefix

// Parse reads networks as "10.0.0.0/8" or single addresses.
func Parse(texts []string) (Networks, error) {
	var n Networks
	for _, t := range texts {
		p, err := netip.ParsePrefix(t)
		if addr, single := netip.ParseAddr(t); single == nil {
			p, err = addr.Prefix(addr.BitLen())
		}
		if err != nil {
			return nil, fmt.Errorf("%q is no network such as 10.0.0.0/8: %w", t, err)
		}
		if bits := p.Bits() - 96; p.Addr().Is4In6() && bits >= 0 {
			p = netip.PrefixFrom(p.Addr().Unmap(), bits) // as Contain compares
		}
		n = append(n, p.Masked())
	}
	return n, nil
}

// Contain reports whether a proxy at addr is trusted.
func (n Networks) Contain(addr netip.Addr) bool {
	addr = addr.Unmap().WithZone("")
	for _, p := range n {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// maxHops bounds how many addresses of X-Forwarded-For are looked at.
const maxHops = 32

// Client returns the client of a request that came from peer with the given
// X-Forwarded-For headers: the right-most address that is no trusted proxy.
// What is written further left anybody may have made up. Where something
// unreadable comes first, it is the trusted proxy that wrote it.
func (n Networks) Client(peer netip.Addr, forwarded []string) netip.Addr {
	hops := 0
	for i := len(forwarded) - 1; i >= 0; i-- {
		rest := forwarded[i]
		for more := true; more; {
			if !n.Contain(peer) || hops == maxHops {
				return peer
			}
			hops++
			var last string
			if comma := strings.LastIndexByte(rest, ','); comma >= 0 {
				rest, last = rest[:comma], rest[comma+1:]
			} else {
				last, more = rest, false
			}
			addr, ok := address(strings.TrimSpace(last))
			if !ok {
				return peer
			}
			peer = addr
		}
	}
	return peer
}

// address reads "192.0.2.1", "2001:db8::1", and either with a port, as some
// proxies write them.
func address(s string) (netip.Addr, bool) {
	if addr, err := netip.ParseAddr(s); err == nil {
		return addr.Unmap(), true
	}
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return ap.Addr().Unmap(), true
	}
	if len(s) > 2 && s[0] == '[' && s[len(s)-1] == ']' {
		if addr, err := netip.ParseAddr(s[1 : len(s)-1]); err == nil {
			return addr.Unmap(), true
		}
	}
	return netip.Addr{}, false
}
