package session

import (
	"context"
	"slices"
	"strings"
	"time"

	"parley/core/absent"
	"parley/core/chat"
	"parley/core/journal"
	"parley/core/room"
	"parley/core/state"
)

// Absent knows who is connected to no node and has them told (package
// absent/redis).
type Absent interface {
	// Connected returns which of the users are connected to any node. Those it
	// returns with an error are so all the same.
	Connected(context.Context, []chat.UserID) (map[chat.UserID]bool, error)
	// Wrote says that the room's outbox may hold something. It does not block.
	Wrote(chat.RoomID)
	// Call has other nodes call Server.Called. It does not block, and may fail
	// silently.
	Call(u, from chat.UserID, id chat.RoomID, made bool)
	// Erase takes the texts of a room's messages out of what is on its way to
	// absent people, EraseOf those of everything that somebody has written.
	Erase(context.Context, chat.RoomID, []chat.MessageID) error
	EraseOf(context.Context, chat.UserID) error
}

// tell posts a message with notices for those whom it concerns and who are
// connected nowhere at this moment.
func (s *Server) tell(ctx context.Context, r *room.Room, e *journal.Entry, post func([]journal.Notice) (journal.Receipt, error)) (journal.Receipt, error) {
	other := partner(r, e.From)
	notify := s.notices(ctx, r, e, other)
	receipt, err := post(notify)
	if len(notify) > 0 { // on an error too: it may have been stored
		s.d.Absent.Wrote(r.ID())
	}
	if err == nil && other != "" && !receipt.Repeat && !s.presentIn(ctx, r.ID(), other) {
		s.call(other, e.From, r.ID(), false)
	}
	return receipt, err
}

// presentIn reports whether somebody is in the room, on any node.
func (s *Server) presentIn(ctx context.Context, id chat.RoomID, u chat.UserID) bool {
	_, users := s.d.Presence.Members(ctx, id)
	return slices.Contains(users, u)
}

// notices says whom of those who are connected nowhere a message concerns: the
// other person of a direct, and the people its text mentions who may read the
// room. Those are the people who have a role there, and in a public room everybody
// whom a token has named, unless they are banned.
func (s *Server) notices(ctx context.Context, r *room.Room, e *journal.Entry, other chat.UserID) []journal.Notice {
	if !s.cfg.NotifyAbsent || s.d.Absent == nil || other == "" && !strings.Contains(e.Text, "@") {
		return nil
	}
	var ask []chat.UserID
	add := func(u chat.UserID) {
		if u != e.From && !slices.Contains(ask, u) && !s.connected(u) {
			ask = append(ask, u)
		}
	}
	st, now := r.State(), time.Now()
	if other != "" {
		if _, banned := st.Ban(other, now); !banned {
			add(other)
		}
	} else {
		for _, u := range absent.Mentions(e.Text) {
			if _, banned := st.Ban(u, now); !banned && (st.Role(u) != "" || st.Settings.Visibility == state.Public) {
				add(u)
			}
		}
	}
	if len(ask) == 0 {
		return nil
	}
	there, _ := s.d.Absent.Connected(ctx, ask) // whom it cannot find out about is told: better twice than never
	var notify []journal.Notice
	for _, u := range ask {
		switch {
		case there[u]:
		case u == other:
			notify = append(notify, journal.Notice{User: u, Kind: journal.NoticeDirect})
		case st.Role(u) != "" || s.d.Auth.Known(ctx, u):
			notify = append(notify, journal.Notice{User: u, Kind: journal.NoticeMention})
		}
	}
	return notify
}
