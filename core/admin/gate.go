package admin

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"parley/core/chat"
	"parley/core/gate"
)

// Gate answers whether an operator may; the policy does.
type Gate interface {
	Decide(ctx context.Context, in *gate.Input) gate.Decision
}

// asks reports whether the policy has a say about a path. It has none about
// probes and measurements, which machines ask for without end, and none about
// what is done with the policy itself: that is the way out of one that lets
// nobody in.
func asks(path string) bool {
	return strings.HasPrefix(path, "/v1/") && !strings.HasPrefix(path, "/v1/policy/") ||
		strings.HasPrefix(path, "/debug/")
}

// permitted asks the policy about a call of somebody who has passed the door,
// and answers the call where it says no.
func (a *API) permitted(w http.ResponseWriter, r *http.Request, action string) bool {
	if a.d.Gate == nil || !asks(r.URL.Path) {
		return true
	}
	if by := author(r); !chat.ValidUser(by) {
		fail(w, http.StatusBadRequest, "bad_request", fmt.Sprintf("%s %q is no user name", authorHeader, clip(string(by))))
		return false
	}
	from, _ := netip.ParseAddrPort(r.RemoteAddr) // net/http's own
	d := a.d.Gate.Decide(r.Context(), &gate.Input{
		Subject:  gate.Subject{Type: "user", ID: string(author(r)), Roles: []string{"admin"}},
		Action:   gate.Action{Name: action, Changes: []string{}},
		Resource: gate.Resource{Type: "server", Exists: true},
		Context:  gate.Context{Transport: "admin", Network: gate.NetworkOf(from.Addr()), Periods: []string{}, Networks: []string{}},
		Raw:      gate.Raw{Now: time.Now(), Remote: from.Addr().Unmap()},
	})
	if d.Allow {
		return true
	}
	code, text := "denied", "the rules of this server do not allow this"
	if d.Failed {
		code = "policy_error"
	}
	if len(d.Reasons) > 0 && d.Reasons[0].Text != "" {
		text = d.Reasons[0].Text
	}
	fail(w, http.StatusForbidden, code, fmt.Sprintf("%s (%s for %s; decision %s)", text, action, author(r), d.ID))
	return false
}
