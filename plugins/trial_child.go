package plugins

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"parley/core/child"
	"parley/plugins/wasmbin"
	"parley/sdk/abi"
)

// trialRequest goes to a child as the length of its JSON (4 bytes, little
// endian), the JSON, and the module to the end.
type trialRequest struct {
	Config trialConfig     `json:"config"`
	Name   string          `json:"name"`
	JSON   json.RawMessage `json:"manifest"` // canonical
}

// trialConfig is the part of Config that decides how a module runs.
type trialConfig struct {
	CacheDir                                                      string
	Fuel, GoFuel                                                  uint64
	MemoryBytes, GoMemoryBytes, InputBytes, OutputBytes, PoolSize int
	OnError                                                       abi.Verdict
	Module                                                        wasmbin.Limits
}

// A canonical manifest spells out what its file left to the defaults.
const (
	maxTrialManifest = 16 << 20
	maxTrialRequest  = 4 + maxTrialManifest + 64<<10 + maxKeptBytes
)

func (h *Host) trialRequest(scratch, name string, file []byte, m Manifest) ([]byte, error) {
	c := h.cfg
	b, err := json.Marshal(trialRequest{
		Config: trialConfig{scratch, c.Fuel, c.GoFuel, c.MemoryBytes, c.GoMemoryBytes, c.InputBytes, c.OutputBytes, 1, c.OnError, c.Module},
		Name:   name, JSON: m.unsigned().JSON(),
	})
	if err != nil {
		return nil, fmt.Errorf("encode the request for its trial: %w", err)
	}
	out := binary.LittleEndian.AppendUint32(nil, uint32(len(b)))
	return append(append(out, b...), file...), nil
}

// unsigned returns m without what has been checked before its trial.
func (m Manifest) unsigned() Manifest {
	m.SHA256, m.Signature = "", nil
	return m
}

// TrialMain is the child's side of a trial: it tries the one module that it
// reads from in and writes the verdict to out. It returns the exit code. The
// program that Trial.Command names must do nothing else.
func TrialMain(in io.Reader, out io.Writer) int {
	return child.Serve(in, out, maxTrialRequest, serveTrial)
}

// serveTrial answers one request with a verdict, what is none with nothing.
func serveTrial(b []byte) []byte {
	if len(b) < 4 {
		return nil
	}
	n, rest := binary.LittleEndian.Uint32(b), b[4:]
	var req trialRequest
	if uint64(n) > uint64(len(rest)) || json.Unmarshal(rest[:n], &req) != nil {
		return nil
	}
	answer, err := json.Marshal(verdictOf(req.run(rest[n:])))
	if err != nil {
		return nil // texts and booleans
	}
	return answer
}

func (req *trialRequest) run(file []byte) (err error) {
	m, err := parseManifest(req.JSON, maxTrialManifest)
	if err != nil {
		return err
	}
	cfg, c := Defaults(), req.Config
	cfg.CacheDir, cfg.Fuel, cfg.GoFuel, cfg.MemoryBytes, cfg.GoMemoryBytes = c.CacheDir, c.Fuel, c.GoFuel, c.MemoryBytes, c.GoMemoryBytes
	cfg.InputBytes, cfg.OutputBytes, cfg.PoolSize, cfg.OnError, cfg.Module = c.InputBytes, c.OutputBytes, c.PoolSize, c.OnError, c.Module
	h, err := NewHost(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		return passing(err)
	}
	defer func() {
		if e := h.Close(); e != nil {
			err = errors.Join(err, passing(e))
		}
	}()
	_, err = h.Load(context.Background(), req.Name, file, m)
	return err
}
