package archive

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"

	"parley/core/absent"
	"parley/core/chat"
	"parley/core/journal"
)

// summer is a sink that makes a Digest: of the frames that an archive would have.
type summer struct {
	log, rest writer
	d         Digest
}

// sums is where frames go that are only summed up.
type sums struct{ hash.Hash }

func (s *summer) room(r Room) error {
	s.d = Digest{Top: r.Top}
	s.log = writer{w: sums{sha256.New()}, sum: sha256.New()}
	s.rest = writer{w: sums{sha256.New()}, sum: sha256.New()}
	return nil
}

func (s *summer) state(key string, value []byte) error { return s.rest.state(key, value) }
func (s *summer) review(r *journal.Review) error       { return s.rest.review(r) }
func (s *summer) missing(seq uint64) error             { s.d.Missing++; return s.log.missing(seq) }
func (s *summer) void() error                          { return nil }
func (s *summer) note(*absent.Note) error              { return nil }

func (s *summer) entries(es []journal.Entry) error {
	s.d.Entries += uint64(len(es))
	return s.log.entries(es)
}

func (s *summer) end() error {
	if err := errors.Join(s.log.flush(), s.rest.flush()); err != nil {
		return err
	}
	s.d.Log, s.d.Rest = [sha256.Size]byte(s.log.sum.Sum(nil)), [sha256.Size]byte(s.rest.sum.Sum(nil))
	return nil
}

// Copied is what Copy did with a room.
type Copied struct {
	Room    chat.RoomID
	Digest  Digest // the same in both stores
	Already bool   // an earlier run had copied it
}

// Copy copies every room of one journal that nobody writes to into another, with
// epochs, seqs and ids, and compares both afterwards. told is called after each
// room. A run that was interrupted is gone on with by another: rooms that are
// complete are compared and passed over. A room that the other journal has with
// other content is an error, and stays as it is.
func Copy(ctx context.Context, from, to journal.Journal, told func(Copied)) (total Summary, err error) {
	err = eachRoom(ctx, from, func(id chat.RoomID) error {
		want, err := Sum(ctx, from, id)
		if err != nil {
			return err
		}
		info, err := to.Info(ctx, id)
		if err != nil {
			return err
		}
		already := info.Top.Seq > 0 || len(info.State) > 0
		if !already {
			w := &importer{ctx: ctx, j: to, o: Options{KeepEpoch: true, Fresh: true}}
			if err := errors.Join(walk(ctx, from, id, w), w.close()); err != nil {
				return err
			}
		}
		got, err := Sum(ctx, to, id)
		if err != nil {
			return err
		}
		if got, want := got.whole(), want.whole(); got != want {
			return fmt.Errorf("it holds %d entries up to %d of epoch %s there, and %d up to %d of %s here, or other ones: nothing was changed in it; move to an empty store or take the room away there",
				got.Entries, got.Top.Seq, got.Top.Epoch, want.Entries, want.Top.Seq, want.Top.Epoch)
		}
		told(Copied{Room: id, Digest: got, Already: already})
		total.add(Summary{Entries: want.Entries, Missing: want.Missing})
		return nil
	})
	return total, err
}

// whole is the digest as a copy has it: what was missing has tombstones there,
// so the sums of the logs cannot be compared.
func (d Digest) whole() Digest {
	if d.Missing > 0 {
		d.Entries, d.Missing, d.Log = d.Entries+d.Missing, 0, [sha256.Size]byte{}
	}
	return d
}
