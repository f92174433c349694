package project_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"parley/sdk/project"
)

func TestParse(t *testing.T) {
	for _, name := range project.Languages() {
		if l, err := project.Parse(name); err != nil || string(l) != name {
			t.Errorf("%s: got %q, %v", name, l, err)
		}
	}
	if _, err := project.Parse("assemblyscrip"); err == nil || !strings.Contains(err.Error(), "did you mean assemblyscript?") {
		t.Errorf("got %v, want a suggestion", err)
	}
}

// TestNew looks at what every language's project has: whole files, nothing of
// a template left, and the name where it belongs.
func TestNew(t *testing.T) {
	for _, name := range project.Languages() {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "deep", "no-tags")
			files, err := project.New(project.Language(name), "no-tags", dir)
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range []string{".gitignore", "README.md", "build.sh", "no-tags.json", project.Rule(project.Language(name))} {
				if !slices.Contains(files, want) {
					t.Errorf("it has no %s: %v", want, files)
				}
			}
			for _, f := range files {
				b, err := os.ReadFile(filepath.Join(dir, f))
				if err != nil {
					t.Error(err)
				}
				for _, rest := range []string{"{{", "<no value>", "NAME.json"} {
					if bytes.Contains(b, []byte(rest)) && !strings.HasPrefix(f, "parley/") {
						t.Errorf("%s holds %q", f, rest)
					}
				}
			}
			p, err := project.Open(dir)
			if err != nil || p.Name != "no-tags" || string(p.Lang) != name {
				t.Errorf("opened, it is %+v, %v", p, err)
			}
			if _, err := project.New(project.Language(name), "no-tags", dir); !errors.Is(err, project.ErrNotEmpty) {
				t.Errorf("written over itself: got %v", err)
			}
		})
	}
	if _, err := project.New("cobol", "x", filepath.Join(t.TempDir(), "x")); err == nil {
		t.Error("cobol: got no error")
	}
	occupied := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(occupied, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := project.New(project.C, "x", occupied); err == nil {
		t.Error("over a file: got no error")
	}
}

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestOpen(t *testing.T) {
	for _, tt := range []struct {
		name   string
		files  []string
		plugin string
		lang   project.Language
		err    string
	}{
		{"named by its folder", []string{"main.go", "other.json", "here.json"}, "here", project.Go, ""},
		{"named by its manifest", []string{"rule.c", "shout.json", "package.json", ".hidden.json"}, "shout", project.C, ""},
		{"without a manifest", []string{"rule.c"}, "here", project.C, ""},
		{"two manifests", []string{"rule.c", "a.json", "b.json"}, "", "", "several manifests (a.json, b.json)"},
		{"no source", []string{"README.md"}, "", "", "holds no source"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "here")
			for _, f := range tt.files {
				put(t, filepath.Join(dir, f), "{}")
			}
			p, err := project.Open(dir)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("got %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil || p.Name != tt.plugin || p.Lang != tt.lang || filepath.Base(p.Wasm()) != tt.plugin+".wasm" || filepath.Base(p.Manifest()) != tt.plugin+".json" {
				t.Errorf("got %+v, %v", p, err)
			}
		})
	}
	file := filepath.Join(t.TempDir(), "main.go")
	put(t, file, "")
	for _, dir := range []string{file, file + "-not"} {
		if _, err := project.Open(dir); err == nil {
			t.Errorf("%s: got no error", dir)
		}
	}
}

// TestBuild drives build.sh itself: its module is put in place whole, and what
// goes wrong is told and leaves the old module.
func TestBuild(t *testing.T) {
	for _, tt := range []struct{ name, script, err, said string }{
		{"it works", "echo compiling\nprintf new >\"$1\"\n", "", "compiling\n"},
		{"it fails", "printf new >\"$1\"\necho compiling\necho 'rule.c:3: what?' >&2\nexit 1\n", "exit status 1: rule.c:3: what?", "what?"},
		{"it writes nothing", "exit 0\n", "wrote no module", ""},
		{"it is silent", "exit 7\n", "exit status 7", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "here")
			put(t, filepath.Join(dir, "rule.c"), "")
			put(t, filepath.Join(dir, "build.sh"), tt.script)
			put(t, filepath.Join(dir, "here.wasm"), "old")
			p, err := project.Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			var log bytes.Buffer
			err = p.Build(t.Context(), p.Wasm(), &log)
			got, _ := os.ReadFile(p.Wasm())
			want := "new"
			if tt.err != "" {
				want = "old"
			}
			if string(got) != want || !strings.Contains(log.String(), tt.said) {
				t.Errorf("the module is %q, want %q; it said %q", got, want, log.String())
			}
			if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("got %v, want %q", err, tt.err)
			}
			if left, _ := filepath.Glob(filepath.Join(dir, ".here-*")); len(left) > 0 {
				t.Errorf("it left %v", left)
			}
		})
	}
	dir := t.TempDir()
	put(t, filepath.Join(dir, "rule.c"), "")
	p, err := project.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Build(t.Context(), p.Wasm(), new(bytes.Buffer)); err == nil || !strings.Contains(err.Error(), "has no build.sh") {
		t.Errorf("no build.sh: got %v", err)
	}
	if err := p.Build(t.Context(), filepath.Join(dir, "no", "folder", "x.wasm"), new(bytes.Buffer)); err == nil {
		t.Error("into no folder: got no error")
	}
}

// TestMissingTool: whoever lacks the compiler is told what to install. The
// PATH has a shell and the few tools a script needs, and no compiler.
func TestMissingTool(t *testing.T) {
	bin := t.TempDir()
	for _, tool := range []string{"sh", "dirname", "mktemp", "rm", "cat"} {
		at := ""
		for _, dir := range []string{"/bin", "/usr/bin"} {
			if _, err := os.Stat(filepath.Join(dir, tool)); err == nil {
				at = filepath.Join(dir, tool)
			}
		}
		if err := os.Symlink(at, filepath.Join(bin, tool)); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", bin)
	want := map[string]string{"go": "go.dev/dl", "c": "apt-get install clang lld", "assemblyscript": "apt-get install nodejs npm"} // rustc is looked for in /usr/bin, too
	for name, say := range want {
		dir := filepath.Join(t.TempDir(), "no-tags")
		if _, err := project.New(project.Language(name), "no-tags", dir); err != nil {
			t.Fatal(err)
		}
		p, err := project.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Build(t.Context(), p.Wasm(), new(bytes.Buffer)); err == nil || !strings.Contains(err.Error(), say) {
			t.Errorf("%s: got %v, want %q", name, err, say)
		}
	}
}
