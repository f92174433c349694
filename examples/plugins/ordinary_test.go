package examples_test

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"parley/core/moderation"
	"parley/sdk/abi"
)

// ordinary returns the lines of ordinary chat in testdata.
func ordinary(t testing.TB) []string {
	t.Helper()
	return strings.Split(strings.TrimSuffix(string(file(t, "testdata", "ordinary.txt")), "\n"), "\n")
}

// stated finds the two numbers that each README states.
var stated = regexp.MustCompile(`Of the (\d+) lines\s+of ordinary chat in\s+\[\x60\.\./testdata/ordinary\.txt\x60\]\(\.\./testdata/ordinary\.txt\),\s+it\s+touches\s+(\d+|none)\b`)

// testOrdinary counts what each plugin, configured as it ships, does to
// ordinary chat, and compares the number with the one its README states.
func testOrdinary(t *testing.T, s *moderation.Stage) {
	lines := ordinary(t)
	if len(lines) < 300 {
		t.Fatalf("%d lines, want 300 at least", len(lines))
	}
	for _, name := range examples {
		touched := 0
		for _, line := range lines {
			if r := judge(t, s, line, name); r.Verdict != abi.Allow {
				touched++
				t.Logf("%s: %s %q: %v", name, r.Verdict, line, r.Reasons)
			}
		}
		m := stated.FindStringSubmatch(string(file(t, name, "README.md")))
		if m == nil {
			t.Errorf("%s/README.md does not say how much ordinary chat it touches", name)
			continue
		}
		if m[2] == "none" {
			m[2] = "0"
		}
		if m[1] != strconv.Itoa(len(lines)) || m[2] != strconv.Itoa(touched) {
			t.Errorf("%s touches %d of %d lines; its README says %s of %s", name, touched, len(lines), m[2], m[1])
		}
	}
}

// FuzzExamples judges random texts with all examples: none fails, and what the
// host is told to mask it can mask.
func FuzzExamples(f *testing.F) {
	for _, line := range ordinary(f)[:40] {
		f.Add(line)
	}
	for _, line := range []string{
		"https://pаypal.com/x?y=bad.example", "xn--pypal-4ve.com", "ann@example.org +49 171 2345678", "4111 1111 1111 1111",
		"DE89 3704 0044 0532 0130 00", "ＦＵＬＬ ｗｉｄｔｈ．ｅｘａｍｐｌｅ", "h\u200be\u0301ck 👩🏽‍🚀@x.yz", "(0171) 23.45-67/89",
	} {
		f.Add(line)
	}
	_, s := open(f, built(f))
	f.Fuzz(func(t *testing.T, text string) {
		clean, err := moderation.Clean(text, 4096)
		if err != nil || clean == "" {
			return
		}
		r, err := s.Judge(context.Background(), &moderation.Message{Room: "lobby", User: "ann", Kind: "message", Text: clean, TimeMS: 1}, nil)
		if err != nil {
			return // too long once it is normalised
		}
		for _, rec := range r.Records {
			if rec.Err != nil {
				t.Fatalf("%s failed on %+q: %v", rec.Plugin, clean, rec.Err)
			}
		}
		if !utf8.ValidString(r.Text) {
			t.Fatalf("%+q: masked as %+q", clean, r.Text)
		}
	})
}

