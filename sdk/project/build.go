package project

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Project is a folder that a plugin is built from.
type Project struct {
	Dir  string
	Name string   // the plugin's
	Lang Language // what it is written in
}

// Wasm and Manifest are where a build puts the module, and where its manifest
// is.
func (p Project) Wasm() string     { return filepath.Join(p.Dir, p.Name+".wasm") }
func (p Project) Manifest() string { return filepath.Join(p.Dir, p.Name+".json") }

// marks tell the languages apart, by a file that only one of them has.
var marks = []struct {
	lang    Language
	pattern string
}{
	{Go, "*.go"},
	{Rust, "src/*.rs"},
	{Rust, "*.rs"},
	{AssemblyScript, "assembly/*.ts"},
	{AssemblyScript, "*.ts"},
	{C, "*.c"},
}

// notManifests are JSON files that belong to tools.
var notManifests = []string{"package.json", "package-lock.json", "asconfig.json", "tsconfig.json"}

// Open recognises the project in dir.
func Open(dir string) (Project, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return Project{}, fmt.Errorf("find the project: %w", err)
	}
	if info, err := os.Stat(abs); err != nil {
		return Project{}, fmt.Errorf("find the project: %w", err)
	} else if !info.IsDir() {
		return Project{}, fmt.Errorf("%s is not a folder: name the one with the plugin's source", dir)
	}
	p := Project{Dir: abs}
	if p.Name, err = nameOf(abs); err != nil {
		return p, err
	}
	for _, m := range marks {
		if found, _ := filepath.Glob(filepath.Join(globSafe(abs), m.pattern)); len(found) > 0 { // the patterns are well formed
			p.Lang = m.lang
			return p, nil
		}
	}
	return p, fmt.Errorf("%s holds no source of a language with an SDK (%s); begin with: platform plugin new --lang go NAME",
		dir, strings.Join(Languages(), ", "))
}

// globSafe escapes what Glob would take for a pattern.
func globSafe(dir string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(dir)
}

// nameOf returns the name of the plugin in dir: that of its manifest, or the
// folder's where there is none.
func nameOf(dir string) (string, error) {
	folder := filepath.Base(dir)
	if _, err := os.Stat(filepath.Join(dir, folder+".json")); err == nil {
		return folder, nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", fmt.Errorf("find the project: %w", err)
	}
	var names []string
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".json")
		if ok && !e.IsDir() && !strings.HasPrefix(name, ".") && !slices.Contains(notManifests, e.Name()) {
			names = append(names, name)
		}
	}
	switch len(names) {
	case 0:
		return folder, nil
	case 1:
		return names[0], nil
	}
	return "", fmt.Errorf("%s holds several manifests (%s): which is the plugin's? Keep one, or name it %s.json like the folder",
		dir, strings.Join(names, ".json, ")+".json", folder)
}

// buildTime bounds a build, a first download of a compiler's packages
// included.
const buildTime = 10 * time.Minute

// Build compiles the project into the file out, which appears whole or not at
// all. It runs the project's build.sh; a Go project needs none. What the
// compiler says goes to log. The error says which tool is missing where one is.
func (p Project) Build(ctx context.Context, out string, log io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, buildTime)
	defer cancel()
	out, err := filepath.Abs(out)
	if err != nil {
		return fmt.Errorf("build %s: %w", p.Name, err)
	}
	temp, err := os.MkdirTemp(filepath.Dir(out), "."+p.Name+"-")
	if err != nil {
		return fmt.Errorf("build %s: %w", p.Name, err)
	}
	defer os.RemoveAll(temp)
	made := filepath.Join(temp, p.Name+".wasm")
	cmd, err := p.command(ctx, made)
	if err != nil {
		return err
	}
	said := &tail{most: 4 << 10}
	both := io.MultiWriter(log, said) // one writer for both: os/exec then writes from one goroutine, in order
	cmd.Stdout, cmd.Stderr = both, both
	cmd.WaitDelay = 5 * time.Second // a compiler's child may hold the pipes
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("build %s: %w", p.Name, cause(ctx, err, said))
	}
	if err := os.Rename(made, out); err != nil {
		return fmt.Errorf("build %s: its build.sh ended well but wrote no module to its first argument: %w", p.Name, err)
	}
	return nil
}

// command is what builds the project into made.
func (p Project) command(ctx context.Context, made string) (*exec.Cmd, error) {
	script := filepath.Join(p.Dir, "build.sh")
	cmd := exec.CommandContext(ctx, "sh", script, made)
	cmd.Dir = p.Dir
	if _, err := os.Stat(script); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return cmd, nil
	}
	if p.Lang != Go {
		return nil, fmt.Errorf("build %s: %s has no build.sh, which says how; `platform plugin new --lang %s` writes one", p.Name, p.Dir, p.Lang)
	}
	parts, err := render(path.Join("templates", string(p.Lang)), values{Name: p.Name, Lang: p.Lang})
	if err != nil {
		return nil, fmt.Errorf("build %s: %w", p.Name, err)
	}
	i := slices.IndexFunc(parts, func(f file) bool { return f.path == "build.sh" })
	cmd = exec.CommandContext(ctx, "sh", "-s", made) // its $0 is sh, so that its folder is the present one
	cmd.Dir = p.Dir
	cmd.Stdin = bytes.NewReader(parts[i].text)
	return cmd, nil
}

// cause is what to tell of a failed build: the last line that was printed
// often says it best.
func cause(ctx context.Context, err error, said *tail) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%w (it may take %v)", ctx.Err(), buildTime)
	}
	lines := strings.Split(strings.TrimSpace(string(said.kept)), "\n")
	if last := strings.TrimSpace(lines[len(lines)-1]); last != "" {
		return fmt.Errorf("%w: %s", err, last)
	}
	return err
}

// tail keeps the last bytes written to it.
type tail struct {
	most int
	kept []byte
}

func (t *tail) Write(b []byte) (int, error) {
	t.kept = append(t.kept, b...)
	if over := len(t.kept) - t.most; over > 0 {
		t.kept = append(t.kept[:0], t.kept[over:]...)
	}
	return len(b), nil
}
