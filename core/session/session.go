package session

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"parley/core/chat"
	"parley/core/liveness"
	"parley/core/room"
	"parley/core/wire"
)

// maxStrikes is how many malformed frames in a row a client may send before
// its connection is closed: a person typing into nc needs some, a broken
// program would go on for ever.
const maxStrikes = 20

// Session is one connected client. Receive, Pong and End belong to the
// connection's reader goroutine.
type Session struct {
	srv       *Server
	peer      *room.Peer
	transport string
	network   string // "loopback", "private" or "public"
	remote    netip.Addr
	beat      liveness.Beat
	kernel    witness       // nil where the socket has none
	found     atomic.Uint32 // dead, by the ladder or by the kernel
	greeted   atomic.Bool
	proof     atomic.Pointer[proof] // from hello on

	busy sync.Mutex // held while a command is carried out

	// Owned by the reader goroutine, under busy.
	rate    bucket
	pings   bucket
	strikes int
	id      string
	who     chat.Identity // as of hello; see proof for roles and end
	device  string
	release func(bool)  // gives a guest's name back, see Authenticator.Guest
	expiry  *time.Timer // ends the connection with its token; nil = never
	goodbye bool        // the client closed first

	looking map[chat.RoomID]struct{} // rooms whose reviews it was told to hear of

	news news
}

// access says in which state a command is allowed.
type access uint8

const (
	beforeHello access = 1 << iota
	afterHello
)

// command is one row of the table.
type command struct {
	allowed access
	cost    func(*wire.Command) float64 // tokens of limits.commands_per_second
	stored  bool                        // works on the store, within Config.StoreTimeout
	slow    bool                        // waits for the store as a rule
	run     func(*Session, context.Context, *wire.Command) error
}

func one(*wire.Command) float64  { return 1 }
func free(*wire.Command) float64 { return 0 }

// joinCost lets a reconnect take all its rooms back in one frame, and makes a
// flood of joins cost what it costs the server.
func joinCost(c *wire.Command) float64 { return 1 + float64(len(c.Rooms))/20 }

// commands is the table of protocol v1. A pong answers the server's own ping
// and costs nothing.
var commands map[wire.Type]command

func init() { // the handlers refer to the table through the stats
	commands = map[wire.Type]command{
		wire.Hello:   {beforeHello, one, false, false, (*Session).hello},
		wire.Join:    {afterHello, joinCost, true, false, (*Session).join},
		wire.Leave:   {afterHello, one, false, false, (*Session).leave},
		wire.Send:    {afterHello, one, true, true, (*Session).send},
		wire.History: {afterHello, one, true, true, (*Session).history},
		wire.Members: {afterHello, one, true, false, (*Session).members},
		wire.Ping:    {beforeHello | afterHello, one, false, false, (*Session).ping},
		wire.Pong:    {beforeHello | afterHello, free, false, false, (*Session).pong},
		wire.Reviews: {afterHello, one, true, true, (*Session).reviews},
		wire.Review:  {afterHello, one, true, true, (*Session).review},
		wire.Appeal:  {afterHello, one, true, true, (*Session).appeal},
		wire.Refresh: {afterHello, one, true, false, (*Session).refresh},
		wire.Why:     {afterHello, whyCost, true, true, (*Session).why},
		wire.Typing:  {afterHello, one, false, false, (*Session).typing},
		wire.Direct:  {afterHello, directCost, true, true, (*Session).direct},

		wire.Configure: {afterHello, one, true, true, (*Session).configure},
		wire.SlowMode:  {afterHello, one, true, true, (*Session).slowMode},
		wire.Role:      {afterHello, one, true, true, (*Session).role},
		wire.Kick:      {afterHello, one, true, true, (*Session).kick},
		wire.Ban:       {afterHello, one, true, true, (*Session).restrain},
		wire.Unban:     {afterHello, one, true, true, (*Session).restrain},
		wire.Mute:      {afterHello, one, true, true, (*Session).restrain},
		wire.Unmute:    {afterHello, one, true, true, (*Session).restrain},
		wire.Erase:     {afterHello, eraseCost, true, true, (*Session).erase},
	}
}

// Greeted reports whether hello succeeded; any goroutine may ask.
func (x *Session) Greeted() bool { return x.greeted.Load() }

// Peer returns the sending side.
func (x *Session) Peer() *room.Peer { return x.peer }

