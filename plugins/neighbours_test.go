package plugins_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"parley/core/moderation"
	"parley/plugins"
	"parley/sdk/abi"
)

// neighbours is a catalog in which a good plugin judges beside a bad one that
// changes.
type neighbours struct {
	catalog *plugins.Catalog
	dir     string
	stage   *moderation.Stage
}

func newNeighbours(t testing.TB) *neighbours {
	t.Helper()
	cache, child := t.TempDir(), buildTrial(t)
	c, dir := newCatalog(t, inChild(cache), func(c *plugins.Config) {
		c.PoolSize, c.Trial.Command = 8, []string{child}
	})
	stage, err := moderation.New(moderation.Defaults(), c)
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, "good.wasm", masker())
	if err := reload(t, c); err != "" {
		t.Fatal(err)
	}
	return &neighbours{c, dir, stage}
}

// judge has all plugins judge one text; it returns what is wrong, "" if
// nothing is.
func (n *neighbours) judge(t testing.TB, i int) string {
	text := fmt.Sprintf("message %d!", i)
	res, err := n.stage.Judge(t.Context(), &moderation.Message{Room: "lobby", User: "ann", Kind: "message", Text: text}, nil)
	want := text[:len(text)-1] + "*"
	if err != nil || res.Verdict != abi.Redact || res.Text != want {
		return fmt.Sprintf("%q: got %v, %q, %v, want redact, %q", text, res.Verdict, res.Text, err, want)
	}
	return ""
}

// meet puts a hostile module beside the good plugin and has it judge what sets
// it off.
func (n *neighbours) meet(t testing.TB, m hostile) (problem string) {
	for _, old := range []string{"bad.wasm", "bad.json"} {
		if err := os.Remove(filepath.Join(n.dir, old)); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}
	reload(t, n.catalog)
	write(t, n.dir, "bad.json", []byte(`{"on_error":"open"}`))
	write(t, n.dir, "bad.wasm", m.wasm)
	problem = reload(t, n.catalog)
	for _, j := range n.catalog.Judges() {
		if j.Name() == "bad" {
			for range 3 {
				decide(j, "x")
			}
		}
	}
	return problem
}

// Every hostile module there is comes and goes, while another plugin judges
// one message after the other, and judges each of them right.
func TestNeighboursGoOn(t *testing.T) {
	n := newNeighbours(t)
	var judged atomic.Int64
	stop, wg := make(chan struct{}), sync.WaitGroup{}
	for w := range 4 {
		wg.Go(func() {
			for i := w; ; i += 4 {
				select {
				case <-stop:
					return
				default:
				}
				if problem := n.judge(t, i); problem != "" {
					t.Error(problem)
					return
				}
				judged.Add(1)
			}
		})
	}
	refused := refusedModules()
	for i, m := range slices.Concat(refused, stoppedModules()) {
		before := judged.Load()
		if problem := n.meet(t, m); (problem != "") != (i < len(refused)) {
			t.Errorf("%s: got %q when it was loaded", m.name, problem)
		}
		for judged.Load() == before && !t.Failed() { // at least one while it was there
			n.judge(t, 0)
		}
	}
	close(stop)
	wg.Wait()
	if v, _, err := decide(n.catalog.Judges()[len(n.catalog.Judges())-1], "still here!"); v != abi.Redact || err != nil {
		t.Errorf("got %v, %v from the good plugin at the end", v, err)
	}
}

// BenchmarkNeighbours prints the p99 of a good plugin's decision alone and
// while hostile modules come, go and decide, and how they compare.
func BenchmarkNeighbours(b *testing.B) {
	n := newNeighbours(b)
	times := func() time.Duration {
		took := make([]time.Duration, 0, 200_000)
		for i := range cap(took) {
			start := time.Now()
			if problem := n.judge(b, i); problem != "" {
				b.Fatal(problem)
			}
			took = append(took, time.Since(start))
		}
		slices.Sort(took)
		return took[len(took)*99/100]
	}
	for b.Loop() {
		alone := times()
		stop, done := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(done)
			for {
				for _, m := range slices.Concat(refusedModules(), stoppedModules()) {
					select {
					case <-stop:
						return
					default:
						n.meet(b, m)
					}
				}
			}
		}()
		beside := times()
		close(stop)
		<-done
		b.ReportMetric(float64(alone.Nanoseconds()), "p99-alone-ns")
		b.ReportMetric(float64(beside.Nanoseconds()), "p99-beside-ns")
		b.ReportMetric(float64(beside)/float64(alone), "ratio")
	}
	b.ReportMetric(0, "ns/op")
}
