package chaos

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"

	"go.uber.org/goleak"

	"parley/core/checker"
	"parley/core/e2e/rig"
)

func TestMain(m *testing.M) {
	code := rig.Suite{Leaks: toxic}.Main(m)
	if err := counts.print(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// toxic are the goroutines that toxiproxy leaves behind where one end of a
// connection goes while the other still sends: each waits for ever for the next
// part of its chain to take what it holds.
var toxic = []goleak.Option{
	goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2/toxics.(*ToxicStub).Run"),
	goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2.(*ToxicLink).read"),
	goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2.(*ToxicLink).write"),
}

// long says that every fault happens as often as `make chaos` wants it.
var long = os.Getenv("PARLEY_CHAOS") == "long"

// often chooses a number by the form of the run.
func often(few, many int) int {
	if long {
		return many
	}
	return few
}

// tally is what all runs of one kind of fault came to.
type tally struct {
	kind                                               string
	faults, sent, acked, unknown, repeats              int
	delivered, resets, generations, lostSeen, lostAcks int
	duplicates                                         int
}

// counts gathers the tallies in the order in which the kinds ended.
var counts tallies

type tallies struct {
	mu  sync.Mutex
	all []tally
}

func (c *tallies) add(kind string, faults int, rep *checker.Report) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = append(c.all, tally{
		kind: kind, faults: faults, sent: rep.Sends, acked: rep.Acked, unknown: rep.Unknown, repeats: rep.Repeats,
		delivered: rep.Delivered, resets: rep.Resets, generations: rep.Generations, lostSeen: rep.LostSeen, lostAcks: rep.LostAcked,
		duplicates: rep.Found[checker.Duplicate] + rep.Found[checker.PostedTwice],
	})
}

// print writes the table of all tallies.
func (c *tallies) print() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.all) == 0 {
		return nil
	}
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "fault\ttimes\tsent\tacked\tunknown\tanswered again\tdelivered\tresets\tgenerations\tlost and announced (acked)\tduplicates\t")
	sum := tally{kind: "together"}
	row := func(t tally) {
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d (%d)\t%d\t\n", t.kind, t.faults, t.sent, t.acked, t.unknown, t.repeats,
			t.delivered, t.resets, t.generations, t.lostSeen, t.lostAcks, t.duplicates)
	}
	for _, t := range c.all {
		row(t)
		sum.faults += t.faults
		sum.sent += t.sent
		sum.acked += t.acked
		sum.unknown += t.unknown
		sum.repeats += t.repeats
		sum.delivered += t.delivered
		sum.resets += t.resets
		sum.generations += t.generations
		sum.lostSeen += t.lostSeen
		sum.lostAcks += t.lostAcks
		sum.duplicates += t.duplicates
	}
	row(sum)
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Print(text.String())
	if file := os.Getenv("PARLEY_CHAOS_COUNTS"); file != "" {
		return os.WriteFile(file, []byte(text.String()), 0o644)
	}
	return nil
}
