// Package disk stores evidence in one bbolt file of its own, so that it can be
// bounded, erased or deleted without touching the journal.
//
//	meta     schema            version of this layout
//	records  time id           a record, behind its CRC32C
//	ids      id                the key in records
//	blocks   time number       the decisions about many messages, behind
//	                           their CRC32C; see evidence.AppendBlock
//
// bbolt has no checksums, so each record begins with one over its key and its
// body; one that fails is left out and logged. Any goroutine may call any
// method. Erasing frees pages in the file. By message, user or room it overwrites
// them as well; by age it leaves that to the records that follow.
package disk

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"parley/core/chat"
	"parley/core/evidence"
	"parley/core/scrub"
)

// Config says where the file is and how large it may grow.
type Config struct {
	Path string // its folder must exist
	// MaxBytes bounds the encoded originals together; the oldest make way.
	MaxBytes int64
	// DecisionBytes bounds the decisions in the same way; 0: as MaxBytes.
	DecisionBytes int64
}

const (
	lockPatience = 1500 * time.Millisecond // for a process that is shutting down
	schema       = "1"
	// scanRecords bounds the records one page looks through.
	scanRecords = 5000
	// pageBytes bounds the encoded size of what one page returns, but for one
	// record.
	pageBytes = 4 << 20
	// eraseBatch is how many records one transaction erases.
	eraseBatch = 1000
	sumBytes   = 4
	// scrubTime bounds the overwriting of what was erased.
	scrubTime = 30 * time.Second
)

var (
	bucketMeta    = []byte("meta")
	bucketRecords = []byte("records")
	bucketIDs     = []byte("ids")
	bucketBlocks  = []byte("blocks")
	castagnoli    = crc32.MakeTable(crc32.Castagnoli)
)

// Store is an evidence.Store in one file.
type Store struct {
	cfg Config
	log *slog.Logger
	db  *bolt.DB

	mu      sync.Mutex
	records int
	bytes   int64

	decisions  int
	blockBytes int64
}

var _ evidence.Store = (*Store)(nil)

// Open opens the file, creating it when it is missing.
func Open(cfg Config, log *slog.Logger) (*Store, error) {
	if cfg.MaxBytes < 1 || cfg.DecisionBytes < 0 {
		return nil, fmt.Errorf("evidence: max bytes %d and %d must be above 0", cfg.MaxBytes, cfg.DecisionBytes)
	}
	cfg.DecisionBytes = cmp.Or(cfg.DecisionBytes, cfg.MaxBytes)
	db, err := bolt.Open(cfg.Path, 0o600, &bolt.Options{Timeout: lockPatience, FreelistType: bolt.FreelistMapType})
	if errors.Is(err, bolterrors.ErrTimeout) {
		err = errors.New("another process holds it; stop that one or choose another data folder")
	}
	if err != nil {
		return nil, fmt.Errorf("open evidence file %s: %w", cfg.Path, err)
	}
	s := &Store{cfg: cfg, log: log, db: db}
	if err := s.setUp(); err != nil {
		return nil, errors.Join(fmt.Errorf("open evidence file %s: %w", cfg.Path, err), db.Close())
	}
	return s, nil
}

func (s *Store) setUp() (err error) {
	defer rescue(&err)
	return s.db.Update(func(tx *bolt.Tx) error {
		for _, name := range [][]byte{bucketMeta, bucketRecords, bucketIDs, bucketBlocks} {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		meta := tx.Bucket(bucketMeta)
		if v := meta.Get([]byte("schema")); v != nil && string(v) != schema {
			return fmt.Errorf("its schema is version %.20s and this binary knows version %s: use the binary that wrote it, or delete the file", v, schema)
		}
		c := tx.Bucket(bucketRecords).Cursor()
		for k, v := c.First(); k != nil; k, v = c.Next() {
			s.records++
			s.bytes += int64(len(v))
		}
		c = tx.Bucket(bucketBlocks).Cursor()
		for k, v := c.First(); k != nil; k, v = c.Next() {
			s.decisions += countOf(v)
			s.blockBytes += int64(len(v))
		}
		return meta.Put([]byte("schema"), []byte(schema))
	})
}

// rescue turns a panic of bbolt, which met a page that makes no sense, into an
// error.
func rescue(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("evidence: damaged page: %v", p)
	}
}

