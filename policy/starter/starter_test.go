package starter_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"parley/core/gate"
	"parley/policy"
	"parley/policy/folder"
	"parley/policy/starter"
)

// patient are the default options with time to spare: what is slow on a busy
// machine is no fault of the rules.
func patient() policy.Options {
	o := policy.Defaults()
	o.EvalTimeout, o.TestTimeout = time.Minute, time.Minute
	return o
}

func TestNewIsReady(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "rules")
	names, err := starter.New(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"README.md", "house.rego", "lists/data.json", "parley/data.yaml", "settings.rego", ".github/workflows/policy.yml", ".gitignore", ".gitlab-ci.yml", "parley.rego"} {
		if !slices.Contains(names, want) {
			t.Errorf("got %v, want %s among them", names, want)
		}
	}
	files, err := folder.Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	v, err := policy.Trial{}.Try(t.Context(), patient(), files, nil)
	if err != nil || len(v.Problems)+len(v.Warnings) > 0 || v.Tests < 20 {
		t.Errorf("got %+v, %v, want it to pass in the usual form, with all tests", v, err)
	}
	results, err := policy.Test(t.Context(), patient(), files)
	if err != nil || !slices.ContainsFunc(results, func(r policy.TestResult) bool {
		return r.Name == "parley_test.test_guests_only_read_in_news" && r.File == "house_test.rego" && r.Failure == ""
	}) {
		t.Errorf("got %+v, %v, want the test of the house passed", results, err)
	}
	if _, err := starter.New(dir); err == nil || !strings.Contains(err.Error(), "is not empty") {
		t.Errorf("again: got %v, want it refused", err)
	}
}

// TestTheExamplesHold: with every # of the settings taken away the rules hold
// together, and do what the comments say.
func TestTheExamplesHold(t *testing.T) {
	all, err := starter.Files()
	if err != nil {
		t.Fatal(err)
	}
	files, taken := policy.Files{}, 0
	for name, text := range all {
		if policy.Wanted(name) {
			files[name] = text
		}
	}
	var open []string
	for line := range strings.Lines(string(files["parley/data.yaml"])) {
		if key, ok := strings.CutPrefix(line, "# "); ok && (strings.HasPrefix(key, " ") || strings.HasSuffix(key, ":\n")) {
			line, taken = key, taken+1
		}
		open = append(open, line)
	}
	if files["parley/data.yaml"] = []byte(strings.Join(open, "")); taken < 30 {
		t.Fatalf("got %d examples in %s", taken, files["parley/data.yaml"])
	}
	e, err := patient().Compile(t.Context(), files, "r1")
	if err != nil {
		t.Fatal(err)
	}
	in := gate.Sample(gate.RoomCreate)
	in.Subject.Type, in.Resource.ID = "user", "team-blue"
	in.Raw.Remote = netip.MustParseAddr("192.0.2.3")
	d := e.Decide(t.Context(), in)
	if want := (gate.RoomSettings{Mode: "open", Visibility: "private"}); !d.Allow || d.Obligations.Room == nil || *d.Obligations.Room != want {
		t.Errorf("got %+v, want a private room", d)
	}
	in.Raw.Remote = netip.MustParseAddr("198.51.100.1")
	if d := e.Decide(t.Context(), in); d.Allow || d.Reasons[0].Code != "wrong_network" {
		t.Errorf("from elsewhere: got %+v", d)
	}
}

func TestNewIntoWhatIsNoFolder(t *testing.T) {
	file := filepath.Join(t.TempDir(), "x")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{file, filepath.Join(file, "y")} {
		if _, err := starter.New(dir); err == nil {
			t.Errorf("%s: got no error", dir)
		}
	}
}
