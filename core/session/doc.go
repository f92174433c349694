// Package session is one connected client: what it may say in which state,
// how often, and what happens then.
//
// A Session is driven by its connection's reader goroutine, which calls
// Receive for each frame and End once. Everything a command needs happens on
// that goroutine (decode, policy, plugins, append), so a slow plugin or store
// slows its sender only. Answers and entries leave through the room.Peer.
//
// A send walks: table (state, rate) -> clean -> room -> gate -> plugins ->
// journal -> ack. Before anything may refuse it, its nonce is looked up, so a
// resend of a message that was posted is answered as it was the first time.
//
// A command that runs a room walks: room -> its turn -> gate -> journal -> ack;
// what it does to people is done by its entry, on every node. Who has joined a
// room is asked about again whenever the policy may think otherwise (reask.go).
package session
