package folder_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"parley/policy"
	"parley/policy/folder"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	full := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		t.Fatal(err)
	}
	// Written aside and renamed, as an editor does: never seen half.
	if err := os.WriteFile(full+".new", []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(full+".new", full); err != nil {
		t.Fatal(err)
	}
}

func TestRead(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "p.rego", "one")
	write(t, dir, "a/b/data.json", "{}")
	write(t, dir, "README.md", "no")
	write(t, dir, ".git/p.rego", "no")
	write(t, dir, "..2024/q.rego", "linked")
	if err := os.Symlink(filepath.Join("..2024", "q.rego"), filepath.Join(dir, "q.rego")); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "policy")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{dir, link} {
		files, err := folder.Read(d)
		if err != nil {
			t.Fatal(err)
		}
		if len(files) != 3 || string(files["p.rego"]) != "one" || string(files["a/b/data.json"]) != "{}" || string(files["q.rego"]) != "linked" {
			t.Errorf("%s: got %q, want p.rego, a/b/data.json and the linked q.rego", d, files)
		}
	}
}

func TestReadRefuses(t *testing.T) {
	tests := []struct {
		name, want string
		make       func(t *testing.T, dir string)
	}{
		{"a folder named as a file", "not a regular file", func(t *testing.T, dir string) {
			write(t, dir, "x/keep.txt", "")
			if err := os.Symlink("x", filepath.Join(dir, "p.rego")); err != nil {
				t.Fatal(err)
			}
		}},
		{"a broken link", "no such file", func(t *testing.T, dir string) {
			if err := os.Symlink("nowhere", filepath.Join(dir, "p.rego")); err != nil {
				t.Fatal(err)
			}
		}},
		{"a pipe", "not a regular file", func(t *testing.T, dir string) {
			if err := syscall.Mkfifo(filepath.Join(dir, "p.rego"), 0o600); err != nil {
				t.Fatal(err)
			}
		}},
		{"too many bytes", "bytes together", func(t *testing.T, dir string) {
			for i := range policy.MaxBytes/policy.MaxFileBytes + 1 {
				write(t, dir, string(rune('a'+i))+".rego", strings.Repeat("#", policy.MaxFileBytes))
			}
		}},
		{"too many files", "more than 256 policy files", func(t *testing.T, dir string) {
			for i := range policy.MaxFiles + 1 {
				write(t, dir, strings.Repeat("x", i%200+1)+string(rune('a'+i/200))+".rego", "")
			}
		}},
		{"no folder", "no such file", func(t *testing.T, dir string) {
			if err := os.Remove(dir); err != nil {
				t.Fatal(err)
			}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "policy")
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			tt.make(t, dir)
			if _, err := folder.Read(dir); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want it to say %q", err, tt.want)
			}
		})
	}
	dir := t.TempDir()
	write(t, dir, "p.rego", strings.Repeat("x", policy.MaxFileBytes+5))
	files, err := folder.Read(dir)
	if err != nil || len(files["p.rego"]) != policy.MaxFileBytes+1 || files.Check() == nil {
		t.Errorf("got %d bytes, %v; want one more than the bound, refused by Check", len(files["p.rego"]), err)
	}
}

// heard is what the source told its hooks.
type heard struct {
	revision string
	files    policy.Files
	refused  error
}

// follow runs a source over dir. A file named bad.rego is refused.
func follow(t *testing.T, dir string) (*folder.Source, chan heard) {
	t.Helper()
	c := make(chan heard, 100)
	s, err := folder.New(dir, folder.Hooks{
		Apply: func(_ context.Context, files policy.Files, revision string) error {
			if _, bad := files["bad.rego"]; bad {
				return errors.New("bad")
			}
			c <- heard{revision: revision, files: files}
			return nil
		},
		Refuse: func(revision string, err error) { c <- heard{revision: revision, refused: err} },
	}, quiet())
	if err != nil {
		t.Fatal(err)
	}
	return s, c
}

func TestFollow(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "p.rego", "1")
	s, c := follow(t, dir)
	if err := s.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	first := <-c
	if first.revision != folder.Revision(policy.Files{"p.rego": []byte("1")}) || !strings.HasPrefix(first.revision, "dir:") {
		t.Fatalf("got %+v, want the folder's revision", first)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()

	write(t, dir, "p.rego", "2")
	if got := <-c; string(got.files["p.rego"]) != "2" {
		t.Fatalf("got %+v, want the change", got)
	}
	write(t, dir, "bad.rego", "x")
	if got := <-c; got.refused == nil || got.revision == "" {
		t.Fatalf("got %+v, want a refusal", got)
	}
	if err := os.Remove(filepath.Join(dir, "bad.rego")); err != nil {
		t.Fatal(err)
	}
	if got := <-c; string(got.files["p.rego"]) != "2" {
		t.Fatalf("got %+v, want the good policy again", got)
	}
	if err := os.Symlink("nowhere", filepath.Join(dir, "q.rego")); err != nil {
		t.Fatal(err)
	}
	if got := <-c; got.refused == nil || got.revision != "" {
		t.Fatalf("got %+v, want a refusal without revision", got)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run: got %v, want nil", err)
	}
}

func TestLoadFails(t *testing.T) {
	dir := t.TempDir()
	s, _ := follow(t, filepath.Join(dir, "none"))
	if err := s.Load(t.Context()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want that the folder does not exist", err)
	}
	write(t, dir, "bad.rego", "x")
	s, _ = follow(t, dir)
	if err := s.Load(t.Context()); err == nil || err.Error() != "bad" {
		t.Errorf("got %v, want Apply's error", err)
	}
	if _, err := folder.New("", folder.Hooks{}, quiet()); err == nil {
		t.Error("got no error for an empty name")
	}
}
