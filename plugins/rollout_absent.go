package plugins

import (
	"errors"
	"fmt"

	"parley/core/chat"
	"parley/core/moderation"
	"parley/sdk/abi"
)

// absence is a plugin that ought to be in force and is not loaded. Messages it
// would have judged do not pass unjudged: its on_error decides, as if it had
// failed. Immutable.
type absence struct {
	manifest Manifest    // says which messages
	onError  abi.Verdict // abi.Deny or abi.Hold
	err      error
}

// vacancy keeps its seat. It satisfies moderation.Staged.
type vacancy struct {
	*absence
	name  string
	cand  *candidate // of the name, nil if none
	stats *stats
}

// Name implements moderation.Judge.
func (v *vacancy) Name() string { return v.name }

// Digest implements moderation.Judge: there is no module.
func (v *vacancy) Digest() string { return "" }

// Version implements moderation.Judge.
func (v *vacancy) Version() string { return v.manifest.Version }

// ConfigDigest implements moderation.Judge.
func (v *vacancy) ConfigDigest() string { return "" }

// Wants implements moderation.Judge.
func (v *vacancy) Wants(room chat.RoomID, kind string) bool { return v.manifest.wants(room, kind) }

// OnError implements moderation.Judge.
func (v *vacancy) OnError() abi.Verdict { return v.onError }

// Decide implements moderation.Judge: it fails.
func (v *vacancy) Decide(_, _, _ []byte) (abi.Verdict, abi.Result, uint64, error) {
	return abi.Error, abi.Result{}, 0, v.err
}

// Part implements moderation.Staged: where a version on trial decides, this
// counts only when that one fails.
func (v *vacancy) Part(room chat.RoomID, user chat.UserID) moderation.Part {
	if v.cand != nil && v.cand.part(room, user) == moderation.Canary {
		return moderation.Shadow
	}
	return moderation.Enforce
}

// Observe implements moderation.Staged.
func (v *vacancy) Observe(rec, _ *moderation.Record, _ bool) {
	if rec.Part == moderation.Enforce {
		v.stats.unasked.Add(1)
	}
}

// missed returns the absence of a plugin of which an attempt puts nothing in
// force, nil if nobody misses it.
//
// One that was in force before the process was started is missed, whatever the files in
// the folder are now. One that never was is missed if its manifest says in so
// many words that messages must not pass without it, and that it is in force without a
// rollout; but not if it was rolled back, nor, where signatures are required, if
// nobody who is trusted signed that.
func (c *Catalog) missed(a *attempt) *absence {
	var m Manifest
	switch said := a.said; {
	case a.before.InForce != "":
		m = c.keptManifest(a, said)
	case a.err == nil || said == nil || errors.Is(a.err, errRolledBack):
		return nil
	case said.Rollout != nil && said.Rollout.Stage != StageEnforce, said.OnError == abi.Error:
		return nil
	case c.cfg.RequireSignature && Verify(*said, a.file, c.cfg.TrustedKeys) != nil:
		return nil
	default:
		m = *said
	}
	onError := m.OnError
	if onError == abi.Error { // not said
		onError = c.cfg.OnError
	}
	if onError == abi.Allow {
		return nil
	}
	return &absence{manifest: m, onError: onError, err: fmt.Errorf("plugin %s is not loaded: %w", a.name, errors.Join(a.err, a.lost))}
}

// keptManifest is that of the version that was in force, as far as it can be
// read: its module may be what is damaged.
func (c *Catalog) keptManifest(a *attempt, said *Manifest) Manifest {
	if said != nil && a.before.InForce == a.source.String() {
		return *said
	}
	c.saving.Lock()
	defer c.saving.Unlock()
	if m, err := c.store.manifest(a.name, a.before.InForce); err == nil {
		return m
	}
	if said != nil {
		return *said
	}
	return Manifest{OnError: abi.Error}
}
