// Package redis is the journal that many nodes share: journal.Journal on one
// Redis server.
//
// An append is one Lua script, so the entry, its seq, the state it changes,
// the answer kept for its nonce and its publication are one atomic step, and
// Redis is the place where the order of a room is made. The stream is the
// truth. Pub/sub only carries entries to watchers early: a message may be lost
// with its connection, so whenever a subscription is made anew the watchers
// are told to doubt what they have and read the rest from the stream.
//
// A room's keys share a hash tag:
//
//	PREFIX:{ROOM}:log           stream; entry N has id 0-N and a field "e" (see record.go);
//	                            "o" beside it says where it was first stored, "v" when it changed the state, for mirrors
//	PREFIX:{ROOM}:meta          hash: epoch, top (seq), id (of the top entry), past (epochs that were left),
//	                            fence (whose place the server had taken when the epoch began)
//	PREFIX:{ROOM}:state         hash: the fold of all changes
//	PREFIX:{ROOM}:state:stamps  hash: when each key was changed last (see stamps.go)
//	PREFIX:{ROOM}:mirror        hash: how far other deployments' logs were taken (see mirror.lua)
//	PREFIX:{ROOM}:mirror:ids    set: all ids of the log, for an hour at a time
//	PREFIX:{ROOM}:nonce:L:U:N   "epoch seq answer" for the nonce N of the user U, whose name has L bytes;
//	                            "* 0 answer", which does not expire, while a message with it waits
//	PREFIX:{ROOM}:log:EPOCH     what a restore took the place of, for a week
//	PREFIX:{ROOM}:log:wanted:EPOCH  sorted set of the seqs that are to be erased, for an hour at most (see copy.go)
//	PREFIX:{ROOM}:log:copy      the log as it is written anew without them, and log:copying who does so
//	PREFIX:{ROOM}:import:TOKEN  a log on its way in, for an hour at most
//	PREFIX:{ROOM}:reviews       hash: messages that wait for a moderator, by id (see review.go)
//	PREFIX:{ROOM}:authors       hash: how many messages of each author wait
//	PREFIX:{ROOM}:decided       list: what moderators decided, the newest first
//	PREFIX:{ROOM}:new           channel; "epoch seq entry" or "epoch 0 review"; PREFIX@N in database N
//	PREFIX:rooms                sorted set of every room, all with score 0
//	PREFIX:{forgotten}:list     sorted set of what was erased, by time, for every node's evidence (see forget.go)
//	PREFIX:waiting              sorted set of "ROOM ID" of every message that waits, by its time
//
// A script touches the keys of one room alone, so that they may lie in any slot.
// The last two lists span rooms and are written around the script: before what
// they name is stored, and after it is gone (see index.go).
//
// Durability is Redis's: with appendfsync always an acknowledged entry
// survives a power cut, with everysec the last second may not. Either way a
// lost tail does not hide: an append carries the highest position its node has
// seen, and a store that does not hold that position opens a new epoch, and so
// does the first append to a room on a server that has taken another's place.
// What survived of the old epoch stays, and the new one goes on behind it
// (docs/decisions/0022).
//
// Rooms and names reach the keys as they are; core/chat's ValidRoom keeps
// braces out of a room's name, so the journal refuses other names.
package redis
