package client

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"parley/core/chat"
	"parley/core/journal"
	"parley/core/wire"
)

// call is a command that waits for replies.
type call struct {
	left int // replies still to come; guarded by Conn.mu
	done func(ev any, err error)
}

// start writes cmd under a fresh id. done is called on the reader for each of
// the expected replies, or once with the error that ends the wait; it is not
// called when start fails or after the returned function has been called.
func (c *Conn) start(cmd wire.Command, replies int, done func(ev any, err error)) (forget func(), err error) {
	c.mu.Lock()
	if c.ended {
		defer c.mu.Unlock()
		return nil, c.err
	}
	if len(c.pending) >= maxPending {
		c.mu.Unlock()
		return nil, ErrBusy
	}
	c.lastID++
	id := strconv.FormatUint(c.lastID, 10)
	c.pending[id] = &call{left: replies, done: done}
	c.mu.Unlock()

	cmd.ID = id
	forget = func() {
		c.mu.Lock()
		delete(c.pending, id)
		c.mu.Unlock()
	}
	if err := c.command(&cmd); err != nil {
		c.mu.Lock()
		_, mine := c.pending[id]
		delete(c.pending, id)
		c.mu.Unlock()
		if mine {
			return nil, err
		}
	}
	return forget, nil
}

func (c *Conn) command(cmd *wire.Command) error {
	b, err := json.Marshal(cmd)
	if err != nil {
		return fmt.Errorf("encode %s: %w", cmd.Type, err)
	}
	return c.write(textMessage, b)
}

// resolve hands a reply to whoever asked. An error that names no room ends a
// command about many rooms.
func (c *Conn) resolve(id string, room chat.RoomID, ev any, fail *chat.Error) {
	c.mu.Lock()
	w := c.pending[id]
	if w == nil {
		c.mu.Unlock()
		return
	}
	w.left--
	if w.left <= 0 || (fail != nil && room == "") {
		delete(c.pending, id)
	}
	c.mu.Unlock()
	if fail != nil {
		w.done(ev, fail)
		return
	}
	w.done(ev, nil)
}

// replyTo returns which command an event answers.
func replyTo(ev any) (id string, room chat.RoomID, fail *chat.Error) {
	switch e := ev.(type) {
	case *wire.WelcomeEvent:
		return e.ID, "", nil
	case *wire.JoinedEvent:
		return e.ID, e.Room, nil
	case *wire.LeftEvent:
		return e.ID, e.Room, nil
	case *wire.AckEvent:
		return e.ID, e.Room, nil
	case *wire.HistoryEvent:
		return e.ID, e.Room, nil
	case *wire.MembersEvent:
		return e.ID, e.Room, nil
	case *wire.WhyEvent:
		return e.ID, e.Room, nil
	case *wire.ReviewsEvent:
		return e.ID, e.Room, nil
	case *wire.ReviewEvent:
		return e.ID, e.Room, nil
	case *wire.RefreshedEvent:
		return e.ID, "", nil
	case *wire.DirectEvent:
		return e.ID, "", nil
	case *wire.ErrorEvent:
		return e.ID, e.Room, errorOf(e)
	}
	return "", "", nil
}

func errorOf(e *wire.ErrorEvent) *chat.Error {
	out := &chat.Error{Code: e.Code, Text: e.Text, Reasons: e.Reasons, Appeal: e.Appeal, Decision: e.Decision}
	if e.Retryable {
		out.Retry = time.Duration(e.RetryAfterMS) * time.Millisecond
		if out.Retry == 0 {
			out.Retry = -1
		}
	}
	return out
}

type outcome struct {
	ev  any
	err error
}

// ask sends a command and waits for its one reply, which must be a *T.
func ask[T any](ctx context.Context, c *Conn, cmd wire.Command) (*T, error) {
	if err := ctx.Err(); err != nil {
		return nil, err // nothing was sent
	}
	got := make(chan outcome, 1)
	forget, err := c.start(cmd, 1, func(ev any, err error) { got <- outcome{ev, err} })
	if err != nil {
		return nil, err
	}
	select {
	case o := <-got:
		if o.err != nil {
			return nil, o.err
		}
		if ev, ok := o.ev.(*T); ok {
			return ev, nil
		}
		return nil, fmt.Errorf("the server answered %s with %T", cmd.Type, o.ev)
	case <-ctx.Done():
		forget()
		return nil, ctx.Err()
	}
}

// Join joins a room; a position resumes after it.
func (c *Conn) Join(ctx context.Context, room chat.RoomID, since *journal.Position) (*wire.JoinedEvent, error) {
	c.places.expect(room, since)
	return ask[wire.JoinedEvent](ctx, c, wire.Command{Type: wire.Join, Room: room, Since: since})
}

