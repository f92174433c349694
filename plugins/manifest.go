package plugins

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"slices"
	"time"

	"parley/core/chat"
	"parley/sdk/abi"
)

// Manifest is what NAME.json says about NAME.wasm. Every key is optional.
type Manifest struct {
	Name        string     // if given, equal to the file's name without ".wasm"
	Version     string     // for people
	Description string     // for people
	SHA256      string     // hex, see ModuleDigest; another digest refuses the module
	Signature   *Signature // nil if unsigned
	Kinds       []string   // "message", "edit", "nick", "topic"; nil means all
	Rooms       []string   // names or patterns ("support-*"); nil means all
	Limits      Limits
	OnError     abi.Verdict     // Allow (open), Deny (closed), Hold, or Error: not said, Config.OnError counts
	Config      json.RawMessage // a JSON object, passed to the guest as it stands; nil for none
	// ConfigSchema is a JSON Schema that Config must satisfy; nil for none. See
	// CheckConfig.
	ConfigSchema json.RawMessage
	Vectors      []Vector // test vectors, which the module must pass to be loaded
	Rollout      *Rollout // nil: enforced at once
}

// Limits are a plugin's own; zero means the server's default.
type Limits struct {
	Fuel        uint64 `json:"fuel"`         // of one decision
	MemoryBytes int    `json:"memory_bytes"` // rounded down to 64 KiB
	InputBytes  int    `json:"input_bytes"`  // of one encoded input
	OutputBytes int    `json:"output_bytes"` // of one encoded result
}

// Stages of a rollout.
const (
	StageShadow  = "shadow"  // judges everything, decides nothing
	StageCanary  = "canary"  // decides for Percent of rooms and users
	StageEnforce = "enforce" // decides for all
)

// Rollout says how a version comes into force.
type Rollout struct {
	Stage        string        // to begin with; default StageShadow
	Percent      int           // of canary, 1 to 100; default 5
	PromoteAfter time.Duration // in one stage, then to the next; 0: never by itself
	Guards       Guards
}

// Guards are thresholds that take a version back when crossed. Zero: not
// watched.
type Guards struct {
	ErrorRate    float64       // failed decisions, 0 to 1; default 0.01
	DenyRate     float64       // denials, 0 to 1; default 0.2
	Disagreement float64       // verdicts other than those of the version it replaces, 0 to 1; default 0.2
	P99Fuel      uint64        // default 0
	P99Time      time.Duration // of one decision; default 0
	MinDecisions int           // nothing is concluded from fewer; default 100
}

const (
	maxManifestBytes = 1 << 20 // a word list in "config" included
	maxManifestItems = 1_000   // kinds, rooms or vectors
	maxLabelBytes    = 1_024   // version or description
	maxPromoteAfter  = 30 * 24 * time.Hour
)

var kinds = []string{"message", "edit", "nick", "topic"}

// ParseManifest decodes a manifest strictly: an unknown or repeated key, a
// value of the wrong type or out of range and anything after the object are
// errors, which name the line, the key and what is allowed. It does not hold
// Config against ConfigSchema: CheckConfig does, at a cost that a stranger's
// schema decides.
func ParseManifest(b []byte) (Manifest, error) { return parseManifest(b, maxManifestBytes) }

func parseManifest(b []byte, most int) (Manifest, error) {
	var m Manifest
	m.OnError = abi.Error
	if len(b) > most {
		return m, fmt.Errorf("manifest has %d bytes, at most %d", len(b), most)
	}
	d := &manifestDecoder{b: b, dec: json.NewDecoder(bytes.NewReader(b))}
	err := d.object("", map[string]func() error{
		"name":          func() error { return d.name(&m.Name) },
		"version":       func() error { return d.text(&m.Version) },
		"description":   func() error { return d.text(&m.Description) },
		"sha256":        func() error { return d.digest(&m.SHA256) },
		"signature":     func() error { return d.signature(&m.Signature) },
		"kinds":         func() error { return d.list(&m.Kinds, knownKind) },
		"rooms":         func() error { return d.list(&m.Rooms, knownRoom) },
		"on_error":      func() error { return d.onError(&m.OnError) },
		"config":        func() error { return d.raw(&m.Config) },
		"config_schema": func() error { return d.raw(&m.ConfigSchema) },
		"vectors":       func() error { return d.vectors(&m.Vectors) },
		"rollout":       func() error { return d.rollout(&m.Rollout) },
		"limits": func() error {
			return d.object("limits.", map[string]func() error{
				"fuel":         func() error { return number(d, &m.Limits.Fuel, maxFuel) },
				"memory_bytes": func() error { return number(d, &m.Limits.MemoryBytes, maxMemoryBytes) },
				"input_bytes":  func() error { return number(d, &m.Limits.InputBytes, maxInputBytes) },
				"output_bytes": func() error { return number(d, &m.Limits.OutputBytes, maxOutputBytes) },
			})
		},
	})
	if err != nil {
		return m, err
	}
	if _, err := d.dec.Token(); err != io.EOF {
		return m, d.errorf("nothing may follow the object")
	}
	return m, nil
}

