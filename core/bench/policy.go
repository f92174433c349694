package bench

import (
	"bytes"
	"context"
	"crypto/hmac"
	crand "crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"parley/core/bench/load"
	"parley/core/bench/report"
)

// policy measures how long a merged change of the rules takes until it decides,
// called by a webhook and found by polling alone, and how often the decision
// cache has the answer, under a load of different actions.
func (b *Bench) policy(ctx context.Context, l Load) ([]report.Section, error) {
	switch {
	case b.Target != "" || b.TLS:
		return nil, errors.New("policy measures a server of its own over TCP: --target and --tls cannot be")
	case len(b.Rules) == 0:
		return nil, errors.New("policy needs rules to put into a repository")
	case l.Merges < 1 || l.Rate <= 0:
		return nil, errors.New("policy needs at least one merge and a rate: --merges, --rate")
	}
	what := fmt.Sprintf("%d clients in rooms of %d, %s commands/s", l.Members, l.RoomSize, report.Number(l.Rate))
	var sections []report.Section
	for _, f := range []*following{{b: b, load: l, hooked: true}, {b: b, load: l}} {
		err := f.run(ctx)
		if f.toLive.Count() > 0 {
			if f.hooked {
				sections = append(sections, f.cacheSection(what))
			}
			sections = append(sections, f.section(what))
		}
		if err != nil {
			return sections, err
		}
	}
	return sections, nil
}

// following is one server that follows a repository.
type following struct {
	b      *Bench
	load   Load
	hooked bool // its webhook is called; else it polls at its own pace

	server *Server
	repo   *repository
	hook   string // URL of the webhook
	secret []byte

	steady, merging answers      // before the merges, while they were made
	toLive          load.Latency // from the call, or where there is none from the merge
	merged          load.Latency // from before git commit
	each            []float64    // toLive of each merge, ms
}

// answers are counters of the policy over a time.
type answers struct {
	hits, evals float64
	commands    float64
	took        time.Duration
}

func (a answers) rate() float64 { return 100 * a.hits / max(a.hits+a.evals, 1) }

const (
	seldom    = 24 * time.Hour // between the polls of a server that is to be called
	liveEvery = 5 * time.Millisecond
	// hookPause is the least time between two merges that are called out: beyond
	// policy.git.webhook.debounce, within which a second call waits.
	hookPause = 600 * time.Millisecond
)

func (f *following) run(ctx context.Context) (err error) {
	f.toLive, f.merged = load.NewLatency(), load.NewLatency()
	dir, err := os.MkdirTemp(f.b.Data, "parley-bench-policy-")
	if err != nil {
		return fmt.Errorf("make a folder for the repository: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if f.repo, err = newRepository(ctx, dir, f.b.Rules); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.repo.close()) }()
	key, err := f.start(ctx, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.server.Stop()) }()
	clients, err := startMixed(ctx, f.server, f.load, key)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, clients.end()) }()
	if f.hooked {
		if err := pause(ctx, f.load.Warmup); err != nil {
			return err
		}
		f.steady, err = f.during(ctx, clients, func() error { return pause(ctx, f.load.Duration) })
		if err != nil {
			return err
		}
	}
	f.merging, err = f.during(ctx, clients, func() error { return f.mergeAll(ctx, clients) })
	return err
}

// start starts the server; key signs its tokens.
func (f *following) start(ctx context.Context, dir string) (key []byte, err error) {
	key, f.secret = []byte(crand.Text()+crand.Text()), []byte(crand.Text())
	keys := map[string]string{"policy.git.url": f.repo.url, "auth.jwt.key_file": filepath.Join(dir, "jwt.key")}
	files := map[string][]byte{keys["auth.jwt.key_file"]: key}
	if f.hooked {
		addrs, err := freePorts(ctx, 1)
		if err != nil {
			return nil, err
		}
		f.hook = "http://" + addrs[0] + "/v1/hooks/policy"
		keys["policy.git.interval"], keys["policy.git.webhook.listen"] = seldom.String(), addrs[0]
		keys["policy.git.webhook.secret_file"] = filepath.Join(dir, "hook.secret")
		files[keys["policy.git.webhook.secret_file"]] = f.secret
	}
	for name, text := range files {
		if err := os.WriteFile(name, text, 0o600); err != nil {
			return nil, fmt.Errorf("write a secret: %w", err)
		}
	}
	b := *f.b
	b.TCP = true
	f.server, err = b.server(ctx, keys, nil)
	return key, err
}

