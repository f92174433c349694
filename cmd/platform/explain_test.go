package main

import (
	"bytes"
	"regexp"
	"strings"
	"testing"

	"parley/core/admin"
	"parley/core/chat"
	"parley/core/evidence"
	"parley/core/moderation"
	"parley/sdk/abi"
)

func explained(t *testing.T, e admin.Explanation) string {
	t.Helper()
	var out bytes.Buffer
	if err := printExplanation(&out, e); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// In a rollout two versions of one name judge a message; each is shown with
// what itself says now.
func TestExplainTellsVersionsApart(t *testing.T) {
	votes := func(inForce, shadow string) []moderation.Vote {
		return []moderation.Vote{
			{Name: "links", Version: "1", Digest: strings.Repeat("aa", 32), Config: "c1", Verdict: inForce, Fuel: 10},
			{Name: "links", Version: "2", Digest: strings.Repeat("bb", 32), Config: "c1", Part: "shadow", Verdict: shadow, Fuel: 20},
			{Name: "links", Version: "2", Digest: strings.Repeat("bb", 32), Config: "c2", Part: "canary", Verdict: "flag", Fuel: 30},
		}
	}
	e := admin.Explanation{From: "evidence", Record: evidence.Record{Input: abi.AppendInput(nil, &abi.Input{Text: []byte("hello")}),
		Decision: moderation.Decision{ID: "id", Room: "lobby", User: "ann", Verdict: "allow", Plugins: votes("allow", "deny")}}}
	e.Replayed.Plugins = votes("redact", "hold")[:2]
	out := explained(t, e)
	for _, want := range []string{`links +1 +enforce +aaaaaaaaaaaa +c1 +allow .* redact\n`, `links +2 +shadow +bbbbbbbbbbbb +c1 +deny .* hold\n`, `links +2 +canary +bbbbbbbbbbbb +c2 +flag .* -\n`} {
		if !regexp.MustCompile(want).MatchString(out) {
			t.Errorf("got\n%swant a line like %s", out, want)
		}
	}
}

// Nothing that somebody chose reaches the terminal as it is.
func TestExplainIsPlain(t *testing.T) {
	const evil = "\x1b]0;owned\x07\x1b[2J\u202e\n"
	vote := moderation.Vote{Name: evil, Version: evil, Digest: evil, Config: evil, Part: evil, Verdict: evil, Error: evil}
	e := admin.Explanation{From: "history", Record: evidence.Record{Input: abi.AppendInput(nil, &abi.Input{Text: []byte(evil)}),
		Decision: moderation.Decision{ID: evil, Room: evil, User: evil, Text: evil, Policy: evil, Verdict: evil, Plugins: []moderation.Vote{vote},
			Reasons: []chat.Reason{{Code: evil, Text: evil, Source: evil}}}}}
	e.Replayed = moderation.Replay{Plugins: []moderation.Vote{vote}, Differences: []string{evil}, Missing: []string{evil}}
	for i, e := range []admin.Explanation{e, {Record: e.Record, NotReplayed: evil}} {
		out := explained(t, e)
		if at := strings.IndexFunc(out, func(r rune) bool { return r < ' ' && r != '\n' || r == 0x7f || r == 0x202e }); at >= 0 {
			t.Errorf("%d: got %q at byte %d", i, out, at)
		}
		if n := strings.Count(out, "owned"); n < 10 {
			t.Errorf("%d: got %q, want it all shown, quoted", i, out)
		}
	}
}

// A message that no plugin judged is no message that all plugins let pass.
func TestExplainSaysThatNobodyJudged(t *testing.T) {
	rec := evidence.Record{Decision: moderation.Decision{ID: "id", Room: "lobby", User: "ann", Verdict: "allow", Text: "abc"}, Context: &evidence.Context{Idle: 2}}
	out := explained(t, admin.Explanation{Record: rec, NotJudged: "no plugin judged it: because"})
	if !strings.Contains(out, "Not judged: no plugin judged it: because.") || strings.Contains(out, "PLUGIN") || strings.Contains(out, "udged again") {
		t.Errorf("got\n%s", out)
	}
}

// What was let pass is explained as well, and what is not there is said.
func TestExplainSaysWhatItHasNot(t *testing.T) {
	rec := evidence.Record{Decision: moderation.Decision{ID: "id", Room: "lobby", User: "ann", Verdict: "allow", Text: "abc", Plugins: []moderation.Vote{{Name: "p", Digest: "d", Verdict: "allow"}}}}
	out := explained(t, admin.Explanation{Record: rec, NotReplayed: "the original is not kept"})
	for _, want := range []string{"not kept", "abc", "Not judged again: the original is not kept."} {
		if !strings.Contains(out, want) {
			t.Errorf("got\n%swant %q in it", out, want)
		}
	}
	rec.Input = abi.AppendInput(nil, &abi.Input{Text: []byte("hello")})
	out = explained(t, admin.Explanation{Record: rec, From: "history", Replayed: moderation.Replay{Equal: true, Plugins: rec.Plugins}})
	for _, want := range []string{`"hello" (from the room's history`, "the same in every part"} {
		if !strings.Contains(out, want) {
			t.Errorf("got\n%swant %q in it", out, want)
		}
	}
	if err := printExplanation(&bytes.Buffer{}, admin.Explanation{From: "evidence", Record: evidence.Record{Input: []byte{1}}}); err == nil {
		t.Error("a broken input: got no error")
	}
}
