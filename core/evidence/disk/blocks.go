package disk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"

	bolt "go.etcd.io/bbolt"

	"parley/core/chat"
	"parley/core/evidence"
)

// eraseBlocks is how many blocks one transaction looks through.
const eraseBlocks = 64

// DecisionSize implements evidence.Store.
func (s *Store) DecisionSize() (int, int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.decisions, s.blockBytes
}

func (s *Store) growBlocks(decisions int, bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.decisions += decisions
	s.blockBytes += bytes
}

// blockKey names a block by the time of the newest decision in it.
func blockKey(newest int64, n uint64) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, uint64(newest)), n)
}

// body checks a stored block and returns it without its checksum.
func body(key, rec []byte) ([]byte, error) {
	if len(rec) < sumBytes {
		return nil, errors.New("it is too short to be a record")
	}
	b := rec[sumBytes:]
	if crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, b) != binary.LittleEndian.Uint32(rec) {
		return nil, errors.New("its checksum does not match")
	}
	return b, nil
}

// PutDecisions implements evidence.Store. A block that cannot be encoded is
// left out and logged.
func (s *Store) PutDecisions(rs []evidence.Record) (err error) {
	defer rescue(&err)
	var decisions int
	var size int64
	err = s.db.Update(func(tx *bolt.Tx) error {
		decisions, size = 0, 0
		b := tx.Bucket(bucketBlocks)
		b.FillPercent = 0.9 // keys rise
		most := evidence.MaxBlockRecords
		for rest := rs; len(rest) > 0; {
			some := rest[:min(len(rest), most)]
			block, err := evidence.AppendBlock(nil, some)
			if err != nil && len(some) > 1 { // many long reasons: fewer fit
				most = len(some) / 2
				continue
			}
			rest = rest[len(some):]
			newest := some[0].Time
			for i := range some {
				newest = max(newest, some[i].Time)
			}
			if err != nil {
				s.log.Error("records of decisions are left out", slog.Int("records", len(some)), slog.Any("error", err))
				most = evidence.MaxBlockRecords
				continue
			}
			n, err := b.NextSequence()
			if err != nil {
				return err
			}
			key := blockKey(newest, n)
			rec := seal(key, block)
			if err := b.Put(key, rec); err != nil {
				return err
			}
			decisions += len(some)
			size += int64(len(rec))
		}
		_, before := s.DecisionSize()
		n, freed, err := shrinkBlocks(b, before+size-s.cfg.DecisionBytes)
		decisions, size = decisions-n, size-freed
		return err
	})
	if err == nil {
		s.growBlocks(decisions, size)
	}
	return err
}

// shrinkBlocks deletes the oldest blocks until over bytes are freed.
func shrinkBlocks(b *bolt.Bucket, over int64) (n int, freed int64, err error) {
	if over <= 0 {
		return 0, 0, nil
	}
	var keys [][]byte
	c := b.Cursor()
	for k, v := c.First(); k != nil && freed < over; k, v = c.Next() {
		keys = append(keys, bytes.Clone(k)) // a cursor must not see deletes
		n += countOf(v)
		freed += int64(len(v))
	}
	for _, k := range keys {
		if err := b.Delete(k); err != nil {
			return 0, 0, err
		}
	}
	return n, freed, nil
}

// countOf is how many decisions a stored block holds.
func countOf(rec []byte) int {
	if len(rec) < sumBytes {
		return 0
	}
	return evidence.BlockCount(rec[sumBytes:])
}

// decision finds the decision about a message, the newest block first.
func decision(b *bolt.Bucket, id chat.MessageID) (evidence.Record, error) {
	c := b.Cursor()
	var damaged error
	for k, v := c.Last(); k != nil; k, v = c.Prev() {
		if len(v) < sumBytes || !evidence.BlockMayHold(v[sumBytes:], id) {
			continue
		}
		rs, err := decode(k, v)
		if err != nil {
			damaged = fmt.Errorf("evidence %s may be in a block that is damaged: %w", id, err)
			continue
		}
		for i := range rs {
			if rs[i].ID == id {
				return rs[i], nil
			}
		}
	}
	if damaged != nil {
		return evidence.Record{}, damaged
	}
	return evidence.Record{}, evidence.ErrNotFound
}

func decode(key, rec []byte) ([]evidence.Record, error) {
	b, err := body(key, rec)
	if err != nil {
		return nil, err
	}
	return evidence.DecodeBlock(b)
}

// eraseDecisions erases what is selected of the decisions.
func (s *Store) eraseDecisions(sel evidence.Selection) (total int, err error) {
	var from []byte
	for {
		n, size, next, err := s.eraseSomeBlocks(sel, from)
		s.growBlocks(-n, -size)
		total += n
		if err != nil || next == nil {
			return total, err
		}
		from = next
	}
}

// eraseSomeBlocks looks through some blocks in one transaction, and returns
// where to go on.
func (s *Store) eraseSomeBlocks(sel evidence.Selection, from []byte) (n int, size int64, next []byte, err error) {
	others := sel
	others.Before = 0
	byAge := others.Empty()
	err = s.db.Update(func(tx *bolt.Tx) error {
		n, size, next = 0, 0, nil
		b := tx.Bucket(bucketBlocks)
		type change struct{ key, rec []byte } // rec nil: delete
		var changes []change
		c := b.Cursor()
		k, v := c.Seek(from)
		for seen := 0; k != nil; k, v = c.Next() {
			if seen == eraseBlocks {
				next = bytes.Clone(k)
				break
			}
			seen++
			old := len(k) >= 8 && int64(binary.BigEndian.Uint64(k)) < sel.Before // and so is all of it
			if old && byAge {
				changes = append(changes, change{key: bytes.Clone(k)})
				n += countOf(v)
				size += int64(len(v))
				continue
			}
			if byAge { // the rest is younger, but for the first of one block
				break
			}
			if sel.ID != "" && (len(v) < sumBytes || !evidence.BlockMayHold(v[sumBytes:], sel.ID)) {
				continue
			}
			rs, err := decode(k, v)
			if err != nil {
				s.log.Error("a block of decisions is damaged and stays until it is too old", slog.String("key", fmt.Sprintf("%x", k)), slog.Any("error", err))
				continue
			}
			kept := rs[:0]
			for i := range rs {
				if !sel.Matches(&rs[i].Decision) {
					kept = append(kept, rs[i])
				}
			}
			if len(kept) == len(rs) {
				continue
			}
			key, rec := bytes.Clone(k), []byte(nil)
			if len(kept) > 0 {
				block, err := evidence.AppendBlock(nil, kept)
				if err != nil {
					return err
				}
				rec = seal(key, block)
			}
			changes = append(changes, change{key, rec})
			n += len(rs) - len(kept)
			size += int64(len(v) - len(rec))
		}
		for _, ch := range changes {
			if ch.rec == nil {
				err = b.Delete(ch.key)
			} else {
				err = b.Put(ch.key, ch.rec)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return 0, 0, nil, err
	}
	return n, size, next, nil
}
