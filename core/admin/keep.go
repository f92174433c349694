package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	"parley/core/archive"
	"parley/core/chat"
	"parley/core/journal"
	"parley/core/room"
	"parley/core/session"
	"parley/core/wire"
)

// Eraser takes what people wrote out of the store; *session.Server does.
type Eraser interface {
	EraseEntries(ctx context.Context, r *room.Room, seqs []uint64, by chat.UserID, reason string) (int, error)
	EraseUser(ctx context.Context, u, by chat.UserID, reason string) (session.Erased, error)
}

// BackupType is the media type of an archive.
const BackupType = "application/vnd.parley.backup"

const restorePath = "/v1/restore"

func (a *API) keep() {
	a.mux.HandleFunc("POST /v1/erase", a.private(a.erase))
	a.mux.HandleFunc("GET /v1/backup", a.private(a.backup))
	a.mux.HandleFunc("POST "+restorePath, a.private(a.restoreRooms))
}

// erase erases entries of a room, or everything of a user.
func (a *API) erase(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Room   chat.RoomID `json:"room"`
		Seqs   []uint64    `json:"seqs"`
		User   chat.UserID `json:"user"`
		Reason string      `json:"reason"`
	}
	if !decode(w, r, &in) {
		return
	}
	by := author(r)
	switch {
	case a.d.Erase == nil:
		fail(w, 404, "not_found", "this node cannot erase")
		return
	case (in.Room == "") == (in.User == "") || in.Room == "" && len(in.Seqs) > 0:
		fail(w, 400, "bad_request", `say what to erase: {"room":ROOM,"seqs":[N,...]} or {"user":NAME}`)
		return
	case in.Room != "" && (!chat.ValidRoom(in.Room) || len(in.Seqs) == 0 || len(in.Seqs) > journal.MaxErases):
		fail(w, 400, "bad_request", fmt.Sprintf("%q must be a room, and seqs 1 to %d numbers of its entries", clip(string(in.Room)), journal.MaxErases))
		return
	case in.User != "" && !chat.ValidUser(in.User):
		fail(w, 400, "bad_request", fmt.Sprintf("%q is no user name", clip(string(in.User))))
		return
	case len(in.Reason) > wire.MaxReason:
		fail(w, 400, "bad_request", fmt.Sprintf("reason has %d bytes, at most %d are allowed", len(in.Reason), wire.MaxReason))
		return
	case !chat.ValidUser(by):
		fail(w, 400, "bad_request", fmt.Sprintf("%s %q is no user name", authorHeader, clip(string(by))))
		return
	}
	var done session.Erased
	var err error
	if in.User != "" {
		done, err = a.d.Erase.EraseUser(r.Context(), in.User, by, in.Reason)
	} else {
		done.Entries, err = a.eraseEntries(r.Context(), in.Room, in.Seqs, by, in.Reason)
		done.Rooms = min(1, done.Entries)
	}
	var e *chat.Error
	switch {
	case errors.As(err, &e) && (e.Code == chat.CodeNoRoom || e.Code == chat.CodeBadRequest):
		fail(w, http.StatusNotFound, string(e.Code), e.Text)
	case err != nil:
		a.unavailable(w, err)
	default:
		a.d.Log.Info("erased through the admin API", slog.String("room", string(in.Room)), slog.String("user", string(in.User)),
			slog.Int("entries", done.Entries), slog.Int("reviews", done.Reviews), slog.String("by", string(by)))
		reply(w, 200, done)
	}
}

func (a *API) eraseEntries(ctx context.Context, id chat.RoomID, seqs []uint64, by chat.UserID, reason string) (int, error) {
	rm, err := a.d.Hub.Room(ctx, id)
	if err != nil {
		return 0, err
	}
	if !rm.Exists() {
		return 0, chat.Errorf(chat.CodeNoRoom, "there is no room %s", id)
	}
	return a.d.Erase.EraseEntries(ctx, rm, seqs, by, reason)
}

// backup streams an archive of every room. An error in the middle ends the
// connection, so that nobody takes what came for all of it; the archive's
// reader notices by itself too.
func (a *API) backup(w http.ResponseWriter, r *http.Request) {
	if err := a.d.Journal.Healthy(r.Context()); err != nil {
		a.unavailable(w, err)
		return
	}
	w.Header().Set("Content-Type", BackupType)
	sum, err := archive.Write(r.Context(), a.d.Journal, a.d.Absent, w, archive.Header{Created: time.Now().UTC(), Server: a.d.Version})
	if err != nil {
		a.d.Log.Error("backup ended early", slog.Any("error", err), slog.Int("rooms", sum.Rooms))
		panic(http.ErrAbortHandler) // the way to end an answer that has begun
	}
	a.d.Log.Info("backup taken", slog.Int("rooms", sum.Rooms), slog.Uint64("entries", sum.Entries), slog.Uint64("missing", sum.Missing))
}

// restoreRooms puts the rooms of the archive in the body in place, each under a
// new epoch. A room is replaced once all of it has come and is whole. With
// "?absent=1" what waited for absent people is delivered.
func (a *API) restoreRooms(w http.ResponseWriter, r *http.Request) {
	var o archive.Options
	if r.URL.Query().Get("absent") == "1" {
		if o.Notes = a.d.Absent; o.Notes == nil {
			fail(w, http.StatusConflict, "no_absent", "this server tells nobody who is absent: that needs Redis; restore without it")
			return
		}
	}
	// An archive takes longer than the listener gives a body; whoever may restore
	// may also hold a connection.
	if err := http.NewResponseController(w).SetReadDeadline(time.Time{}); err != nil {
		a.unavailable(w, fmt.Errorf("take the archive: %w", err))
		return
	}
	sum, err := archive.Restore(r.Context(), r.Body, a.d.Journal, o)
	if err != nil {
		a.d.Log.Error("restore ended early", slog.Any("error", err), slog.Int("rooms", sum.Rooms))
		_, _ = io.CopyN(io.Discard, r.Body, 1<<20) // so that the answer is read
		var bad *archive.Error
		if errors.As(err, &bad) {
			fail(w, 400, "bad_archive", fmt.Sprintf("%v; %d rooms before that are restored", err, sum.Rooms))
			return
		}
		fail(w, http.StatusServiceUnavailable, "unavailable", fmt.Sprintf("%v; %d rooms before that are restored", err, sum.Rooms))
		return
	}
	a.d.Log.Warn("rooms restored from an archive; their members are told to reset", slog.Int("rooms", sum.Rooms), slog.Uint64("entries", sum.Entries), slog.Int("notes", sum.Notes), slog.String("by", string(author(r))))
	reply(w, 200, sum)
}
