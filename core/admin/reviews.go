package admin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"

	"parley/core/chat"
	"parley/core/journal"
	"parley/core/room"
	"parley/core/wire"
)

// Decider approves and rejects held messages; *session.Server does.
type Decider interface {
	DecideReview(ctx context.Context, r *room.Room, id chat.MessageID, approve bool, reason string, by chat.UserID) (journal.Review, journal.Receipt, error)
}

// private lets only holders of the token in, on loopback too: what lies behind
// it is people's messages, held back or denied.
func (a *API) private(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !a.authorized(r) {
			w.Header().Set("WWW-Authenticate", `Bearer realm="parley admin"`)
			fail(w, http.StatusUnauthorized, "unauthorized", "this shows what people wrote, so it needs the token everywhere: send the one in data_dir/admin.token as Authorization: Bearer TOKEN")
			return
		}
		h(w, r)
	}
}

func (a *API) reviews() {
	a.mux.HandleFunc("GET /v1/reviews", a.private(a.listReviews))
	a.mux.HandleFunc("POST /v1/reviews/{id}", a.private(a.decideReview))
}

// Reviews are a room's reviews as the API shows them.
type Reviews struct {
	Room    chat.RoomID       `json:"room"`
	Open    []wire.ReviewItem `json:"open"`    // oldest first
	Decided []wire.ReviewItem `json:"decided"` // newest first
}

func (a *API) listReviews(w http.ResponseWriter, r *http.Request) {
	id := chat.RoomID(r.URL.Query().Get("room"))
	if !chat.ValidRoom(id) {
		fail(w, 400, "bad_request", fmt.Sprintf("name a room: GET /v1/reviews?room=ROOM; %q is none", clip(string(id))))
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), storeTimeout)
	defer cancel()
	open, decided, err := a.d.Journal.Reviews(ctx, id)
	if err != nil {
		a.unavailable(w, err)
		return
	}
	out := Reviews{Room: id, Open: []wire.ReviewItem{}, Decided: []wire.ReviewItem{}}
	for i := range open {
		out.Open = append(out.Open, wire.ItemOf(&open[i], true))
	}
	for i := range decided {
		out.Decided = append(out.Decided, wire.ItemOf(&decided[i], true))
	}
	reply(w, 200, out)
}

// Decided is the answer to a decision.
type Decided struct {
	Room chat.RoomID `json:"room"`
	wire.ReviewItem
	Seq uint64 `json:"seq,omitzero"` // of the entry
}

func (a *API) decideReview(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Room   chat.RoomID `json:"room"`
		Action string      `json:"action"`
		Reason string      `json:"reason"`
	}
	if !decode(w, r, &in) {
		return
	}
	by := author(r)
	switch {
	case !chat.ValidRoom(in.Room):
		fail(w, 400, "bad_request", fmt.Sprintf("room %q is no room name", clip(string(in.Room))))
		return
	case in.Action != wire.Approve && in.Action != wire.Reject:
		fail(w, 400, "bad_request", fmt.Sprintf("action %q is not one of approve, reject", clip(in.Action)))
		return
	case len(in.Reason) > wire.MaxReason:
		fail(w, 400, "bad_request", fmt.Sprintf("reason has %d bytes, at most %d are allowed", len(in.Reason), wire.MaxReason))
		return
	case !chat.ValidUser(by):
		fail(w, 400, "bad_request", fmt.Sprintf("%s %q is no user name", authorHeader, clip(string(by))))
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), storeTimeout)
	defer cancel()
	rm, err := a.d.Hub.Room(ctx, in.Room)
	if err != nil {
		a.unavailable(w, err)
		return
	}
	id := chat.MessageID(r.PathValue("id"))
	v, receipt, err := a.d.Decide.DecideReview(ctx, rm, id, in.Action == wire.Approve, in.Reason, by)
	var e *chat.Error
	switch {
	case errors.As(err, &e) && e.Code == chat.CodeNoReview:
		fail(w, http.StatusNotFound, string(e.Code), e.Text)
	case errors.As(err, &e) && (e.Code == chat.CodeBadRequest || e.Code == chat.CodeTextTooLong):
		fail(w, http.StatusBadRequest, "bad_request", e.Text)
	case err != nil:
		a.unavailable(w, err)
	default:
		a.d.Log.Info("review decided through the admin API", slog.String("room", string(in.Room)), slog.String("review", string(id)), slog.String("outcome", string(v.Entry.Outcome)), slog.String("by", string(by)))
		reply(w, 200, Decided{Room: in.Room, ReviewItem: wire.ItemOf(&v, true), Seq: receipt.Seq})
	}
}
