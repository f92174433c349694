package share

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"parley/plugins"
)

// While Redis is silent the others judge on with what was rolled back: they are told
// as soon as it answers, however long that was. What the head has no place for is
// tried more and more rarely.
func TestSilenceDoesNotGrow(t *testing.T) {
	s := &Share{cfg: Config{Retry: time.Hour}}
	away, never := &telling{}, &telling{}
	for range giveUp {
		s.untold(away, fmt.Errorf("%w: %w", plugins.ErrNoAgreement, errors.New("no answer")))
		s.untold(never, fmt.Errorf("%w: %w", plugins.ErrNoAgreement, errStanding))
	}
	if wait := time.Until(away.after); wait > time.Hour {
		t.Errorf("silence: the next attempt is in %v, want at most an hour", wait)
	}
	if wait := time.Until(never.after); wait < 100*time.Hour || wait > s.longest() {
		t.Errorf("no place: the next attempt is in %v", wait)
	}
}
