package admin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"parley/core/chat"
	"parley/core/ids"
	"parley/core/journal"
	"parley/core/room"
	"parley/core/state"
)

// Settings are a room's settings.
type Settings = state.Settings

// Author is who the log names as author of changes made here, unless the
// request says otherwise in the header authorHeader.
const (
	Author       chat.UserID = "admin"
	authorHeader string      = "X-Parley-User"
)

func (a *API) rooms() {
	a.mux.HandleFunc("GET /v1/rooms", a.listRooms)
	a.mux.HandleFunc("GET /v1/rooms/{room}", a.onRoom(a.showRoom))
	a.mux.HandleFunc("PUT /v1/rooms/{room}", a.onRoom(a.configure))
	a.mux.HandleFunc("PUT /v1/rooms/{room}/roles/{user}", a.onRoom(a.setRole))
	a.mux.HandleFunc("DELETE /v1/rooms/{room}/roles/{user}", a.onRoom(a.setRole))
	for _, kind := range []string{"bans", "mutes"} {
		a.mux.HandleFunc("PUT /v1/rooms/{room}/"+kind+"/{user}", a.onRoom(a.setBan(kind)))
		a.mux.HandleFunc("DELETE /v1/rooms/{room}/"+kind+"/{user}", a.onRoom(a.setBan(kind)))
	}
}

// Room is a room as the API shows it.
type Room struct {
	Room     chat.RoomID                `json:"room"`
	Epoch    string                     `json:"epoch"`
	Seq      uint64                     `json:"seq"`
	Settings state.Settings             `json:"settings"`
	Roles    map[chat.UserID]state.Role `json:"roles,omitempty"`
	Bans     map[chat.UserID]state.Ban  `json:"bans,omitempty"`
	Mutes    map[chat.UserID]state.Ban  `json:"mutes,omitempty"`
}

func (a *API) listRooms(w http.ResponseWriter, r *http.Request) {
	after := chat.RoomID(r.URL.Query().Get("after"))
	ctx, cancel := context.WithTimeout(r.Context(), storeTimeout)
	defer cancel()
	ids, err := a.d.Journal.Rooms(ctx, after, 1000)
	if err != nil {
		a.unavailable(w, err)
		return
	}
	if ids == nil {
		ids = []chat.RoomID{}
	}
	reply(w, 200, map[string]any{"rooms": ids})
}

type roomHandler func(ctx context.Context, w http.ResponseWriter, r *http.Request, rm *room.Room)

// onRoom loads the room the path names.
func (a *API) onRoom(h roomHandler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		id := chat.RoomID(r.PathValue("room"))
		if !chat.ValidRoom(id) {
			fail(w, 400, "bad_request", fmt.Sprintf("%q is no room name: 1 to %d bytes of a-z, 0-9 and -_.: beginning with a letter or digit", clip(string(id)), chat.MaxRoomBytes))
			return
		}
		if u := r.PathValue("user"); u != "" && !chat.ValidUser(chat.UserID(u)) {
			fail(w, 400, "bad_request", fmt.Sprintf("%q is no user name: 1 to %d bytes of letters, marks, digits and -_.@+: beginning with a letter or digit", clip(u), chat.MaxUserBytes))
			return
		}
		if by := r.Header.Get(authorHeader); by != "" && !chat.ValidUser(chat.UserID(by)) {
			fail(w, 400, "bad_request", fmt.Sprintf("%s %q is no user name", authorHeader, clip(by)))
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), storeTimeout)
		defer cancel()
		rm, err := a.d.Hub.Room(ctx, id)
		if err != nil {
			a.unavailable(w, err)
			return
		}
		h(ctx, w, r, rm)
	}
}

func clip(s string) string {
	if len(s) > 80 {
		s = s[:80]
	}
	return strings.ToValidUTF8(s, "?")
}

func (a *API) showRoom(_ context.Context, w http.ResponseWriter, _ *http.Request, rm *room.Room) {
	if !rm.Exists() {
		fail(w, 404, "no_room", fmt.Sprintf("there is no room %s", rm.ID()))
		return
	}
	reply(w, 200, describe(rm))
}

func describe(rm *room.Room) Room {
	p, st := rm.Position(), rm.State()
	return Room{Room: rm.ID(), Epoch: p.Epoch, Seq: p.Seq, Settings: st.Settings, Roles: st.Roles(), Bans: st.Bans(), Mutes: st.Mutes()}
}

// settings is the body that changes a room's settings; what it does not name
// stays.
type settings struct {
	Title      *string           `json:"title"`
	Mode       *state.Mode       `json:"mode"`
	Visibility *state.Visibility `json:"visibility"`
	SlowModeS  *int              `json:"slow_mode_s"`
}

func (p *settings) over(set state.Settings) state.Settings {
	if p.Title != nil {
		set.Title = *p.Title
	}
	if p.Mode != nil {
		set.Mode = *p.Mode
	}
	if p.Visibility != nil {
		set.Visibility = *p.Visibility
	}
	if p.SlowModeS != nil {
		set.SlowModeS = *p.SlowModeS
	}
	return set
}

