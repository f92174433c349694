package redis

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"parley/core/chat"
	"parley/core/journal"
	rds "parley/core/redis"
)

// An erasure names the seqs of its own log. To be carried it names where the
// erased entries were first stored, and their ids; the deployment that takes it
// looks for them, erases them there, and stores the entry with the seqs they
// have there. An erasure therefore travels alone.

// mark names an entry in every deployment.
type mark struct {
	origin string         // "epoch seq"
	id     chat.MessageID // "" where retention has dropped the entry
}

// markErased notes what the parcel's erasures have erased.
func (j *Journal) markErased(ctx context.Context, room chat.RoomID, p *Parcel) error {
	prefix := j.roomPrefix(room)
	for i := range p.Entries {
		c := &p.Entries[i]
		if c.record == "" || len(c.Erases) == 0 {
			continue
		}
		cmds := make([]rds.Command, len(c.Erases))
		for k, seq := range c.Erases {
			cmds[k] = rds.Command{Script: parcelScript, Keys: []string{prefix + "log", prefix + "meta"},
				Args: []any{p.Epoch, streamID(seq), streamID(seq), 1, journal.MaxBatchBytes}}
		}
		c.erases = make([]mark, len(cmds))
		for k, r := range j.client.Pipeline(ctx, cmds) {
			if r.Err != nil {
				return r.Err
			}
			found, err := readParcel(r.Value, journal.Position{Epoch: p.Epoch})
			if err != nil {
				return err
			}
			m := mark{origin: fmt.Sprintf("%s %d", p.Epoch, c.Erases[k])}
			if len(found.Entries) == 1 {
				e := &found.Entries[0]
				if m.id = e.ID; e.origin != "" {
					m.origin = e.origin
				}
			}
			c.erases[k] = m
		}
	}
	return nil
}

// erased returns the entries of a parcel that can be stored in one step: those
// before the first erasure, or that alone, carried out here, with the seqs that
// it has here. epoch is the one they are of, "" where it does not matter.
func (j *Journal) erased(ctx context.Context, room chat.RoomID, p *Parcel) (es []Carried, epoch string, err error) {
	for i := range p.Entries {
		if p.Entries[i].record != "" && len(p.Entries[i].Erases) > 0 {
			if i > 0 {
				return p.Entries[:i], "", nil
			}
			c := p.Entries[0]
			epoch, err = j.eraseHere(ctx, room, &c)
			return []Carried{c}, epoch, err
		}
	}
	return p.Entries, "", nil
}

// eraseHere erases what the entry names in this deployment, and makes the entry
// name it as it is here.
func (j *Journal) eraseHere(ctx context.Context, room chat.RoomID, c *Carried) (epoch string, err error) {
	epoch, seqs, ids, err := j.findMarked(ctx, room, c)
	if err != nil {
		return "", err
	}
	if len(seqs) > 0 {
		if err := j.Forget(ctx, ids, ""); err != nil {
			return "", err
		}
		_, err := j.Erase(ctx, room, journal.Erasure{Epoch: epoch, Seqs: seqs})
		if err != nil && !errors.Is(err, journal.ErrOtherEpoch) { // mirror.lua sees that too
			return "", err
		}
	}
	c.Erases = seqs
	rec, err := appendEntry(nil, &c.Entry)
	c.record = string(rec)
	return epoch, err
}

// findMarked looks in this deployment's log, from its end, for what an erasure
// names. It finds nothing where the erasure itself is from here.
func (j *Journal) findMarked(ctx context.Context, room chat.RoomID, c *Carried) (epoch string, seqs []uint64, ids []chat.MessageID, err error) {
	origins, names := make(map[string]bool), make(map[chat.MessageID]bool)
	for _, m := range c.erases {
		origins[m.origin] = true
		if m.id != "" {
			names[m.id] = true
		}
	}
	info, err := j.Info(ctx, room)
	if err != nil {
		return "", nil, nil, err
	}
	epoch = info.Top.Epoch
	if home, _, _ := strings.Cut(c.origin, " "); epoch == "" || home == epoch {
		return epoch, nil, nil, nil
	}
	prefix := j.roomPrefix(room)
	// Pages of the log, the newest first; a page is read in as many steps as its
	// size asks for.
	from := info.Top.Seq + 1
	for at, top := from, info.Top.Seq; len(seqs) < len(c.erases); {
		if at > top {
			if top = from - 1; top < info.First || top == 0 {
				break
			}
			from = max(info.First, top-min(top, MaxParcel)+1)
			at = from
		}
		reply, err := j.client.Eval(ctx, parcelScript, []string{prefix + "log", prefix + "meta"},
			epoch, streamID(at), streamID(top), MaxParcel, journal.MaxBatchBytes)
		if err != nil {
			return "", nil, nil, err
		}
		p, err := readParcel(reply, journal.Position{Epoch: epoch})
		if err != nil {
			return "", nil, nil, err
		}
		for i := range p.Entries {
			e := &p.Entries[i]
			origin := e.origin
			if origin == "" {
				origin = fmt.Sprintf("%s %d", epoch, e.Seq)
			}
			if e.record != "" && (origins[origin] || names[e.ID]) {
				seqs, ids = append(seqs, e.Seq), append(ids, e.ID)
			}
		}
		if at = p.Last() + 1; len(p.Entries) == 0 {
			at = top + 1
		}
	}
	return epoch, seqs, ids, nil
}
