package moderation

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"parley/core/chat"
	"parley/sdk/abi"
)

// Replay is what became of judging a recorded message again.
type Replay struct {
	// Verdict, Reasons and Plugins are what the plugins say now. They are
	// complete only where Missing is empty.
	Verdict string        `json:"verdict"`
	Reasons []chat.Reason `json:"reasons,omitempty"`
	Plugins []Vote        `json:"plugins"`
	// Missing names recorded plugins of which no version of that module and
	// configuration is loaded or kept any more: they could not be asked.
	Missing []string `json:"missing,omitempty"`
	// Differences say what is not as it was recorded, one sentence each.
	Differences []string `json:"differences,omitempty"`
	// Equal says that every plugin was asked again and nothing differs.
	Equal bool `json:"equal"`
}

// Archive brings back versions that are not loaded any more; a Source may be
// one.
type Archive interface {
	// Revive returns the version of a plugin that has that module and that
	// configuration, see Judge. release frees it; it is called once, after the
	// last decision.
	Revive(ctx context.Context, name, digest, config string) (j Judge, release func(), err error)
}

// Replay judges a recorded message again, with the very bytes the plugins saw,
// by versions that have the module and the configuration of those recorded:
// loaded ones, or those that the source keeps, where it is an Archive. It runs
// on the caller's goroutine and changes nothing for live messages, nor does a
// plugin's quarantine keep it from being asked; see Rehearser.
func (s *Stage) Replay(ctx context.Context, d *Decision, input []byte) (Replay, error) {
	text, err := abi.FieldBytes(input, abi.FieldText)
	if err != nil {
		return Replay{}, fmt.Errorf("replay %s: %w", d.ID, err)
	}
	normalized, err := abi.FieldBytes(input, abi.FieldNormalized)
	if err != nil {
		return Replay{}, fmt.Errorf("replay %s: %w", d.ID, err)
	}
	form, err := Normalize(string(text), 0)
	if err != nil {
		return Replay{}, fmt.Errorf("replay %s: %w", d.ID, err)
	}
	var r Replay
	if !bytes.Equal(form.Bytes(), normalized) {
		r.differ("this version of the server normalises the text differently; the plugins were given what was recorded")
	}
	mg := merger{form: form}
	mg.res.Records = make([]Record, 0, len(d.Plugins))
	judges := s.source.Judges()
	for i := range d.Plugins {
		was := &d.Plugins[i]
		if was.Digest == "" && was.Error == errMissing.Error() { // the policy asked for it and nobody judged
			mg.add(Record{Plugin: was.Name, Part: Enforce, Verdict: abi.Error, Err: errMissing, OnError: abi.Deny}, abi.Deny, &abi.Result{})
			r.Plugins = append(r.Plugins, *was)
			continue
		}
		j, release, err := s.version(ctx, judges, was)
		if err != nil {
			r.Missing = append(r.Missing, fmt.Sprintf("%s (module %.12s): %s", was.Name, was.Digest, clip(sanitize(err.Error()))))
			continue
		}
		r.ask(&mg, j, was, input, text, normalized)
		release()
	}
	if err := ctx.Err(); err != nil {
		return Replay{}, err
	}
	res := mg.result(string(text))
	r.Verdict, r.Reasons = res.Verdict.String(), res.Reasons
	if len(r.Missing) == 0 {
		if r.Verdict != d.Verdict {
			r.differ("together the plugins say %s, recorded is %s", r.Verdict, d.Verdict)
		} else if !slices.Equal(r.Reasons, d.Reasons) {
			r.differ("the reasons are others than those recorded")
		}
	}
	r.Equal = len(r.Missing) == 0 && len(r.Differences) == 0
	return r, nil
}

// ask lets one plugin judge again and compares.
func (r *Replay) ask(mg *merger, j Judge, was *Vote, input, text, normalized []byte) {
	start := time.Now()
	v, result, fuel, err := decide(rehearsed{j}, input, text, normalized)
	rec := Record{
		Plugin: j.Name(), Digest: j.Digest(), Version: j.Version(), Config: j.ConfigDigest(), OnError: j.OnError(),
		Verdict: v, Code: result.Code, Score: result.Score, Fuel: fuel, Time: time.Since(start), Err: err,
	}
	if was.Part == Canary.String() {
		rec.Part = Canary
	} else if was.Part == Shadow.String() {
		rec.Part = Shadow
	}
	if rec.Part == Shadow || rec.Part == Canary && err != nil { // as then, it does not count
		mg.note(rec)
	} else {
		mg.add(rec, rec.OnError, &result)
	}
	now := vote(&rec)
	r.Plugins = append(r.Plugins, now)
	for _, c := range []struct {
		what     string
		now, was any
	}{
		{"verdict", now.Verdict, was.Verdict}, {"code", now.Code, was.Code}, {"score", now.Score, was.Score},
		{"fuel", now.Fuel, was.Fuel}, {"on_error", now.OnError, was.OnError},
	} {
		if c.now != c.was {
			r.differ("plugin %s: %s is %v, recorded is %v", was.Name, c.what, c.now, c.was)
		}
	}
}

func (r *Replay) differ(format string, args ...any) {
	r.Differences = append(r.Differences, fmt.Sprintf(format, args...))
}

var errNotLoaded = errors.New("no version like it is loaded any more")

// version finds the version that judged then.
func (s *Stage) version(ctx context.Context, judges []Judge, was *Vote) (Judge, func(), error) {
	for _, j := range judges {
		if j.Name() == was.Name && j.Digest() == was.Digest && j.ConfigDigest() == was.Config {
			return j, func() {}, nil
		}
	}
	if a, ok := s.source.(Archive); ok {
		return a.Revive(ctx, was.Name, was.Digest, was.Config)
	}
	return nil, nil, errNotLoaded
}

// Input encodes what plugins are told about m, as Judge does.
func (s *Stage) Input(m *Message) ([]byte, error) {
	sc := s.scratch.Get().(*scratch)
	defer s.put(sc)
	if err := sc.encode(m, s.cfg.InputBytes); err != nil {
		return nil, err
	}
	return slices.Clone(sc.input), nil
}
