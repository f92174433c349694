package moderation

import (
	"bytes"
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
	// configuration is loaded any more: they could not be asked.
	Missing []string `json:"missing,omitempty"`
	// Differences say what is not as it was recorded, one sentence each.
	Differences []string `json:"differences,omitempty"`
	// Equal says that every plugin was asked again and nothing differs.
	Equal bool `json:"equal"`
}

// Replay judges a recorded message again, by the plugins in force that have
// the module and the configuration of those recorded, with the very bytes they
// saw. It runs on the caller's goroutine and counts for the plugins as any
// decision does.
func (s *Stage) Replay(d *Decision, input []byte) (Replay, error) {
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
		j := find(judges, was)
		if j == nil {
			r.Missing = append(r.Missing, fmt.Sprintf("%s (module %.12s)", was.Name, was.Digest))
			continue
		}
		r.ask(&mg, j, was, input, text, normalized)
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
	v, result, fuel, err := decide(j, input, text, normalized)
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

func find(judges []Judge, was *Vote) Judge {
	for _, j := range judges {
		if j.Name() == was.Name && j.Digest() == was.Digest && j.ConfigDigest() == was.Config {
			return j
		}
	}
	return nil
}
