package share_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"parley/core/redis/redistest"
	"parley/plugins"
	"parley/plugins/share"
	"parley/sdk/abi"
)

// slowly has versions tried by a program that waits until the file is there, and
// passes none.
func slowly(file string) func(*plugins.Config) {
	return func(c *plugins.Config) {
		c.CacheDir = filepath.Join(filepath.Dir(file), "cache")
		c.Trial.Command = []string{"/bin/sh", "-c", "while [ ! -e '" + file + "' ]; do /bin/sleep 0.02; done; exit 1"}
		c.Trial.InProcess = false
	}
}

// A node that has not looked does not say that it judges as the others do.
func TestANewNodeHasNotJudged(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	a, b := newNode(t, server, "a").up(), newNode(t, server, "b")
	a.drop("p", says(abi.Deny, "v1"), `{"version":"1"}`)
	all(t, "p", "1", a)
	run := b.open()
	if st, info := b.share.Stats(), b.share.Info(); st.Judged || !info.Unjudged {
		t.Errorf("before it has looked: got %+v, %+v", st, info)
	}
	if why := b.share.NotReady(); len(why) != 1 || !strings.Contains(why[0], "has not looked yet") || len(b.share.Notes()) > 0 {
		t.Errorf("before it has looked: got %q, notes %q", why, b.share.Notes())
	}
	run()
	all(t, "p", "1", a, b)
	await(t, "b has judged", func() bool {
		st := b.share.Stats()
		return st.Judged && st.Unjudged == 0 && st.Diverged == 0 && !b.share.Info().Unjudged && len(b.share.NotReady()) == 0
	})
}

// While a version is tried it is neither judged with nor refused; a node that has
// served for long serves on, and a new one waits for it, and not for ever.
func TestATrialIsNoVerdict(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	a, b := newNode(t, server, "a").up(), newNode(t, server, "b")
	let := filepath.Join(t.TempDir(), "let")
	b.edit = slowly(let)
	b.up()
	await(t, "there is nothing to judge", func() bool { return b.share.Stats().Judged && len(b.share.NotReady()) == 0 })
	a.drop("p", says(abi.Deny, "v1"), `{"version":"1"}`)
	await(t, "b has not judged p", func() bool { return b.share.Stats().Unjudged == 1 })
	if why, notes := b.share.NotReady(), b.share.Notes(); len(why) > 0 || len(notes) != 1 || !strings.Contains(notes[0], "has not judged 1 of the plugins") {
		t.Errorf("meanwhile: got %q, notes %q", why, notes)
	}
	await(t, "a sees that", func() bool {
		for _, n := range a.nodes.Nodes() {
			if n.ID == b.nodes.Self() {
				return strings.Contains(fmt.Sprint(share.Problems(&n)), "not judged yet")
			}
		}
		return false
	})
	// A node that begins now does not take clients, until it has had time enough.
	c := newNode(t, server, "c")
	c.edit, c.judge = slowly(filepath.Join(filepath.Dir(let), "never")), 300*time.Millisecond
	none := c.edit
	c.edit = func(pc *plugins.Config) { none(pc); pc.StartTrials = time.Millisecond }
	c.up()
	await(t, "c has looked", func() bool { return c.share.Stats().Judged })
	await(t, "c has had time enough", func() bool { return len(c.share.NotReady()) == 0 && len(c.share.Notes()) == 1 })

	if err := os.WriteFile(let, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	await(t, "b has refused p", func() bool { st := b.share.Stats(); return st.Unjudged == 0 && st.Diverged == 1 })
	await(t, "b is not ready for that", func() bool {
		why := b.share.NotReady()
		return len(why) == 1 && strings.Contains(why[0], "cannot converge")
	})
}

// What the others cannot be told holds up nothing else, is named after some
// attempts, and is told when it can be.
func TestWhatCannotBeToldHoldsUpNothing(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	a, b := newNode(t, server, "a"), newNode(t, server, "b").up()
	a.retry = 2 * time.Millisecond
	a.up()
	a.drop("p", says(abi.Deny, "v1"), `{"version":"1"}`)
	all(t, "p", "1", a, b)
	source := a.status("p").Source
	var open atomic.Bool
	standing := func(s plugins.Standing) plugins.Standing {
		s.Source, s.Identity, s.Stage, s.By, s.Reason = source, source, plugins.StageOut, "guard", "a test"
		return s
	}
	var order []string
	a.share.Tell("stubborn", func(s plugins.Standing) (plugins.Standing, error) {
		if !open.Load() {
			return s, errors.New("not now")
		}
		order = append(order, "first")
		return standing(s), nil
	})
	a.share.Tell("stubborn", func(s plugins.Standing) (plugins.Standing, error) {
		order = append(order, "second")
		return s, nil
	})
	a.share.Tell("large", func(s plugins.Standing) (plugins.Standing, error) {
		s = standing(s)
		if !open.Load() {
			s.Reason = strings.Repeat("x", 1<<20)
		}
		return s, nil
	})
	a.share.Tell("fine", func(s plugins.Standing) (plugins.Standing, error) { return standing(s), nil })
	await(t, "what can be told is", func() bool { return a.share.Stats().Pending == 3 })
	if said := server.Do("HGET", "parley:{objects}:heads", "rollouts"); !strings.Contains(said, `"fine"`) || strings.Contains(said, "stubborn") {
		t.Errorf("rollouts: got %s", said)
	}
	await(t, "the rest is named", func() bool {
		problems := strings.Join(a.share.Info().Problems, "\n")
		return a.share.Stats().Stuck == 2 && strings.Contains(problems, "rollback of plugin stubborn: the other nodes could not be told in 8 attempts") &&
			strings.Contains(problems, "not now") && strings.Contains(problems, "rollback of plugin large")
	})
	// Meanwhile plugins go to and fro.
	a.drop("q", says(abi.Deny, "q1"), `{"version":"1"}`)
	b.drop("r", says(abi.Deny, "r1"), `{"version":"1"}`)
	all(t, "q", "1", a, b)
	all(t, "r", "1", a, b)
	open.Store(true)
	await(t, "all is told", func() bool { st := a.share.Stats(); return st.Pending == 0 && st.Stuck == 0 && st.Problems == 0 })
	if got := strings.Join(order, " "); got != "first second" {
		t.Errorf("told in the order %s", got)
	}
	if said := server.Do("HGET", "parley:{objects}:heads", "rollouts"); !strings.Contains(said, `"stubborn"`) || !strings.Contains(said, `"large"`) {
		t.Errorf("rollouts: got %s", said)
	}
}