func (d *manifestDecoder) rollout(into **Rollout) error {
	r := &Rollout{Stage: StageShadow, Percent: 5,
		Guards: Guards{ErrorRate: 0.01, DenyRate: 0.2, Disagreement: 0.2, MinDecisions: 100}}
	percent, least := uint64(r.Percent), uint64(r.Guards.MinDecisions)
	err := d.object("rollout.", map[string]func() error{
		"stage":         func() error { return d.word(&r.Stage, StageShadow, StageCanary, StageEnforce) },
		"percent":       func() error { return d.whole(&percent, 1, 100) },
		"promote_after": func() error { return d.duration(&r.PromoteAfter, maxPromoteAfter) },
		"guards": func() error {
			return d.object("rollout.guards.", map[string]func() error{
				"error_rate":    func() error { return d.share(&r.Guards.ErrorRate) },
				"deny_rate":     func() error { return d.share(&r.Guards.DenyRate) },
				"disagreement":  func() error { return d.share(&r.Guards.Disagreement) },
				"p99_fuel":      func() error { return d.whole(&r.Guards.P99Fuel, 0, maxFuel) },
				"p99_time":      func() error { return d.duration(&r.Guards.P99Time, time.Minute) },
				"min_decisions": func() error { return d.whole(&least, 1, 1_000_000) },
			})
		},
	})
	r.Percent, r.Guards.MinDecisions = int(percent), int(least)
	*into = r
	return err
}

// JSON returns the manifest in its canonical form, which is what a signature
// covers: one line without white space between tokens, keys in alphabetical
// order, keys that say nothing left out, a rollout with all its keys, config
// and config_schema with their keys in the order they were written in. Parsing
// it gives the same manifest again.
func (m Manifest) JSON() []byte {
	out := struct {
		Config       json.RawMessage `json:"config,omitempty"`
		ConfigSchema json.RawMessage `json:"config_schema,omitempty"`
		Description  string          `json:"description,omitempty"`
		Kinds        *[]string       `json:"kinds,omitempty"`
		Limits       *limitsJSON     `json:"limits,omitempty"`
		Name         string          `json:"name,omitempty"`
		OnError      string          `json:"on_error,omitempty"`
		Rollout      *rolloutJSON    `json:"rollout,omitempty"`
		Rooms        *[]string       `json:"rooms,omitempty"`
		SHA256       string          `json:"sha256,omitempty"`
		Signature    *signatureJSON  `json:"signature,omitempty"`
		Vectors      []vectorJSON    `json:"vectors,omitempty"`
		Version      string          `json:"version,omitempty"`
	}{
		Config: m.Config, ConfigSchema: m.ConfigSchema, Description: m.Description, Name: m.Name,
		SHA256: m.SHA256, Version: m.Version,
	}
	if m.Kinds != nil { // an empty list is not the same as none
		out.Kinds = &m.Kinds
	}
	if m.Rooms != nil {
		out.Rooms = &m.Rooms
	}
	if m.OnError != abi.Error {
		out.OnError = onErrorName(m.OnError)
	}
	if l := m.Limits; l != (Limits{}) {
		out.Limits = &limitsJSON{l.Fuel, l.InputBytes, l.MemoryBytes, l.OutputBytes}
	}
	if s := m.Signature; s != nil {
		out.Signature = &signatureJSON{base64.StdEncoding.EncodeToString(s.Key), base64.StdEncoding.EncodeToString(s.Value)}
	}
	if r := m.Rollout; r != nil {
		g := r.Guards
		out.Rollout = &rolloutJSON{
			guardsJSON{g.DenyRate, g.Disagreement, g.ErrorRate, g.MinDecisions, g.P99Fuel, g.P99Time.String()},
			r.Percent, r.PromoteAfter.String(), r.Stage,
		}
	}
	for _, v := range m.Vectors {
		out.Vectors = append(out.Vectors, v.json())
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(out); err != nil {
		panic("plugins: encode manifest: " + err.Error()) // raw messages that ParseManifest did not read
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// The types of JSON, with their keys in alphabetical order.
type (
	limitsJSON struct {
		Fuel        uint64 `json:"fuel,omitempty"`
		InputBytes  int    `json:"input_bytes,omitempty"`
		MemoryBytes int    `json:"memory_bytes,omitempty"`
		OutputBytes int    `json:"output_bytes,omitempty"`
	}
	rolloutJSON struct {
		Guards       guardsJSON `json:"guards"`
		Percent      int        `json:"percent"`
		PromoteAfter string     `json:"promote_after"`
		Stage        string     `json:"stage"`
	}
	guardsJSON struct {
		DenyRate     float64 `json:"deny_rate"`
		Disagreement float64 `json:"disagreement"`
		ErrorRate    float64 `json:"error_rate"`
		MinDecisions int     `json:"min_decisions"`
		P99Fuel      uint64  `json:"p99_fuel"`
		P99Time      string  `json:"p99_time"`
	}
	signatureJSON struct {
		Key   string `json:"key"`
		Value string `json:"value"`
	}
)

// wants reports whether the plugin judges that kind of text in that room.
func (m *Manifest) wants(room chat.RoomID, kind string) bool {
	if m.Kinds != nil && !slices.Contains(m.Kinds, kind) {
		return false
	}
	if m.Rooms == nil {
		return true
	}
	for _, pattern := range m.Rooms {
		if ok, _ := path.Match(pattern, string(room)); ok { // checked when decoded
			return true
		}
	}
	return false
}
