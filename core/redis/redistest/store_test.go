//go:build unix

package redistest

import (
	"strings"
	"testing"
)

// A front says of each node where its proxy is, and changes nothing else: the
// number of a port alone may be that of a slot.
func TestFrontOfACluster(t *testing.T) {
	c := StartCluster(t, 3, 0, Options{})
	f := c.Front(t)
	seeds := strings.Split(strings.TrimPrefix(f.URL(), "redis-cluster://"), ",")
	ask := func(args ...string) string {
		t.Helper()
		reply, err := do(t.Context(), seeds[0], args)
		if err != nil {
			reply = err.Error()
		}
		return reply
	}
	slots, moved := ask("CLUSTER", "SLOTS"), ask("GET", "foo") // slot 12182, the last master's
	for i, s := range c.Masters {
		_, port, _ := strings.Cut(s.Addr(), ":")
		_, front, _ := strings.Cut(seeds[i], ":")
		if strings.Contains(slots, "127.0.0.1\n"+port) || !strings.Contains(slots, "127.0.0.1\n"+front) {
			t.Errorf("got slots %q, want the proxy's port %s and not %s", slots, front, port)
		}
		if got := ask("EVAL", "return "+port, "0"); got != port {
			t.Errorf("got the number %s, want %s", got, port)
		}
	}
	if want := "MOVED 12182 " + seeds[2]; !strings.Contains(moved, want) {
		t.Errorf("got %q, want %q", moved, want)
	}
	f.Halt()
	if _, err := do(t.Context(), seeds[0], []string{"PING"}); err == nil {
		t.Error("a front that was halted answers")
	}
}
