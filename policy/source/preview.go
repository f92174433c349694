package source

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"parley/policy"
	"parley/policy/decisionlog"
	"parley/policy/preview"
)

// recent is what a new revision is asked.
func (s *Source) recent() []*decisionlog.Record {
	if s.cfg.Decisions == nil || s.cfg.Replay.Entries <= 0 {
		return nil
	}
	return s.cfg.Decisions.Recent(s.cfg.Replay.Entries)
}

// samplesOf is what of the records is asked in the trial: the newest that the
// policy could answer then, with nothing masked.
func samplesOf(records []*decisionlog.Record) (out []policy.Sample) {
	for i := len(records) - 1; i >= 0 && len(out) < policy.MaxSamples; i-- {
		if r := records[i]; !r.Failed && len(r.Masked) == 0 {
			out = append(out, policy.Sample{ID: r.ID, Input: *r.Input})
		}
	}
	return out
}

// judge compares e with the policy in use, keeps the report, and returns why
// the guard refuses e, unless somebody has let it pass.
func (s *Source) judge(ctx context.Context, e *policy.Engine, records []*decisionlog.Record) error {
	if s.live == nil {
		return nil // the first policy changes nothing
	}
	old := s.live.Engine()
	report := preview.Compare(ctx, old, e, records, s.cfg.Replay.Time)
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("replay recorded decisions: %w", err)
	}
	s.replayed.Add(uint64(report.Recorded))
	s.unequal.Add(uint64(report.Unequal))
	s.log.Info("policy replayed on recorded decisions", "revision", report.New, "before", report.Old, "result", report.Summary(), "took_ms", report.TookMS)
	if x := report.UnequalExample; x != nil {
		s.log.Error("RECORDED DECISIONS ARE NOT WHAT THEIR OWN RULES SAY: the cache or the log of this node is not to be trusted",
			"revision", old.Revision(), "unequal", report.Unequal, "of", report.Recorded, "decision", x.ID)
	}
	refusal := s.cfg.Guard.Check(ctx, &report, old, e)
	s.mu.Lock()
	s.report = &report
	by, ok := s.accepted[e.Revision()]
	if !ok {
		by, ok = s.passes[e.Revision()]
	}
	var exceeded *preview.Exceeded
	if errors.As(refusal, &exceeded) && ok {
		refusal = nil
	}
	delete(s.accepted, e.Revision())
	s.mu.Unlock()
	if ok && refusal == nil {
		s.log.Warn("policy.guard overridden", "revision", e.Revision(), "by", by, "result", report.Summary())
	}
	return refusal
}

// ErrAccept is wrapped by the error of an Accept that cannot be.
var ErrAccept = errors.New("it cannot be accepted")

// Bounds of an Accept.
const (
	maxName     = 128 // bytes of the person's name
	minRevision = 7   // characters of a commit that name it
)

// Accept lets the revision that policy.guard has refused go live all the same,
// in the name of by, who is recorded with it. rev may be the beginning of a
// commit. Nothing but the guard's refusal is overridden: what does not compile
// or fails its tests stays out.
func (s *Source) Accept(rev, by string) (revision string, err error) {
	by = strings.TrimSpace(by)
	if err := checkBy(by); err != nil {
		return "", err
	}
	refused := s.live.Status().Refused
	switch {
	case refused == nil:
		return "", fmt.Errorf("%w: no revision is refused", ErrAccept)
	case !Names(rev, refused.Revision):
		return "", fmt.Errorf("%w: the revision that is refused is %s, not %.80q", ErrAccept, refused.Revision, rev)
	case !refused.Overridable:
		return "", fmt.Errorf("%w: %s is refused for what it is, and not by policy.guard: %s", ErrAccept, refused.Revision, refused.Problems[0])
	}
	revision = refused.Revision
	s.mu.Lock()
	s.accepted[revision] = by
	s.mu.Unlock()
	s.happened(decisionlog.EventAccepted, revision, by, refused.Problems.Error())
	s.log.Warn("policy accepted past policy.guard", "revision", revision, "by", by)
	if s.share != nil {
		s.share.accept(revision, by)
	}
	switch {
	case s.git != nil:
		s.git.Retry()
	case s.dir != nil:
		s.dir.Retry()
	}
	return revision, nil
}

// Names reports whether rev means revision: in full, without the word before
// the colon, or by the beginning of that.
func Names(rev, revision string) bool {
	_, hash, _ := strings.Cut(revision, ":")
	return rev == revision || rev == hash && hash != "" || len(rev) >= minRevision && strings.HasPrefix(hash, rev)
}

