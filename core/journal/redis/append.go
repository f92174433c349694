package redis

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"parley/core/absent"
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
	b, err := appendEntry((*buf)[:0], &r.Entry)
	if err != nil {
		return journal.Receipt{}, fmt.Errorf("append to %s: %w", r.Room, err)
	}
	size := len(b)
	b = codec.AppendAnswer(b, r.Entry.ID, r.Entry.Outcome, r.Entry.Reasons)
	var review []byte
	if r.Review != nil {
		if review, err = appendReview(nil, r.Review); err != nil {
			return journal.Receipt{}, fmt.Errorf("append to %s: %w", r.Room, err)
		}
	}
	var parcel []byte
	if len(r.Notify) > 0 {
		if parcel, err = absent.Pack(&r.Entry, r.Notify, j.cfg.NotifyText); err != nil {
			return journal.Receipt{}, fmt.Errorf("append to %s: %w: %w", r.Room, journal.ErrTooLarge, err)
		}
	}
	reply, err := j.store(ctx, &r, b[:size], b[size:], review, parcel)
	// A call without an answer may still be on its way to the server, and its
	// bytes with it: then the buffer is left to it.
	if err == nil {
		*buf = b
		j.bufs.Put(buf)
	}
	if err != nil {
		return journal.Receipt{}, fail("append to "+string(r.Room), err)
	}
	rc, err := readAppendReply(reply, r.Act())
	if r.Review != nil {
		j.settle(ctx, &r, rc, err)
	}
	switch {
	case refused(err):
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

// store runs append.lua, with what has to be listed before it.
func (j *Journal) store(ctx context.Context, r *journal.Request, entry, answer, review, parcel []byte) (reply any, err error) {
	prefix := j.roomPrefix(r.Room)
	keys := make([]string, 3, 9)
	keys[0], keys[1], keys[2] = prefix+"log", prefix+"meta", prefix+"state"
	if r.Entry.Nonce != "" {
		keys = append(keys, nonceKey(prefix, r.Entry.From, r.Entry.Nonce))
	}
	act := acts[r.Act()]
	if r.Create {
		act = "create"
	}
	args := make([]any, 0, 19+2*len(r.Expect)+2*len(r.Entry.Changes))
	args = append(args, entry, string(r.Entry.ID), answer, j.cfg.NonceWindow.Milliseconds(), act,
		knownEpoch(r.Known.Epoch), r.Known.Seq, string(r.Known.ID),
		"", j.cfg.MaxEntries, j.watches.channel(r.Room), j.client.PublishCommand(), len(r.Expect), parcel, maxOutbox)
	if r.Review != nil {
		keys = append(keys, prefix+"reviews", prefix+"decided", prefix+"authors")
		args = append(args, review, bounds[r.Act()], journal.MaxOwnReviews, string(r.Entry.From))
	}
	if len(parcel) > 0 {
		keys = append(keys, j.absent.Outbox(r.Room), j.absent.Lost(r.Room))
		if err := j.listOutbox(ctx, r.Room); err != nil {
			return nil, err
		}
	}
	args = appendChanges(appendChanges(args, r.Expect), r.Entry.Changes)
	if r.Act() == journal.ActHold {
		if err := j.listWaiting(ctx, r); err != nil {
			return nil, err
		}
	}
	reply, err = j.client.Eval(ctx, appendScript, keys, args...)
	if err != nil || reply != unlisted {
		return reply, err
	}
	// The room is new, or begins anew.
	if err := j.listRoom(ctx, r.Room); err != nil {
		return nil, err
	}
	args[argNewEpoch] = newEpoch()
	if reply, err = j.client.Eval(ctx, appendScript, keys, args...); err == nil {
		// Once more, in case that the name was taken for one of no room
		// meanwhile, or the list was lost. The sweep makes up for a failure.
		_ = j.listRoom(ctx, r.Room)
	}
	return reply, err
}

// Renew implements journal.Renewer.
func (j *Journal) Renew(ctx context.Context, room chat.RoomID, known journal.Position) error {
	if err := j.begin(); err != nil {
		return err
	}
	defer j.calls.Done()
	if err := checkRoom(room); err != nil {
		return err
	}
	prefix := j.roomPrefix(room)
	keys := []string{prefix + "log", prefix + "meta", prefix + "state"}
	args := []any{"", "", "", j.cfg.NonceWindow.Milliseconds(), "open", knownEpoch(known.Epoch), known.Seq, string(known.ID),
		"", j.cfg.MaxEntries, j.watches.channel(room), j.client.PublishCommand(), 0}
	reply, err := j.client.Eval(ctx, appendScript, keys, args...)
	if err == nil && reply == unlisted {
		if err = j.listRoom(ctx, room); err == nil {
			args[argNewEpoch] = newEpoch()
			_, err = j.client.Eval(ctx, appendScript, keys, args...)
		}
	}
	return fail("begin a new epoch of "+string(room), err)
}

// appendChanges adds keys of the state with their values, as append.lua reads
// them.
func appendChanges(args []any, cs []journal.Change) []any {
	for i := range cs {
		value := ""
		if cs[i].Value != nil {
			value = "=" + string(cs[i].Value)
		}
		args = append(args, cs[i].Key, value)
	}
	return args
}

const (
	argNewEpoch = 8   // place among the arguments of append.lua
	unlisted    = "6" // its reply when the room is to be listed first
	// maxOutbox is how many entries of a room may wait to be carried out of it,
	// which takes milliseconds while any node runs. The oldest make way.
	maxOutbox = 1000
)

// acts are the names that append.lua has for what an append does, and bounds
// how many reviews, open or decided, it may leave behind.
var (
	acts   = [...]string{journal.ActAppend: "append", journal.ActHold: "hold", journal.ActApprove: "approve", journal.ActReject: "reject"}
	bounds = [...]int{journal.ActHold: journal.MaxReviews, journal.ActApprove: journal.MaxDecided, journal.ActReject: journal.MaxDecided}
)

// refusals are the replies of append.lua that say that nothing was stored.
var refusals = map[string]error{
	"2": journal.ErrExists, "3": journal.ErrNotOpen, "4": journal.ErrQueueFull, "5": journal.ErrOwnQueueFull, "7": journal.ErrChanged,
}

// refused reports whether err is one of them.
func refused(err error) bool {
	for _, refusal := range refusals {
		if errors.Is(err, refusal) {
			return true
		}
	}
	return false
}

// readAppendReply reads what append.lua answers.
func readAppendReply(reply any, act journal.Act) (journal.Receipt, error) {
	s, ok := reply.(string)
	kind, rest, _ := strings.Cut(s, " ")
	switch {
	case ok && refusals[kind] != nil:
		return journal.Receipt{}, refusals[kind]
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
	reply, err := j.client.Eval(ctx, lookupScript, []string{prefix + "meta", nonceKey(prefix, user, nonce), prefix + "log"})
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

// newEpoch makes a name that no epoch has had: when it begins, by this node's
// clock, in 12 hexadecimal digits, and chance. append.lua compares the former
// and moves it behind the epochs it knows of, so that clocks need not agree.
func newEpoch() string {
	return fmt.Sprintf("%012x.%08x", uint64(time.Now().UnixMilli())&(1<<48-1), rand.Uint32())
}

// knownEpoch is the caller's epoch, or a name no epoch has if the script
// could not keep it in its list.
func knownEpoch(epoch string) string {
	if len(epoch) > maxEpochBytes || strings.ContainsAny(epoch, " \t\r\n\v\f") {
		return "-"
	}
	return epoch
}
