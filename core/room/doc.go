// Package room moves entries of room logs to the connections that listen.
//
// A room is a log and a subscriber is a cursor. The Room keeps the newest
// entries as encoded frames in a ring; a Member is a connection's place in
// that log, the next seq it is owed. Live delivery, resume after a
// disconnect and catching up are one path: write cursor..head, move the
// cursor.
//
// Who runs what:
//
//   - the journal's goroutines call Room.Appended, which orders entries by seq,
//     encodes each once and puts it in the ring; it never blocks;
//   - each shard pump (one goroutine) owns the member lists of its peers and
//     moves their cursors to the head with one non-blocking write a peer and
//     pass;
//   - a peer whose socket is full is parked: one drainer goroutine waits for
//     the socket, reads what fell out of the ring from the journal, and ends
//     when the peer has caught up. A stalled reader costs that one goroutine,
//     and nobody else anything. Past Config.LagBytes or Config.LagTime the
//     peer is closed as slow_consumer.
//
// An entry that the journal cannot read any more (journal.DamagedError), or
// that retention took before a member got it, costs that member a reset to the
// place behind it; the rest follows. A log that was replaced under the same
// name (another epoch) is a new generation of the room: its members are reset
// to its top.
//
// A kick or a ban ends a person's cursors at its seq, whoever serves them; the
// memberships end a moment later (cut.go).
//
// All bytes to one connection go through its Peer, under its lock; the
// connection's reader goroutine uses Peer.Reply for answers.
//
// Lock order: Peer.mu, then Hub.mu, then Room.mu. Shard.mu is a leaf. No lock
// is held across the journal, a blocking write or a callback; the one I/O
// under Peer.mu is a write that cannot wait, because that lock is what makes
// "all bytes through one place" true.
package room
