package plugins

import (
	"errors"
	"sync"
	"time"

	"parley/core/chat"
	"parley/core/moderation"
	"parley/sdk/abi"
)

// candidate is a version on trial, in one stage of its rollout. A stage ends
// by another candidate in its place, so which messages it judges never changes
// under a decision.
type candidate struct {
	// Set at construction.
	plugin  *Plugin
	stage   string
	percent int
	since   time.Time

	mu    sync.Mutex
	trial *trial // guarded by mu
}

func newCandidate(p *Plugin, rules Rollout, stage string, percent int, since time.Time) *candidate {
	return &candidate{plugin: p, stage: stage, percent: percent, since: since, trial: newTrial(rules, since)}
}

// share is the percentage of people it decides about.
func (k *candidate) share() int {
	if k.stage == StageCanary {
		return k.percent
	}
	return 0
}

// part says what the candidate does with a message it wants.
func (k *candidate) part(room chat.RoomID, user chat.UserID) moderation.Part {
	switch {
	case k.stage == StageShadow:
		return moderation.Shadow
	case picked(k.plugin.name, room, user, k.percent):
		return moderation.Canary
	}
	return moderation.None
}

// add counts a decision and returns which guard it crossed, "" for none.
func (k *candidate) add(rec, other *moderation.Record, agree bool) string {
	s := sample{failed: rec.Err != nil, denied: rec.Err == nil && rec.Verdict == abi.Deny, fuel: rec.Fuel, time: rec.Time, compared: other != nil, disagreed: other != nil && !agree}
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.trial.add(s)
}

func (k *candidate) due(now time.Time) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.trial.due(now)
}

// seat is a version's place among the judges. It satisfies moderation.Staged
// and never changes.
type seat struct {
	*Plugin
	catalog *Catalog
	cand    *candidate // of the name, nil if none
	trial   bool       // this is the candidate, not the version in force
}

// Part implements moderation.Staged. Where the candidate decides the version
// in force is asked as well, so that the two can be compared.
func (s *seat) Part(room chat.RoomID, user chat.UserID) moderation.Part {
	switch {
	case s.cand == nil:
		return moderation.Enforce
	case s.trial:
		return s.cand.part(room, user)
	case s.cand.part(room, user) == moderation.Canary:
		return moderation.Shadow
	}
	return moderation.Enforce
}

// errBusy is of a shadow that did not judge because every instance was busy.
var errBusy = errors.New("it is busy, and a shadow does not wait")

// Decide implements moderation.Judge. A shadow on trial does not wait for an
// instance: a slow one would make senders queue for a verdict nobody needs.
func (s *seat) Decide(input, text, normalized []byte) (abi.Verdict, abi.Result, uint64, error) {
	if s.trial && s.cand.stage == StageShadow && s.pool.busy() {
		return abi.Error, abi.Result{}, 0, errBusy
	}
	return s.Plugin.Decide(input, text, normalized)
}

// Observe implements moderation.Staged.
func (s *seat) Observe(rec, other *moderation.Record, agree bool) {
	if unasked(rec) {
		if s.trial {
			s.catalog.rollBack(s.name, s.cand, byGuard, rec.Err.Error())
			return
		}
		s.stats.unasked.Add(1)
		return
	}
	if !s.trial {
		s.stats.inForce.add(rec)
		return
	}
	if rec.Err == errBusy {
		return
	}
	s.stats.candidate.add(rec)
	if other != nil {
		s.stats.compared.Add(1)
		s.stats.disagreed.Add(one(!agree))
	}
	if reason := s.cand.add(rec, other, agree); reason != "" {
		if rec.Err != nil {
			reason += "; the last failure: " + rec.Err.Error()
		}
		s.catalog.rollBack(s.name, s.cand, byGuard, reason)
	}
}
