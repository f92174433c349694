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

// meet puts a hostile module and its manifest beside the good plugin and has it
// judge what sets it off.
func (n *neighbours) meet(t testing.TB, m hostile, manifest string) (problem string) {
	for _, old := range []string{"bad.wasm", "bad.json"} {
		if err := os.Remove(filepath.Join(n.dir, old)); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}
	reload(t, n.catalog)
	write(t, n.dir, "bad.json", []byte(manifest))
	write(t, n.dir, "bad.wasm", m.wasm)
	problem = reload(t, n.catalog)
	for _, j := range n.catalog.Judges() {
		if j.Name() == "bad" {
			for range 20 { // a few, then it is in quarantine
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
		if problem := n.meet(t, m, `{"on_error":"open"}`); (problem != "") != (i < len(refused)) {
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

// BenchmarkNeighbours prints how long decisions take in a room that only a good
// plugin judges: alone, and while every hostile module there is comes, is tried,
// decides in another room, and goes. Both take equally long; ratio compares their
// p99.
func BenchmarkNeighbours(b *testing.B) {
	n := newNeighbours(b)
	modules := slices.Concat(refusedModules(), stoppedModules())
	for b.Loop() {
		stop := make(chan struct{})
		began := time.Now()
		go func() {
			defer close(stop)
			for _, m := range modules {
				n.meet(b, m, `{"on_error":"open","rooms":["other"]}`)
			}
		}()
		beside := n.judgeUntil(b, stop)
		took := time.Since(began)

		stop = make(chan struct{})
		time.AfterFunc(took, func() { close(stop) })
		alone := n.judgeUntil(b, stop)

		b.ReportMetric(float64(len(modules)), "modules")
		for _, t := range []struct {
			name string
			of   *times
		}{{"alone", alone}, {"beside", beside}} {
			b.ReportMetric(float64(t.of.n), t.name+"-times")
			b.ReportMetric(t.of.quantile(0.5), t.name+"-p50-ns")
			b.ReportMetric(t.of.quantile(0.99), t.name+"-p99-ns")
		}
		b.ReportMetric(beside.quantile(0.99)/alone.quantile(0.99), "ratio")
	}
	b.ReportMetric(0, "ns/op")
}

// judgeUntil judges one message after the other.
func (n *neighbours) judgeUntil(b *testing.B, stop <-chan struct{}) *times {
	t := &times{}
	for i := 0; ; i++ {
		select {
		case <-stop:
			return t
		default:
		}
		start := time.Now()
		problem := n.judge(b, i)
		t.add(time.Since(start))
		if problem != "" {
			b.Fatal(problem)
		}
	}
}

// times counts durations in steps of 20 ns; those above 2 ms are one.
type times struct {
	n     int
	steps [100_000]int
}

func (t *times) add(d time.Duration) {
	t.n++
	t.steps[min(int(d/20), len(t.steps)-1)]++
}

// quantile is in nanoseconds.
func (t *times) quantile(q float64) float64 {
	sum := 0
	for i, n := range t.steps {
		if sum += n; float64(sum) >= q*float64(t.n) {
			return float64((i + 1) * 20)
		}
	}
	return 0
}
