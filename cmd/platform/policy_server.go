package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"parley/core/admin"
	"parley/core/child"
	"parley/core/config"
	"parley/core/metrics"
	"parley/policy/decisionlog"
	"parley/policy/preview"
	"parley/policy/source"
)

func (s *server) openPolicy(ctx context.Context) (err error) {
	if s.decides, err = decisionlog.New(decisionConfig(s.cfg), s.log); err != nil {
		return err
	}
	cfg, err := policyConfig(s.cfg)
	if err != nil {
		return err
	}
	cfg.Decisions = s.decides
	if s.nodes != nil {
		cfg.Cluster = &source.Cluster{Self: string(s.nodes.Self()), Objects: s.objects, Touch: s.nodes.Touch}
	}
	if s.policy, err = source.Open(ctx, cfg, s.log); err != nil {
		return err
	}
	if s.nodes != nil {
		s.nodes.SetInfo(source.InfoKey, func() any { return s.policy.NodeInfo() })
		s.nodes.OnView(s.policy.Observe)
	}
	return nil
}

func decisionConfig(cfg config.Config) decisionlog.Config {
	l := cfg.Policy.Log
	return decisionlog.Config{
		Entries: l.Entries, Dir: filepath.Join(cfg.DataDir, "policy-log"), MaxBytes: int64(l.MaxBytes), Retention: l.Retention,
		Sample: l.Sample, PerMinute: l.PerMinute, Mask: l.Mask, MaskRead: l.MaskRead,
	}
}

// policyConfig is where the rules come from and what a new revision must pass;
// it remembers nothing.
func policyConfig(cfg config.Config) (source.Config, error) {
	c := source.Defaults()
	c.Trial.Command = child.Command(policyTrialName)
	c.Dir, c.AllowOnError = cfg.Policy.Dir, cfg.Policy.AllowOnError
	followGit(&c, cfg)
	c.Replay = source.Replay{Entries: cfg.Policy.Replay.Entries, Time: cfg.Policy.Replay.Time}
	c.Guard = preview.Guard{MaxChanged: cfg.Policy.Guard.MaxChanged, MaxShare: cfg.Policy.Guard.MaxShare}
	for _, text := range cfg.Policy.Guard.Keep {
		k, err := preview.ParseKeep(text)
		if err != nil {
			return c, err
		}
		c.Guard.Keep = append(c.Guard.Keep, k)
	}
	return c, nil
}

// policyAdmin is the policy as the admin API knows it.
type policyAdmin struct{ source *source.Source }

// Accept implements admin.Policy.
func (p policyAdmin) Accept(revision, by string) (string, error) {
	full, err := p.source.Accept(revision, by)
	if errors.Is(err, source.ErrAccept) {
		err = fmt.Errorf("%w: %w", admin.ErrConflict, err)
	}
	return full, err
}

// Audit implements admin.Policy.
func (p policyAdmin) Audit(ctx context.Context, since time.Time) (any, error) {
	return p.source.Audit(ctx, since)
}

// Explain implements admin.Policy.
func (p policyAdmin) Explain(ctx context.Context, id string) (any, error) {
	x, err := p.source.Explain(ctx, id)
	if errors.Is(err, source.ErrNoDecision) {
		err = fmt.Errorf("%w: %w", admin.ErrNotFound, err)
	}
	return x, err
}

// decisionMetrics are those of the policy.
func (s *server) decisionMetrics() []metrics.Metric {
	return []metrics.Metric{
		{Name: "parley_policy_decisions_total", Help: "Policy decisions, by how they were made.", Read: func(e metrics.Emit) {
			p := s.policy.Stats()
			e(float64(p.Hits), "from", "cache")
			e(float64(p.Evals), "from", "evaluation")
		}},
		metrics.Counter("parley_policy_failures_total", "Decisions the policy could not make.", func() uint64 { return s.policy.Stats().Failures }),
		metrics.Counter("parley_policy_let_through_total", "Of them, those that policy.allow_on_error let through.", func() uint64 { return s.policy.Stats().LetThrough }),
		metrics.Counter("parley_policy_refused_total", "Revisions that were not taken live.", func() uint64 { return s.policy.Stats().Refused }),
		metrics.Counter("parley_policy_swaps_total", "Revisions taken live.", func() uint64 { return s.policy.Stats().Swaps }),
		{Name: "parley_policy_revision", Help: "1 for the revision that decides.", Gauge: true, Read: func(e metrics.Emit) {
			e(1, "revision", s.policy.Live().Engine().Revision())
		}},
		{Name: "parley_policy_blocked_total", Help: "Refused actions, by action and by the code of the first reason.", Read: func(e metrics.Emit) {
			for k, n := range s.policy.Live().Blocked() {
				e(float64(n), "action", k.Action, "code", k.Code)
			}
		}},
		metrics.Counter("parley_policy_cache_audits_total", "Cached decisions checked against the rules.", func() uint64 { return s.policy.Stats().CacheAudits }),
		metrics.Counter("parley_policy_cache_wrong_total", "Cached decisions that were not what the rules say.", func() uint64 { return s.policy.Stats().CacheWrong }),
		metrics.Counter("parley_policy_replayed_total", "Recorded decisions that their own revision was asked again.", func() uint64 { return s.policy.Status().Replayed }),
		metrics.Counter("parley_policy_replay_unequal_total", "Of them, those with another answer.", func() uint64 { return s.policy.Status().Unequal }),
		{Name: "parley_policy_log_total", Help: "Records of the decision log, by what became of them.", Read: func(e metrics.Emit) {
			st := s.decides.Stats()
			e(float64(st.Added), "outcome", "added")
			e(float64(st.Dropped), "outcome", "dropped")
			e(float64(st.DroppedDenied), "outcome", "dropped_denied")
			e(float64(st.Written), "outcome", "written")
			e(float64(st.Failed), "outcome", "failed")
		}},
		metrics.Gauge("parley_policy_log_bytes", "Size of the decision log's files.", func() float64 { return float64(s.decides.Stats().Bytes) }),
	}
}
