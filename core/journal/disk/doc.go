// Package disk is the journal of a single node: one bbolt file, one goroutine
// that commits.
//
// # Durability
//
// Append returns after fdatasync: everything queued goes into one bbolt
// transaction (group commit), so many writers share one sync. Readers never
// see an entry before its sync has returned, although bbolt would show it: a
// read is capped by what the committer has published.
//
// # Layout
//
// bbolt has no checksums, so every record ends in a CRC32C (Castagnoli) over
// its key and its body; see record.go. Keys are flat, and numbers big-endian:
//
//	meta        migration/0001        name and checksum of a migration
//	rooms       room                  generation, top, first
//	epochs      room                  generation, epoch, epochs left behind
//	entries     room 0 gen seq        one entry
//	state       room 0 key            one key of a room's state
//	nonces      number                receipts in commit order
//	garbage     room 0 gen            a generation that is being deleted
//	quarantine  room 0 gen seq        a record that failed its checksum
//	reviews     room 0 id             a message that waits for a moderator
//	decided     room 0 time id        what a moderator decided, without the text
//
// A generation counts the logs that a room has had, so that the entries of one
// that was restored never meet those of the one before, which are deleted bit
// by bit. A new epoch of the same log keeps the generation.
//
// # Damage
//
// A record that fails its checksum, or that is missing from the dense
// sequence, is never served: the read that meets it answers a
// *journal.DamagedError, the record is logged once and entered in the
// quarantine bucket, and reading goes on behind it. A page that bbolt cannot
// follow is a panic there and an error here.
//
// # Memory
//
// Two lists are complete in memory, so that an append of something new needs
// no look at the file for them: the nonces of the window, at about 50 bytes
// each, and the open reviews without their texts, at about 250.
//
// # Goroutines
//
// Every method of Journal may be called from any goroutine. Open starts the
// committer; Close waits for it. Watchers are called by the committer, in
// commit order, before the Append that caused it returns; no lock is held
// meanwhile.
package disk
