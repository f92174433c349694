package redis

import (
	"cmp"
	"context"
	_ "embed"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"

	"parley/core/chat"
	"parley/core/journal"
	"parley/core/journal/codec"
	rds "parley/core/redis"
)

var (
	//go:embed reviews.lua
	reviewsSource string
	reviewsScript = rds.NewScript("journal reviews", reviewsSource).Alone() // MaxReviews texts
)

// appendReview encodes r after b as an entry is: version, body, checksum.
func appendReview(b []byte, r *journal.Review) ([]byte, error) {
	start := len(b)
	rec, err := codec.AppendReview(append(b, recordVersion), r)
	if err != nil {
		return b, err
	}
	return binary.LittleEndian.AppendUint32(rec, crc32.Checksum(rec[start:], castagnoli)), nil
}

// decodeReview reads what appendReview wrote. The review shares s's memory.
func decodeReview(s string) (journal.Review, error) {
	body, err := unseal(s)
	if err != nil {
		return journal.Review{}, err
	}
	var r journal.Review
	if err := codec.DecodeReview(&r, body); err != nil {
		return journal.Review{}, err
	}
	return r, nil
}

// Reviews implements journal.Journal.
func (j *Journal) Reviews(ctx context.Context, room chat.RoomID) (open, decided []journal.Review, err error) {
	if err := j.begin(); err != nil {
		return nil, nil, err
	}
	defer j.calls.Done()
	if err := checkRoom(room); err != nil {
		return nil, nil, err
	}
	what := "read the reviews of " + string(room)
	prefix := j.roomPrefix(room)
	reply, err := j.client.Eval(ctx, reviewsScript, []string{prefix + "reviews", prefix + "decided"})
	if err != nil {
		return nil, nil, fail(what, err)
	}
	lists, ok := reply.([]any)
	if !ok || len(lists) != 2 {
		return nil, nil, fail(what, fmt.Errorf("redis answered %T, want two lists", reply))
	}
	if open, err = j.readReviews(room, lists[0]); err == nil {
		decided, err = j.readReviews(room, lists[1])
	}
	if err != nil {
		return nil, nil, fail(what, err)
	}
	slices.SortFunc(open, func(a, b journal.Review) int { return cmp.Compare(a.Entry.ID, b.Entry.ID) })
	return open, decided, nil
}

func (j *Journal) readReviews(room chat.RoomID, list any) ([]journal.Review, error) {
	records, err := texts(list)
	if err != nil {
		return nil, err
	}
	rs := make([]journal.Review, 0, len(records))
	for _, rec := range records {
		r, err := decodeReview(rec)
		if err != nil {
			j.log.Error("journal leaves out a review: its record is damaged", "room", room, "error", err)
			continue
		}
		rs = append(rs, r)
	}
	return rs, nil
}
