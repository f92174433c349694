// Package absent is about messages for people who are not there to read them:
// whom a text mentions, the records that carry the news out of a room, and the
// keys they lie under in Redis.
//
// The way of the news: an append puts a Parcel, one for an entry, into its
// room's outbox in the same step (core/journal/redis); a carrier on any node
// moves it into the stream, one Entry for each person (core/absent/redis);
// a worker takes entries from the stream and delivers them
// (core/absent/webhook). docs/cluster.md says what holds.
//
// Nothing here keeps state or does I/O; any goroutine may call it.
package absent

import "parley/core/chat"

// Keys are where news for absent people lies. What concerns one room is in the
// room's slot, the rest in one slot of its own.
type Keys struct {
	Rooms  string // sorted set: rooms whose outbox may hold something, by when they were listed (Unix ms)
	Stream string // stream: what is to be delivered
	Dead   string // stream: what could not be
	Tries  string // hash: how often delivering an entry of the stream was tried in vain
	Counts string // hash: what was dropped from which stream
	Texts  string // hash: the texts of messages in the stream and among the dead letters, by id
	Uses   string // hash: how many entries of the two are of the message
	Erased string // sorted set: what was erased lately ("m ID", "u USER"), by when (Unix ms)

	prefix string
}

// KeysOf returns the keys of an installation with that prefix.
func KeysOf(prefix string) Keys {
	tag := prefix + ":{absent}:"
	return Keys{Rooms: tag + "rooms", Stream: tag + "stream", Dead: tag + "dead", Tries: tag + "tries", Counts: tag + "counts",
		Texts: tag + "texts", Uses: tag + "uses", Erased: tag + "erased", prefix: prefix}
}

// Outbox is the list of a room's parcels, Lost the count of those that were
// dropped because the outbox was full, Carrying who moves them at the moment.
func (k Keys) Outbox(room chat.RoomID) string   { return k.prefix + ":{" + string(room) + "}:outbox" }
func (k Keys) Lost(room chat.RoomID) string     { return k.prefix + ":{" + string(room) + "}:outlost" }
func (k Keys) Carrying(room chat.RoomID) string { return k.prefix + ":{" + string(room) + "}:outcarry" }