// during returns what the policy answered while do ran.
func (f *following) during(ctx context.Context, clients *mixed, do func() error) (answers, error) {
	read := func() (answers, error) {
		m, err := f.server.Metrics(ctx)
		return answers{
			hits: m[`parley_policy_decisions_total{from="cache"}`], evals: m[`parley_policy_decisions_total{from="evaluation"}`],
			commands: float64(clients.did.Load()),
		}, err
	}
	before, err := read()
	if err != nil {
		return before, err
	}
	began := time.Now()
	if err := do(); err != nil {
		return answers{}, err
	}
	took := time.Since(began)
	after, err := read()
	return answers{hits: after.hits - before.hits, evals: after.evals - before.evals, commands: after.commands - before.commands, took: took}, err
}

// mergeAll merges one change after the other, each when the one before is live
// and, so that polls and merges keep no step, some time later.
func (f *following) mergeAll(ctx context.Context, clients *mixed) error {
	var live atomic.Int64
	stop := f.b.progress("merging", func() (float64, string) {
		n := live.Load()
		return float64(n) / float64(f.load.Merges), fmt.Sprintf("%d of %d", n, f.load.Merges)
	})
	defer stop()
	for range f.load.Merges {
		wait := rand.N(pollInterval)
		if f.hooked {
			wait = hookPause + rand.N(hookPause)
		}
		if err := pause(ctx, wait); err != nil {
			return err
		}
		if clients.failed() != nil {
			return nil // their end says why
		}
		began := load.Monotonic()
		commit, err := f.repo.merge(ctx)
		if err != nil {
			return err
		}
		from := began
		if f.hooked {
			from = load.Monotonic()
			if err := f.call(ctx); err != nil {
				return err
			}
		}
		if err := f.awaitLive(ctx, commit); err != nil {
			return err
		}
		now := load.Monotonic()
		f.toLive.Record(now - from)
		f.merged.Record(now - began)
		f.each = append(f.each, ms(time.Duration(now-from)))
		live.Add(1)
	}
	return nil
}

// pollInterval is the default of policy.git.interval, over which merges are spread.
const pollInterval = 4 * time.Second

// call calls the webhook as GitHub does.
func (f *following) call(ctx context.Context) error {
	const body = `{"ref":"refs/heads/main"}`
	mac := hmac.New(sha256.New, f.secret)
	mac.Write([]byte(body))
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, f.hook, strings.NewReader(body))
	if err != nil {
		return fmt.Errorf("call the webhook: %w", err)
	}
	req.Header.Set("X-GitHub-Event", "push")
	req.Header.Set("X-Hub-Signature-256", "sha256="+hex.EncodeToString(mac.Sum(nil)))
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("call the webhook: %w", err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	if err == nil && resp.StatusCode != http.StatusAccepted {
		err = fmt.Errorf("status %d: %s", resp.StatusCode, bytes.TrimSpace(text))
	}
	if err != nil {
		return fmt.Errorf("call the webhook: %w", err)
	}
	return nil
}

// awaitLive asks the server again and again until a commit decides.
func (f *following) awaitLive(caller context.Context, commit string) error {
	ctx, cancel := context.WithTimeout(caller, patience)
	defer cancel()
	tick := time.NewTicker(liveEvery)
	defer tick.Stop()
	for {
		page, err := f.server.ask(ctx, http.MethodGet, "/v1/policy/status")
		var st struct {
			Revision string          `json:"revision"`
			Refused  json.RawMessage `json:"refused"`
		}
		if err == nil {
			err = json.Unmarshal(page, &st)
		}
		switch {
		case caller.Err() != nil:
			return caller.Err()
		case ctx.Err() != nil:
			return fmt.Errorf("commit %s was not live after %v", commit, patience)
		case err != nil:
			return fmt.Errorf("read the policy's status: %w", err)
		case strings.HasSuffix(st.Revision, commit):
			return nil
		case len(st.Refused) > 0 && string(st.Refused) != "null":
			return fmt.Errorf("commit %s was refused: %.500s", commit, st.Refused)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// pause waits.
func pause(ctx context.Context, d time.Duration) error {
	return until(ctx, load.Monotonic()+int64(d))
}
