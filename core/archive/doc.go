// Package archive moves whole rooms out of a store and into one: to a file and
// back (backup, restore), or from store to store (migrate).
//
// # Consistency
//
// A room is copied as it was at one moment: its state and the log up to the top
// that goes with it. Entries do not change but by erasure, so they are read in
// batches while appends go on. Its review queue is that of a moment earlier; a
// review that was approved in between is not open in the copy. Rooms are copied
// one after the other, so two rooms are not of one moment. Nonces are no part of
// an archive: a restored room has a new epoch, in which they would not count.
//
// # Format
//
// An archive is the eight bytes of Magic, a version (2 bytes, little-endian) and
// frames. A frame is a kind (1 byte), the length of its payload (uvarint), the
// payload, and a CRC32C (4 bytes, little-endian) of kind and payload:
//
//	H  header, JSON; the first frame
//	R  a room begins: name, epoch, id of the top entry: texts; first, top: uvarint
//	S  one key of its state: key, value: texts
//	O  an open review, D a decided one (the newest first): package codec
//	E  an entry: seq as uvarint, then the body of package codec
//	M  the entry with this seq (uvarint) was damaged in the store
//	X  what came of this room is void: its log was replaced meanwhile
//	Z  the room ends: how many E and M frames it had, uvarint
//	N  a message that waits for somebody absent, JSON (package absent); since version 2
//	T  trailer, JSON: counts, and the SHA-256 of all bytes before this frame
//
// The order within a room is R S* O* D* (E|M)* Z; seqs are dense. N frames stand
// behind all rooms.
//
// A reader trusts nothing: lengths are bounded, and what is damaged or cut off is
// an *Error that names the byte. Memory is bounded by one batch of entries and
// one room's state and reviews; and by the names of all rooms, where notes are
// put back.
//
// What waits for absent people is copied after the rooms: a message that is in a
// room, and whose news was not delivered, is followed by that.
//
// Functions keep nothing and may be called from any goroutine.
package archive
