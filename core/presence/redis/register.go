package redis

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"parley/core/chat"
	"parley/core/presence"
)

// A register is written as "1 VERSION COUNT" and, where it names its users, a
// space and each name, rising. Names hold no spaces. VERSION is in base 36,
// COUNT in base 10.
const registerFormat = "1 "

// Bounds of what is read.
const (
	maxRegister = len(registerFormat) + 64 + presence.NameLimit*(1+chat.MaxUserBytes)
	maxCount    = 10_000_000 // users of one room on one node
	maxNodes    = 512        // of one room or user
	maxNode     = 128        // bytes of a node's ID
)

// encodeRegister appends nothing that decodeRegister refuses. It sorts g.Users.
func encodeRegister(g presence.Register) string {
	slices.Sort(g.Users)
	b := make([]byte, 0, 32+16*len(g.Users))
	b = append(b, registerFormat...)
	b = strconv.AppendUint(b, g.Version, 36)
	b = append(b, ' ')
	b = strconv.AppendInt(b, int64(g.Count), 10)
	for _, u := range g.Users {
		b = append(append(b, ' '), u...)
	}
	return string(b)
}

var errNoRegister = errors.New("not a register of this version")

// decodeRegister reads what another node has written.
func decodeRegister(s string) (g presence.Register, err error) {
	if len(s) > maxRegister {
		return g, fmt.Errorf("it has %d bytes, at most %d are read", len(s), maxRegister)
	}
	rest, ok := strings.CutPrefix(s, registerFormat)
	if !ok {
		return g, errNoRegister
	}
	version, rest, ok := strings.Cut(rest, " ")
	if !ok {
		return g, errNoRegister
	}
	if g.Version, err = strconv.ParseUint(version, 36, 64); err != nil {
		return g, fmt.Errorf("its version: %w", err)
	}
	count, names, named := strings.Cut(rest, " ")
	n, err := strconv.ParseUint(count, 10, 32)
	if err != nil {
		return g, fmt.Errorf("its count: %w", err)
	}
	if n > maxCount {
		return g, fmt.Errorf("its count is %d, at most %d are read", n, maxCount)
	}
	g.Count = int(n)
	if !named {
		if g.Count > 0 && g.Count <= presence.NameLimit {
			return g, fmt.Errorf("it counts %d users and names nobody", g.Count)
		}
		return g, nil
	}
	if g.Count > presence.NameLimit {
		return g, fmt.Errorf("it counts %d users and names some, which is for at most %d", g.Count, presence.NameLimit)
	}
	g.Users = make([]chat.UserID, 0, g.Count)
	for name := range strings.SplitSeq(names, " ") {
		u := chat.UserID(name)
		switch k := len(g.Users); {
		case k == g.Count:
			return g, fmt.Errorf("it names more users than the %d it counts", g.Count)
		case !chat.ValidUser(u):
			return g, fmt.Errorf("%.80q is no user name", name)
		case k > 0 && u <= g.Users[k-1]:
			return g, fmt.Errorf("its names do not rise at %.80q", name)
		}
		g.Users = append(g.Users, u)
	}
	if len(g.Users) != g.Count {
		return g, fmt.Errorf("it counts %d users and names %d", g.Count, len(g.Users))
	}
	return g, nil
}

// Kinds of messages on a room's channel.
const (
	kindHere   = "here"
	kindTyping = "type"
)

// hint is one message of a room's channel.
type hint struct {
	kind string
	node string
	text string // the register, or the user's name
}

func encodeHint(h hint) string { return h.kind + " " + h.node + " " + h.text }

// decodeHint splits a message; kinds of a newer version are no error, and are
// returned as they are.
func decodeHint(s string) (h hint, err error) {
	var ok bool
	if h.kind, s, ok = strings.Cut(s, " "); !ok {
		return h, errors.New("it names no node")
	}
	if h.node, h.text, ok = strings.Cut(s, " "); !ok || h.node == "" {
		return h, errors.New("it names no node or says nothing")
	}
	return h, nil
}
