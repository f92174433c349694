package chaos

import (
	"bytes"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"parley/core/chat"
	"parley/core/client"
	"parley/core/e2e/rig"
)

// carrier is a running `platform mirror`.
type carrier struct {
	cmd *exec.Cmd
	out lockedBuffer
}

// lockedBuffer may be read while a process writes.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func mirrorArgs(from, to string, more ...string) []string {
	return append([]string{"mirror", "--from", from, "--to", to, "--room", "lobby", "--room", "kit*"}, more...)
}

// startCarrier starts a mirror; kill ends it.
func startCarrier(t *testing.T, from, to string) *carrier {
	t.Helper()
	c := &carrier{cmd: exec.Command(rig.Platform(), mirrorArgs(from, to, "--call-timeout", "1s", "--report", "500ms")...)}
	c.cmd.Env = rig.CleanEnv()
	c.cmd.Stdout, c.cmd.Stderr = &c.out, &c.out
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.kill()
		if t.Failed() {
			t.Logf("a mirror said:\n%s", &c.out)
		}
	})
	return c
}

// kill ends the process as kill -9 does. It may be called twice.
func (c *carrier) kill() {
	_ = c.cmd.Process.Kill()
	_ = c.cmd.Wait()
}

// TestTwoRegions runs two deployments with a node and clients each, and mirrors
// between them that are killed again and again, while the links stand still now
// and then and sometimes two mirrors are at work. What is said at one must be
// at both, once, in an order that each deployment's clients agree on.
func TestTwoRegions(t *testing.T) {
	t.Parallel()
	one := plan{nodes: 1, clients: 4, talkers: 2, every: 10 * time.Millisecond}
	a, b := begin(t, "mirror killed, first region", one), begin(t, "mirror killed, second region", one)
	la, lb := newLink(t, a.store.Addr()), newLink(t, b.store.Addr())
	m := startCarrier(t, la.URL(), lb.URL())
	await(t, "entries arrive at both sides", func() bool {
		return strings.Contains(m.out.String(), "carried=")
	})
	rounds := often(4, 20)
	for k := range rounds {
		a.goesOn(30)
		b.crowd.Midway()
		switch k % 4 {
		case 0, 2:
			m.kill()
		case 1: // calls under way, and their answers, are late
			l := []*link{la, lb}[k/4%2]
			l.cut()
			lasts(t, time.Duration(often(1, 31))*time.Second)
			l.mend()
			m.kill()
		case 3: // by mistake, and the other way round
			other := startCarrier(t, lb.URL(), la.URL())
			b.goesOn(60)
			m.kill()
			b.goesOn(30)
			other.kill()
		}
		m = startCarrier(t, la.URL(), lb.URL())
	}
	a.goesOn(30)
	b.goesOn(30)
	a.crowd.Hush()
	b.crowd.Hush()
	var said string
	await(t, "both sides hold the same", func() bool {
		out, code := a.nodes[0].Bare(mirrorArgs(a.store.URL(), b.store.URL(), "--check", "--settle", "0s")...)
		said = out
		return code == 0
	})
	t.Logf("platform mirror --check: %s", said)
	if !strings.Contains(said, "2 rooms") || !strings.Contains(said, "0 errors: error rate 0.000000%") {
		t.Errorf("got %q", said)
	}
	// With the eyes of a client.
	for _, room := range []chat.RoomID{"lobby", "kitchen"} {
		if here, there := a.texts(room), b.texts(room); !maps.Equal(here, there) {
			t.Errorf("%s: the regions' clients see %d and %d messages, and not the same", room, len(here), len(there))
		}
	}
	ra, rb := a.settle(rounds, 0), b.settle(rounds, 0)
	if ra.Entries != rb.Entries || ra.Entries < ra.Acked+rb.Acked {
		t.Errorf("got %d and %d entries, want the same, and at least the %d and %d acknowledged messages", ra.Entries, rb.Entries, ra.Acked, rb.Acked)
	}
}

// texts reads a room as a client does: the text of each entry by its id.
func (w *world) texts(room chat.RoomID) map[chat.MessageID]string {
	w.t.Helper()
	conn, err := client.Dial(rig.Within(w.t), client.Options{URL: w.nodes[0].WSURL(), Token: w.judge})
	if err != nil {
		w.t.Fatal(err)
	}
	defer conn.Close()
	_, entries, err := conn.HistoryAll(rig.Within(w.t), room)
	if err != nil {
		w.t.Fatal(err)
	}
	all := make(map[chat.MessageID]string, len(entries))
	for _, e := range slices.Backward(entries) {
		all[e.ID] = string(e.From) + ": " + e.Text
	}
	return all
}
