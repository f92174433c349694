package config_test

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"regexp"
	"strings"
	"testing"

	"parley/core/config"
)

var update = flag.Bool("update", false, "write docs/configuration.md")

const referenceFile = "../../docs/configuration.md"

func TestReferenceIsUpToDate(t *testing.T) {
	var want bytes.Buffer
	if err := config.WriteReference(&want); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(referenceFile, want.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(referenceFile)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want.Bytes()) {
		t.Error("docs/configuration.md is out of date; go test ./core/config -run Reference -update writes it again")
	}
}

// block returns the first fenced block of the kind in the reference.
func block(t *testing.T, kind string) string {
	t.Helper()
	doc, err := os.ReadFile(referenceFile)
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile("(?ms)^```" + kind + "\n(.*?)^```").FindSubmatch(doc)
	if m == nil {
		t.Fatalf("the reference has no %s block", kind)
	}
	return string(m[1])
}

func TestReferenceExampleLoads(t *testing.T) {
	got, err := config.Parse("parley.yaml", []byte(block(t, "yaml")), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Rooms) != 2 || got.Limits.TextBytes != 8<<10 {
		t.Errorf("got %+v, want what the example says", got)
	}
}

func TestReferenceShowsRealMessages(t *testing.T) {
	_, err := config.Parse("parley.yaml", []byte("limits:\n  frame_byte: 1\n  text_bytes: 4k\n"), []string{"PARLEY_LIVENESS_PING=15"}, nil)
	if got, want := err.Error()+"\n", block(t, "text"); got != want {
		t.Errorf("got\n%s\nwant, as the reference says,\n%s", got, want)
	}
}

func TestProblemsAreFoundThroughWrapping(t *testing.T) {
	_, err := config.Parse("p.yaml", []byte("x: 1"), nil, nil)
	var e *config.Error
	if !errors.As(err, &e) || len(e.Problems) != 1 || e.Error() != e.Problems[0].String() {
		t.Errorf("got %v, want one problem on one line", err)
	}
	if p := e.Problems[0]; p.Line != 1 || p.Column != 1 || p.Key != "x" || p.Source != "p.yaml" || !strings.HasPrefix(p.Text, "no such key") {
		t.Errorf("got %+v, want its parts", p)
	}
}
