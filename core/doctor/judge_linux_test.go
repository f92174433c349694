package doctor

import (
	"testing"
	"time"
)

func TestJudgeClock(t *testing.T) {
	for _, tt := range []struct {
		name          string
		state, status int
		off           time.Duration
		want          State
	}{
		{"kept right", 0, 1, time.Millisecond, OK},
		{"never set", 0, staUnsync, time.Millisecond, Warn},
		{"lost its source", timeError, 0, time.Millisecond, Warn},
		{"far off", 0, 0, 2 * time.Second, Warn},
	} {
		if c := judgeClock(tt.state, tt.status, tt.off); c.State != tt.want || (c.State == Warn) != (c.Command != "") {
			t.Errorf("%s: got %+v, want %s", tt.name, c, tt.want)
		}
	}
}
