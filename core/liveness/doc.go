// Package liveness finds connections whose other end is gone.
//
// Two mechanisms work together. The kernel's KeepAlive (KeepAlive, Apply)
// probes an idle TCP connection; it sees a dead path, but a frozen process
// keeps answering, and unacknowledged data suppresses it. The heartbeat
// (Wheel) asks the program at the other end; it sees both, but blames the peer
// when this server itself is slow. So a missing pong makes a suspect first,
// and a wheel that ran late gives every suspect its time again.
//
// One Wheel serves one shard of connections. A connection embeds a Beat; the
// wheel has one goroutine (Run), visits each connection twice per heartbeat
// and allocates for suspects only. The states of a connection:
//
//	Quiet --ping--> Probed --no pong in time--> Suspect --evidence--> Dead
//	  ^---------------'------------pong------------'
//
// Gone is the state after Remove. A suspect is judged by the ladder, from what
// the kernel knows of its connection (Evidence, Look):
//
//   - bytes wait unread, or the wheel ran late: it is our fault, keep
//   - sent again three times and nothing acknowledged: the path is dead
//   - nothing acknowledged for 10 s: the same, on a path with a slow timer
//   - the window is closed: a slow consumer, which has limits of its own
//   - acknowledged, but no pong: ask again; still silent 6 s after the first
//     ping, and no data on its way: frozen
//
// Without evidence (no Linux, no TCP socket) two unanswered pings in 6 s are
// enough. The times are those of a Config.Pong of 3 s and grow with it.
package liveness
