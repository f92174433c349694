//go:build linux

package experiments

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"parley/core/bench"
	"parley/core/bench/gctrace"
	"parley/core/bench/report"
)

// platform is the binary that TestMain builds: a plain one, because the race
// detector would measure itself.
var platform string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "parley-experiments-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	platform = filepath.Join(dir, "platform")
	cmd := exec.Command("go", "build", "-trimpath", "-o", platform, "parley/cmd/platform")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the server: %v\n%s", err, text)
		os.Exit(1)
	}
	code := m.Run()
	_ = os.RemoveAll(dir)
	if err := goleak.Find(); code == 0 && err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func lab() *Lab {
	return &Lab{Bench: bench.New(bench.Config{Exe: platform}), Scale: 0.002}
}

// TestEach runs every experiment at the smallest scale and makes the page.
func TestEach(t *testing.T) {
	docs := t.TempDir()
	for _, e := range All() {
		t.Run(e.Name, func(t *testing.T) {
			sections, err := e.Run(within(t), lab())
			if err != nil {
				t.Fatal(err)
			}
			for i, s := range sections {
				if s.Title == "" || i == 0 && !strings.HasPrefix(s.Text, "Claimed: ") {
					t.Errorf("got section %q with text %.40q, want a title and the claim first", s.Title, s.Text)
				}
				if s.Table == nil || i == 0 && len(s.Table.Rows) < 1 {
					t.Errorf("%s: got no table of what was measured", s.Title)
					continue
				}
				for _, row := range s.Table.Rows {
					if len(row) != len(s.Table.Columns) {
						t.Errorf("%s: got row %q below columns %q", s.Title, row, s.Table.Columns)
					}
				}
			}
			if err := Keep(docs, e, "a test", sections); err != nil {
				t.Error(err)
			}
		})
	}
	if err := Page(docs); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(docs, "experiments.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range All() {
		if !bytes.Contains(page, []byte("ONLY="+e.Name+"`")) {
			t.Errorf("experiment %s is not on the page", e.Name)
		}
		if !bytes.Contains(page, []byte("- `"+e.Name+"`: [")) {
			t.Errorf("experiment %s is not in the contents", e.Name)
		}
	}
	for line := range strings.Lines(string(page)) {
		if _, rest, ok := strings.Cut(line, "](experiments/"); ok {
			name, _, _ := strings.Cut(rest, ")")
			if _, err := os.Stat(filepath.Join(docs, "experiments", name)); err != nil {
				t.Errorf("the page shows a plot that is not there: %v", err)
			}
		}
	}
}

// TestTriggerIsTheMinimumHeap holds this Go to what the page says.
func TestTriggerIsTheMinimumHeap(t *testing.T) {
	sections, err := trigger(within(t), lab())
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range sections[0].Table.Rows {
		if row[1] != row[2] {
			t.Errorf("GOGC=%s: got a first goal of %s, want %s", row[0], row[2], row[1])
		}
	}
}

