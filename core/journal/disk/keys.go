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
	bucketReviews    = []byte("reviews")
	bucketDecided    = []byte("decided")
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

func reviewKey(b []byte, room chat.RoomID, id chat.MessageID) []byte {
	return append(roomPrefix(b, room), id...)
}

// decidedKey sorts a room's decisions by time.
func decidedKey(b []byte, room chat.RoomID, at int64, id chat.MessageID) []byte {
	return append(binary.BigEndian.AppendUint64(roomPrefix(b, room), uint64(at)), id...)
}

func nonceKey(b []byte, n uint64) []byte {
	return binary.BigEndian.AppendUint64(b, n)
}

// keySeq is the seq at the end of an entry's key.
func keySeq(key []byte) uint64 {
	return binary.BigEndian.Uint64(key[len(key)-8:])
}

// buckets are the buckets of one transaction, each opened when it is first
// asked for: opening one costs about six allocations.
type buckets struct {
	tx   *bolt.Tx
	open [9]*bolt.Bucket
}

func (b *buckets) bucket(i int, name []byte) *bolt.Bucket {
	if b.open[i] == nil {
		b.open[i] = b.tx.Bucket(name)
	}
	return b.open[i]
}

func (b *buckets) rooms() *bolt.Bucket      { return b.bucket(0, bucketRooms) }
func (b *buckets) epochs() *bolt.Bucket     { return b.bucket(1, bucketEpochs) }
func (b *buckets) entries() *bolt.Bucket    { return b.bucket(2, bucketEntries) }
func (b *buckets) state() *bolt.Bucket      { return b.bucket(3, bucketState) }
func (b *buckets) nonces() *bolt.Bucket     { return b.bucket(4, bucketNonces) }
func (b *buckets) garbage() *bolt.Bucket    { return b.bucket(5, bucketGarbage) }
func (b *buckets) quarantine() *bolt.Bucket { return b.bucket(6, bucketQuarantine) }
func (b *buckets) reviews() *bolt.Bucket    { return b.bucket(7, bucketReviews) }
func (b *buckets) decided() *bolt.Bucket    { return b.bucket(8, bucketDecided) }