// Close closes the file.
func (s *Store) Close() error { return s.db.Close() }

// Size implements evidence.Store.
func (s *Store) Size() (int, int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.records, s.bytes
}

func (s *Store) grow(records int, bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.records += records
	s.bytes += bytes
}

func keyOf(at int64, id chat.MessageID) []byte {
	return append(binary.BigEndian.AppendUint64(nil, uint64(at)), id...)
}

// seal puts the checksum over key and body before the body.
func seal(key, body []byte) []byte {
	sum := crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, body)
	return append(binary.LittleEndian.AppendUint32(make([]byte, 0, sumBytes+len(body)), sum), body...)
}

// unseal checks and decodes a stored record.
func unseal(key, rec []byte) (evidence.Record, error) {
	b, err := body(key, rec)
	if err != nil {
		return evidence.Record{}, err
	}
	return evidence.Decode(b)
}

// Put implements evidence.Store. A record that cannot be encoded is left out
// and logged.
func (s *Store) Put(rs []evidence.Record) (err error) {
	defer rescue(&err)
	var records int
	var size int64
	err = s.db.Update(func(tx *bolt.Tx) error {
		records, size = 0, 0
		b, ids := tx.Bucket(bucketRecords), tx.Bucket(bucketIDs)
		for i := range rs {
			body, err := evidence.Append(nil, &rs[i])
			if err != nil {
				s.log.Error("evidence is left out", slog.Any("error", err))
				continue
			}
			if old := ids.Get([]byte(rs[i].ID)); old != nil { // judged twice under one id
				old = bytes.Clone(old)
				size -= int64(len(b.Get(old)))
				records--
				if err := b.Delete(old); err != nil {
					return err
				}
			}
			key := keyOf(rs[i].Time, rs[i].ID)
			rec := seal(key, body)
			if err := errors.Join(b.Put(key, rec), ids.Put([]byte(rs[i].ID), key)); err != nil {
				return err
			}
			records++
			size += int64(len(rec))
		}
		_, before := s.Size()
		n, freed, err := s.shrink(tx, before+size-s.cfg.MaxBytes)
		records, size = records-n, size-freed
		return err
	})
	if err == nil {
		s.grow(records, size)
	}
	return err
}

// shrink deletes the oldest records until over bytes are freed.
func (s *Store) shrink(tx *bolt.Tx, over int64) (n int, freed int64, err error) {
	if over <= 0 {
		return 0, 0, nil
	}
	var keys [][]byte
	c := tx.Bucket(bucketRecords).Cursor()
	for k, v := c.First(); k != nil && freed < over; k, v = c.Next() {
		keys = append(keys, bytes.Clone(k)) // a cursor must not see deletes
		freed += int64(len(v))
	}
	return len(keys), freed, drop(tx, keys)
}

func drop(tx *bolt.Tx, keys [][]byte) error {
	b, ids := tx.Bucket(bucketRecords), tx.Bucket(bucketIDs)
	for _, k := range keys {
		if err := b.Delete(k); err != nil {
			return err
		}
		if len(k) > 8 {
			if err := ids.Delete(k[8:]); err != nil {
				return err
			}
		}
	}
	return nil
}

// Get implements evidence.Store.
func (s *Store) Get(id chat.MessageID) (r evidence.Record, err error) {
	defer rescue(&err)
	err = s.db.View(func(tx *bolt.Tx) error {
		if id == "" {
			return evidence.ErrNotFound
		}
		key := tx.Bucket(bucketIDs).Get([]byte(id))
		if key == nil {
			r, err = decision(tx.Bucket(bucketBlocks), id)
			return err
		}
		r, err = unseal(key, tx.Bucket(bucketRecords).Get(key))
		if err != nil {
			return fmt.Errorf("evidence %s: %w", id, err)
		}
		return nil
	})
	return r, err
}