// TestSocketsInherit holds Go and the kernel to what the page says.
func TestSocketsInherit(t *testing.T) {
	sections, err := sockets(within(t), lab())
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string][]string{}
	for _, r := range sections[0].Table.Rows {
		rows[r[0]] = r[1:]
	}
	sysctl := rows["sysctl net.ipv4.tcp_keepalive_*"]
	for name, want := range map[string][]string{
		"Go's default (net.Dialer, nothing set)": {"on", "15", "15", "9"},
		"Enable, and -1: unset":                  {"on", sysctl[1], sysctl[2], sysctl[3]},
		"Enable, 60 s / 10 s / 3":                {"on", "60", "10", "3"},
		"Enable, idle 60 s, the rest unset":      {"on", "60", sysctl[2], sysctl[3]},
		"setsockopt(SO_KEEPALIVE) alone":         {"on", sysctl[1], sysctl[2], sysctl[3]},
		"TCP_USER_TIMEOUT 12 s alone":            {"off", sysctl[1], sysctl[2], sysctl[3], "12000 ms"},
	} {
		if got := rows[name]; len(got) < len(want) || strings.Join(got[:len(want)], " ") != strings.Join(want, " ") {
			t.Errorf("%s: got %v, want %v", name, got, want)
		}
	}
	for name, want := range map[string]string{
		"Go's default (net.Dialer, nothing set)": "15 / 15 / 9",
		"Enable, and -1: unset":                  "1111 / 22 / 3",
		"Enable, idle 60 s, the rest unset":      "60 / 22 / 3",
		"setsockopt(SO_KEEPALIVE) alone":         "1111 / 22 / 3",
	} {
		if row := rows[name]; row[len(row)-1] != want {
			t.Errorf("%s: got %q after sysctl was changed, want %q", name, row[len(row)-1], want)
		}
	}
	if !strings.Contains(sections[0].Text, "2 that have KeepAlive on followed in all three") {
		t.Errorf("got text %q, want how many followed", sections[0].Text)
	}
}

func TestFind(t *testing.T) {
	if all, err := Find(nil); err != nil || len(all) != len(All()) {
		t.Errorf("got %d, %v, want all", len(all), err)
	}
	if two, err := Find([]string{"sockets", "gogc"}); err != nil || len(two) != 2 || two[0].Name != "sockets" {
		t.Errorf("got %v, %v, want the two", two, err)
	}
	if _, err := Find([]string{"alchemy"}); err == nil || !strings.Contains(err.Error(), "starvation") {
		t.Errorf("got %v, want the experiments there are", err)
	}
}

// TestChildren runs the children here, with little to do.
func TestChildren(t *testing.T) {
	run := func(name, in string) (string, error) {
		var out bytes.Buffer
		err := Children()[name](within(t), strings.NewReader(in), &out)
		return out.String(), err
	}
	if out, err := run("churn", `{"Bytes":8192,"Block":4096}`+"\n"); err != nil || out != `{"Bytes":8192}`+"\n" {
		t.Errorf("churn: got %q, %v", out, err)
	}
	for _, kind := range []string{asleep, looping, blocking, untold} {
		in := fmt.Sprintf(`{"Kind":%q,"Goroutines":2,"Duration":20000000}`+"\n", kind)
		if out, err := run("starve", in); err != nil || !strings.Contains(out, `"P99"`) {
			t.Errorf("starve %s: got %q, %v", kind, out, err)
		}
	}
	if out, err := run("http", ""); err != nil || !strings.Contains(out, `"Addr":"127.0.0.1:`) || !strings.Contains(out, `"Created"`) {
		t.Errorf("http: got %q, %v", out, err)
	}
	for name, in := range map[string]string{"churn": `{"Bytes":-1}`, "starve": `{"Kind":"idle"}`, "request": `{"Conns":0}`} {
		if _, err := run(name, in+"\n"); err == nil {
			t.Errorf("%s: got no error for %s", name, in)
		}
		if _, err := run(name, in); err == nil {
			t.Errorf("%s: got no error for orders without an end", name)
		}
		if _, err := run(name, "nonsense\n"); err == nil {
			t.Errorf("%s: got no error for nonsense", name)
		}
	}
	if _, err := run("request", `{"Addr":"127.0.0.1:1","Conns":1,"Duration":1000000}`+"\n"); err == nil {
		t.Error("request: got no error where nobody serves")
	}
}

