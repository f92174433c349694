package transporttest

import (
	"context"
	"testing"

	"parley/core/transport/intake"
)

// Intake returns a running intake that parks connections, or does not. It ends
// with the test, after what the test cleans up later.
func Intake(t testing.TB, park bool) *intake.Intake {
	t.Helper()
	in, err := intake.New(park)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- in.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("run the intake: %v", err)
		}
	})
	return in
}
