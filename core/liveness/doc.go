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
// wheel allocates nothing per connection, has one goroutine (Run) and visits
// each connection twice per heartbeat. The states of a connection:
//
//	Quiet --ping--> Probed --no pong in time--> Suspect --still none--> Overdue
//	  ^---------------'------------pong------------'
//
// Gone is the state after Remove. Suspect is where further evidence (what the
// kernel knows of the path) is weighed; see (*Wheel).judgeLocked, the one place that
// moves a connection between states.
package liveness
