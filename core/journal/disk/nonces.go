package disk

import (
	"context"
	"encoding/binary"
	"errors"
	"time"

	"parley/core/chat"
	"parley/core/journal"
)

// Answer is what is remembered for a nonce.
type Answer struct {
	Room    chat.RoomID
	User    chat.UserID
	Nonce   string
	Receipt journal.Receipt
	Left    time.Duration // of the window
}

// answersAtOnce is how many receipts one read transaction looks at.
const answersAtOnce = 1000

// Answers calls f for every answer of the window that is still good, in the
// order in which they were given; an error of f ends it. It is for moving the
// journal elsewhere, when nobody appends.
func (j *Journal) Answers(ctx context.Context, f func(Answer) error) error {
	if err := j.usable(ctx); err != nil {
		return err
	}
	for next := uint64(1); ; {
		as, behind, err := j.someAnswers(next)
		if err != nil {
			return err
		}
		for i := range as {
			if err := errors.Join(ctx.Err(), f(as[i])); err != nil {
				return err
			}
		}
		if behind == 0 {
			return nil
		}
		next = behind
	}
}

// someAnswers reads answers from a number on, and returns where to go on, 0 at
// the end.
func (j *Journal) someAnswers(from uint64) (as []Answer, next uint64, err error) {
	now := nowMilli()
	err = j.view(func(b *buckets) error {
		as, next = nil, 0
		cur := b.nonces().Cursor()
		n := 0
		for k, v := cur.Seek(nonceKey(nil, from)); len(k) == 8; k, v = cur.Next() {
			if n == answersAtOnce {
				next = binary.BigEndian.Uint64(k)
				return nil
			}
			n++
			var r receipt
			if err := readReceipt(&r, k, v); err != nil {
				j.log.Error("journal forgets a nonce: its receipt is damaged", "number", binary.BigEndian.Uint64(k), "error", err)
				continue
			}
			h, err := loadHead(b, r.room, head{})
			if err != nil && !errors.Is(err, errHead) {
				return err
			}
			left := time.Duration(r.at-now)*time.Millisecond + j.cfg.NonceWindow
			if err != nil || h.gen != r.gen || left <= 0 {
				continue
			}
			as = append(as, Answer{Room: r.room, User: r.user, Nonce: r.nonce, Left: left,
				Receipt: journal.Receipt{Epoch: h.epoch, Seq: r.seq, ID: r.id, Outcome: r.outcome, Reasons: r.reasons}})
		}
		return nil
	})
	return as, next, err
}
