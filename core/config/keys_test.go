package config_test

import (
	"bytes"
	"context"
	"log/slog"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"parley/core/config"
	"parley/core/state"
)

func TestKeys(t *testing.T) {
	keys := config.Keys()
	if len(keys) < 50 {
		t.Errorf("got %d keys, want all of them", len(keys))
	}
	name := regexp.MustCompile(`^[a-z_]+(\.[a-z_]+)*$`)
	envs := make(map[string]string)
	for _, k := range keys {
		if !name.MatchString(k.Name) {
			t.Errorf("%q is not a key name", k.Name)
		}
		if other, dup := envs[k.Env]; dup {
			t.Errorf("%s and %s share the variable %s", k.Name, other, k.Env)
		}
		envs[k.Env] = k.Name
		if !strings.HasSuffix(k.Doc, ".") || k.Allowed == "" {
			t.Errorf("%s: got doc %q, allowed %q, want a sentence and a rule", k.Name, k.Doc, k.Allowed)
		}
	}
}

// Every default can be given as a flag and as a variable, and changes nothing.
func TestDefaultsRoundTrip(t *testing.T) {
	flags := make(map[string]string)
	var env []string
	for _, k := range config.Keys() {
		flags[k.Name] = k.Default
		env = append(env, k.Env+"="+k.Default)
	}
	want := config.Defaults()
	for name, load := range map[string]func() (config.Config, error){
		"flags":     func() (config.Config, error) { return config.Load("", nil, flags) },
		"variables": func() (config.Config, error) { return config.Load("", env, nil) },
	} {
		if got, err := load(); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, %v, want the defaults", name, got, err)
		}
	}
}

func TestNearestKey(t *testing.T) {
	for name, want := range map[string]string{
		"limits.frame-bytes": "limits.frame_bytes", "frame_bytes": "limits.frame_bytes", "data-dir": "data_dir",
		"tcp_listen": "tcp.listen", "qqqqqqqqqqqqqqqqqq": "", strings.Repeat("x", 1<<20): "",
	} {
		if got := config.NearestKey(name); got != want {
			t.Errorf("%.30s: got %q, want %q", name, got, want)
		}
	}
}

// Choices that stand for types of core/state name all their values.
func TestModesAreThoseOfState(t *testing.T) {
	for _, m := range state.Modes {
		got, err := config.Parse("p", []byte("rooms: [{id: x, mode: "+string(m)+"}]"), nil, nil)
		if err != nil || got.Rooms[0].Settings().Validate() != nil {
			t.Errorf("mode %s: got %v", m, err)
		}
	}
}

func TestDefaultRoomsAreSound(t *testing.T) {
	for _, r := range config.Defaults().Rooms {
		if err := r.Settings().Validate(); err != nil {
			t.Errorf("%s: %v", r.ID, err)
		}
	}
}

func TestSize(t *testing.T) {
	tests := []struct {
		text string
		want config.Size
		back string
	}{
		{"0", 0, "0"}, {"1000", 1000, "1000"}, {"1_000", 1000, "1000"}, {"12B", 12, "12"}, {"1024", 1024, "1KiB"},
		{"64KiB", 64 << 10, "64KiB"}, {"4mib", 4 << 20, "4MiB"}, {"1536KiB", 1536 << 10, "1536KiB"}, {"3GiB", 3 << 30, "3GiB"},
		{"2TiB", 2 << 40, "2TiB"},
	}
	for _, tt := range tests {
		t.Run(tt.text, func(t *testing.T) {
			got, err := config.ParseSize(tt.text)
			if err != nil || got != tt.want || got.String() != tt.back {
				t.Errorf("got %d (%v), %v, want %d (%s)", got, got, err, tt.want, tt.back)
			}
		})
	}
	for _, bad := range []string{"", "KiB", "-1", "+1", "1.5KiB", "1 KiB", "64K", "_1", "9223372036854775808", "9007199254740993KiB"} {
		if got, err := config.ParseSize(bad); err == nil {
			t.Errorf("%q: got %d, want an error", bad, got)
		}
	}
	if got := config.Auto.String(); got != "auto" {
		t.Errorf("got %q, want auto", got)
	}
}

func TestLogHandler(t *testing.T) {
	tests := []struct {
		name string
		log  config.Log
		want string
	}{
		{"text", config.Log{Level: "info", Format: "text"}, "level=INFO msg=b\n"},
		{"json", config.Log{Level: "debug", Format: "json"}, `{"level":"DEBUG","msg":"a"}` + "\n" + `{"level":"INFO","msg":"b"}` + "\n"},
		{"made by hand", config.Log{}, "level=INFO msg=b\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			log := slog.New(withoutTime{tt.log.Handler(&out)})
			log.Debug("a")
			log.Info("b")
			if got := out.String(); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// withoutTime makes records comparable.
type withoutTime struct{ slog.Handler }

// Handle implements slog.Handler.
func (h withoutTime) Handle(ctx context.Context, r slog.Record) error {
	r.Time = time.Time{}
	return h.Handler.Handle(ctx, r)
}

// FuzzParse: no file panics; what loads obeys the rules and is the same when
// it is given again; what does not load says where.
func FuzzParse(f *testing.F) {
	f.Add([]byte(full), "PARLEY_ROOMS=[{id: x}]")
	f.Add([]byte("limits: {frame_bytes: 64KiB}\nrooms: [{id: a}, {id: b, mode: announce}]"), "PARLEY_LISTEN=:1")
	f.Add([]byte("a: &x [1]\nb: *x\n"), "PARLEY_X=y")
	f.Add([]byte("? {a: 1}\n: - - -\n"), "")
	f.Add([]byte("listen: !!binary aGk=\n<<: 3\n"), "PARLEY_PORT=tcp://1:2")
	f.Fuzz(func(t *testing.T, file []byte, env string) {
		got, err := config.Parse("p.yaml", file, []string{env}, nil)
		if err != nil {
			for _, p := range problems(t, err) {
				if len(p) > 1000 {
					t.Errorf("got a problem of %d bytes, want a bounded one", len(p))
				}
			}
			if !reflect.DeepEqual(got, config.Config{}) {
				t.Error("got a Config beside an error")
			}
			return
		}
		for _, r := range got.Rooms {
			if err := r.Settings().Validate(); err != nil {
				t.Errorf("room %q: %v", r.ID, err)
			}
		}
		again, err := config.Parse("p.yaml", file, []string{env}, nil)
		if err != nil || !reflect.DeepEqual(again, got) {
			t.Errorf("second time: got %+v, %v, want %+v", again, err, got)
		}
	})
}
