package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"parley/core/chat"
	"parley/core/wire"
)

// Whyer says what keeps a person from posting in a room; *session.Server does.
type Whyer interface {
	Why(ctx context.Context, room chat.RoomID, user chat.UserID, text string) (wire.WhyEvent, error)
}

// maxWhyText bounds the text of a question, in bytes: it stands in the address.
const maxWhyText = 4 << 10

// why is private: it tells what the rules and the plugins hold of a person.
func (a *API) why() {
	a.mux.HandleFunc("GET /v1/why", a.private(a.whyNot))
}

func (a *API) whyNot(w http.ResponseWriter, r *http.Request) {
	v := r.URL.Query()
	id, user, text := chat.RoomID(v.Get("room")), chat.UserID(v.Get("user")), v.Get("text")
	switch {
	case !chat.ValidRoom(id):
		fail(w, 400, "bad_request", fmt.Sprintf("name a room: GET /v1/why?room=ROOM&user=NAME; %q is none", clip(string(id))))
		return
	case !chat.ValidUser(user):
		fail(w, 400, "bad_request", fmt.Sprintf("name a person: GET /v1/why?room=ROOM&user=NAME; %q is no user name", clip(string(user))))
		return
	case len(text) > maxWhyText:
		fail(w, 400, "bad_request", fmt.Sprintf("text has %d bytes, at most %d are taken here", len(text), maxWhyText))
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), storeTimeout)
	defer cancel()
	ev, err := a.d.Why.Why(ctx, id, user, text)
	var e *chat.Error
	switch {
	case errors.As(err, &e) && e.Code == chat.CodeNoRoom:
		fail(w, http.StatusNotFound, string(e.Code), e.Text)
	case err != nil:
		a.unavailable(w, err)
	default:
		reply(w, 200, ev)
	}
}
