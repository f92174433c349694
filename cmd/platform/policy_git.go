package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"

	"parley/core/atomicfile"
	"parley/core/config"
	"parley/core/metrics"
	"parley/core/transport/stream"
	"parley/policy/gitsync"
	"parley/policy/source"
	"parley/policy/webhook"
)

// followGit sets what of the configuration is about the repository.
func followGit(c *source.Config, cfg config.Config) {
	git := cfg.Policy.Git
	if git.URL == "" {
		return
	}
	c.Git.URL, c.Git.Ref, c.Git.Path, c.Git.Interval, c.Git.Signers = git.URL, git.Ref, git.Path, git.Interval, git.Signers
	c.Git.Auth, c.Git.Debounce = gitsync.Auth(git.Auth), git.Webhook.Debounce
	c.Git.StateDir = filepath.Join(cfg.DataDir, "policy")
}

// openHook makes the webhook where there is a secret for it.
func (s *server) openHook(context.Context) (err error) {
	s.hook, err = newHook(s.cfg.Policy.Git.Webhook, s.policy.Trigger)
	return err
}

// newHook returns nil where no calls are taken.
func newHook(cfg config.GitWebhook, trigger func()) (*webhook.Handler, error) {
	c := webhook.Defaults()
	var err error
	if c.Secret, err = hookSecret(cfg); err != nil || c.Secret == nil {
		return nil, err
	}
	h, err := webhook.New(c, trigger)
	if err != nil {
		return nil, fmt.Errorf("policy.git.webhook: %w", err)
	}
	return h, nil
}

// checkHook reports whether the webhook could be made.
func checkHook(cfg config.Config, out io.Writer) (ok bool) {
	h, err := newHook(cfg.Policy.Git.Webhook, func() {})
	if err != nil {
		fmt.Fprintf(out, "webhook  refused: %v\n", err)
		return false
	}
	if h != nil {
		fmt.Fprintf(out, "webhook  ok (%s)\n", webhook.Path)
	}
	return true
}

// hookSecret reads the secret, nil where none is configured.
func hookSecret(cfg config.GitWebhook) ([]byte, error) {
	const most = 4096 // bytes
	switch {
	case cfg.SecretFile != "":
		b, err := atomicfile.Read(cfg.SecretFile, most)
		if err != nil {
			return nil, fmt.Errorf("read policy.git.webhook.secret_file: %w", err)
		}
		return bytes.TrimRight(b, "\r\n"), nil
	case cfg.SecretEnv != "":
		secret := os.Getenv(cfg.SecretEnv)
		if secret == "" {
			return nil, fmt.Errorf("read policy.git.webhook.secret_env: the variable %s is not set", cfg.SecretEnv)
		}
		return []byte(secret), nil
	}
	return nil, nil
}

// openHookListener opens the webhook's own listener, where one is configured.
func (s *server) openHookListener(ctx context.Context, opt stream.Options) (err error) {
	addr := s.cfg.Policy.Git.Webhook.Listen
	if s.hook == nil || addr == "" {
		return nil
	}
	if s.certs != nil && s.cfg.TLS.HTTP {
		opt.TLS = s.certs.Server("http/1.1")
	}
	mux := http.NewServeMux()
	mux.Handle(webhook.Path, s.hook)
	s.hookHTTP = s.chatServer(mux)
	s.hookLn, err = s.listen(ctx, "policy.git.webhook.listen", addr, opt)
	return err
}

// policyGitMetrics are those of the repository and of its webhook.
func (s *server) policyGitMetrics() []metrics.Metric {
	if !s.policy.FromGit() {
		return nil
	}
	stats := func() gitsync.Stats { st, _ := s.policy.GitStats(); return st }
	ms := []metrics.Metric{
		{Name: "parley_policy_git_polls_total", Help: "Polls of the policy repository, by result.", Read: func(e metrics.Emit) {
			polls := stats().Polls
			for _, r := range gitsync.Results {
				e(float64(polls[r]), "result", string(r))
			}
		}},
		{Name: "parley_policy_git_answered_seconds", Help: "When the policy repository last answered, in Unix time; absent before it has.", Gauge: true, Read: func(e metrics.Emit) {
			if at := s.policy.Status().Git.PolledAt; at != nil {
				e(float64(at.UnixMilli()) / 1000)
			}
		}},
		{Name: "parley_policy_commit_seconds", Help: "Date of the commit that decides, by the clock of who made it, in Unix time; absent without one.", Gauge: true, Read: func(e metrics.Emit) {
			if at := s.policy.Status().Git.CommittedAt; at != nil {
				e(float64(at.Unix()))
			}
		}},
		metrics.Gauge("parley_policy_pinned", "1 while an operator has pinned the policy to a commit.", func() float64 {
			if s.policy.Status().Git.Pin != nil {
				return 1
			}
			return 0
		}),
		{Name: "parley_policy_fallback", Help: "1 while something else decides than what the repository holds: the last good policy on disk, or the built-in one.", Gauge: true, Read: func(e metrics.Emit) {
			now := s.policy.Fallback()
			for _, f := range []source.Fallback{source.FromDisk, source.FromDefault} {
				e(map[bool]float64{true: 1}[f == now], "to", string(f))
			}
		}},
		{Name: "parley_policy_live_seconds", Help: "Time until a commit was live, since the webhook's call or since the commit's own date.", Histograms: func(e metrics.EmitBuckets) {
			st := stats()
			e(metrics.Buckets(st.SinceTrigger), "since", "webhook")
			e(metrics.Buckets(st.SinceCommit), "since", "commit")
		}},
	}
	if s.hook != nil {
		ms = append(ms, metrics.Metric{Name: "parley_policy_webhooks_total", Help: "Calls of the policy webhook, by result.", Read: func(e metrics.Emit) {
			for _, r := range webhook.Results {
				e(float64(s.hook.Count(r)), "result", string(r))
			}
		}})
	}
	return ms
}
