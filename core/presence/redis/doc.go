// Package redis carries presence between the nodes of a cluster: who is in
// which room, who writes there at the moment, and who is connected anywhere.
//
// It holds state and no events. What a node says is the whole of what it knows
// of a room, so that a message that is lost, late or heard twice does no harm:
//
//	PREFIX:{ROOM}:here     hash: by node, its register of the room (see register.go)
//	PREFIX:{ROOM}:here     channel: "here NODE REGISTER", or "type NODE USER"; PREFIX@N in database N
//	PREFIX:{u:USER}:at     hash: by node, "1" while the user is connected to it
//
// Only its node writes a field, at most once in Config.Pace, whatever has
// happened meanwhile; commands of many rooms and users share a pipeline. A
// node hears of a room while somebody there is connected to it, and reads the
// hash when it begins to, and whenever its subscription was made anew.
//
//   - Who is alive is what package cluster says. Registers of others do not
//     count; a dead node's are dropped at once and removed by those who
//     followed the room. A key that nobody writes to any more ends by itself.
//   - While Redis is away, everybody's last view stays. When it returns, each
//     node writes again what is missing, and only what differs is announced: a
//     register that is missing though its node lives is waited for.
//   - What is read is bounded and checked; what is not a register is ignored,
//     counted and logged once.
//
// New starts nothing; everything runs in Run. Other methods may be called from
// any goroutine and do no I/O, but Connected.
package redis
