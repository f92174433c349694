package redis

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"parley/core/chat"
	"parley/core/journal"
	rds "parley/core/redis"
)

// What a mirror does: it asks one deployment for a Parcel of a room and hands
// it to the Accept of another. Everything that makes that exact is in
// mirror.lua, at the deployment that accepts.

var (
	//go:embed parcel.lua
	parcelSource string
	//go:embed mirror.lua
	mirrorSource string
	//go:embed ids.lua
	idsSource string

	parcelScript = rds.NewScript("journal parcel", parcelSource).Bulk()
	mirrorScript = rds.NewScript("journal mirror", mirrorSource).Bulk()
	idsScript    = rds.NewScript("journal ids", idsSource)
)

const (
	// MaxParcel bounds the entries of a Parcel: some milliseconds in which the
	// server that accepts it does nothing else. MaxBatchBytes bounds its size.
	MaxParcel = 256
	// idsStep is how many entries one step of ids.lua reads, and idsLife how
	// long the set outlives its last use, in ms.
	idsStep = 1000
	idsLife = 3_600_000
	// acceptTries bounds how often one parcel is offered: each time something
	// else has changed meanwhile.
	acceptTries = 16
)

// passedOver is the id of a position whose record is damaged.
const passedOver = "-"

// ErrSameLog says that a room's log is to be carried to itself: both addresses
// lead to one deployment, or one is a copy of the other.
var ErrSameLog = errors.New("journal: both sides have the same log")

// Parcel is a batch of a room's entries on its way to another deployment.
type Parcel struct {
	Epoch   string // of the log it is from
	Top     uint64 // of that log
	After   uint64 // the seq behind which it begins
	Gone    uint64 // entries between After and the first, which retention has dropped
	Damaged int    // records that fail their checksum, and are passed over
	Entries []Carried
	// lost is the id of the position that was asked for, if the log does not
	// hold it any more: it is to be carried anew.
	lost chat.MessageID
}

// Lost reports that the log does not hold the position any more that was asked
// for: Accept begins it anew.
func (p *Parcel) Lost() bool { return p.lost != "" }

// Last is the seq up to which the parcel reaches.
func (p *Parcel) Last() uint64 {
	if n := len(p.Entries); n > 0 {
		return p.Entries[n-1].Seq
	}
	return p.After
}

// Carried is an entry with where it was first stored.
type Carried struct {
	journal.Entry
	record string // "" where it is damaged
	origin string // "epoch seq", "" in the log where it was first stored
	stamp  string // "ms id" of its changes, "" without changes or from before there were stamps
	erases []mark // for KindErase, where what it erases was first stored
}

// Parcel reads what follows a position that Carried or Accept has answered. If
// the log is of another epoch by now, the parcel is empty and names it.
func (j *Journal) Parcel(ctx context.Context, room chat.RoomID, after journal.Position) (*Parcel, error) {
	if err := j.begin(); err != nil {
		return nil, err
	}
	defer j.calls.Done()
	if err := checkRoom(room); err != nil {
		return nil, err
	}
	what := "read a parcel of " + string(room)
	prefix := j.roomPrefix(room)
	// It begins with the position itself, to see whether it is still there.
	reply, err := j.client.Eval(ctx, parcelScript, []string{prefix + "log", prefix + "meta"},
		after.Epoch, streamID(after.Seq), lastID, MaxParcel+1, journal.MaxBatchBytes)
	if err != nil {
		return nil, fail(what, err)
	}
	p, err := readParcel(reply, after)
	if err == nil {
		err = j.markErased(ctx, room, p)
	}
	return p, fail(what, err)
}

// readParcel reads what parcel.lua answers.
func readParcel(reply any, after journal.Position) (*Parcel, error) {
	parts, err := texts(reply)
	if err != nil {
		return nil, err
	}
	const head, each = 2, 4 // epoch, top; stream id, record, origin, stamp
	if len(parts) < head || (len(parts)-head)%each != 0 {
		return nil, fmt.Errorf("redis answered %d parts, want %d and fours", len(parts), head)
	}
	p := &Parcel{Epoch: parts[0], After: after.Seq}
	if p.Top, err = strconv.ParseUint(parts[1], 10, 63); err != nil {
		return nil, fmt.Errorf("read the top: %w", err)
	}
	if p.Epoch != after.Epoch {
		p.After = 0
		return p, nil
	}
	if p.Top < after.Seq {
		p.lost = after.ID
		return p, nil
	}
	parts = parts[head:]
	p.Entries = make([]Carried, 0, len(parts)/each)
	for ; len(parts) > 0; parts = parts[each:] {
		c := Carried{record: parts[1], origin: parts[2], stamp: parts[3]}
		seq, err := parseStreamID(parts[0])
		if err != nil {
			return nil, err
		}
		if c.Entry, err = decodeEntry(c.record, seq); err != nil || !validMarks(&c) {
			c.Entry, c.record = journal.Entry{Seq: seq}, ""
		}
		if seq == after.Seq {
			if after.Seq > 0 && after.ID != passedOver && c.record != "" && c.ID != after.ID {
				p.Entries, p.lost = nil, after.ID
				return p, nil
			}
			continue
		}
		if c.record == "" {
			p.Damaged++
		}
		p.Entries = append(p.Entries, c)
	}
	if len(p.Entries) > 0 {
		p.Gone = p.Entries[0].Seq - after.Seq - 1
	} else if p.Top > after.Seq {
		p.Gone = p.Top - after.Seq
	}
	return p, nil
}

