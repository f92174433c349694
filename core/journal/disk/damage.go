package disk

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"parley/core/chat"
	"parley/core/journal"
)

// damage keeps the damaged records that were met. A reader notes one; the
// committer enters it in the quarantine bucket.
type damage struct {
	log  *slog.Logger
	wake func()

	mu    sync.Mutex
	known map[damaged]bool // to log each once
	todo  []damagedDetail  // not in the bucket yet
	met   uint64           // distinct records met since Open
}

type damaged struct {
	room chat.RoomID
	gen  uint32
	seq  uint64
}

type damagedDetail struct {
	damaged
	detail string
}

// maxDamage bounds what is remembered of damaged records. Past it a record
// may be logged and counted again when it is met again.
const maxDamage = 4096

// note remembers a damaged record. It is called inside read transactions, so
// it does no I/O but the log.
func (d *damage) note(room chat.RoomID, gen uint32, seq uint64, err error) {
	key := damaged{room, gen, seq}
	d.mu.Lock()
	if d.known[key] {
		d.mu.Unlock()
		return
	}
	if d.known == nil || len(d.known) >= maxDamage {
		d.known = map[damaged]bool{}
	}
	d.known[key] = true
	d.met++
	if len(d.todo) < maxDamage {
		d.todo = append(d.todo, damagedDetail{key, err.Error()})
	}
	d.mu.Unlock()
	d.log.Error("journal record is damaged; it is quarantined and not served", "room", room, "seq", seq, "generation", gen, "error", err)
	d.wake()
}

func (d *damage) count() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.met
}

func (d *damage) waiting() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.todo) > 0
}

// forget makes that records are noted anew: what was taken did not get into
// the bucket.
func (d *damage) forget() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.known = nil
}

func (d *damage) takeTodo() []damagedDetail {
	d.mu.Lock()
	defer d.mu.Unlock()
	todo := d.todo
	d.todo = nil
	return todo
}

// recordDamage enters what readers met into the quarantine bucket. If the
// commit fails the records are met again by the next reader.
func (c *committer) recordDamage(b *buckets) (n int, err error) {
	todo := c.j.damage.takeTodo()
	for _, d := range todo {
		c.key = entryKey(c.key[:0], d.room, d.gen, d.seq)
		rec := c.value(func(buf []byte) []byte {
			buf = binary.BigEndian.AppendUint64(append(buf, recordVersion), uint64(c.now))
			return append(buf, d.detail...)
		})
		if err := b.quarantine().Put(c.key, rec); err != nil {
			return 0, err
		}
	}
	return len(todo), nil
}

// record enters damaged records while no append does it.
func (c *committer) record() {
	err := c.transact(func(b *buckets) (bool, error) {
		n, err := c.recordDamage(b)
		return n > 0, err
	})
	var page *pageError
	switch {
	case err == nil:
		c.publish()
	case errors.As(err, &page):
		c.j.log.Error("journal cannot record damage: the file has a damaged page", "path", c.j.cfg.Path, "error", err)
	default:
		_ = c.failed(err) // it has been logged, and nobody waits for an answer
	}
}

// Quarantined lists at most limit damaged records that were met since the
// file was made, by room and seq. Seq 0 is the room's head, which was rebuilt.
// A record stays listed when retention has removed it.
func (j *Journal) Quarantined(ctx context.Context, limit int) ([]journal.DamagedError, error) {
	if err := j.usable(ctx); err != nil {
		return nil, err
	}
	var list []journal.DamagedError
	err := j.view(func(b *buckets) error {
		c := b.quarantine().Cursor()
		for k, v := c.First(); k != nil && len(list) < limit; k, v = c.Next() {
			if len(k) < 13 {
				continue
			}
			e := journal.DamagedError{Room: chat.RoomID(k[:len(k)-13]), Seq: keySeq(k)}
			if body, err := unseal(k, v); err != nil || len(body) < 8 {
				e.Detail = fmt.Sprintf("unknown: the quarantine record is damaged as well: %v", err)
			} else {
				e.Detail = string(body[8:])
			}
			list = append(list, e)
		}
		return nil
	})
	return list, err
}
