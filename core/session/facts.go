package session

import (
	"time"

	"parley/core/chat"
	"parley/core/gate"
	"parley/core/room"
	"parley/core/state"
)

// question begins the input of a decision about this client; the caller adds
// the moment.
func (x *Session) question(action string) *gate.Input {
	roles := x.roles()
	if roles == nil {
		roles = []string{}
	}
	return &gate.Input{
		Subject: gate.Subject{Type: string(x.who.Class), ID: string(x.who.User), Roles: roles},
		Action:  gate.Action{Name: action},
		Context: gate.Context{Transport: x.transport, Network: x.network, Periods: []string{}, Networks: []string{}},
		Raw:     gate.Raw{Remote: x.remote, Since: x.who.Since},
	}
}

// about begins the input of a decision about a room.
func (x *Session) about(action string, r *room.Room, now time.Time) *gate.Input {
	in := x.question(action)
	locate(in, r, x.who.User, now)
	return in
}

// locate adds to a question the facts of the room and of the user in it.
func locate(in *gate.Input, r *room.Room, u chat.UserID, now time.Time) {
	in.Raw.Now = now
	st := r.State()
	in.Subject.RoomRole = string(st.Role(u))
	_, in.Subject.Banned = st.Ban(u, now)
	_, in.Subject.Muted = st.Mute(u, now)
	in.Resource = gate.Resource{
		Type: "room", ID: string(r.ID()), Exists: r.Exists(),
		Mode: string(st.Settings.Mode), Visibility: string(st.Settings.Visibility), SlowModeS: st.Settings.SlowModeS,
		Direct: isDirect(r.ID()),
	}
	if wait := slowWait(u, r, st.Settings.SlowModeS, now); wait > 0 {
		in.Context.SlowWaitS = int((wait + time.Second - 1) / time.Second)
	}
}

// slowWait returns how long slow mode still asks the user to wait.
func slowWait(u chat.UserID, r *room.Room, seconds int, now time.Time) time.Duration {
	if seconds <= 0 {
		return 0
	}
	seconds = min(seconds, state.MaxSlowModeS)
	since, ok := r.SinceSpoke(u, now)
	if !ok {
		return 0
	}
	return max(0, time.Duration(seconds)*time.Second-since)
}

// begins is what a new room begins with: what the decision says of it, else
// what a room begins with that nobody has configured.
func begins(d *gate.Decision) state.Settings {
	set := state.DefaultSettings()
	if r := d.Obligations.Room; r != nil {
		set = state.Settings{Title: r.Title, Mode: state.Mode(r.Mode), Visibility: state.Visibility(r.Visibility), SlowModeS: r.SlowModeS}
	}
	return set
}

// denied is the error of a decision against the client.
func denied(d gate.Decision) *chat.Error {
	e := &chat.Error{Code: chat.CodeDenied, Text: "the rules of this server do not allow this", Reasons: d.Reasons, Decision: d.ID}
	if d.Failed {
		e.Code, e.Text, e.Retry = chat.CodePolicyError, "the rules of this server could not decide, so this was refused; the operators can see why", 5*time.Second
		return e
	}
	if len(d.Reasons) > 0 {
		if d.Reasons[0].Text != "" {
			e.Text = d.Reasons[0].Text
		}
		if d.Reasons[0].Code == string(chat.CodeSlowMode) {
			e.Code = chat.CodeSlowMode
		}
	}
	return e
}
