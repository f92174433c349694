// Package source decides where the rules come from and keeps them live: the
// Git repository when policy.git.url is set, else the folder when policy.dir
// is, else the policy built into the binary. It is the one thing the wiring of
// the server needs of all this.
//
// Open loads and checks a policy; Run follows the source until its context
// ends. Everything else may be called from any goroutine.
package source

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"parley/core/gate"
	"parley/policy"
	"parley/policy/decisionlog"
	"parley/policy/folder"
	"parley/policy/gitsync"
	"parley/policy/preview"
	"parley/policy/rego"
)

// Config says where the rules come from.
type Config struct {
	Dir     string         // policy.dir; "" for none
	Git     gitsync.Config // policy.git; URL "" for none
	Options policy.Options
	// AllowOnError names the actions that go ahead when the policy cannot
	// decide; see policy.Live.
	AllowOnError []string
	Trial        policy.Trial // how a policy that is not the built-in one is tried
	// Decisions remembers what was decided; nil remembers nothing, and nothing
	// can be replayed.
	Decisions *decisionlog.Log
	Replay    Replay
	Guard     preview.Guard
	// Cluster joins the policy to those of other nodes; nil: there are none.
	Cluster *Cluster
}

// Replay bounds what a new revision is asked of what was recorded, before it
// goes live.
type Replay struct {
	Entries int // newest records; 0 asks nothing
	Time    time.Duration
}

// Defaults returns a Config for the built-in policy.
func Defaults() Config {
	return Config{
		Git: gitsync.Defaults(), Options: policy.Defaults(), Trial: policy.DefaultTrial(),
		Replay: Replay{Entries: 1000, Time: 2 * time.Second}, // 0.2 s of topdown for both engines
	}
}

// Source is the live policy and what feeds it. Make one with Open.
type Source struct {
	cfg  Config
	log  *slog.Logger
	name string // of what feeds it, for people
	live *policy.Live
	git  *gitsync.Syncer // nil unless Git feeds it
	dir  *folder.Source  // nil unless a folder feeds it

	share *share // nil where no node has anything to hand over
	nodes nodes

	early string // revision refused before anything was live; used by Open alone

	replayed, unequal atomic.Uint64 // records that their own revision was asked again; of them, answered otherwise

	mu       sync.Mutex
	report   *preview.Report   // of the newest revision that was looked at; guarded by mu
	accepted map[string]string // revision -> by whom, until it is live; guarded by mu
	passes   map[string]string // the same of all nodes; guarded by mu
}

// Open loads the first policy. A folder that cannot be taken is an error: the
// operator is there to see it. A repository falls back to the last good policy
// on disk, then to the built-in one, and says so in the log.
func Open(ctx context.Context, cfg Config, log *slog.Logger) (_ *Source, err error) {
	s := &Source{cfg: cfg, log: log, accepted: map[string]string{}}
	switch {
	case cfg.Git.URL != "" && cfg.Dir != "":
		return nil, errors.New("policy.dir and policy.git.url are both set; only one place can hold the rules")
	case cfg.Git.URL != "":
		err = s.openGit(ctx)
	case cfg.Dir != "":
		err = s.openDir(ctx)
	default:
		err = s.openDefault(ctx)
	}
	if err != nil {
		return nil, err
	}
	if missing := cfg.Guard.Missing(ctx, s.live.Engine()); len(missing) > 0 {
		log.Warn("policy.guard.keep names what the policy in use does not allow, so it guards nothing there", "missing", missing)
	}
	return s, nil
}

func (s *Source) openDefault(ctx context.Context) error {
	e, err := s.cfg.Options.CompileTried(ctx, rego.Files(), rego.Revision, rego.Passed)
	if err != nil {
		return fmt.Errorf("load the built-in policy: %w", err)
	}
	s.take(e, "built-in")
	return nil
}

func (s *Source) openDir(ctx context.Context) (err error) {
	s.name = "dir " + s.cfg.Dir
	s.dir, err = folder.New(s.cfg.Dir, folder.Hooks{Apply: s.apply, Refuse: s.refuse}, s.log)
	if err != nil {
		return err
	}
	if err := s.dir.Load(ctx); err != nil {
		return fmt.Errorf("load policy.dir %s: %w", s.cfg.Dir, err)
	}
	return nil
}

// openGit starts from disk, which is quick and needs nobody; else from the
// remote; else from the built-in policy.
func (s *Source) openGit(ctx context.Context) (err error) {
	hooks := gitsync.Hooks{Apply: s.apply, Refuse: s.refuse}
	if s.cfg.Cluster != nil {
		s.cfg.Git.Share = true
		hooks.Changed = func() { s.share.poke() }
		s.share = newShare(s, *s.cfg.Cluster)
	}
	s.git, err = gitsync.New(s.cfg.Git, hooks, s.log)
	if err != nil {
		return err
	}
	s.name = "git " + s.git.Status().URL
	restored := s.git.Restore(ctx)
	if restored == nil {
		s.log.Warn("policy restored from disk until the repository answers", "revision", s.live.Engine().Revision())
		return nil
	}
	if !errors.Is(restored, fs.ErrNotExist) {
		s.log.Error("the last good policy on disk cannot be used", "err", restored)
	}
	if s.share != nil {
		err := s.share.first(ctx)
		if err == nil {
			s.log.Info("policy taken from the other nodes", "revision", s.live.Engine().Revision())
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("load policy.git: %w", ctx.Err())
		}
		s.log.Info("the other nodes give no policy to begin with", "why", err)
	}
	synced := s.git.Sync(ctx)
	if synced == nil {
		return nil
	}
	if ctx.Err() != nil {
		return fmt.Errorf("load policy.git: %w", ctx.Err())
	}
	if err := s.openDefault(ctx); err != nil {
		return err
	}
	s.log.Error("THE BUILT-IN POLICY DECIDES: the repository gave none and there is no last good one on disk", "source", s.name)
	s.live.Refuse(s.name, s.early, synced)
	return nil
}