// List implements evidence.Store.
func (s *Store) List(q evidence.Query) (p evidence.Page, err error) {
	defer rescue(&err)
	limit := q.Limit
	if limit < 1 || limit > evidence.MaxPage {
		limit = evidence.MaxPage
	}
	from := keyOf(max(0, q.Since), "")
	if q.After != "" {
		after, err := base64.RawURLEncoding.DecodeString(q.After)
		if err != nil || len(after) < 8 || len(after) > 256 {
			return p, evidence.ErrCursor
		}
		if after = append(after, 0); bytes.Compare(after, from) > 0 { // the key behind it
			from = after
		}
	}
	err = s.db.View(func(tx *bolt.Tx) error {
		c := tx.Bucket(bucketRecords).Cursor()
		size := 0
		var last []byte
		k, v := c.Seek(from)
		for seen := 0; k != nil; k, v = c.Next() {
			if len(p.Records) >= limit || seen >= scanRecords || size >= pageBytes {
				p.Next = base64.RawURLEncoding.EncodeToString(last)
				return nil
			}
			seen++
			last = bytes.Clone(k)
			r, err := unseal(k, v)
			if err != nil {
				s.log.Error("evidence is damaged and left out", slog.String("key", fmt.Sprintf("%x", k)), slog.Any("error", err))
				continue
			}
			if q.Room == "" || r.Room == q.Room {
				p.Records = append(p.Records, r)
				size += len(v)
			}
		}
		return nil
	})
	return p, err
}

// Erase implements evidence.Store. Damaged records go with those that are too
// old.
func (s *Store) Erase(sel evidence.Selection) (total int, err error) {
	defer rescue(&err)
	if sel.Empty() {
		return 0, nil
	}
	if total, err = s.erase(sel); err != nil || sel.ID == "" && sel.User == "" && sel.Room == "" {
		return total, err // by age: the pages are used again soon enough
	}
	return total, s.wipe(total)
}

// EraseMessages implements evidence.Store: the file is gone through once for all
// of them.
func (s *Store) EraseMessages(ids []chat.MessageID) (total int, err error) {
	defer rescue(&err)
	for _, id := range ids {
		if id == "" {
			continue
		}
		n, err := s.erase(evidence.Selection{ID: id})
		if total += n; err != nil {
			return total, err
		}
	}
	return total, s.wipe(total)
}

func (s *Store) erase(sel evidence.Selection) (total int, err error) {
	if sel.Only != evidence.Decisions {
		if total, err = s.eraseOriginals(sel); err != nil {
			return total, err
		}
	}
	if sel.Only != evidence.Originals {
		n, err := s.eraseDecisions(sel)
		if total += n; err != nil {
			return total, err
		}
	}
	return total, nil
}

// wipe overwrites what so many erased records have left behind.
func (s *Store) wipe(erased int) error {
	if erased == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), scrubTime)
	defer cancel()
	if _, err := scrub.Free(ctx, s.db, nil); err != nil {
		return fmt.Errorf("evidence: %w", err)
	}
	return nil
}

func (s *Store) eraseOriginals(sel evidence.Selection) (total int, err error) {
	var from []byte
	for {
		n, size, next, err := s.eraseSome(sel, from)
		s.grow(-n, -size)
		total += n
		if err != nil || next == nil {
			return total, err
		}
		from = next
	}
}

// eraseSome looks through some records in one transaction, and returns where
// to go on.
func (s *Store) eraseSome(sel evidence.Selection, from []byte) (n int, size int64, next []byte, err error) {
	err = s.db.Update(func(tx *bolt.Tx) error {
		var keys [][]byte
		b := tx.Bucket(bucketRecords)
		c := b.Cursor()
		k, v := c.Seek(from)
		if sel.ID != "" { // no need to look through all
			k = bytes.Clone(tx.Bucket(bucketIDs).Get([]byte(sel.ID)))
			v = b.Get(k)
		}
		for seen := 0; k != nil; k, v = c.Next() {
			if seen == eraseBatch {
				next = bytes.Clone(k)
				break
			}
			seen++
			old := len(k) >= 8 && int64(binary.BigEndian.Uint64(k)) < sel.Before
			if sel.Before > 0 && !old {
				break // and so is everything behind it
			}
			r, err := unseal(k, v)
			if err == nil && sel.Matches(&r.Decision) || err != nil && (old && sel.User == "" && sel.Room == "" || sel.ID != "") {
				keys = append(keys, bytes.Clone(k)) // a cursor must not see deletes
				size += int64(len(v))
			}
			if sel.ID != "" {
				break
			}
		}
		n = len(keys)
		return drop(tx, keys)
	})
	if err != nil {
		return 0, 0, nil, err
	}
	return n, size, next, nil
}
