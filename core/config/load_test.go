package config_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"parley/core/config"
	"parley/core/state"
)

// problems returns what Parse complains about, one string each.
func problems(t *testing.T, err error) []string {
	t.Helper()
	if err == nil {
		return nil
	}
	var e *config.Error
	if !errors.As(err, &e) {
		t.Fatalf("got error %v of type %T, want *config.Error", err, err)
	}
	var out []string
	for _, p := range e.Problems {
		out = append(out, p.String())
	}
	return out
}

func TestNothingGivenIsDefaults(t *testing.T) {
	for _, file := range []string{"", "# only a comment\n", "---\n", "limits:\n", "{}"} {
		got, err := config.Parse("p.yaml", []byte(file), nil, nil)
		if err != nil {
			t.Errorf("%q: got error %v, want none", file, err)
		}
		if want := config.Defaults(); !reflect.DeepEqual(got, want) {
			t.Errorf("%q: got %+v, want the defaults", file, got)
		}
	}
}

const full = `
listen: ":80"
tcp: {listen: ""}
admin:
  listen: 127.0.0.1:9999
data_dir: /var/lib/parley
origins: [https://chat.example.org, "http://localhost:3000"]
rooms:
  - id: den
    mode: announce
    visibility: private
    slow_mode_s: 5
auth:
  guests: false
  jwt: {algorithm: EdDSA, key_file: /etc/parley/key.pem, audience: parley, issuer: idp}
plugins: {dir: /plugins, fuel: 1_000_000, memory_bytes: 1MiB, max: 4, on_error: hold, quarantine: {faults: 0, window: 2m}, trusted_keys: ["A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg="], require_signature: true, share: false}
policy:
  git:
    {url: "https://git.example.org/policy.git", ref: stable, path: parley, interval: 1m, signers: [/etc/parley/signers, /etc/parley/ann.asc],
     auth: {user: oauth2, token_env: GIT_TOKEN, ca_file: /etc/parley/ca.pem}, webhook: {listen: ":8443", secret_file: /etc/parley/hook, debounce: 50ms}}
redis: {url: "redis://:secret@redis:6379/0"}
journal: {retention_entries: 0, retention_age: 720h, nonce_window: 1h, commit_window: 0}
limits:
  frame_bytes: 0
  text_bytes: 8192
  connections_per_ip: 0
  lag_seconds: 0
  handshake_timeout: 2s
liveness: {ping: 0s, user_timeout: 0}
runtime: {gogc: 0, memory_limit: 512MiB, automaxprocs: false}
log: {level: debug, format: json}
shutdown: {drain: 0, reconnect_jitter: 0s}
`

