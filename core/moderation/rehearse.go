package moderation

import (
	"context"

	"parley/sdk/abi"
)

// Rehearse decides on m as Judge would and changes nothing: no plugin counts or
// observes it, none is asked that does not count, and no live message waits for
// it (see Rehearser). A plugin in quarantine is not asked, as it would not be.
// Result.Input is empty.
func (s *Stage) Rehearse(ctx context.Context, m *Message, only []string) (Result, error) {
	live := s.source.Judges()
	judges := make([]Judge, len(live))
	for i, j := range live {
		if staged, ok := j.(Staged); ok {
			judges[i] = stagedRehearsal{staged}
		} else {
			judges[i] = rehearsal{j}
		}
	}
	res, err := s.decide(ctx, judges, m, only, false)
	res.Input = nil
	return res, err
}

// rehearsed is a judge whose decisions have no consequences.
type rehearsed struct{ Judge }

func (r rehearsed) Decide(input, text, normalized []byte) (abi.Verdict, abi.Result, uint64, error) {
	if h, ok := r.Judge.(Rehearser); ok {
		return h.Rehearse(input, text, normalized)
	}
	return r.Judge.Decide(input, text, normalized)
}

// quarantining is a Judge that may be in quarantine.
type quarantining interface{ Quarantined() bool }

// rehearsal is a judge as it would decide just now, without consequences.
type rehearsal struct{ Judge }

func (r rehearsal) Decide(input, text, normalized []byte) (abi.Verdict, abi.Result, uint64, error) {
	if q, ok := r.Judge.(quarantining); ok && q.Quarantined() {
		return abi.Error, abi.Result{}, 0, ErrQuarantined
	}
	return rehearsed(r).Decide(input, text, normalized)
}

// stagedRehearsal is the same for a version in a rollout.
type stagedRehearsal struct{ Staged }

func (r stagedRehearsal) Decide(input, text, normalized []byte) (abi.Verdict, abi.Result, uint64, error) {
	return rehearsal{r.Staged}.Decide(input, text, normalized)
}

// Observe implements Staged: there is nothing to see.
func (stagedRehearsal) Observe(*Record, *Record, bool) {}
