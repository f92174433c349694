package plugins

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"
	"time"

	"parley/plugins/wasmbin"
	"parley/sdk/abi"
)

// trialRequest is what a child reads: the length of its JSON (4 bytes, little
// endian), the JSON, and the module to the end.
type trialRequest struct {
	Config trialConfig     `json:"config"`
	Name   string          `json:"name"`
	JSON   json.RawMessage `json:"manifest"` // canonical
	Memory uint64          `json:"memory"`   // see Trial
	CPU    time.Duration   `json:"cpu"`
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
	maxTrialRequest  = maxTrialManifest + 64<<10
)

func (h *Host) trialRequest(scratch, name string, file []byte, m Manifest) ([]byte, error) {
	c := h.cfg
	b, err := json.Marshal(trialRequest{
		Config: trialConfig{scratch, c.Fuel, c.GoFuel, c.MemoryBytes, c.GoMemoryBytes, c.InputBytes, c.OutputBytes, 1, c.OnError, c.Module},
		Name:   name, JSON: m.unsigned().JSON(), Memory: c.Trial.MemoryBytes, CPU: c.Trial.CPU,
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

// TrialMain is the child's side of a trial: it limits its own process, reads
// one module from in, tries it, and writes the verdict to out. It returns the
// exit code. The program that Trial.Command names must do nothing else.
func TrialMain(in io.Reader, out io.Writer) int {
	debug.SetTraceback("none")
	head := make([]byte, 4)
	if _, err := io.ReadFull(in, head); err != nil {
		return 2
	}
	n := binary.LittleEndian.Uint32(head)
	if n > maxTrialRequest {
		return 2
	}
	text := make([]byte, n)
	var req trialRequest
	if _, err := io.ReadFull(in, text); err != nil || json.Unmarshal(text, &req) != nil {
		return 2
	}
	err := limitProcess(req.Memory, req.CPU)
	if err != nil {
		err = passing(err)
	} else {
		err = req.run(in)
	}
	b, _ := json.Marshal(verdictOf(err)) // texts and booleans
	if _, err := out.Write(b); err != nil {
		return 2
	}
	return 0
}

func (req *trialRequest) run(in io.Reader) (err error) {
	file, err := io.ReadAll(io.LimitReader(in, int64(req.Config.Module.FileBytes)+1))
	if err != nil {
		return passing(fmt.Errorf("read the module: %w", err))
	}
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
