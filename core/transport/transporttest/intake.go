package transporttest

import (
	"context"
	"testing"
	"time"

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

// Parked waits until the intake has parked n connections, where it parks any.
// Meanwhile it calls again: a connection is parked when it has said something.
func Parked(t testing.TB, in *intake.Intake, n int, again func()) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(Patience); in.Parks() && in.Parked() != n; <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("got %d connections parked, want %d", in.Parked(), n)
		}
		again()
	}
}