// validMarks reports whether mirror.lua can read the id, and what stands beside
// the record: another deployment has written it.
func validMarks(c *Carried) bool {
	if n := len(c.ID); n == 0 || n > journal.MaxID || c.ID == passedOver || c.ID == "*" {
		return false
	}
	if c.origin != "" {
		epoch, digits, _ := strings.Cut(c.origin, " ")
		if _, err := strconv.ParseUint(digits, 10, 53); err != nil || epoch == "" || knownEpoch(epoch) != epoch {
			return false
		}
	}
	return c.stamp == "" || stampTime(c.stamp) >= 0 && len(c.stamp) < 32+journal.MaxID
}

// Carried answers how far this deployment has taken the room's log of that
// epoch from another.
func (j *Journal) Carried(ctx context.Context, room chat.RoomID, epoch string) (journal.Position, error) {
	at, _, err := j.Accept(ctx, room, &Parcel{Epoch: epoch})
	return at, err
}

// Accept stores what is not here yet of a parcel, as one step, and answers how
// far this deployment has come in the log the parcel is from, and how many
// entries were stored. It may have come less far than the parcel begins or
// reaches: read on from there. Errors are those of Append, and ErrSameLog;
// after one, ask Carried.
func (j *Journal) Accept(ctx context.Context, room chat.RoomID, p *Parcel) (at journal.Position, stored int, err error) {
	if err := j.begin(); err != nil {
		return at, 0, err
	}
	defer j.calls.Done()
	if err := checkRoom(room); err != nil {
		return at, 0, err
	}
	what := "accept a parcel for " + string(room)
	prefix := j.roomPrefix(room)
	keys := []string{prefix + "log", prefix + "meta", prefix + "state", prefix + "mirror", prefix + "mirror:ids"}
	epoch := ""
	for range acceptTries {
		es, of, err := j.erased(ctx, room, p)
		if err != nil {
			return at, stored, fail(what, err)
		}
		args := make([]any, 0, 9+5*len(es))
		args = append(args, p.Epoch, p.Top, p.After, string(p.lost), epoch,
			j.cfg.MaxEntries, j.watches.channel(room), j.client.PublishCommand(), of)
		if args, err = j.appendCarried(ctx, room, args, es); err != nil {
			return at, stored, fail(what, err)
		}
		reply, err := j.client.Eval(ctx, mirrorScript, keys, args...)
		if err != nil {
			return at, stored, fail(what, err)
		}
		word, seq, n, id, err := readAccepted(reply)
		if err != nil {
			return at, stored, fail(what, err)
		}
		at = journal.Position{Epoch: p.Epoch, Seq: seq, ID: chat.MessageID(id)}
		stored += n
		switch word {
		case "at":
			if epoch != "" { // once more, as after an append
				_ = j.listRoom(ctx, room)
			}
			return at, stored, nil
		case "list":
			err = j.listRoom(ctx, room)
			epoch = newEpoch()
		case "ids":
			err = j.collectIDs(ctx, keys[0], keys[4])
		case "stamps", "epoch": // decided anew
		case "same":
			return at, stored, fmt.Errorf("%s: %w", what, ErrSameLog)
		default:
			err = fmt.Errorf("redis answered %.20q", word)
		}
		if err != nil {
			return at, stored, fail(what, err)
		}
	}
	return at, stored, fail(what, errors.New("others change the room at the same moment, again and again"))
}

// readAccepted reads what mirror.lua answers.
func readAccepted(reply any) (word string, seq uint64, stored int, id string, err error) {
	s, _ := reply.(string)
	parts := strings.SplitN(s, " ", 4)
	if len(parts) != 4 {
		return "", 0, 0, "", fmt.Errorf("redis answered %T %.40q to a parcel", reply, s)
	}
	if seq, err = strconv.ParseUint(parts[1], 10, 63); err != nil {
		return "", 0, 0, "", fmt.Errorf("read the position: %w", err)
	}
	if stored, err = strconv.Atoi(parts[2]); err != nil {
		return "", 0, 0, "", fmt.Errorf("read the count: %w", err)
	}
	return parts[0], seq, stored, parts[3], nil
}

// collectIDs makes the set of the ids of a room's log.
func (j *Journal) collectIDs(ctx context.Context, log, ids string) error {
	for from := streamID(0); ; {
		reply, err := j.client.Eval(ctx, idsScript, []string{log, ids}, from, idsStep, idsLife)
		if err != nil {
			return err
		}
		last, ok := reply.(string)
		if !ok {
			return fmt.Errorf("redis answered %T, want a stream id", reply)
		}
		if last == "" {
			return nil
		}
		from = "(" + last
	}
}

// Tops reads the tops of rooms, in few round trips; that of one without a log
// has no epoch.
func (j *Journal) Tops(ctx context.Context, rooms []chat.RoomID) ([]journal.Position, error) {
	if err := j.begin(); err != nil {
		return nil, err
	}
	defer j.calls.Done()
	names := make([]string, len(rooms))
	for i, room := range rooms {
		if err := checkRoom(room); err != nil {
			return nil, err
		}
		names[i] = string(room)
	}
	replies, err := j.ask(ctx, "hmget", names, func(name string) []any {
		return []any{j.roomPrefix(chat.RoomID(name)) + "meta", "epoch", "top", "id"}
	})
	if err != nil {
		return nil, fail("read tops", err)
	}
	tops := make([]journal.Position, len(rooms))
	for i, reply := range replies {
		if tops[i], err = readTop(reply); err != nil {
			return nil, fail("read the top of "+names[i], err)
		}
	}
	return tops, nil
}
