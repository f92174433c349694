package e2e

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"parley/core/client"
	"parley/core/e2e/rig"
	"parley/core/redis/redistest"
)

// scraped reads a series of the metrics at an address; ok is false where it is not there.
func scraped(t *testing.T, addr, series string) (v float64, ok bool) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, false // not up yet
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if rest, found := strings.CutPrefix(line, series+" "); found {
			if _, err := fmt.Sscan(rest, &v); err != nil {
				t.Fatalf("metric %s: %v in %q", series, err, line)
			}
			return v, true
		}
	}
	return 0, false
}

// TestAMirrorHasMetrics carries a room between two deployments, takes one away and
// gives it back, and reads from the mirror's metrics what happened.
func TestAMirrorHasMetrics(t *testing.T) {
	t.Parallel()
	west, east := redistest.Start(t, redistest.Options{AppendOnly: true}), redistest.Start(t, redistest.Options{AppendOnly: true})
	a, b := startNode(t, settings{"redis.url": west.URL()}), startNode(t, settings{"redis.url": east.URL()})
	addr := rig.FreePorts(t, 1)[0]
	flags := []string{"mirror", "--from", west.URL(), "--to", east.URL(), "--room", "lobby", "--call-timeout", "5s", "--metrics", addr} // a call that fails is to be one to a store that is away
	m := startBeside(t, flags...)
	await(t, "the mirror answers", func() bool { _, ok := scraped(t, addr, `parley_mirror_rooms{from="from",to="to"}`); return ok })

	ann, bob := visit(t, client.Options{URL: a.WSURL(), Guest: "ann"}), visit(t, client.Options{URL: b.WSURL(), Guest: "bob"})
	ann.enters("lobby")
	bob.enters("lobby")
	say := func(v *visitor, n int) {
		t.Helper()
		for i := range n {
			if _, err := v.Send(within(t), "lobby", client.NewNonce(), fmt.Sprint("message ", i)); err != nil {
				t.Fatal(err)
			}
		}
	}
	there := func(name string) float64 { v, _ := scraped(t, addr, name+`{from="from",to="to"}`); return v }
	back := func(name string) float64 { v, _ := scraped(t, addr, name+`{from="to",to="from"}`); return v }
	say(ann, 5)
	say(bob, 3)
	// Beside messages there are the entries by which each deployment made the room.
	await(t, "all is carried", func() bool {
		return there("parley_mirror_carried_total") >= 5 && back("parley_mirror_carried_total") >= 3 && there("parley_mirror_behind_entries") == 0
	})
	await(t, "their way was timed", func() bool {
		return there("parley_mirror_lag_seconds_count") == there("parley_mirror_carried_total") && there("parley_mirror_lag_seconds_sum") > 0
	})
	if there("parley_mirror_rooms") != 1 || there("parley_mirror_errors_total") != 0 || there("parley_mirror_resumes_total") < 1 {
		t.Errorf("got %v rooms, %v errors, %v resumes", there("parley_mirror_rooms"), there("parley_mirror_errors_total"), there("parley_mirror_resumes_total"))
	}
	// What went there comes back and is known.
	await(t, "what is here already is passed over", func() bool { return back("parley_mirror_skipped_total") >= 5 })

	resumed := there("parley_mirror_resumes_total")
	east.Pause()
	say(ann, 4)
	await(t, "the mirror says that it is behind", func() bool {
		return there("parley_mirror_errors_total") > 0 && there("parley_mirror_behind_entries") >= 4 && there("parley_mirror_behind_seconds") > 1
	})
	east.Resume()
	await(t, "it has gone on", func() bool {
		return there("parley_mirror_behind_entries") == 0 && there("parley_mirror_behind_seconds") == 0 && there("parley_mirror_resumes_total") > resumed
	})
	check := []string{"mirror", "--from", west.URL(), "--to", east.URL(), "--room", "lobby", "--check", "--settle", "0s"}
	if out, code := a.Bare(check...); code != 0 || !strings.Contains(out, "0 errors") { // what it says it has carried is there
		t.Errorf("mirror --check: got %d: %s", code, out)
	}
	if v, ok := scraped(t, addr, `parley_mirror_lost_total{from="from",to="to",why="retention"}`); !ok || v != 0 {
		t.Errorf("lost: got %v, %v", v, ok)
	}
	out, code := a.Bare(flags...)
	if code != 1 || !strings.Contains(out, "--metrics: listen tcp "+addr) {
		t.Errorf("a second mirror at the same address: got %d: %s", code, out)
	}
	m.stop()
}