// TestConfigsRefused: a mistake in a configuration refuses the plugin instead
// of switching a rule off.
func TestConfigsRefused(t *testing.T) {
	long := fmt.Sprintf(`["%s"]`, strings.Repeat("a", 300)+".com")
	for name, configs := range map[string][]string{
		"links": {
			`{"mode":"mask"}`, `{"denied":[]}`, `{"deny":"bad.example"}`, `{"deny":["*.bad.example"]}`, `{"deny":["https://bad.example"]}`,
			`{"deny":["example"]}`, `{"deny":[""]}`, `{"deny":["bad.example "]}`, `{"deny":` + long + `}`, `{"protect":["xn--99999999.org"]}`, `{"others":"deny"}`, `{"mixed":1}`,
		},
		"pii":   {`{"mode":"mask"}`, `{"find":["name"]}`, `{"find":"email"}`, `{"own_domains":["` + strings.Repeat("a", 64) + `"]}`, `{"phones":true}`},
		"flood": {`{"mode":"redact"}`, `{"rate":-1}`, `{"rate":"30"}`, `{"repeats":9}`, `{"capitals":100}`, `{"trusted":[]}`, `{"trusted_roles":["` + strings.Repeat("a", 33) + `"]}`},
	} {
		for _, config := range configs {
			if _, _, err := tryLoad(t, built(t), name, config); err == nil || !strings.Contains(err.Error(), "refused its config") {
				t.Errorf("%s with %.60s: got %v, want the config refused", name, config, err)
			}
		}
	}
}

// TestModes: what a configuration changes.
func TestModes(t *testing.T) {
	for _, tt := range []struct {
		name, config, text string
		want               abi.Verdict
		reason             string
	}{
		{"links", `{"mode":"deny","deny":["bad.example"]}`, "see bad.example", abi.Deny, "Links to that site are not welcome here."},
		{"links", `{"mode":"hold","deny":["bad.example"],"reason":"Keine Links, bitte – danke."}`, "see bad.example", abi.Hold, "Keine Links, bitte – danke."},
		{"links", `{"others":"refuse","allow":["example.org"]}`, "https://www.example.org/x", abi.Allow, ""},
		{"links", `{"others":"refuse","allow":["example.org"]}`, "https://example.net", abi.Redact, "Only links to sites on this room's list are welcome here."},
		{"links", `{"others":"refuse","allow":["example.org"]}`, "https://[::1]/ and https://localhost/", abi.Redact, "Only links to sites on this room's list are welcome here."},
		{"links", `{"others":"refuse"}`, "see main.rs, I went home.Then it rained; node.js e.g. 3.14", abi.Allow, ""},
		{"links", `{"deny":["example.org"],"allow":["docs.example.org"]}`, "https://docs.example.org", abi.Allow, ""},
		{"links", `{"allow":["example.org"],"deny":["evil.example.org"]}`, "https://a.evil.example.org", abi.Redact, "Links to that site are not welcome here."},
		{"links", `{"mixed":false}`, "https://exаmple.org", abi.Allow, ""},
		{"links", `{"deny":["bücher.example"]}`, "https://xn--bcher-kva.example/", abi.Redact, "Links to that site are not welcome here."},
		{"links", `{"deny":["xn--bcher-kva.example"]}`, "BÜCHER.example", abi.Redact, "Links to that site are not welcome here."},
		{"pii", `{"find":["iban"]}`, "ann@example.org, 0171 2345678", abi.Allow, ""},
		{"pii", `{"mode":"deny","reason":"Not here."}`, "ann@example.org", abi.Deny, "Not here."},
		{"flood", `{"capitals":0}`, "WHY DOES NOBODY LISTEN TO ME", abi.Allow, ""},
		{"flood", `{"mode":"flag","mentions":1}`, "@ann @bob", abi.Flag, "That calls too many people at once."},
		{"flood", `{"run":3,"reason":"Zu lang."}`, "hmmmm", abi.Deny, "Zu lang."},
	} {
		p, _ := load(t, built(t), tt.name, tt.config)
		form, err := moderation.Normalize(tt.text, 0)
		if err != nil {
			t.Fatal(err)
		}
		in := abi.Input{TimeMS: 1, Text: []byte(tt.text), Normalized: form.Bytes(), User: "ann", Room: "lobby", Kind: "message"}
		v, r, _, err := p.Decide(abi.AppendInput(nil, &in), in.Text, in.Normalized)
		if err != nil || v != tt.want || r.Reason != tt.reason {
			t.Errorf("%s with %s: %q: got %s %q, %v, want %s %q", tt.name, tt.config, tt.text, v, r.Reason, err, tt.want, tt.reason)
		}
	}
}
