package disk

import (
	"encoding/binary"

	"parley/core/chat"

	bolt "go.etcd.io/bbolt"
)

// Names of the buckets; doc.go says what is in them.
var (
	bucketMeta       = []byte("meta")
	bucketRooms      = []byte("rooms")
	bucketEpochs     = []byte("epochs")
	bucketEntries    = []byte("entries")
	bucketState      = []byte("state")
	bucketNonces     = []byte("nonces")
	bucketGarbage    = []byte("garbage")
	bucketQuarantine = []byte("quarantine")
)

// Room names hold no zero byte (chat.ValidRoom), so it ends them in a key: no
// room's keys lie among those of another whose name begins alike.

func roomPrefix(b []byte, room chat.RoomID) []byte {
	return append(append(b, room...), 0)
}

func genPrefix(b []byte, room chat.RoomID, gen uint32) []byte {
	return binary.BigEndian.AppendUint32(roomPrefix(b, room), gen)
}

func entryKey(b []byte, room chat.RoomID, gen uint32, seq uint64) []byte {
	return binary.BigEndian.AppendUint64(genPrefix(b, room, gen), seq)
}

func stateKey(b []byte, room chat.RoomID, key string) []byte {
	return append(roomPrefix(b, room), key...)
}

func nonceKey(b []byte, n uint64) []byte {
	return binary.BigEndian.AppendUint64(b, n)
}

// keySeq is the seq at the end of an entry's key.
func keySeq(key []byte) uint64 {
	return binary.BigEndian.Uint64(key[len(key)-8:])
}

// buckets are the buckets of one transaction.
type buckets struct {
	tx                            *bolt.Tx
	rooms, epochs, entries, state *bolt.Bucket
	nonces, garbage, quarantine   *bolt.Bucket
}

func allBuckets(tx *bolt.Tx) buckets {
	return buckets{
		tx:         tx,
		rooms:      tx.Bucket(bucketRooms),
		epochs:     tx.Bucket(bucketEpochs),
		entries:    tx.Bucket(bucketEntries),
		state:      tx.Bucket(bucketState),
		nonces:     tx.Bucket(bucketNonces),
		garbage:    tx.Bucket(bucketGarbage),
		quarantine: tx.Bucket(bucketQuarantine),
	}
}