// TestHTTPHere runs server and client of the HTTP experiment in this process.
func TestHTTPHere(t *testing.T) {
	quit, in := newPipe(t)
	where := make(chan string, 1)
	done := make(chan error, 1)
	go func() {
		done <- httpChild(within(t), quit, writer(func(b []byte) { // ends with quit
			if _, rest, ok := strings.Cut(string(b), `"Addr":"`); ok {
				where <- strings.TrimRight(rest, "\"}\n")
			}
		}))
	}()
	var out bytes.Buffer
	orders := fmt.Sprintf(`{"Addr":%q,"Conns":3,"Duration":200000000}`+"\n", <-where)
	if err := requestChild(within(t), strings.NewReader(orders), &out); err != nil || !strings.Contains(out.String(), `"Requests"`) {
		t.Errorf("got %q, %v", out.String(), err)
	}
	_ = in.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func newPipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close(); _ = w.Close() })
	return r, w
}

type writer func([]byte)

func (w writer) Write(b []byte) (int, error) { w(b); return len(b), nil }

func TestPageRefusesBrokenResults(t *testing.T) {
	docs := t.TempDir()
	e := All()[0]
	bad := []report.Section{{Title: "x", Plots: []report.Plot{{Lines: []report.Line{{X: []float64{1}, Y: []float64{1, 2}}}}}}}
	if err := Keep(docs, e, "", bad); err != nil {
		t.Fatal(err)
	}
	if err := Page(docs); err == nil {
		t.Error("got no error for a plot that cannot be drawn")
	}
	if err := os.WriteFile(filepath.Join(docs, "experiments", e.Name+".json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Page(docs); err == nil {
		t.Error("got no error for a broken result")
	}
	if err := Keep("/proc/none", e, "", nil); err == nil {
		t.Error("got no error for a folder that cannot be")
	}
}

// TestMedianIsOneRun takes the middle run and not a mixture.
func TestMedianIsOneRun(t *testing.T) {
	for _, x := range []struct {
		runs []float64
		want float64
	}{{[]float64{3, 1, 2}, 2}, {[]float64{1}, 1}, {[]float64{5, 5, 1, 9, 0}, 5}} {
		next := 0
		got, err := median(&Lab{Runs: len(x.runs)}, func(v float64) float64 { return v }, func() (float64, error) { next++; return x.runs[next-1], nil })
		if err != nil || got != x.want || next != len(x.runs) {
			t.Errorf("median of %v: got %v (%v) after %d runs, want %v", x.runs, got, err, next, x.want)
		}
	}
	broken := errors.New("broken")
	if _, err := median(&Lab{}, func(v float64) float64 { return v }, func() (float64, error) { return 0, broken }); !errors.Is(err, broken) {
		t.Errorf("got %v, want %v", err, broken)
	}
}

// TestRunsAddUp adds two runs of a link that was survived in part.
func TestRunsAddUp(t *testing.T) {
	once := func() *survived {
		s := &survived{clients: 4, heard: 3, evidence: map[string]int{"path_dead": 1}}
		s.bad = tally{hurt: map[int]bool{0: true}, disconnects: 2, resumed: []time.Duration{time.Second}, gapless: 1}
		s.cut = tally{hurt: map[int]bool{1: true, 2: true}, disconnects: 2}
		return s
	}
	var both survived
	both.add(once())
	both.add(once())
	if both.clients != 8 || both.heard != 6 || both.bad.share(8) != "75 %" || both.cut.share(8) != "50 %" || both.bad.disconnects != 4 || len(both.bad.resumed) != 2 || both.bad.gapless != 2 || both.evidence["path_dead"] != 2 {
		t.Errorf("got %+v", &both)
	}
}

// TestSentencesFollowTheFigures holds the other texts to what was measured.
func TestSentencesFollowTheFigures(t *testing.T) {
	cpus := float64(runtime.NumCPU())
	settings := bench.Tunings("GOGC=10", "GOGC=200", "GOGC=off GOMEMLIMIT=1GiB")
	tails := []time.Duration{time.Millisecond, 2 * time.Millisecond}
	all := func(fault, mode string, n int) *found {
		return &found{fault: fault, mode: mode, all: crowdSize, after: make([]time.Duration, n), evidence: map[string]int{"keepalive": n / 2}}
	}
	for name, x := range map[string]struct{ got, want string }{
		"starved":              {starved(time.Second, time.Millisecond), "did keep"},
		"not starved":          {starved(time.Millisecond, time.Millisecond), "starves nobody"},
		"a busy machine":       {starved(25*time.Millisecond, 20*time.Millisecond), "this busy machine"},
		"agreed":               {agreed([]*found{all(frozen, "both", 4), all(frozen, "ladder", 20)}), "agreed about 2 of 20 dead connections; 4 ended"},
		"found":                {unfound([]*found{all(frozen, "both", crowdSize)}), "Every row of a fault that stays found all."},
		"not to be found":      {unfound([]*found{all(flash, "both", 3)}), "Every row"},
		"flashed":              {lab().flashed([]*found{all(cutLink, "both", 3), all(flash, "ladder", 4)}), "is over after 2s, so that whoever"},
		"flashed, counted":     {lab().flashed([]*found{all(flash, "ladder", 4)}), "Connections ended by it: ladder 4 of 20. "},
		"not found":            {unfound([]*found{all(frozen, "both", 3)}), "frozen peer with both (3)."},
		"traded":               {traded(settings, []sums{{n: 1, rate: 3, swing: 1}, {n: 1, rate: 1, swing: 2}, {n: 1}}), "from 3 to 1 a second for each process, the largest swing from 9.5e-07 MiB to 1.9e-06 MiB: the opposite"},
		"not traded":           {traded(settings, []sums{{n: 1, rate: 1, swing: 1}, {n: 1, rate: 2, swing: 2}, {n: 1}}), "not the trade"},
		"nothing to trade":     {traded(settings[1:], []sums{{n: 1}, {n: 1}}), ""},
		"pauses as they were":  {grown(paused{10, gctrace.Summary{PauseP50: 10, LiveMedian: 1}}, paused{100, gctrace.Summary{PauseP50: 14, LiveMedian: 10}}), "did not grow"},
		"pauses grew a little": {grown(paused{10, gctrace.Summary{PauseP50: 10, LiveMedian: 1}}, paused{100, gctrace.Summary{PauseP50: 40, LiveMedian: 10}}), "far less"},
		"heap as it was":       {grown(paused{10, gctrace.Summary{PauseP50: 10, LiveMedian: 3}}, paused{100, gctrace.Summary{PauseP50: 90, LiveMedian: 4}}), "nothing follows"},
		"pauses grew":          {grown(paused{10, gctrace.Summary{PauseP50: 10, LiveMedian: 1}}, paused{100, gctrace.Summary{PauseP50: 90, LiveMedian: 10}}), "as claimed"},
		"peak": {peak(report.Line{X: []float64{cpus, cpus + 1}, Y: []float64{50, 100}}, "requests", tails),
			"was 50 % of that, and p99 1 ms"},
		"controllers lose": {judged([]governedRow{{"quiet", static, 100, 10}, {"quiet", "x", 130, 10}, {"busy", static, 100, 10}, {"busy", "x", 130, 20}}),
			"Under one load alone it was beaten by: x.\n\nNo controller beat"},
		"a controller wins": {judged([]governedRow{{"quiet", static, 100, 10}, {"quiet", "x", 130, 10}, {"busy", static, 100, 10}, {"busy", "x", 111, 11}}),
			"beaten by: x."},
		"own peak": {peak(report.Line{X: []float64{cpus, cpus + 1}, Y: []float64{100, 50}}, "requests", tails), "p99 was 1 ms there and 2 ms at"},
	} {
		if !strings.Contains(x.got, x.want) || x.want == "" && x.got != "" {
			t.Errorf("%s: got %q, want %q in it", name, x.got, x.want)
		}
	}
	if got := agreed([]*found{all(frozen, "ladder", 1)}); got != "" {
		t.Errorf("agreed without mode both: got %q", got)
	}
}
