// Package project writes, recognises and builds the folder a plugin's author
// works in. `platform plugin new` and `platform plugin build` are made of it.
//
// A project is self-contained: it carries the SDK's source of its language, so
// it builds outside this repository, and offline where the language allows.
// build.sh in the project is the one place that says how it is built; Build
// runs it.
package project

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"text/template"

	"parley/core/spelling"
	"parley/sdk"
)

// Language is what a plugin is written in.
type Language string

// The languages that have an SDK.
const (
	Go             Language = "go"
	Rust           Language = "rust"
	AssemblyScript Language = "assemblyscript"
	C              Language = "c"
)

// Languages lists them for people.
func Languages() []string {
	return []string{string(Go), string(Rust), string(AssemblyScript), string(C)}
}

// Parse finds a language by its name.
func Parse(name string) (Language, error) {
	if slices.Contains(Languages(), name) {
		return Language(name), nil
	}
	err := fmt.Errorf("%q is no language with an SDK: there are %s", name, strings.Join(Languages(), ", "))
	if near := spelling.Nearest(name, Languages()); near != "" {
		err = fmt.Errorf("%w; did you mean %s?", err, near)
	}
	return "", err
}

//go:embed templates
var templates embed.FS

// carries says which of the SDK's files a project of a language gets, as
// folders or files of package sdk, and where in its folder "parley" they go.
var carries = map[Language]map[string]string{
	// With the same import path as in the documentation: go.mod puts the folder
	// in the module's place.
	Go:             {"abi": "sdk/abi", "plugin": "sdk/plugin"},
	Rust:           {"rust": ""},
	AssemblyScript: {"assemblyscript": ""},
	C:              {"c": ""},
}

// ErrNotEmpty is what New returns for a folder that has something in it.
var ErrNotEmpty = errors.New("the folder is not empty")

// file is one file of a new project.
type file struct {
	path string // in the project, with slashes
	text []byte
}

// New writes a project into dir, which must be empty or not exist yet. name is
// the plugin's name and must be a valid one. It returns the files written, in
// order.
func New(lang Language, name, dir string) ([]string, error) {
	files, err := generate(lang, name)
	if err != nil {
		return nil, err
	}
	if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
		return nil, fmt.Errorf("%w: %s; name another, or remove what is in it", ErrNotEmpty, dir)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("make the project: %w", err)
	}
	var written []string
	for _, f := range files {
		to := filepath.Join(dir, filepath.FromSlash(f.path))
		mode := fs.FileMode(0o644)
		if strings.HasSuffix(f.path, ".sh") {
			mode = 0o755
		}
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return written, fmt.Errorf("make the project: %w", err)
		}
		if err := os.WriteFile(to, f.text, mode); err != nil {
			return written, fmt.Errorf("make the project: %w", err)
		}
		written = append(written, f.path)
	}
	return written, nil
}

// generate returns a project's files: the templates of all languages and of
// this one, and the SDK.
func generate(lang Language, name string) ([]file, error) {
	carried, ok := carries[lang]
	if !ok {
		return nil, fmt.Errorf("there is no SDK for %q", lang)
	}
	var files []file
	for _, folder := range []string{"common", string(lang)} {
		part, err := render(path.Join("templates", folder), values{Name: name, Lang: lang})
		if err != nil {
			return nil, fmt.Errorf("project in %s: %w", lang, err)
		}
		files = append(files, part...)
	}
	for from, to := range carried {
		part, err := copied(from, path.Join("parley", to))
		if err != nil {
			return nil, fmt.Errorf("project in %s: the SDK: %w", lang, err)
		}
		files = append(files, part...)
	}
	slices.SortFunc(files, func(a, b file) int { return strings.Compare(a.path, b.path) })
	return files, nil
}

// values are what templates may use.
type values struct {
	Name string
	Lang Language
}

// render fills the templates below a folder. "NAME" in a file's name stands
// for the plugin's, ".tmpl" is dropped, and "dot-" becomes a dot: the go
// command embeds no hidden files.
func render(folder string, v values) ([]file, error) {
	var files []file
	err := fs.WalkDir(templates, folder, func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		t, err := template.ParseFS(templates, name)
		if err != nil {
			return err
		}
		var text bytes.Buffer
		if err := t.Option("missingkey=error").Execute(&text, v); err != nil {
			return err
		}
		to := strings.TrimSuffix(strings.TrimPrefix(name, folder+"/"), ".tmpl")
		to = strings.NewReplacer("NAME", v.Name, "dot-", ".").Replace(to)
		files = append(files, file{to, text.Bytes()})
		return nil
	})
	return files, err
}

// copied returns the SDK's file or folder from as files at to.
func copied(from, to string) ([]file, error) {
	var files []file
	err := fs.WalkDir(sdk.Source(), from, func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		text, err := fs.ReadFile(sdk.Source(), name)
		if err != nil {
			return err
		}
		files = append(files, file{path.Join(to, strings.TrimPrefix(strings.TrimPrefix(name, from), "/")), text})
		return nil
	})
	return files, err
}

// Rule is the file of a new project in which its author writes.
func Rule(lang Language) string {
	switch lang {
	case Go:
		return "main.go"
	case Rust:
		return "src/lib.rs"
	case AssemblyScript:
		return "assembly/index.ts"
	case C:
		return "plugin.c"
	}
	return "build.sh"
}