// JoinAll joins many rooms with one frame. It returns the rooms that were
// joined and the errors of those that were not; err is for the whole command.
func (c *Conn) JoinAll(ctx context.Context, rooms []wire.JoinRoom) (joined map[chat.RoomID]*wire.JoinedEvent, refused map[chat.RoomID]error, err error) {
	joined, refused = make(map[chat.RoomID]*wire.JoinedEvent), make(map[chat.RoomID]error)
	if len(rooms) == 0 {
		return joined, refused, nil
	}
	for _, r := range rooms {
		c.places.expect(r.Room, r.Since)
	}
	got := make(chan outcome, len(rooms)+1)
	forget, err := c.start(wire.Command{Type: wire.Join, Rooms: rooms}, len(rooms),
		func(ev any, err error) { got <- outcome{ev, err} })
	if err != nil {
		return nil, nil, err
	}
	for len(joined)+len(refused) < len(rooms) {
		select {
		case o := <-got:
			switch ev := o.ev.(type) {
			case *wire.JoinedEvent:
				joined[ev.Room] = ev
			case *wire.ErrorEvent:
				if ev.Room == "" {
					return joined, refused, o.err
				}
				refused[ev.Room] = o.err
			default:
				return joined, refused, o.err
			}
		case <-ctx.Done():
			forget()
			return joined, refused, ctx.Err()
		}
	}
	return joined, refused, nil
}

// Leave leaves a room.
func (c *Conn) Leave(ctx context.Context, room chat.RoomID) error {
	_, err := ask[wire.LeftEvent](ctx, c, wire.Command{Type: wire.Leave, Room: room})
	return err
}

// Send posts a message and waits until it is durable; the ack of one that is
// held for review (chat.Held) has no seq. A *chat.Error is the
// server's refusal; see Unknown for the others.
func (c *Conn) Send(ctx context.Context, room chat.RoomID, nonce, text string) (*wire.AckEvent, error) {
	return ask[wire.AckEvent](ctx, c, wire.Command{Type: wire.Send, Room: room, Nonce: nonce, Text: text})
}

// SendAsync posts a message and returns when it is written. done is called
// once on the reader, unless SendAsync fails.
func (c *Conn) SendAsync(room chat.RoomID, nonce, text string, done func(*wire.AckEvent, error)) error {
	_, err := c.start(wire.Command{Type: wire.Send, Room: room, Nonce: nonce, Text: text}, 1, func(ev any, err error) {
		ack, ok := ev.(*wire.AckEvent)
		if err == nil && !ok {
			err = fmt.Errorf("the server answered send with %T", ev)
		}
		done(ack, err)
	})
	return err
}

// History reads entries before or after a seq; both 0 read the newest, limit
// 0 leaves the number to the server. See Oldest.
func (c *Conn) History(ctx context.Context, room chat.RoomID, before, after uint64, limit int) (*wire.HistoryEvent, error) {
	cmd := wire.Command{Type: wire.History, Room: room, Before: before, Limit: limit}
	if after > 0 {
		cmd.After = &after
	}
	return ask[wire.HistoryEvent](ctx, c, cmd)
}

// Oldest reads the oldest entries that the room still has, as History does.
func (c *Conn) Oldest(ctx context.Context, room chat.RoomID, limit int) (*wire.HistoryEvent, error) {
	return ask[wire.HistoryEvent](ctx, c, wire.Command{Type: wire.History, Room: room, After: new(uint64), Limit: limit})
}

// HistoryAll reads a room's whole log, oldest first.
func (c *Conn) HistoryAll(ctx context.Context, room chat.RoomID) (epoch string, entries []wire.EntryEvent, err error) {
	var before uint64
	for {
		h, err := c.History(ctx, room, before, 0, 0)
		if err != nil {
			return epoch, entries, err
		}
		epoch = h.Epoch
		entries = append(h.Entries, entries...)
		if !h.More || len(h.Entries) == 0 {
			return epoch, entries, nil
		}
		before = h.Entries[0].Seq
	}
}

// Members asks who is in a room.
func (c *Conn) Members(ctx context.Context, room chat.RoomID) (*wire.MembersEvent, error) {
	return ask[wire.MembersEvent](ctx, c, wire.Command{Type: wire.Members, Room: room})
}

// Typing says that the user writes in a room that was joined. Nothing answers it
// but an error, which Options.OnEvent sees.
func (c *Conn) Typing(room chat.RoomID) error {
	return c.command(&wire.Command{Type: wire.Typing, Room: room})
}

// Direct opens the room of the user and another person, to be joined like any
// other.
func (c *Conn) Direct(ctx context.Context, user chat.UserID) (*wire.DirectEvent, error) {
	return ask[wire.DirectEvent](ctx, c, wire.Command{Type: wire.Direct, User: user})
}

// Reviews asks for the messages that wait for a moderator: all of the room for
// one, and otherwise the client's own.
func (c *Conn) Reviews(ctx context.Context, room chat.RoomID) (*wire.ReviewsEvent, error) {
	return ask[wire.ReviewsEvent](ctx, c, wire.Command{Type: wire.Reviews, Room: room})
}

// Review approves or rejects a held message (wire.Approve, wire.Reject).
func (c *Conn) Review(ctx context.Context, room chat.RoomID, id chat.MessageID, action, reason string) (*wire.ReviewEvent, error) {
	return ask[wire.ReviewEvent](ctx, c, wire.Command{Type: wire.Review, Room: room, ReviewID: id, Action: action, Reason: reason})
}

// Appeal asks that a moderator looks at a message that was denied; appeal is
// that of the *chat.Error.
func (c *Conn) Appeal(ctx context.Context, room chat.RoomID, appeal, reason string) (*wire.AckEvent, error) {
	return ask[wire.AckEvent](ctx, c, wire.Command{Type: wire.Appeal, Room: room, Appeal: appeal, Reason: reason})
}

// Ping makes a round trip through the server's command table.
func (c *Conn) Ping(ctx context.Context) error {
	_, err := ask[wire.PingEvent](ctx, c, wire.Command{Type: wire.Ping})
	return err
}
