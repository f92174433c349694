package admin

import (
	"context"
	"strings"
	"sync"
	"testing"

	"parley/core/chat"
	"parley/core/gate"
)

// law refuses what mallory changes, and notes what it was asked.
type law struct {
	mu    sync.Mutex
	asked []string
}

func (l *law) Decide(_ context.Context, in *gate.Input) gate.Decision {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked = append(l.asked, in.Action.Name+" "+in.Subject.ID+" "+in.Subject.Roles[0]+" "+in.Context.Transport+" "+in.Context.Network)
	switch {
	case in.Subject.ID == "broken":
		return gate.Decision{Failed: true, Reasons: []chat.Reason{{Code: "policy_error"}}}
	case in.Subject.ID == "mallory" && in.Action.Name == gate.AdminWrite:
		return gate.Decision{Reasons: []chat.Reason{{Code: "not_you", Text: "You may look, and change nothing."}}, ID: "06h1"}
	}
	return gate.Decision{Allow: true}
}

// TestPolicyIsAsked about every call that is made of the server, and about none
// that machines make, or that are the way out of a policy.
func TestPolicyIsAsked(t *testing.T) {
	l := &law{}
	n := start(t, func(d *Deps) { d.Gate = l })
	by := func(u string) map[string]string { return map[string]string{"X-Parley-User": u} }
	for _, tt := range []struct {
		method, path, by string
		want             int
		say              string
	}{
		{"PUT", "/v1/rooms/lobby", "olga", 201, ""},
		{"PUT", "/v1/rooms/lobby", "mallory", 403, "You may look, and change nothing. (admin.write for mallory; decision 06h1)"},
		{"GET", "/v1/rooms/lobby", "mallory", 200, ""},
		{"GET", "/v1/rooms/lobby", "broken", 403, "policy_error"},
		{"GET", "/v1/rooms/lobby", "no name at all", 400, "is no user name"},
		{"POST", "/v1/policy/accept", "mallory", 400, ""}, // past the policy, to a body that is none
		{"GET", "/v1/policy/status", "broken", 200, ""},
		{"GET", "/metrics", "broken", 200, ""},
		{"GET", "/readyz", "broken", 200, ""},
	} {
		got, b := n.send(request{method: tt.method, path: tt.path, body: "{}", headers: by(tt.by)})
		if tt.path == "/v1/policy/accept" && got != 403 && got != 401 {
			continue
		}
		if got != tt.want || !strings.Contains(string(b), tt.say) {
			t.Errorf("%s %s by %s: got %d %s, want %d %s", tt.method, tt.path, tt.by, got, b, tt.want, tt.say)
		}
	}
	want := []string{"admin.write olga admin admin loopback", "admin.write mallory admin admin loopback", "admin.read mallory admin admin loopback", "admin.read broken admin admin loopback"}
	if strings.Join(l.asked, "\n") != strings.Join(want, "\n") {
		t.Errorf("asked\n%s\nwant\n%s", strings.Join(l.asked, "\n"), strings.Join(want, "\n"))
	}
}
