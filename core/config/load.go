package config

import (
	"fmt"
	"io"
	"maps"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"parley/core/spelling"
)

// MaxFileBytes bounds the configuration file; a real one has a few kilobytes.
const MaxFileBytes = 256 << 10

// EnvFile is the one PARLEY_ variable that is not a key: where the file is.
const EnvFile = envPrefix + "CONFIG"

// Load reads the file at path, then env (as os.Environ returns it), then flags
// (key name to value, only those the operator gave), over Defaults. An empty
// path means no file. All problems come back at once as an *Error; the Config
// is then the zero value.
func Load(path string, env []string, flags map[string]string) (Config, error) {
	var data []byte
	if path != "" {
		var err error
		if data, err = readFile(path); err != nil {
			return Config{}, err
		}
	}
	return Parse(path, data, env, flags)
}

// readFile reads at most MaxFileBytes.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open configuration: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, MaxFileBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	return data, nil
}

// Parse is Load for a file that is already in memory; name stands for it in
// messages.
func Parse(name string, data []byte, env []string, flags map[string]string) (Config, error) {
	l := &loader{cfg: Defaults(), origins: make(map[string]Problem), bad: make(map[string]bool)}
	l.file(name, data)
	l.environment(env)
	l.flags(flags)
	l.rules()
	if len(l.problems) > 0 {
		return Config{}, &Error{Problems: l.problems, More: l.more}
	}
	return l.cfg, nil
}

// loader gathers one Config and everything wrong with it.
type loader struct {
	cfg      Config
	problems []Problem
	more     int
	origins  map[string]Problem // key -> where its value was given; Text is unused
	bad      map[string]bool    // keys with a problem: rules between keys skip them
}

// report keeps a problem, or counts it when there are too many.
func (l *loader) report(at Problem, key, format string, args ...any) {
	l.bad[key] = true
	if len(l.problems) == MaxProblems {
		l.more++
		return
	}
	at.Text = fmt.Sprintf(format, args...)
	l.problems = append(l.problems, at)
}

// dst is where the value of f lives in the Config being built.
func (l *loader) dst(f *field) reflect.Value {
	return reflect.ValueOf(&l.cfg).Elem().FieldByIndex(f.index)
}

// text sets a key from a flag or a variable.
func (l *loader) text(f *field, text string, at Problem) {
	l.origins[f.Name] = at
	if f.Kind == KindRooms {
		l.roomsText(f, text, at)
		return
	}
	if err := f.set(l.dst(f), text); err != nil {
		l.report(at, f.Name, "%v; allowed: %s", err, f.Allowed)
	}
}

// orchestrator matches the variables that Kubernetes adds for each Service
// (https://kubernetes.io/docs/concepts/services-networking/service/): a
// Service named parley must not stop a server of that name.
var orchestrator = regexp.MustCompile(`^PARLEY_([A-Z0-9_]+_)?(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)$`)

func fromOrchestrator(name, value string) bool {
	if strings.HasSuffix(name, "_PORT") && strings.Contains(value, "://") {
		return true // PARLEY_PORT=tcp://10.0.0.1:80
	}
	return orchestrator.MatchString(name)
}

func (l *loader) environment(env []string) {
	byEnv := make(map[string]*field, len(root.fields))
	names := make([]string, 0, len(root.fields)+1)
	for _, f := range root.fields {
		byEnv[f.Env] = f
		names = append(names, f.Env)
	}
	names = append(names, EnvFile)
	seen := make(map[string]string)
	for _, entry := range env {
		name, value, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(name, envPrefix) || name == EnvFile {
			continue
		}
		at := Problem{Source: "environment", Key: printable(name)}
		f, known := byEnv[name]
		first, twice := seen[name]
		seen[name] = value
		switch {
		case known && twice && first != value:
			l.report(at, f.Name, "is set twice, to different values; set it once")
		case known:
			l.text(f, value, at)
		case !fromOrchestrator(name, value):
			l.report(at, name, "no such variable%s", l.suggest(func() string { return spelling.Nearest(name, names) }))
		}
	}
}

func (l *loader) flags(flags map[string]string) {
	for _, name := range slices.Sorted(maps.Keys(flags)) {
		at := Problem{Source: "flag", Key: "--" + printable(name)}
		f, known := root.byName[name]
		if !known {
			l.report(at, name, "no such flag%s", l.suggest(func() string {
				if near := nearestKey(name, root.names()); near != "" {
					return "--" + near
				}
				return ""
			}))
			continue
		}
		l.text(f, flags[name], at)
	}
}

// names lists the keys of the schema.
func (s *schema) names() []string {
	names := make([]string, len(s.fields))
	for i, f := range s.fields {
		names[i] = f.Name
	}
	return names
}

// suggest ends a message about an unknown name. It does not look for the
// nearest one where the message will only be counted: a file could hold tens
// of thousands of unknown keys.
func (l *loader) suggest(nearest func() string) string {
	if len(l.problems) == MaxProblems {
		return ""
	}
	if near := nearest(); near != "" {
		return fmt.Sprintf("; did you mean %s?", near)
	}
	return "; docs/configuration.md lists them all"
}

// printable keeps a name from outside harmless and short in a message.
func printable(name string) string {
	q := shorten(name)
	if q == `"`+name+`"` {
		return name
	}
	return q
}