// apply tries files, compares what they would change, and takes them live.
func (s *Source) apply(ctx context.Context, files policy.Files, revision string) error {
	records := s.recent()
	e, err := s.cfg.Trial.Build(ctx, s.cfg.Options, files, revision, samplesOf(records), s.log)
	if err != nil {
		return err
	}
	if err := s.judge(ctx, e, records); err != nil {
		return err
	}
	s.take(e, s.name)
	return nil
}

func (s *Source) take(e *policy.Engine, from string) {
	if s.live == nil { // still within Open: nobody else knows s
		s.live = policy.NewLive(e, from, s.log)
		s.live.AllowOnError(s.cfg.AllowOnError)
		if s.cfg.Decisions != nil {
			s.live.RecordTo(s.cfg.Decisions)
		}
		return
	}
	s.live.Swap(e, from)
	s.touch()
}

// touch tells the other nodes that something has changed here.
func (s *Source) touch() {
	if s.cfg.Cluster != nil {
		s.cfg.Cluster.Touch()
	}
}

// happened records an event where decisions are recorded.
func (s *Source) happened(e decisionlog.Event, revision, by, detail string) {
	if s.cfg.Decisions != nil {
		s.cfg.Decisions.Happened(e, revision, by, detail)
	}
}

func (s *Source) refuse(revision string, err error) {
	if s.live == nil { // the first policy of a repository: openGit says what follows
		s.early = revision
		return
	}
	s.live.Refuse(s.name, revision, err)
	s.touch()
}

// Run follows the source until ctx ends and returns nil then.
func (s *Source) Run(ctx context.Context) error {
	var own sync.WaitGroup
	ctx, stop := context.WithCancel(ctx)
	defer own.Wait()
	defer stop()
	own.Go(func() { s.live.FollowPeriods(ctx) })
	if s.share != nil {
		own.Go(func() { s.share.run(ctx) })
	}
	switch {
	case s.git != nil:
		return s.git.Run(ctx)
	case s.dir != nil:
		return s.dir.Run(ctx)
	}
	<-ctx.Done() // the built-in policy never changes
	return nil
}

// Decide answers by the policy of this moment. See policy.Engine.Decide.
func (s *Source) Decide(ctx context.Context, in *gate.Input) gate.Decision {
	return s.live.Decide(ctx, in)
}

// Rehearse answers as Decide would, and leaves no trace. See policy.Live.Rehearse.
func (s *Source) Rehearse(ctx context.Context, in *gate.Input) gate.Decision {
	return s.live.Rehearse(ctx, in)
}

// Refusers names the rule behind each reason of the answer. See
// policy.Engine.Refusers.
func (s *Source) Refusers(ctx context.Context, in *gate.Input) (gate.Decision, []gate.Rule) {
	return s.live.Engine().Refusers(ctx, in)
}

// Changed returns a channel that is closed when another policy has gone live
// since the call, or a period of its data has begun or ended.
func (s *Source) Changed() <-chan struct{} { return s.live.Changed() }

// Live returns the policy in use.
func (s *Source) Live() *policy.Live { return s.live }

// Trigger asks a repository for news at once; other sources see changes by
// themselves.
func (s *Source) Trigger() {
	if s.git != nil {
		s.git.Trigger()
	}
}

// Status is the answer of /v1/policy/status.
type Status struct {
	policy.Status
	Git *gitsync.Status `json:"git,omitempty"`
	// Preview is what the newest revision that passed its trial changes of the
	// recorded decisions, whether it was taken or policy.guard refused it.
	Preview *preview.Report    `json:"preview,omitempty"`
	Log     *decisionlog.Stats `json:"log,omitempty"`
	// Replayed is how many records their own revision was asked again, and
	// Unequal how many it answered otherwise.
	Replayed uint64 `json:"replayed"`
	Unequal  uint64 `json:"unequal"`
	// Nodes are what each node says of its policy, this one among them.
	Nodes []NodePolicy `json:"nodes,omitempty"`
	// CannotConverge is why this node does not take what the others have.
	CannotConverge *Trouble `json:"cannot_converge,omitempty"`
}

// Status returns what an operator sees.
func (s *Source) Status() Status {
	out := Status{Status: s.live.Status(), Replayed: s.replayed.Load(), Unequal: s.unequal.Load()}
	s.mu.Lock()
	out.Preview = s.report // immutable once stored
	s.mu.Unlock()
	if s.cfg.Decisions != nil {
		st := s.cfg.Decisions.Stats()
		out.Log = &st
	}
	if s.git != nil {
		git := s.git.Status()
		out.Git = &git
	}
	out.Nodes = s.Nodes()
	if s.share != nil {
		out.CannotConverge = s.share.Trouble()
	}
	return out
}

// Stats returns the counters.
func (s *Source) Stats() policy.Stats { return s.live.Stats() }
