package share

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"parley/plugins"
)

const digestA = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
const digestB = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"

// What cannot be is refused whole, and the error says what it is.
func TestHeadsRefuse(t *testing.T) {
	many := func(n int, value string) string {
		var all []string
		for i := range n {
			all = append(all, fmt.Sprintf(`"p%d":%s`, i, value))
		}
		return "{" + strings.Join(all, ",") + "}"
	}
	v := `{"source":"` + digestA + `","node":"a","at":"2026-01-01T00:00:00Z"}`
	for text, want := range map[string]string{
		`x`:                                  "invalid character",
		`{"format":2}`:                       "format 2",
		`{"format":1}{}`:                     "something follows",
		`{"format":1,"plugins":{},"more":1}`: "unknown field",
		`{"format":1,"plugins":` + many(65, v) + `}`:                                                          "65 plugins",
		`{"format":1,"plugins":{"../../etc/x":` + v + `}}`:                                                    "that is no name",
		`{"format":1,"plugins":{"p":{"source":"../x","node":"a"}}}`:                                           "no digest",
		`{"format":1,"plugins":{"p":` + v + `},"gone":{"p":` + v + `}}`:                                       "is there and was removed",
		`{"format":1,"gone":` + many(65, v) + `}`:                                                             "65 removals",
		`{"format":1,"plugins":{"p":{"source":"` + digestA + `","node":"` + strings.Repeat("x", 200) + `"}}}`: "node is too long",
	} {
		if _, err := decodeSet([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60s: got %v, want %q", text, err, want)
		}
	}
	st := func(edit func(*plugins.Standing)) string {
		s := plugins.Standing{Rev: 2, Source: digestA, Identity: digestB, Stage: plugins.StageCanary, Percent: 5, By: "olga", Node: "a"}
		edit(&s)
		b, err := json.Marshal(standings{Format: 1, Plugins: map[string]plugins.Standing{"p": s}})
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	if _, err := decodeStandings([]byte(st(func(*plugins.Standing) {}))); err != nil {
		t.Errorf("a good one: %v", err)
	}
	for text, want := range map[string]string{
		`{"format":2}`: "format 2",
		st(func(s *plugins.Standing) { s.Rev = 0 }):                                 "rev 0",
		st(func(s *plugins.Standing) { s.Source = "x" }):                            "no digest",
		st(func(s *plugins.Standing) { s.Stage = "all" }):                           `stage is "all"`,
		st(func(s *plugins.Standing) { s.Percent = 0 }):                             "percent is 0",
		st(func(s *plugins.Standing) { s.By = strings.Repeat("x", 2000) }):          "too long",
		st(func(s *plugins.Standing) { s.Rollbacks = make([]plugins.Rollback, 5) }): "5 rollbacks",
		st(func(s *plugins.Standing) { s.Rollbacks = make([]plugins.Rollback, 1) }): "out of bounds",
	} {
		if _, err := decodeStandings([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.80s: got %v, want %q", text, err, want)
		}
	}
}

// The newest removals are remembered, and one that is dropped again is there.
func TestRemovals(t *testing.T) {
	var s set
	at := time.Unix(0, 0)
	for i := range maxGone + 10 {
		name := fmt.Sprint("p", i)
		s.put(name, version{Source: digestA, At: at})
		s.put(name, version{At: at.Add(time.Duration(i) * time.Second)})
	}
	s.put("never-there", version{At: at})
	if len(s.Plugins) != 0 || len(s.Gone) != maxGone || s.Gone["p0"].Source != "" || s.Gone[fmt.Sprint("p", maxGone+9)].Source != digestA {
		t.Errorf("got %d plugins and %d removals, want the newest %d", len(s.Plugins), len(s.Gone), maxGone)
	}
	s.put("p20", version{Source: digestB})
	if _, gone := s.Gone["p20"]; gone || s.Plugins["p20"].Source != digestB {
		t.Error("what was dropped again still counts as removed")
	}
}

// Standings that have no room give up what matters least.
func TestStandingsFit(t *testing.T) {
	s := standings{}
	long := strings.Repeat("because ", 60)
	r := plugins.Rollback{Identity: digestA, Digest: digestB, Version: long[:100], Stage: "canary", Reason: long, By: "guard", Node: "a", Blocked: true}
	var err error
	for i := range maxLive {
		st := plugins.Standing{Rev: 1, Source: digestA, Identity: digestB, Stage: plugins.StageOut, By: "guard", Node: "a", Reason: long, Rollbacks: []plugins.Rollback{r, r, r, r}}
		if s, err = s.with(fmt.Sprint("p", i), st, func(string) bool { return true }); err != nil {
			t.Fatal(err)
		}
	}
	b, err := json.Marshal(s)
	if err != nil || len(b) > maxValue {
		t.Fatalf("got %d bytes, %v, want at most %d", len(b), err, maxValue)
	}
	for name, st := range s.Plugins {
		if len(st.Rollbacks) == 0 {
			t.Errorf("%s has lost what keeps its version out", name)
		}
	}
	if _, err := decodeStandings(b); err != nil {
		t.Error(err)
	}
	// Those of plugins that are gone make room first.
	next, err := s.with("new", plugins.Standing{Rev: 1, Source: digestA, Identity: digestB, Reason: long}, func(n string) bool { return n == "p1" })
	if err != nil || next.Plugins["p1"].Rev == 0 || next.Plugins["new"].Rev == 0 {
		t.Errorf("got %d standings, %v, want p1 and the new one", len(next.Plugins), err)
	}
}

func TestBaseOfAnotherFolder(t *testing.T) {
	dir := t.TempDir()
	b := base{Format: format, Plugins: map[string]string{"p": digestA}}
	if err := b.save(dir); err != nil {
		t.Fatal(err)
	}
	if got, known, err := loadBase(dir); err != nil || !known || got.Plugins["p"] != digestA {
		t.Errorf("got %v, %v, %v, want what was saved", got, known, err)
	}
	if got, known, err := loadBase(t.TempDir()); err != nil || known || len(got.Plugins) != 0 {
		t.Errorf("got %v, %v, %v, want nothing known of another folder", got, known, err)
	}
	for _, bad := range []string{"x", `{"format":9}`, `{"format":1,"plugins":{"p":"x"}}`, strings.Repeat(" ", maxBase+1)} {
		if err := os.WriteFile(filepath.Join(dir, baseName), []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, known, err := loadBase(dir); err == nil || known {
			t.Errorf("%.20q: got known %v and %v, want it refused", bad, known, err)
		}
	}
}

func FuzzHeads(f *testing.F) {
	for _, seed := range []string{
		`{"format":1,"plugins":{"p":{"source":"` + digestA + `","in_force":"` + digestB + `","node":"a-01234567","at":"2026-01-01T00:00:00Z"}},"gone":{"q":{"source":"` + digestB + `","node":"","at":"0001-01-01T00:00:00Z"}}}`,
		`{"format":1,"plugins":{"p":{"rev":3,"source":"` + digestA + `","identity":"` + digestB + `","stage":"canary","percent":5,"since":"2026-01-01T00:00:00Z","by":"olga","node":"a","lift":2,"rollbacks":[{"identity":"` + digestA + `","digest":"` + digestB + `","stage":"shadow","reason":"r","by":"guard","at":"2026-01-01T00:00:00Z","blocked":true}]}}}`,
		`{"format":1,"plugins":{"p":"` + digestA + `"}}`,
		`{}`, `null`, `[]`, `{"format":1}x`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := decodeSet(b); err == nil {
			again, err := json.Marshal(s)
			if err != nil {
				t.Fatal(err)
			}
			if len(b) > 0 {
				if _, err := decodeSet(again); err != nil {
					t.Errorf("what was read is refused when written again: %v", err)
				}
			}
			for name := range s.Plugins {
				if strings.ContainsAny(name, `/\`) || strings.HasPrefix(name, ".") {
					t.Errorf("%q is taken for a name", name)
				}
			}
			if n := len(s.objects()); n > 2*maxLive {
				t.Errorf("it names %d objects", n)
			}
		}
		_, _ = decodeStandings(b)
		_, _ = decodeBase(b)
	})
}
