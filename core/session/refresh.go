package session

import (
	"context"
	"time"

	"parley/core/chat"
	"parley/core/wire"
)

// proof is what a client's token says of it beyond the name, which does not
// change. It is immutable; a refresh replaces it.
type proof struct {
	roles   []string
	expires time.Time // zero = never
}

// renew puts a proof in the place of the one before and sets its end. It belongs
// to the reader goroutine.
func (x *Session) renew(who chat.Identity) {
	p := &proof{roles: who.Roles, expires: who.Expires}
	x.proof.Store(p)
	if x.expiry != nil {
		x.expiry.Stop()
		x.expiry = nil
	}
	if !p.expires.IsZero() {
		x.expiry = time.AfterFunc(time.Until(p.expires), func() { x.expire(p) })
	}
}

// roles are the client's global roles at present.
func (x *Session) roles() []string {
	if p := x.proof.Load(); p != nil {
		return p.roles
	}
	return x.who.Roles
}

// expiresTS is when the client is told that its proof ends, 0 for never: before
// the leeway that is given in secret.
func expiresTS(p *proof) int64 {
	if p.expires.IsZero() {
		return 0
	}
	return p.expires.Add(-expiryLeeway).UnixMilli()
}

// expire ends the connection of an identity whose proof has ended, unless
// another has taken its place.
func (x *Session) expire(p *proof) {
	if x.proof.Load() != p || x.Closed() {
		return
	}
	x.srv.stats.error(chat.CodeTokenExpired)
	_ = x.peer.Tell(wire.Encode(wire.ErrorOf("", "", expired())))
	x.close(wire.CloseExpired, string(chat.CodeTokenExpired))
}

func expired() *chat.Error {
	return chat.Errorf(chat.CodeTokenExpired, "your token has expired; get a new one and connect again")
}

// refresh puts a new token of the same user in the place of the old one.
func (x *Session) refresh(ctx context.Context, c *wire.Command) error {
	if x.who.Class != chat.ClassUser {
		return chat.Errorf(chat.CodeBadState, "a guest has no token to refresh; connect again with yours")
	}
	who, err := x.verify(c.Token)
	if err != nil {
		return err // the old one counts until it ends
	}
	if who.User != x.who.User {
		return chat.Errorf(chat.CodeUnauthorized, "this token is another user's; a connection stays its user's, so connect anew with it")
	}
	x.renew(who)
	if e := x.mayConnect(ctx); e != nil {
		return x.refuse(c, e, wire.CloseDenied)
	}
	p := x.proof.Load()
	if err := x.peer.Reply(wire.Encode(wire.RefreshedEvent{Type: wire.Refreshed, ID: c.ID, Roles: p.roles, ExpiresTS: expiresTS(p)})); err != nil {
		return err
	}
	x.reaskRooms()
	return nil
}
