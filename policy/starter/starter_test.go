package starter_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"parley/policy"
	"parley/policy/folder"
	"parley/policy/starter"
)

func TestNewIsReady(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "rules")
	names, err := starter.New(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"README.md", "house.rego", "lists/data.json", ".github/workflows/policy.yml", ".gitlab-ci.yml", "parley.rego"} {
		if !slices.Contains(names, want) {
			t.Errorf("got %v, want %s among them", names, want)
		}
	}
	files, err := folder.Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	v, err := policy.Trial{}.Try(t.Context(), policy.Defaults(), files, nil)
	if err != nil || len(v.Problems)+len(v.Warnings) > 0 || v.Tests < 20 {
		t.Errorf("got %+v, %v, want it to pass in the usual form, with all tests", v, err)
	}
	results, err := policy.Test(t.Context(), policy.Defaults(), files)
	if err != nil || !slices.ContainsFunc(results, func(r policy.TestResult) bool {
		return r.Name == "parley_test.test_guests_only_read_in_news" && r.File == "house_test.rego" && r.Failure == ""
	}) {
		t.Errorf("got %+v, %v, want the test of the house passed", results, err)
	}
	if _, err := starter.New(dir); err == nil || !strings.Contains(err.Error(), "is not empty") {
		t.Errorf("again: got %v, want it refused", err)
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
