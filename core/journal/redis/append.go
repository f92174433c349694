package redis

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"

	"parley/core/chat"
	"parley/core/journal"
	"parley/core/journal/codec"
)

// Append implements journal.Journal.
func (j *Journal) Append(ctx context.Context, r journal.Request) (journal.Receipt, error) {
	if err := j.begin(); err != nil {
		return journal.Receipt{}, err
	}
	defer j.calls.Done()
	if err := checkRoom(r.Room); err != nil {
		return journal.Receipt{}, err
	}
	if err := r.Check(); err != nil {
		return journal.Receipt{}, err
	}
	buf := j.bufs.Get().(*[]byte)
	defer j.bufs.Put(buf)
	b, err := appendEntry((*buf)[:0], &r.Entry)
	if err != nil {
		return journal.Receipt{}, fmt.Errorf("append to %s: %w", r.Room, err)
	}
	size := len(b)
	b = codec.AppendAnswer(b, r.Entry.ID, r.Entry.Outcome, r.Entry.Reasons)
	*buf = b

	prefix := j.roomPrefix(r.Room)
	keys := make([]string, 4, 9)
	keys[0], keys[1], keys[2], keys[3] = prefix+"log", prefix+"meta", prefix+"state", j.roomsKey()
	if r.Entry.Nonce != "" {
		keys = append(keys, nonceKey(prefix, r.Entry.From, r.Entry.Nonce))
	}
	act := acts[r.Act()]
	if r.Create {
		act = "create"
	}
	args := make([]any, 0, 17+2*len(r.Entry.Changes))
	args = append(args, b[:size], string(r.Entry.ID), b[size:], j.cfg.NonceWindow.Milliseconds(), act,
		knownEpoch(r.Known.Epoch), r.Known.Seq, string(r.Known.ID),
		newEpoch(), j.cfg.MaxEntries, string(r.Room), j.watches.channel(r.Room))
	if r.Review != nil {
		record, err := appendReview(nil, r.Review)
		if err != nil {
			return journal.Receipt{}, fmt.Errorf("append to %s: %w", r.Room, err)
		}
		keys = append(keys, prefix+"reviews", prefix+"decided", prefix+"authors", j.waitingKey())
		args = append(args, record, bounds[r.Act()], journal.MaxOwnReviews, string(r.Entry.From), r.Review.Entry.Time)
	}
	for i := range r.Entry.Changes {
		c := &r.Entry.Changes[i]
		value := ""
		if c.Value != nil {
			value = "=" + string(c.Value)
		}
		args = append(args, c.Key, value)
	}
	reply, err := j.client.Eval(ctx, appendScript, keys, args...)
	if err != nil {
		return journal.Receipt{}, fail("append to "+string(r.Room), err)
	}
	rc, err := readAppendReply(reply, r.Act())
	switch {
	case errors.Is(err, journal.ErrExists), errors.Is(err, journal.ErrNotOpen),
		errors.Is(err, journal.ErrQueueFull), errors.Is(err, journal.ErrOwnQueueFull):
		return rc, fmt.Errorf("append to %s: %w", r.Room, err)
	case err != nil:
		return rc, fail("append to "+string(r.Room), err)
	case !rc.Repeat:
		rc.ID, rc.Outcome, rc.Reasons = r.Entry.ID, r.Entry.Outcome, r.Entry.Reasons
		if rc.Seq > 0 {
			j.watches.local(r.Room, rc.Epoch, rc.Seq, &r.Entry)
		}
	}
	return rc, nil
}

// acts are the names that append.lua has for what an append does, and bounds
// how many reviews, open or decided, it may leave behind.
var (
	acts   = [...]string{journal.ActAppend: "append", journal.ActHold: "hold", journal.ActApprove: "approve", journal.ActReject: "reject"}
	bounds = [...]int{journal.ActHold: journal.MaxReviews, journal.ActApprove: journal.MaxDecided, journal.ActReject: journal.MaxDecided}
)

// readAppendReply reads what append.lua answers.
func readAppendReply(reply any, act journal.Act) (journal.Receipt, error) {
	s, ok := reply.(string)
	kind, rest, _ := strings.Cut(s, " ")
	switch {
	case ok && kind == "2":
		return journal.Receipt{}, journal.ErrExists
	case ok && kind == "3":
		return journal.Receipt{}, journal.ErrNotOpen
	case ok && kind == "4":
		return journal.Receipt{}, journal.ErrQueueFull
	case ok && kind == "5":
		return journal.Receipt{}, journal.ErrOwnQueueFull
	case !ok || kind != "0" && kind != "1":
		return journal.Receipt{}, fmt.Errorf("redis answered %T %.20q to an append", reply, s)
	}
	rc, err := decodeReceipt(rest)
	if entry := act == journal.ActAppend || act == journal.ActApprove; err == nil && kind == "0" && entry != (rc.Seq > 0) {
		err = fmt.Errorf("redis answered seq %d to an append", rc.Seq)
	}
	rc.Repeat = kind == "1"
	return rc, err
}

// Lookup implements journal.Journal.
func (j *Journal) Lookup(ctx context.Context, room chat.RoomID, user chat.UserID, nonce string) (journal.Receipt, bool, error) {
	if err := j.begin(); err != nil {
		return journal.Receipt{}, false, err
	}
	defer j.calls.Done()
	if err := checkRoom(room); err != nil || nonce == "" {
		return journal.Receipt{}, false, err
	}
	prefix := j.roomPrefix(room)
	reply, err := j.client.Eval(ctx, lookupScript, []string{prefix + "meta", nonceKey(prefix, user, nonce)})
	if err != nil || reply == nil {
		return journal.Receipt{}, false, fail("look up a nonce in "+string(room), err)
	}
	s, ok := reply.(string)
	if !ok {
		return journal.Receipt{}, false, fail("look up a nonce in "+string(room), fmt.Errorf("redis answered %T", reply))
	}
	rc, err := decodeReceipt(s)
	if err != nil {
		return journal.Receipt{}, false, fail("look up a nonce in "+string(room), err)
	}
	rc.Repeat = true
	return rc, true, nil
}

// checkRoom refuses names that could break out of the hash tag.
func checkRoom(room chat.RoomID) error {
	if !chat.ValidRoom(room) {
		return fmt.Errorf("journal: %.80q is not the name of a room", room)
	}
	return nil
}

// nonceKey names the key of a nonce. The length keeps apart the users and
// nonces that would read the same when joined.
func nonceKey(prefix string, user chat.UserID, nonce string) string {
	return prefix + "nonce:" + strconv.Itoa(len(user)) + ":" + string(user) + ":" + nonce
}

// newEpoch makes a name that no epoch has had.
func newEpoch() string {
	const digits = "0123456789abcdef"
	var b [16]byte
	for i, x := 0, rand.Uint64(); i < len(b); i, x = i+1, x>>4 {
		b[i] = digits[x&15]
	}
	return string(b[:])
}

// knownEpoch is the caller's epoch, or a name no epoch has if the script
// could not keep it in its list.
func knownEpoch(epoch string) string {
	if len(epoch) > maxEpochBytes || strings.ContainsAny(epoch, " \t\r\n\v\f") {
		return "-"
	}
	return epoch
}
