package moderation

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"parley/sdk/abi"
)

// keeping is a stage that keeps every input.
func keeping(t *testing.T, judges ...Judge) *Stage {
	t.Helper()
	cfg := Defaults()
	cfg.Keep = func(abi.Verdict) bool { return true }
	s, err := New(cfg, list(judges))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// decided judges a text and returns the record and the input.
func decided(t *testing.T, s *Stage, text string) (*Decision, []byte) {
	t.Helper()
	m := &Message{Room: "lobby", User: "ann", Kind: "message", Text: text, TimeMS: 7}
	res, err := s.Judge(t.Context(), m, nil)
	if err != nil {
		t.Fatal(err)
	}
	return NewDecision("id-1", m, &res, "git:1"), res.Input
}

func TestDecision(t *testing.T) {
	s := keeping(t, verdict("a", abi.Hold, 3), failing("b", abi.Allow), verdict("c", abi.Flag, 1))
	d, input := decided(t, s, "hello")
	const hash = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824" // sha256 of hello
	if d.ID != "id-1" || d.Room != "lobby" || d.User != "ann" || d.Time != 7 || d.Text != hash || d.Policy != "git:1" || d.Verdict != "hold" || d.Failed {
		t.Errorf("got %+v", d)
	}
	if len(d.Plugins) != 3 || d.Plugins[0].Code != 3 || d.Plugins[0].Version != "1.2" || d.Plugins[0].Config != "config-of-a" ||
		d.Plugins[1].Verdict != "error" || d.Plugins[1].Error == "" || d.Plugins[2].Verdict != "flag" {
		t.Errorf("got votes %+v", d.Plugins)
	}
	b, err := json.Marshal(d)
	if err != nil || strings.Contains(string(b), "hello") {
		t.Errorf("the record holds the text: %s, %v", b, err)
	}
	var back Decision
	if err := json.Unmarshal(b, &back); err != nil || back.Digest() != d.Digest() {
		t.Errorf("decoded, the digest is another: %v", err)
	}
	other := *d
	other.Verdict = "deny"
	if other.Digest() == d.Digest() {
		t.Error("another decision has the same digest")
	}
	if text, err := abi.FieldBytes(input, abi.FieldText); err != nil || string(text) != "hello" {
		t.Errorf("got the input's text %q, %v", text, err)
	}
}

// A failure's text is cut so that the record, encoded and decoded, has the same digest.
func TestLongFailures(t *testing.T) {
	for _, text := range []string{"x" + strings.Repeat("ü", maxVoteError), "bad \xff\xfe", strings.Repeat("x", maxVoteError+1)} {
		v := vote(&Record{Plugin: "p", Err: errors.New(text)})
		d := Decision{Plugins: []Vote{v}}
		b, err := json.Marshal(d)
		var back Decision
		if err != nil || json.Unmarshal(b, &back) != nil || back.Digest() != d.Digest() || len(v.Error) > maxVoteError {
			t.Errorf("%.10q: got %q, whose record is another when it was decoded", text, v.Error)
		}
	}
}

func TestInputIsKeptWhereWanted(t *testing.T) {
	cfg := Defaults()
	cfg.Keep = func(v abi.Verdict) bool { return v == abi.Deny }
	for v, want := range map[abi.Verdict]bool{abi.Allow: false, abi.Deny: true} {
		s, err := New(cfg, list{verdict("a", v, 1)})
		if err != nil {
			t.Fatal(err)
		}
		if res := judge(t, s, "hello", nil); (len(res.Input) > 0) != want {
			t.Errorf("%s: kept %d bytes, want some: %v", v, len(res.Input), want)
		}
	}
}

func TestReplay(t *testing.T) {
	was := keeping(t, masking("m", "dog"), verdict("p", abi.Flag, 2))
	d, input := decided(t, was, "the dog")
	changed := masking("m", "dog")
	changed.decide = func(_, _, _ []byte) (abi.Verdict, abi.Result, error) { return abi.Deny, abi.Result{Code: 9}, nil }
	for _, tt := range []struct {
		name    string
		judges  []Judge
		equal   bool
		missing int
		differ  string // part of a difference
	}{
		{"the same", []Judge{masking("m", "dog"), verdict("p", abi.Flag, 2)}, true, 0, ""},
		{"in another order", []Judge{verdict("p", abi.Flag, 2), masking("m", "dog")}, true, 0, ""},
		{"and one more", []Judge{masking("m", "dog"), verdict("p", abi.Flag, 2), verdict("x", abi.Deny, 1)}, true, 0, ""},
		{"one gone", []Judge{verdict("p", abi.Flag, 2)}, false, 1, ""},
		{"one fails", []Judge{failing("m", abi.Allow), verdict("p", abi.Flag, 2)}, false, 0, "plugin m: verdict is error, recorded is redact"},
		{"one changed its mind", []Judge{changed, verdict("p", abi.Flag, 2)}, false, 0, "together the plugins say deny, recorded is redact"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, err := keeping(t, tt.judges...).Replay(t.Context(), d, input)
			if err != nil {
				t.Fatal(err)
			}
			if r.Equal != tt.equal || len(r.Missing) != tt.missing || !strings.Contains(strings.Join(r.Differences, "\n"), tt.differ) {
				t.Errorf("got %+v", r)
			}
		})
	}
	t.Run("another configuration", func(t *testing.T) {
		other := *d
		other.Plugins = append([]Vote(nil), d.Plugins...)
		other.Plugins[0].Config = "another"
		if r, err := was.Replay(t.Context(), &other, input); err != nil || r.Equal || len(r.Missing) != 1 {
			t.Errorf("got %+v, %v, want the plugin missing", r, err)
		}
	})
	t.Run("another normalised text", func(t *testing.T) {
		in := abi.AppendInput(nil, &abi.Input{Text: []byte("the dog"), Normalized: []byte("the cat")})
		if r, err := was.Replay(t.Context(), d, in); err != nil || r.Equal || !strings.Contains(strings.Join(r.Differences, "\n"), "normalises") {
			t.Errorf("got %+v, %v, want it said", r, err)
		}
	})
	for _, bad := range [][]byte{nil, input[:20], abi.AppendInput(nil, &abi.Input{Text: []byte("\xff")})[:30]} {
		if _, err := was.Replay(t.Context(), d, bad); err == nil {
			t.Errorf("replay of %d bytes: got no error", len(bad))
		}
	}
}
