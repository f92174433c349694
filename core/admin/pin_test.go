package admin

import (
	"context"
	"errors"
	"strings"
	"testing"

	"parley/policy"
)

// pinning remembers the last order and answers as it is told to.
type pinning struct {
	last []string
	err  error
}

func (p *pinning) Pin(_ context.Context, revision, by, reason string) error {
	p.last = []string{revision, by, reason}
	return p.err
}

func (p *pinning) Unpin(context.Context) error {
	p.last = []string{"none"}
	return p.err
}

func TestPin(t *testing.T) {
	p := &pinning{}
	n := start(t, func(d *Deps) { d.Pin = p })
	commit := strings.Repeat("ab", 20)
	pin := func(body string) request {
		return request{method: "POST", path: "/v1/policy/pin", body: body, headers: map[string]string{"X-Parley-User": "olga"}}
	}
	var st struct{ Revision string }
	n.ok(pin(`{"revision":"git:`+strings.ToUpper(commit)+`","reason":"lock-out"}`), 200, &st)
	if got := strings.Join(p.last, " "); got != commit+" olga lock-out" || st.Revision != "default" {
		t.Errorf("got %q, answered %+v", got, st)
	}
	unpin := request{method: "POST", path: "/v1/policy/unpin", body: `{}`}
	n.ok(unpin, 200, nil)
	if p.last[0] != "none" {
		t.Errorf("got %q, want it unpinned", p.last)
	}
	n.refused(request{method: "POST", path: "/v1/policy/pin", body: `{}`, open: true}, 401, "unauthorized", "")
	for body, want := range map[string]string{
		`{"revision":"abc"}`: "40 hexadecimal digits", `{"revision":"` + strings.Repeat("z", 40) + `"}`: "40 hexadecimal digits",
		`{"rev":"x"}`: "rev", `{"revision":"` + commit + `","reason":"` + strings.Repeat("x", maxPinReason+1) + `"}`: "too long",
	} {
		n.refused(pin(body), 400, "bad_request", want)
	}
	n.refused(request{method: "POST", path: "/v1/policy/unpin", body: `{}`, headers: map[string]string{"X-Parley-User": "o o"}}, 400, "bad_request", "no user name")
	p.err = policy.Problems{{File: "p.rego", Line: 3, Reason: "because"}}
	n.refused(pin(`{"revision":"`+commit+`"}`), 422, "policy_refused", "p.rego:3: because")
	p.err = errors.New("the repository is away")
	n.refused(unpin, 409, "conflict", "away")

	none := start(t)
	none.refused(pin(`{"revision":"`+commit+`"}`), 404, "not_found", "")
}

func TestReadyNotes(t *testing.T) {
	var notes []string
	n := start(t, func(d *Deps) { d.Notes = func() []string { return notes } })
	var ready map[string]any
	n.ok(request{method: "GET", path: "/readyz"}, 200, &ready)
	if _, noted := ready["notes"]; noted {
		t.Errorf("got %+v, want no notes", ready)
	}
	notes = []string{"the built-in policy decides"}
	n.ok(request{method: "GET", path: "/readyz"}, 200, &ready)
	if got, ok := ready["notes"].([]any); !ok || len(got) != 1 || got[0] != notes[0] {
		t.Errorf("got %+v, want the note", ready)
	}
}