// Audit is what the policy did since a moment, and whether it would again.
type Audit struct {
	Since    time.Time `json:"since"`
	Revision string    `json:"revision"` // in use
	// Events are what happened to the policy, the oldest first.
	Events []*decisionlog.Record `json:"events"`
	// Recorded decisions since then, by revision, and of them the refused.
	Recorded map[string]int `json:"recorded"`
	Denied   map[string]int `json:"denied"`
	// Blocked counts the refused by the code of their first reason.
	Blocked map[string]int `json:"blocked"`
	// Replayed is how many records of the revision in use were asked again,
	// Equal how many got the same answer, and Unequal the first that did not.
	Replayed int      `json:"replayed"`
	Equal    int      `json:"equal"`
	Unequal  []string `json:"unequal,omitempty"` // decision ids
	// Complete is false where there was more than one audit looks at.
	Complete bool `json:"complete"`
}

// Bounds of one audit.
const (
	maxAudited   = 20_000 // records
	auditTime    = 5 * time.Second
	maxUnequal   = 20
	maxRevisions = 1000
)

// Audit looks at what was recorded since a moment, the newest first.
func (s *Source) Audit(ctx context.Context, since time.Time) (Audit, error) {
	e := s.live.Engine()
	out := Audit{
		Since: since, Revision: e.Revision(), Complete: true, Events: []*decisionlog.Record{},
		Recorded: map[string]int{}, Denied: map[string]int{}, Blocked: map[string]int{},
	}
	if s.cfg.Decisions == nil {
		return out, nil
	}
	begin, seen := time.Now(), 0
	q := decisionlog.Query{Since: since, Limit: decisionlog.MaxPage}
	for {
		page, err := s.cfg.Decisions.Find(q)
		if err != nil {
			return out, err
		}
		for i := len(page.Records) - 1; i >= 0; i-- {
			if seen++; seen > maxAudited || time.Since(begin) > auditTime || ctx.Err() != nil || len(out.Recorded) > maxRevisions {
				out.Complete = false
				return out, ctx.Err()
			}
			s.auditOne(ctx, &out, e, page.Records[i])
		}
		if q.Before = page.Next; q.Before == "" {
			return out, nil
		}
	}
}

func (s *Source) auditOne(ctx context.Context, out *Audit, e *policy.Engine, r *decisionlog.Record) {
	if !r.IsDecision() {
		out.Events = append([]*decisionlog.Record{r}, out.Events...)
		return
	}
	out.Recorded[r.Revision]++
	if !r.Allow {
		out.Denied[r.Revision]++
		if len(r.Reasons) > 0 {
			out.Blocked[r.Reasons[0].Code]++
		}
	}
	if r.Revision != e.Revision() || r.Failed || r.NotReplayable || r.Hides(e.Reads()) {
		return
	}
	recorded := r.Decision()
	now, err := e.Evaluate(ctx, r.Input)
	if err != nil {
		return
	}
	out.Replayed++
	s.replayed.Add(1)
	if policy.Same(&recorded, &now) {
		out.Equal++
		return
	}
	s.unequal.Add(1)
	if len(out.Unequal) < maxUnequal {
		out.Unequal = append(out.Unequal, r.ID)
	}
}

// Explanation is a recorded decision and what the policy in use says of the
// same question now.
type Explanation struct {
	Record   *decisionlog.Record `json:"record"`
	Revision string              `json:"revision"` // in use
	Now      preview.Answer      `json:"now"`
	Error    string              `json:"error,omitempty"` // why the policy cannot answer
	// Exact is false where a masked field is one that the policy reads, or the
	// answer hangs on an address or an age that is not recorded: it means nothing.
	Exact bool          `json:"exact"`
	Rules []policy.Rule `json:"rules"`
	Trace string        `json:"trace"`
}

// ErrNoDecision says that no such decision is recorded here.
var ErrNoDecision = errors.New("this node has no such decision: it was allowed and not sampled, is too old, or was made on another node")

// Explain explains a recorded decision by the policy in use.
func (s *Source) Explain(ctx context.Context, id string) (Explanation, error) {
	if s.cfg.Decisions == nil {
		return Explanation{}, ErrNoDecision
	}
	page, err := s.cfg.Decisions.Find(decisionlog.Query{ID: id, Limit: 1})
	if err != nil {
		return Explanation{}, err
	}
	if len(page.Records) == 0 || page.Records[0].Input == nil {
		return Explanation{}, ErrNoDecision
	}
	r, e := page.Records[0], s.live.Engine()
	asked := e.Replay(ctx, policy.Recorded{Input: r.Input, At: r.Time, Revision: r.Revision, Named: r.Named})
	x, err := e.Explain(ctx, asked.Input)
	out := Explanation{
		Record: r, Revision: e.Revision(), Now: preview.AnswerOf(&x.Decision), Exact: asked.Sure && !r.Hides(e.Reads()), Rules: x.Rules, Trace: x.Trace,
	}
	if err != nil {
		out.Error = err.Error()
	}
	return out, nil
}