// Receive carries out one frame. It reports false when the session has been
// closed and nothing more should be read.
func (x *Session) Receive(ctx context.Context, frame []byte) (open bool) {
	x.busy.Lock()
	defer x.busy.Unlock()
	defer x.survive(&open)
	if x.Closed() {
		return false
	}
	x.alive()
	c, bad := wire.Decode(frame)
	if bad != nil {
		x.strike(&c, bad)
		return !x.Closed()
	}
	if (c.Type == wire.Ping || c.Type == wire.Pong) && !x.mayPing() {
		return false
	}
	row := commands[c.Type]
	x.srv.stats.commands[c.Type].Add(1)
	if row.stored {
		var cancel context.CancelFunc
		timeout := x.srv.cfg.StoreTimeout
		if c.Type == wire.Send && x.srv.cfg.SendTimeout > 0 {
			timeout = x.srv.cfg.SendTimeout
		}
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	if row.slow {
		x.peer.Release() // the answers so far should not wait for this one
	}
	err := x.allowed(&c, row)
	if err != nil {
		err = x.unlessPosted(ctx, &c, err)
	} else {
		err = row.run(x, ctx, &c)
	}
	x.fail(&c, err)
	return !x.Closed()
}

// Closed reports whether the session was closed; any goroutine may ask.
func (x *Session) Closed() bool {
	_, _, closed := x.peer.Closed()
	return closed
}

// strike answers a malformed frame, which costs what a command costs, and
// ends the connection that sends nothing else.
func (x *Session) strike(c *wire.Command, bad *chat.Error) {
	x.rate.take(time.Now(), 1)
	x.strikes++
	x.fail(c, bad)
	if x.strikes >= maxStrikes {
		x.close(wire.CloseAbuse, fmt.Sprintf("%d malformed commands in a row", maxStrikes))
	}
}

// allowed checks the identity's lifetime, the rate and the command's state.
func (x *Session) allowed(c *wire.Command, row command) error {
	greeted := x.greeted.Load()
	now := time.Now()
	if p := x.proof.Load(); greeted && !p.expires.IsZero() && now.After(p.expires) {
		return x.refuse(c, expired(), wire.CloseExpired)
	}
	cost := row.cost(c)
	if wait := x.rate.take(now, cost); wait > 0 {
		return x.srv.tooFast(wait)
	}
	if cost > 0 { // what is refused or free does not make up for what is malformed
		x.strikes = 0
	}
	switch {
	case !greeted && row.allowed&beforeHello == 0:
		return chat.Errorf(chat.CodeBadState, "say hello first; %s comes after the welcome", c.Type)
	case greeted && row.allowed&afterHello == 0:
		return chat.Errorf(chat.CodeBadState, "this connection has said hello already")
	}
	return nil
}

func (s *Server) tooFast(wait time.Duration) *chat.Error {
	return &chat.Error{Code: chat.CodeRateLimited, Retry: wait,
		Text: fmt.Sprintf("too many commands: %d a second are allowed; wait %s", s.cfg.CommandsPerSecond, wait.Round(time.Millisecond))}
}

// errTold says that the client has been told already.
var errTold = errors.New("session: client was told")

// fail sends the error of a command.
func (x *Session) fail(c *wire.Command, err error) {
	if err == nil || errors.Is(err, errTold) || errors.Is(err, room.ErrClosed) {
		return
	}
	var e *chat.Error
	if !errors.As(err, &e) {
		if x.Closed() {
			return // a write failed: there is nobody to tell
		}
		e = &chat.Error{Code: chat.CodeInternal, Text: "the server could not carry this out; the fault is not yours", Retry: -1, Cause: err}
	}
	if e.Cause != nil && x.srv.mayLog() {
		x.srv.d.Log.Warn("command failed", slog.String("command", string(c.Type)), slog.String("room", string(c.Room)),
			slog.String("session", x.id), slog.String("code", string(e.Code)), slog.Any("error", e.Cause))
	}
	x.srv.stats.error(e.Code)
	_ = x.peer.Reply(wire.Encode(wire.ErrorOf(c.ID, c.Room, e)))
}

// survive turns a panic of a handler into the end of this connection only.
func (x *Session) survive(open *bool) {
	if p := recover(); p != nil {
		x.srv.d.Log.Error("panic in a session", slog.String("session", x.id), slog.Any("panic", p), slog.String("stack", string(debug.Stack())))
		x.srv.stats.error(chat.CodeInternal)
		x.close(wire.CloseInternal, string(chat.CodeInternal))
		*open = false
	}
}

// close ends the session with a close code. It may be called from any
// goroutine and more than once; the first reason counts.
func (x *Session) close(code wire.CloseCode, reason string) {
	x.peer.Close(code, reason, x.srv.cfg.ReconnectJitter)
}

// Fail ends the session because of what the transport read: an oversize
// frame, a binary message, a handshake that took too long.
func (x *Session) Fail(code wire.CloseCode, e *chat.Error) {
	x.busy.Lock()
	defer x.busy.Unlock()
	if x.Closed() { // reading failed because the session had ended
		return
	}
	x.srv.stats.error(e.Code)
	_ = x.peer.Reply(wire.Encode(wire.ErrorOf("", "", e)))
	x.close(code, e.Text)
}

// End takes the session out of everything it was part of. The transport calls
// it once, when reading has ended, and closes the socket afterwards.
func (x *Session) End() {
	x.busy.Lock()
	defer x.busy.Unlock()
	s := x.srv
	if x.greeted.Load() {
		s.d.Wheel.Remove(&x.beat)
	}
	for _, r := range x.peer.Detach() {
		s.d.Presence.Leave(r.ID(), x.who.User)
	}
	for id := range x.looking {
		s.reviewers.remove(id, x)
	}
	if x.expiry != nil {
		x.expiry.Stop()
	}
	code, reason, _ := x.peer.Closed()
	switch {
	case x.goodbye:
		code = wire.CloseNormal
	case x.found.Load() == foundByKernel && x.greeted.Load():
		code = wire.CloseNoPong
		x.reportKernel()
	}
	s.stats.close(code)
	s.stats.Ended.Add(1)
	if x.release != nil {
		x.release(x.greeted.Load())
	}
	s.mu.Lock()
	delete(s.open, x)
	if x.greeted.Load() {
		s.forgetUserLocked(x.who.User)
	}
	s.mu.Unlock()
	s.d.Log.Debug("session ended", slog.String("session", x.id), slog.Int("code", int(code)), slog.String("reason", reason))
}
