package ws

import (
	"errors"
	"io"
	"net"
	"strings"
	"time"

	"github.com/gorilla/websocket"

	"parley/core/chat"
	"parley/core/session"
	"parley/core/wire"
)

// broke tells the session why nothing more can be read.
func (l *link) broke(err error) {
	if l.limited && errors.Is(err, websocket.ErrReadLimit) {
		l.x.Fail(wire.CloseTooBig, chat.Errorf(chat.CodeFrameTooBig, "the compressed frame has more than the %d bytes that are allowed", l.h.sessions.Config().FrameBytes))
		return
	}
	ended(l.x, err)
}

// ended tells the session why reading ended.
func ended(x *session.Session, err error) {
	var closed *websocket.CloseError
	var network net.Error // gorilla hides the error itself
	switch {
	case errors.As(err, &closed):
		goodbye(x, closed.Code)
	case errors.As(err, &network) && network.Timeout() && !x.Greeted():
		x.Fail(wire.CloseHandshake, &chat.Error{Code: chat.CodeUnauthorized, Text: "no hello arrived in time; connect again and say hello first", Retry: time.Second})
	case network != nil && network.Timeout(): // ETIMEDOUT; after hello there is no deadline of ours
		x.KernelGaveUp()
	case network != nil, errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed):
		x.Close(wire.CloseNormal, "connection ended")
	default:
		x.Close(wire.CloseProtocol, strings.TrimPrefix(err.Error(), "websocket: "))
	}
}

// goodbye answers the client's close frame.
func goodbye(x *session.Session, code int) {
	switch code {
	case websocket.CloseAbnormalClosure: // there was none
		x.Close(wire.CloseNormal, "connection ended")
	case websocket.CloseNoStatusReceived:
		x.Goodbye(wire.CloseNormal)
	default:
		x.Goodbye(wire.CloseCode(code))
	}
}