func TestFileOverridesDefaults(t *testing.T) {
	got, err := config.Parse("p.yaml", []byte(full), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := config.Defaults()
	want.Listen = ":80"
	want.TCP.Listen = ""
	want.Admin.Listen = "127.0.0.1:9999"
	want.DataDir = "/var/lib/parley"
	want.Origins = []string{"https://chat.example.org", "http://localhost:3000"}
	want.Rooms = []config.Room{{ID: "den", Mode: state.ModeAnnounce, Visibility: state.Private, SlowModeS: 5}}
	want.Auth = config.Auth{JWT: config.JWT{Algorithm: "EdDSA", KeyFile: "/etc/parley/key.pem", Audience: "parley", Issuer: "idp"}}
	want.Plugins = config.Plugins{Dir: "/plugins", Fuel: 1_000_000, MemoryBytes: 1 << 20, Max: 4, OnError: "hold",
		Quarantine:  config.Quarantine{Window: 2 * time.Minute, FirstProbe: time.Second, LastProbe: 5 * time.Minute, GoodProbes: 3},
		TrustedKeys: []string{"A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg="}, RequireSignature: true}
	want.Policy.Git = config.Git{URL: "https://git.example.org/policy.git", Ref: "stable", Path: "parley", Interval: time.Minute,
		Signers: []string{"/etc/parley/signers", "/etc/parley/ann.asc"}, Auth: config.GitAuth{User: "oauth2", TokenEnv: "GIT_TOKEN", CAFile: "/etc/parley/ca.pem"},
		Webhook: config.GitWebhook{Listen: ":8443", SecretFile: "/etc/parley/hook", Debounce: 50 * time.Millisecond}}
	want.Redis.URL = "redis://:secret@redis:6379/0"
	want.Journal = config.Journal{RetentionAge: 720 * time.Hour, NonceWindow: time.Hour}
	want.Limits.FrameBytes = 0
	want.Limits.TextBytes = 8192
	want.Limits.ConnectionsPerIP = 0
	want.Limits.LagSeconds = 0
	want.Limits.HandshakeTimeout = 2 * time.Second
	want.Liveness.Ping = 0
	want.Liveness.UserTimeout = 0
	want.Runtime = config.Runtime{MemoryLimit: 512 << 20, SMT: true, Governor: config.Governor{Every: 10 * time.Second}}
	want.Log = config.Log{Level: "debug", Format: "json"}
	want.Shutdown = config.Shutdown{}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestPrecedence(t *testing.T) {
	file := []byte("limits: {text_bytes: 1000, lag_seconds: 5, commands_burst: 50}\n")
	env := []string{"PARLEY_LIMITS_TEXT_BYTES=2000", "PARLEY_LIMITS_LAG_SECONDS=6", "HOME=/x", "PARLEY_CONFIG=p.yaml"}
	flags := map[string]string{"limits.text_bytes": "3000"}
	got, err := config.Parse("p.yaml", file, env, flags)
	if err != nil {
		t.Fatal(err)
	}
	if l := got.Limits; l.TextBytes != 3000 || l.LagSeconds != 6 || l.CommandsBurst != 50 || l.HistoryEntries != 200 {
		t.Errorf("got text %v lag %v burst %v history %v, want flag 3000, env 6, file 50, default 200",
			l.TextBytes, l.LagSeconds, l.CommandsBurst, l.HistoryEntries)
	}
}

func TestBadFile(t *testing.T) {
	tests := []struct {
		name, file string
		want       []string // each is part of the problem with the same index
	}{
		{"unknown key", "limits:\n  frame_byte: 3\n", []string{`p.yaml:2:3: limits.frame_byte: no such key; did you mean limits.frame_bytes?`}},
		{"key in the wrong section", "frame_bytes: 3\n", []string{`p.yaml:1:1: frame_bytes: no such key; did you mean limits.frame_bytes?`}},
		{"unknown section", "limit:\n  frame_bytes: 3\n", []string{`p.yaml:1:1: limit: no such key`}},
		{"no action", "policy: {allow_on_error: [typin]}\n", []string{`policy.allow_on_error: "typin" is no action of the policy; did you mean "typing"?`}},
		{"nothing near", "zzzzzzzzzzzzzzzz: 3\n", []string{`no such key; docs/configuration.md lists them all`}},
		{"text for a count", "limits: {lag_seconds: soon}\n", []string{`p.yaml:1:23: limits.lag_seconds: is a text; allowed: a whole number, 1 to 3600; 0 = no limit`}},
		{"float for a count", "limits: {lag_seconds: 1.5}\n", []string{`limits.lag_seconds: is a number`}},
		{"octal look", "limits: {lag_seconds: 010}\n", []string{`"010" is not a whole number`}},
		{"count too large", "limits: {lag_seconds: 3601}\n", []string{`"3601" is too large; allowed: a whole number, 1 to 3600`}},
		{"count beyond 64 bits", "limits: {connections: 99999999999999999999}\n", []string{`limits.connections: is a number`}},
		{"negative", "limits: {connections: -1}\n", []string{`"-1" is too small`}},
		{"duration without unit", "liveness: {ping: 15}\n", []string{`p.yaml:1:18: liveness.ping: "15" has no unit; allowed: a time with its unit, such as 15s or 2m30s, 1s to 1h; 0 = off`}},
		{"not a duration", "liveness: {ping: often}\n", []string{`"often" is not a time`}},
		{"not a size", "limits: {frame_bytes: 64k}\n", []string{`"64k" is not a size; allowed: a number of bytes, or one with KiB, MiB or GiB, 1KiB to 16MiB; 0 = no limit`}},
		{"size overflows", "limits: {lag_bytes: 99999999TiB}\n", []string{`is not a size`}},
		{"auto where it is not allowed", "limits: {lag_bytes: auto}\n", []string{`"auto" is not a size`}},
		{"bad choice", "log: {format: jsom}\n", []string{`log.format: "jsom" is not among the choices; did you mean "json"?; allowed: text, json`}},
		{"number for a choice", "log: {level: 3}\n", []string{`log.level: is a number`}},
		{"yes is no bool", "auth: {guests: yes}\n", []string{`auth.guests: is a text; allowed: true or false`}},
		{"null leaf", "listen:\n", []string{`p.yaml:1:8: listen: is empty`}},
		{"empty address", "listen: \"\"\n", []string{`listen: must not be empty; allowed: host:port`}},
		{"number for an address", "listen: 8080\n", []string{`listen: is a number`}},
		{"address without port", "listen: localhost\n", []string{`"localhost" is not host:port`}},
		{"port out of range", "listen: \":70000\"\n", []string{`has no port from 0 to 65535`}},
		{"strange host", "listen: \"a b:1\"\n", []string{`has a malformed host`}},
		{"duplicate key", "listen: \":1\"\nlisten: \":2\"\n", []string{`p.yaml:2:1: listen: is set twice, first on line 1; keep one`}},
		{"section is a text", "limits: none\n", []string{`p.yaml:1:9: limits: is a text; allowed: keys with values`}},
		{"file is a list", "- listen\n", []string{`p.yaml:1:1: is a list`}},
		{"key is a list", "? [a]\n: 1\n", []string{`a list is not a key`}},
		{"list is a text", "origins: https://a.b\n", []string{`p.yaml:1:10: origins: is a text; allowed: a list; each item is a web origin`}},
		{"bad origin", "origins: [\"https://a.b/path\", ftp://x, 3]\n", []string{`must be scheme, host and port only`, `"ftp://x" is not a web origin`, `has an item that is a number`}},
		{"alias", "tcp: &a {listen: \"\"}\nadmin: *a\n", []string{`tcp: anchors and aliases are not supported`, `admin: anchors and aliases are not supported`}},
		{"merge key", "tcp:\n  <<: {listen: \"\"}\n", []string{`is not a key`}},
		{"two documents", "listen: \":1\"\n---\nlisten: \":2\"\n", []string{`p.yaml:3:1: a second YAML document begins here`}},
		{"broken YAML", "limits:\n  a: [1\n", []string{`p.yaml:2: not valid YAML: did not find expected ',' or ']'`}},
		{"a tab", "limits:\n\tframe_bytes: 1\n", []string{`p.yaml:2: not valid YAML: found character that cannot start any token; YAML is indented with spaces, not tabs`}},
		{"scanner error", "limits:\n  a: b: c\n", []string{`p.yaml:2: not valid YAML: mapping values`}},
		{"not UTF-8", "a: 1\nb: \xff\n", []string{`p.yaml:2: holds a control character or is not UTF-8`}},
		{"broken on the first line", "origins: [\"a\n", []string{`p.yaml:2: not valid YAML: found unexpected end of stream`}},
		{"a tab on the first line", "\tlisten: x\n", []string{`p.yaml:1: not valid YAML: found character that cannot start any token`}},
		{"a bracket on the first line", "listen: ]\n", []string{`p.yaml:1: not valid YAML: did not find expected node content`}},
		{"unknown anchor", "listen: \":1\"\na: *b\n", []string{`p.yaml:2: not valid YAML: unknown anchor`}},
		{"broken second document", "listen: \":1\"\n---\n[\n", []string{`not valid YAML`}},
		{"custom tag", "listen: !x 3\n", []string{`listen: is of an unknown type`}},
		{"control characters", "data_dir: \"a\\nb\"\n", []string{`holds control characters`}},
		{"secret is not repeated", "redis: {url: \"http://:hunter2@h\"}\n", []string{`redis.url: the value has a scheme that is unknown`}},
		{"database is no number", "redis: {url: \"redis://h:6379/main\"}\n", []string{`redis.url: the value has a path that is not a database number`}},
		{"malformed secret", "redis: {url: \"redis://:hunter2@h:%zz\"}\n", []string{`redis.url: the value has a port that is not between 1 and 65535`}},
		{"git option", "policy: {git: {url: --upload-pack=x}}\n", []string{`begins with a dash`}},
		{"git scheme", "policy: {git: {url: \"ext::x://y\"}}\n", []string{`has a scheme that is not allowed`}},
		{"token in our own variable", "policy: {git: {auth: {token_env: PARLEY_TOKEN}}}\n", []string{`begins with PARLEY_`}},
		{"no variable", "policy: {git: {auth: {token_env: 1-x}}}\n", []string{`is no name of a variable`}},
		{"two tokens", "policy: {git: {auth: {token_env: X, token_file: /x}}}\n", []string{`policy.git.auth.token_file: policy.git.auth.token_file and policy.git.auth.token_env are both set`}},
		{"two secrets", "policy: {git: {url: /x, webhook: {secret_env: X, secret_file: /x}}}\n", []string{`the secret lies in one place`}},
		{"webhook without a secret", "policy: {git: {url: /x, webhook: {listen: \":1\"}}}\n", []string{`policy.git.webhook.listen needs`}},
		{"webhook without a repository", "policy: {git: {webhook: {secret_env: X}}}\n", []string{`policy.git.webhook needs policy.git.url`}},
		{"signers without a repository", "policy: {git: {signers: [/x]}}\n", []string{`policy.git.signers needs policy.git.url`}},
		{"webhook on the address of another", "policy: {git: {url: /x, webhook: {secret_env: X, listen: \"127.0.0.1:7070\"}}}\n", []string{`policy.git.webhook.listen and tcp.listen are both`}},
		{"git ref", "policy: {git: {ref: a..b}}\n", []string{`"a..b" is not a ref name`}},
		{"git path", "policy: {git: {path: ../x}}\n", []string{`leads out of the repository`}},
		{"room without id", "rooms: [{title: x}]\n", []string{`p.yaml:1:9: rooms[0].id: is missing`}},
		{"room twice", "rooms: [{id: x}, {id: x}]\n", []string{`rooms[1].id: "x" is listed twice`}},
		{"room with bad id", "rooms:\n  - id: Big Room\n", []string{`p.yaml:2:9: rooms[0].id: "Big Room" is not a room name`}},
		{"room with unknown key", "rooms:\n  - id: x\n    slow_mode: 3\n", []string{`p.yaml:3:5: rooms[0].slow_mode: no such key; did you mean slow_mode_s?`}},
		{"room title", "rooms: [{id: x, title: " + strings.Repeat("y", 201) + "}]\n", []string{`is too long`}},
		{"rooms is a mapping", "rooms: {id: x}\n", []string{`rooms: is a mapping; allowed: a list of {id, title, mode, visibility, slow_mode_s}`}},
		{"room is a text", "rooms: [lobby]\n", []string{`rooms[0]: is a text`}},
		{"nobody may connect", "auth: {guests: false, jwt: {algorithm: \"\"}}\n", []string{`p.yaml:1:16: auth.guests: guests are off and so are tokens`}},
		{"EdDSA without key", "auth:\n  jwt:\n    algorithm: EdDSA\n", []string{`p.yaml:3:16: auth.jwt.algorithm: EdDSA needs auth.jwt.key_file`}},
		{"two policies", "policy: {dir: x, git: {url: y}}\n", []string{`p.yaml:1:15: policy.dir: policy.dir and policy.git.url are both set`}},
		{"text above frame", "limits: {frame_bytes: 2KiB}\n", []string{`limits.frame_bytes: limits.text_bytes is larger`}},
		{"burst below rate", "limits: {commands_per_second: 100}\n", []string{`limits.commands_per_second: limits.commands_burst is smaller`}},
		{"pong after ping", "liveness: {ping: 2s}\n", []string{`liveness.ping: liveness.pong must be shorter`}},
		{"heartbeats judged, none sent", "liveness: {mode: ping, ping: 0}\n", []string{`liveness.mode: liveness.mode ping closes on overdue heartbeats`}},
		{"two witnesses, no heartbeat", "liveness: {mode: both, ping: 0}\n", []string{`liveness.mode: liveness.mode both closes on overdue heartbeats`}},
		{"two witnesses, no KeepAlive", "liveness: {mode: both, keepalive_idle: 0}\n", []string{`liveness.mode: liveness.mode both waits for TCP KeepAlive`}},
		{"same address", "tcp: {listen: \"127.0.0.1:8080\"}\n", []string{`tcp.listen: listen and tcp.listen are both 127.0.0.1:8080`}},
		{"all at once", "listen: 1\nlog: {level: loud}\nfoo: 1\n", []string{`p.yaml:1:9: listen`, `p.yaml:2:14: log.level`, `p.yaml:3:1: foo`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := config.Parse("p.yaml", []byte(tt.file), nil, nil)
			got := problems(t, err)
			if len(got) != len(tt.want) {
				t.Fatalf("got %d problems, want %d:\n%s", len(got), len(tt.want), strings.Join(got, "\n"))
			}
			for i := range got {
				if !strings.Contains(got[i], tt.want[i]) {
					t.Errorf("problem %d: got %q, want it to contain %q", i, got[i], tt.want[i])
				}
				if strings.Contains(got[i], "hunter2") {
					t.Errorf("problem %d shows a password: %s", i, got[i])
				}
			}
		})
	}
}

func TestBadEnvironmentAndFlags(t *testing.T) {
	tests := []struct {
		name  string
		env   []string
		flags map[string]string
		want  []string
	}{
		{"unknown variable", []string{"PARLEY_LIMITS_FRAME_BYTE=1"}, nil, []string{"environment: PARLEY_LIMITS_FRAME_BYTE: no such variable; did you mean PARLEY_LIMITS_FRAME_BYTES?"}},
		{"typo that looks like a port", []string{"PARLEY_LISTEN_PORT=80"}, nil, []string{"PARLEY_LISTEN_PORT: no such variable"}},
		{"bad value", []string{"PARLEY_LIVENESS_PONG=3"}, nil, []string{`environment: PARLEY_LIVENESS_PONG: "3" has no unit; allowed: a time`}},
		{"bad bool", []string{"PARLEY_AUTH_GUESTS=1"}, nil, []string{`"1" is not true or false`}},
		{"twice", []string{"PARLEY_LISTEN=:1", "PARLEY_LISTEN=:2"}, nil, []string{`is set twice`}},
		{"control characters in a name", []string{"PARLEY_\x1b[31m=1"}, nil, []string{`"PARLEY_\x1b[31m": no such variable`}},
		{"unknown flag", nil, map[string]string{"limits.frame-bytes": "1"}, []string{"flag: --limits.frame-bytes: no such flag; did you mean --limits.frame_bytes?"}},
		{"bad flag", nil, map[string]string{"log.level": "x"}, []string{`flag: --log.level: "x" is not among the choices; allowed: debug, info, warn, error`}},
		{"rooms flag with a bad item", nil, map[string]string{"rooms": "[{id: x, mode: opn}]"}, []string{`flag: --rooms rooms[0].mode: "opn" is not among the choices; did you mean "open"?`}},
		{"rooms flag is not YAML", nil, map[string]string{"rooms": "[{"}, []string{`flag: --rooms: not valid YAML`}},
		{"user timeout below lag", nil, map[string]string{"liveness.user_timeout": "30s"}, []string{`flag: --liveness.user_timeout: liveness.user_timeout must be longer than limits.lag_seconds`}},
		{"user timeout without a lag limit", nil, map[string]string{"limits.lag_seconds": "0"}, []string{`flag: --limits.lag_seconds: limits.lag_seconds is 0, so slow readers may stand still for ever, but liveness.user_timeout lets the kernel end them; set it to 0 as well`}},
		{"rule blames the flag", nil, map[string]string{"liveness.ping": "1s"}, []string{`flag: --liveness.ping: liveness.pong must be shorter`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := config.Parse("", nil, tt.env, tt.flags)
			got := problems(t, err)
			if len(got) != len(tt.want) {
				t.Fatalf("got %q, want %q", got, tt.want)
			}
			for i := range got {
				if !strings.Contains(got[i], tt.want[i]) {
					t.Errorf("got %q, want it to contain %q", got[i], tt.want[i])
				}
			}
		})
	}
}

func TestListsAsText(t *testing.T) {
	got, err := config.Parse("", nil, []string{"PARLEY_ORIGINS=https://a.b, https://c.d"},
		map[string]string{"rooms": `[{id: den, title: "The den"}]`})
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"https://a.b", "https://c.d"}; !reflect.DeepEqual(got.Origins, want) {
		t.Errorf("origins: got %q, want %q", got.Origins, want)
	}
	if len(got.Rooms) != 1 || got.Rooms[0].ID != "den" || got.Rooms[0].Settings().Title != "The den" || got.Rooms[0].Mode != state.ModeOpen {
		t.Errorf("rooms: got %+v, want the den with defaults", got.Rooms)
	}
	got, err = config.Parse("", nil, nil, map[string]string{"rooms": ""})
	if err != nil || len(got.Rooms) != 0 {
		t.Errorf("empty rooms: got %v, %v, want none", got.Rooms, err)
	}
}

// A Service named parley must not stop a server in the same namespace.
func TestOrchestratorVariablesAreIgnored(t *testing.T) {
	env := []string{
		"PARLEY_SERVICE_HOST=10.0.0.1", "PARLEY_SERVICE_PORT=80", "PARLEY_SERVICE_PORT_HTTP=80",
		"PARLEY_PORT=tcp://10.0.0.1:80", "PARLEY_PORT_80_TCP=tcp://10.0.0.1:80", "PARLEY_PORT_80_TCP_PROTO=tcp",
		"PARLEY_REDIS_PORT_6379_TCP_ADDR=10.0.0.2", "PARLEY_REDIS_SERVICE_HOST=10.0.0.2",
	}
	if _, err := config.Parse("", nil, env, nil); err != nil {
		t.Errorf("got %v, want no error", err)
	}
}

func TestProblemsAreBounded(t *testing.T) {
	var file strings.Builder
	for i := range 500 {
		fmt.Fprintf(&file, "unknown%d: 1\n", i)
	}
	_, err := config.Parse("p.yaml", []byte(file.String()), nil, nil)
	if got := problems(t, err); len(got) != config.MaxProblems {
		t.Errorf("got %d problems, want %d", len(got), config.MaxProblems)
	}
	if !strings.Contains(err.Error(), "500 problems in the configuration:") || !strings.Contains(err.Error(), "and 480 more") {
		t.Errorf("got %q, want the counts", err.Error())
	}
}

func TestRoomsAreBounded(t *testing.T) {
	file := "rooms: [" + strings.Repeat("{id: x},", 1001) + "]"
	_, err := config.Parse("p.yaml", []byte(file), nil, nil)
	if got := problems(t, err); len(got) != 1 || !strings.Contains(got[0], "lists 1001 rooms; allowed: at most 1000") {
		t.Errorf("got %q, want one problem about the bound", got)
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "parley.yaml")
	write := func(data string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("listen: \":1234\"\n")
	if got, err := config.Load(path, nil, nil); err != nil || got.Listen != ":1234" {
		t.Errorf("got %q, %v, want :1234", got.Listen, err)
	}
	if got, err := config.Load("", nil, nil); err != nil || got.Listen != "127.0.0.1:8080" {
		t.Errorf("no file: got %q, %v, want the default", got.Listen, err)
	}
	write(strings.Repeat("#", config.MaxFileBytes+1))
	if _, err := config.Load(path, nil, nil); err == nil || !strings.Contains(err.Error(), "larger than 256KiB") {
		t.Errorf("large file: got %v, want the bound", err)
	}
	if _, err := config.Load(filepath.Join(dir, "none"), nil, nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no such file: got %v, want ErrNotExist", err)
	}
	if _, err := config.Load(dir, nil, nil); err == nil || !strings.Contains(err.Error(), "read configuration") {
		t.Errorf("a folder: got %v, want a read error", err)
	}
}
