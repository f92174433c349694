package session

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"parley/core/gate"
	"parley/core/state"
)

// What would change a refusal the policy itself is asked: the same question with
// one fact changed. It is exact for any policy, because a decision depends on its
// question alone; the server need not know what the codes mean.

// whatIf is a question with one fact changed, and its answer.
type whatIf struct {
	sentence string
	until    int64 // when the fact changes by itself, Unix ms; 0 = it does not
	clears   []string
	allows   bool
}

// changeRules is what is said where no one fact would help.
const changeRules = "No change of role, of the room or of the text would do alone: the rules of this server would have to change."

// maxChanges is how many ways out are named.
const maxChanges = 2

// whatIfs asks about each fact that might matter to a refused question. The most
// helpful come first.
func (q *inquiry) whatIfs(ctx context.Context, in *gate.Input, was *gate.Decision) (out []whatIf) {
	ask := func(sentence string, until int64, change func(in *gate.Input)) {
		other := *in
		change(&other)
		d := q.srv.d.Gate.Rehearse(ctx, &other)
		if d.Failed {
			return
		}
		for _, r := range d.Reasons {
			if !has(was, r.Code) { // one obstacle for another
				return
			}
		}
		w := whatIf{sentence: sentence, until: until, allows: d.Allow}
		for _, r := range was.Reasons {
			if !has(&d, r.Code) {
				w.clears = append(w.clears, r.Code)
			}
		}
		out = append(out, w)
	}
	st := q.room.State()
	if ban, on := st.Ban(q.who.user, q.now); on {
		ask(untilLifted("ban", ban), ban.Until, func(in *gate.Input) { in.Subject.Banned = false })
	}
	if mute, on := st.Mute(q.who.user, q.now); on {
		ask(untilLifted("mute", mute), mute.Until, func(in *gate.Input) { in.Subject.Muted = false })
	}
	if wait := slowWait(q.who.user, q.room, st.Settings.SlowModeS, q.now); wait > 0 {
		ask(changeWait, q.until(wait), func(in *gate.Input) { in.Context.SlowWaitS = 0 })
	}
	if in.Resource.Mode != string(state.ModeOpen) {
		ask(fmt.Sprintf("Somebody who runs the room would have to open it; its mode is %s.", in.Resource.Mode), 0,
			func(in *gate.Input) { in.Resource.Mode = string(state.ModeOpen) })
	}
	role := in.Subject.RoomRole
	if role == "" {
		ask("Members of this room may.", 0, func(in *gate.Input) { in.Subject.RoomRole = string(state.RoleMember) })
	}
	if role == "" || role == string(state.RoleMember) {
		ask("Moderators of this room may.", 0, func(in *gate.Input) { in.Subject.RoomRole = string(state.RoleModerator) })
	}
	if in.Subject.Type == "guest" {
		ask("People who sign in with an account may.", 0, func(in *gate.Input) { in.Subject.Type = "user" })
	}
	if in.Context.TextBytes > 1 {
		ask("A shorter message may pass.", 0, func(in *gate.Input) { in.Context.TextBytes = 1 })
	}
	return out
}

func untilLifted(what string, b state.Ban) string {
	if b.Until == 0 {
		return fmt.Sprintf("A moderator would have to lift the %s.", what)
	}
	return fmt.Sprintf("It ends with the %s, which a moderator may lift before.", what)
}

// changeOf says what would take the reason away, and when that comes by itself.
func changeOf(ifs []whatIf, code string) (sentence string, until int64) {
	var found []string
	for i := range ifs {
		w := &ifs[i]
		if !w.allows && !slices.Contains(w.clears, code) {
			continue
		}
		if len(found) == 0 {
			until = w.until
		}
		if found = append(found, w.sentence); len(found) == maxChanges {
			break
		}
	}
	if len(found) == 0 {
		return changeRules, 0
	}
	return strings.Join(found, " "), until
}
