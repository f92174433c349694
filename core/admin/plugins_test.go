package admin

import (
	"context"
	"fmt"
	"testing"

	"parley/plugins"
)

// catalog answers orders as it is told to and remembers the last.
type catalog struct {
	name string
	last plugins.Order
	err  error
}

func (c *catalog) Status() []plugins.Status {
	return []plugins.Status{{Name: "links", State: plugins.StateActive, Candidate: &plugins.Candidate{Stage: "canary", Percent: 5}}}
}

func (c *catalog) Steer(_ context.Context, name string, o plugins.Order) error {
	c.name, c.last = name, o
	return c.err
}

func TestRollout(t *testing.T) {
	c := &catalog{}
	n := start(t, func(d *Deps) { d.Plugins = c })
	post := func(body string) request {
		return request{method: "POST", path: "/v1/plugins/links/rollout", body: body, headers: map[string]string{"X-Parley-User": "olga"}}
	}
	var all struct{ Plugins []plugins.Status }
	n.ok(request{method: "GET", path: "/v1/plugins", open: true}, 200, &all)
	if len(all.Plugins) != 1 || all.Plugins[0].Candidate.Percent != 5 {
		t.Errorf("got %+v", all)
	}
	var one plugins.Status
	n.ok(post(`{"action":"set","stage":"canary","percent":5,"reason":"looks good"}`), 200, &one)
	if want := (plugins.Order{Action: "set", Stage: "canary", Percent: 5, By: "olga", Reason: "looks good"}); c.name != "links" || c.last != want || one.Name != "links" {
		t.Errorf("got %+v for %s, want %+v; answered %+v", c.last, c.name, want, one)
	}
	n.ok(request{method: "POST", path: "/v1/plugins/links/rollout", body: `{"action":"promote"}`}, 200, nil)
	if c.last.By != "admin" {
		t.Errorf("got it by %q, want admin", c.last.By)
	}
	n.refused(request{method: "POST", path: "/v1/plugins/links/rollout", body: `{"action":"promote"}`, open: true}, 401, "unauthorized", "")
	n.refused(request{method: "POST", path: "/v1/plugins/links/rollout", body: `{}`, headers: map[string]string{"X-Parley-User": "o o"}}, 400, "bad_request", "no user name")
	n.refused(post(`{"action":1}`), 400, "bad_request", `"action"`)
	n.refused(post(`{"deed":"promote"}`), 400, "bad_request", "deed")
	for _, e := range []struct {
		err    error
		status int
		code   string
	}{{plugins.ErrNoPlugin, 404, "no_plugin"}, {plugins.ErrOrder, 400, "bad_request"}, {plugins.ErrNotNow, 409, "conflict"}} {
		c.err = fmt.Errorf("%w: because", e.err)
		text := "because"
		if e.status == 404 {
			text = `no plugin "links"`
		}
		n.refused(post(`{"action":"promote"}`), e.status, e.code, text)
	}
}