// configure changes the settings the body names and keeps the others; a room
// that does not exist is created.
func (a *API) configure(ctx context.Context, w http.ResponseWriter, r *http.Request, rm *room.Room) {
	var in settings
	if !decode(w, r, &in) {
		return
	}
	set := in.over(rm.State().Settings)
	if err := set.Validate(); err != nil {
		fail(w, 400, "bad_request", err.Error())
		return
	}
	if !rm.Exists() {
		if err := a.d.Create.CreateRoom(ctx, rm, set, author(r), ""); err != nil {
			a.unavailable(w, err)
			return
		}
		if rm.State().Settings == set {
			reply(w, 201, describe(rm))
			return
		} // somebody else created it meanwhile, with other settings
	}
	a.record(ctx, w, r, rm, journal.KindSettings, func(st *state.Room) journal.Change { return state.SetSettings(in.over(st.Settings)) })
}

// Roles lists the roles a room can give.
var Roles = []state.Role{state.RoleOwner, state.RoleModerator, state.RoleMember}

func (a *API) setRole(ctx context.Context, w http.ResponseWriter, r *http.Request, rm *room.Room) {
	var in struct {
		Role state.Role `json:"role"`
	}
	if r.Method == http.MethodPut {
		if !decode(w, r, &in) {
			return
		}
		if !slices.Contains(Roles, in.Role) {
			fail(w, 400, "bad_request", fmt.Sprintf("role %q is not one of owner, moderator, member", clip(string(in.Role))))
			return
		}
	}
	a.record(ctx, w, r, rm, journal.KindRole, always(state.SetRole(chat.UserID(r.PathValue("user")), in.Role)))
}

// maxBanReason bounds the reason of a ban, in bytes.
const maxBanReason = 500

func (a *API) setBan(kind string) roomHandler {
	return func(ctx context.Context, w http.ResponseWriter, r *http.Request, rm *room.Room) {
		var ban *state.Ban
		if r.Method == http.MethodPut {
			var in struct {
				Seconds int64  `json:"seconds"` // 0 = for good
				Reason  string `json:"reason"`
			}
			if !decode(w, r, &in) {
				return
			}
			const tenYears = 10 * 365 * 24 * 3600
			if in.Seconds < 0 || in.Seconds > tenYears || len(in.Reason) > maxBanReason {
				fail(w, 400, "bad_request", fmt.Sprintf("seconds must lie within 0 (for good) and %d, reason has at most %d bytes", tenYears, maxBanReason))
				return
			}
			ban = &state.Ban{Reason: in.Reason, By: author(r)}
			if in.Seconds > 0 {
				ban.Until = time.Now().Add(time.Duration(in.Seconds) * time.Second).UnixMilli()
			}
		}
		user := chat.UserID(r.PathValue("user"))
		change := state.SetBan(user, ban)
		if kind == "mutes" {
			change = state.SetMute(user, ban)
		}
		a.record(ctx, w, r, rm, journal.KindBan, always(change))
	}
}

// always is a change that is the same whatever the room is.
func always(c journal.Change) func(*state.Room) journal.Change {
	return func(*state.Room) journal.Change { return c }
}

// record appends the entry that makes the change and answers with the room.
func (a *API) record(ctx context.Context, w http.ResponseWriter, r *http.Request, rm *room.Room, kind journal.Kind, change func(*state.Room) journal.Change) {
	if !rm.Exists() {
		fail(w, 404, "no_room", fmt.Sprintf("there is no room %s; create it with PUT /v1/rooms/%s", rm.ID(), rm.ID()))
		return
	}
	var key string
	_, err := a.d.Hub.Change(ctx, rm, nil, func(st *state.Room) (journal.Entry, error) {
		c, id := change(st), ids.New()
		key = c.Key
		return journal.Entry{ID: chat.MessageID(id), Kind: kind, From: author(r), Time: time.Now().UnixMilli(),
			Nonce: id, Changes: []journal.Change{c}}, nil
	})
	if err != nil {
		a.unavailable(w, err)
		return
	}
	a.d.Log.Info("room changed through the admin API", slog.String("room", string(rm.ID())), slog.String("key", key), slog.String("by", string(author(r))))
	reply(w, 200, describe(rm))
}

// author is who the log will name; onRoom has checked the header.
func author(r *http.Request) chat.UserID {
	return cmp.Or(chat.UserID(r.Header.Get(authorHeader)), Author)
}

func (a *API) unavailable(w http.ResponseWriter, err error) {
	a.d.Log.Warn("admin request failed", slog.Any("error", err))
	var e *chat.Error
	if errors.As(err, &e) {
		fail(w, http.StatusServiceUnavailable, string(e.Code), e.Text)
		return
	}
	fail(w, http.StatusServiceUnavailable, "unavailable", "the store cannot be reached: "+err.Error())
}
