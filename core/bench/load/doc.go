// Package load is one client process of `platform bench`: thousands of
// connections on one goroutine and one epoll set, with a WebSocket client
// written for the purpose, so that on a small machine the load does not drown
// what it measures.
//
// It promises that every message it reports as delivered was checked: each
// member of a room must see each publisher's messages once and in order, the
// room's seq without a hole, and the same bytes as every other member.
//
// Serve runs a process's worth of connections and takes its orders from a
// Controller over a pipe, as lines of JSON. All processes must run on one
// machine: they share its monotonic clock.
//
// A closed loop goes on by acks, which come from the publisher's server, or by
// arrivals, which only a process with all members of the run can see.
//
// TLS is crypto/tls on the same goroutine: its handshakes are coroutines.
//
// The frames, events and checks are portable; the connections need Linux.
package load
