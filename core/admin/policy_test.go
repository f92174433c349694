package admin

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"parley/core/chat"
	"parley/core/gate"
	"parley/policy/decisionlog"
)

// rules stands for the policy: what it does is tested in policy/source.
type rules struct{ accepted string }

func (p *rules) Accept(revision, by string) (string, error) {
	if revision != "git:abc" {
		return "", fmt.Errorf("%w: no such revision is refused", ErrConflict)
	}
	p.accepted = by
	return revision, nil
}

func (p *rules) Audit(_ context.Context, since time.Time) (any, error) {
	return map[string]int64{"since": since.UnixMilli()}, nil
}

func (p *rules) Explain(_ context.Context, id string) (any, error) {
	switch id {
	case "gone":
		return nil, fmt.Errorf("%w: no such decision", ErrNotFound)
	case "broken":
		return nil, errors.New("the disk is gone")
	}
	return map[string]string{"id": id}, nil
}

// withDecisions gives the node a decision log with a refusal of bob and one of
// ann.
func withDecisions(t testing.TB, p *rules) (func(*Deps), *decisionlog.Log, []string) {
	t.Helper()
	l, err := decisionlog.New(decisionlog.Defaults(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, user := range []string{"bob", "ann"} {
		ids = append(ids, refuse(l, user))
	}
	return func(d *Deps) { d.Decisions, d.Policy = l, p }, l, ids
}

func refuse(l *decisionlog.Log, user string) string {
	in := gate.Sample(gate.MessageSend)
	in.Subject.ID = user
	return l.Decided(decisionlog.Made{Input: in, Decision: &gate.Decision{Revision: "git:abc", Reasons: []chat.Reason{{Code: "banned", Text: "No."}}}})
}

// ask sends a request, with the token or openly.
func (n *node) ask(method, path, body, token string) (int, string) {
	n.t.Helper()
	status, b := n.send(request{method: method, path: path, body: body, open: token == ""})
	return status, string(b)
}

func TestDecisions(t *testing.T) {
	edit, _, ids := withDecisions(t, &rules{})
	n := start(t, edit)
	get := func(query string) (page decisionlog.Page) {
		t.Helper()
		status, body := n.ask("GET", "/v1/policy/decisions"+query, "", n.token)
		if status != 200 {
			t.Fatalf("%s: got %d %s", query, status, body)
		}
		if err := json.Unmarshal([]byte(body), &page); err != nil {
			t.Fatal(err)
		}
		return page
	}
	if got := get("").Records; len(got) != 2 || got[0].ID != ids[0] || got[1].Input.Subject.ID != "ann" {
		t.Errorf("got %+v, want both, the oldest first", got)
	}
	for query, want := range map[string]int{
		"?user=bob": 1, "?room=lobby": 2, "?room=den": 0, "?reason=banned": 2, "?reason=muted": 0, "?denied=1": 2, "?events=1": 0,
		"?action=connect": 0, "?revision=git:abc": 2, "?id=" + ids[0]: 1, "?message=x": 0, "?since=99999999999999": 0, "?limit=1": 1,
	} {
		if got := get(query).Records; len(got) != want {
			t.Errorf("%s: got %d records, want %d", query, len(got), want)
		}
	}
	if page := get("?limit=1"); page.Next != ids[1] || len(get("?limit=1&before="+page.Next).Records) != 1 {
		t.Errorf("got %+v, want a way into the past", page)
	}
	for _, query := range []string{"?limit=0", "?limit=9999", "?since=yesterday", "?denied=maybe", "?before=x", "?id=x"} {
		if status, body := n.ask("GET", "/v1/policy/decisions"+query, "", n.token); status != 400 {
			t.Errorf("%s: got %d %s, want 400", query, status, body)
		}
	}
	for _, path := range []string{"/v1/policy/decisions", "/v1/policy/explain/x", "/v1/policy/audit"} {
		if status, _ := n.ask("GET", path, "", ""); status != http.StatusUnauthorized {
			t.Errorf("%s without a token: got %d, want 401 from loopback too", path, status)
		}
	}
	bare := start(t)
	for _, path := range []string{"/v1/policy/decisions", "/v1/policy/explain/x", "/v1/policy/audit"} {
		if status, _ := bare.ask("GET", path, "", bare.token); status != http.StatusNotFound {
			t.Errorf("%s where none are kept: got %d, want 404", path, status)
		}
	}
	if status, _ := bare.ask("POST", "/v1/policy/accept", `{"revision":"x","by":"y"}`, bare.token); status != http.StatusNotFound {
		t.Errorf("accept where there is no policy: got %d, want 404", status)
	}
}

func TestFollowDecisions(t *testing.T) {
	edit, l, _ := withDecisions(t, &rules{})
	n := start(t, edit)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", "http://"+n.addr+"/v1/policy/decisions?follow=1&user=ann", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+n.token)
	resp, err := n.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "application/x-ndjson" {
		t.Fatalf("got %v", resp.Status)
	}
	refuse(l, "bob")
	id := refuse(l, "ann") // the answer has begun, so it is followed
	in := bufio.NewScanner(resp.Body)
	if !in.Scan() {
		t.Fatalf("the stream ended: %v", in.Err())
	}
	if r, err := decisionlog.Decode(in.Bytes()); err != nil || r.ID != id {
		t.Errorf("got %s, %v, want %s", in.Text(), err, id)
	}
	l.EndFollowers()
	if in.Scan() {
		t.Errorf("got %s after the end", in.Text())
	}
}

func TestPolicyActs(t *testing.T) {
	p := &rules{}
	edit, _, _ := withDecisions(t, p)
	n := start(t, edit)
	for _, tt := range []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"POST", "/v1/policy/accept", `{"revision":"git:abc","by":"olga"}`, 200, `"by": "olga"`},
		{"POST", "/v1/policy/accept", `{"revision":"git:def","by":"olga"}`, 409, "no such revision is refused"},
		{"POST", "/v1/policy/accept", `{"revision":"git:abc","who":"olga"}`, 400, "unknown field"},
		{"GET", "/v1/policy/audit?since=1000", "", 200, `"since": 1000`},
		{"GET", "/v1/policy/audit?since=x", "", 400, "since"},
		{"GET", "/v1/policy/explain/06h1f93qbr000001", "", 200, "06h1f93qbr000001"},
		{"GET", "/v1/policy/explain/gone", "", 404, "no such decision"},
		{"GET", "/v1/policy/explain/broken", "", 503, ""},
	} {
		status, body := n.ask(tt.method, tt.path, tt.body, n.token)
		if status != tt.status || !strings.Contains(body, tt.want) {
			t.Errorf("%s %s: got %d %s, want %d with %q", tt.method, tt.path, status, body, tt.status, tt.want)
		}
	}
	if p.accepted != "olga" {
		t.Errorf("got accepted by %q, want olga", p.accepted)
	}
	if status, _ := n.ask("POST", "/v1/policy/accept", `{"revision":"git:abc","by":"eve"}`, ""); status != http.StatusUnauthorized || p.accepted != "olga" {
		t.Errorf("without a token: got %d, want 401", status)
	}
}

func TestReadyWithNotes(t *testing.T) {
	n := start(t, func(d *Deps) { d.Notes = func() []string { return []string{"a revision is refused"} } })
	if status, body := n.ask("GET", "/readyz", "", ""); status != 200 || !strings.Contains(body, "a revision is refused") {
		t.Errorf("got %d %s, want ready, with the note", status, body)
	}
	bare := start(t)
	if status, body := bare.ask("GET", "/readyz", "", ""); status != 200 || strings.Contains(body, "notes") {
		t.Errorf("got %d %s, want no notes", status, body)
	}
}
