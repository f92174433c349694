package policy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"parley/core/child"
	"parley/core/gate"
)

// Trial says how a policy that has not been tried yet is tried: in a child
// process, because compiling and testing what strangers wrote can take any
// amount of memory, and nothing can stop it from within. OPA has bounds for
// what an evaluation may take, and none for its parser, its compiler and the
// values a test makes.
type Trial struct {
	// Command is the argv of a process that calls TrialMain; see
	// child.Command. Without one policies are tried in this process, which is
	// for policies of one's own making.
	Command []string
	Limits  child.Limits
}

// DefaultTrial returns the limits of a server, without a command.
func DefaultTrial() Trial {
	return Trial{Limits: child.Limits{
		MemoryBytes: 512 << 20,        // 4 MiB of rules and data become some hundred
		CPU:         20 * time.Second, // the default policy needs 0.1 s
		Wall:        time.Minute,
		AnswerBytes: maxVerdictBytes,
	}}
}

// Sample is a question that was asked in earnest.
type Sample struct {
	ID    string     `json:"id"` // of the decision in the log
	Input gate.Input `json:"input"`
}

// MaxSamples bounds the samples of one trial.
const MaxSamples = 256

// Verdict is what a trial found.
type Verdict struct {
	// Problems are why the policy is refused; nil when it passed.
	Problems Problems `json:"problems,omitempty"`
	// Warnings do not keep a policy from going live.
	Warnings Problems `json:"warnings,omitempty"`
	// Tests is how many of the policy's own tests passed.
	Tests int `json:"tests"`
	// Reads is Engine.Reads.
	Reads []string `json:"reads"`
}

const (
	maxVerdictBytes = 256 << 10
	maxTrialBytes   = 2*MaxBytes + 8<<20 // files in base64, and samples
	tries           = 2                  // of a child that the machine may be to blame for
)

type trialRequest struct {
	Options Options  `json:"options"`
	Files   Files    `json:"files"`
	Samples []Sample `json:"samples"`
}

// Try tries files under the options: bounds, strict parse, compile with pure
// builtins alone, the usual form (a warning), the policy's own tests, a plain
// question per action, and each sample. A policy that is refused has Problems
// in its Verdict, also when it took the child down: then they name the limit.
// The error is ctx's, or why no child could try it.
func (t Trial) Try(ctx context.Context, o Options, files Files, samples []Sample) (Verdict, error) {
	if err := files.Check(); err != nil { // before anything of it is copied
		return refusedBy(ctx, err)
	}
	if len(t.Command) == 0 {
		return o.try(ctx, files, samples)
	}
	request, err := json.Marshal(trialRequest{o, files, samples[:min(len(samples), MaxSamples)]})
	if err != nil {
		return Verdict{}, fmt.Errorf("try the policy: encode the request: %w", err)
	}
	if len(request) > maxTrialBytes {
		return Verdict{}, fmt.Errorf("try the policy: a request of %d bytes, at most %d are sent", len(request), maxTrialBytes)
	}
	var answer []byte
	for range tries {
		if answer, err = child.Run(ctx, t.Command, t.Limits, request); !child.Passing(err) {
			break
		}
	}
	switch {
	case errors.Is(err, child.ErrDied):
		return Verdict{Problems: Problems{{Reason: clip(err.Error(), maxReasonBytes)}}}, nil
	case err != nil:
		return Verdict{}, fmt.Errorf("try the policy: %w", err)
	}
	var v Verdict
	if err := json.Unmarshal(answer, &v); err != nil {
		return Verdict{}, fmt.Errorf("try the policy: the child's answer: %w", err)
	}
	return v, nil
}

// refusedBy is the Verdict of a refusal, or err where it is none.
func refusedBy(ctx context.Context, err error) (Verdict, error) {
	var problems Problems
	if ctx.Err() == nil && errors.As(err, &problems) {
		return Verdict{Problems: problems}, nil
	}
	return Verdict{}, err
}

// try does in this process what Trial.Try promises.
func (o Options) try(ctx context.Context, files Files, samples []Sample) (Verdict, error) {
	e, err := o.Compile(ctx, files, "trial")
	if err != nil {
		return refusedBy(ctx, err)
	}
	var found Problems
	for i := range samples {
		s := &samples[i]
		_, err := e.Evaluate(ctx, &s.Input)
		if errors.Is(err, errSlow) { // a machine that stands still for a second is not the policy's fault
			_, err = e.Evaluate(ctx, &s.Input)
		}
		if ctx.Err() != nil {
			return Verdict{}, fmt.Errorf("try the policy: %w", ctx.Err())
		}
		if err != nil && len(found) < 3 {
			p := Problem{Reason: fmt.Sprintf("it cannot answer what %s asked (%s, decision %s): %v", s.Input.Subject.ID, s.Input.Action.Name, s.ID, err)}
			if loc := evalLocation(err); loc != nil {
				p.File, p.Line = loc.File, loc.Row
			}
			found = append(found, p)
		}
	}
	if err := found.err(); err != nil {
		return refusedBy(ctx, err)
	}
	return Verdict{Warnings: unformatted(files), Tests: e.tests, Reads: e.Reads()}, nil
}

// TrialMain is the child's side of a trial. It returns the exit code. The
// program must do nothing else.
func TrialMain(in io.Reader, out io.Writer) int {
	return child.Serve(in, out, maxTrialBytes, func(b []byte) []byte {
		var req trialRequest
		v, err := Verdict{}, json.Unmarshal(b, &req)
		if err == nil {
			v, err = req.Options.try(context.Background(), req.Files, req.Samples)
		}
		if err != nil {
			v = Verdict{Problems: Problems{{Reason: clip(err.Error(), maxReasonBytes)}}}
		}
		answer, err := json.Marshal(v)
		if err != nil {
			return nil // a text that is no UTF-8 becomes one; nothing else can fail
		}
		return answer
	})
}

// Build tries files and compiles them in this process once they have passed.
// A refusal is Problems.
func (t Trial) Build(ctx context.Context, o Options, files Files, revision string, samples []Sample, log *slog.Logger) (*Engine, error) {
	v, err := t.Try(ctx, o, files, samples)
	if err != nil {
		return nil, err
	}
	if len(v.Problems) > 0 {
		return nil, v.Problems
	}
	for _, w := range v.Warnings {
		log.Warn("policy taken with a warning", "revision", revision, "warning", w.String())
	}
	return o.CompileTried(ctx, files, revision, v)
}
