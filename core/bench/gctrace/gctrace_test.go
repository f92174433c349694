package gctrace

import (
	"bytes"
	"os"
	"os/exec"
	"reflect"
	"strings"
	"testing"
	"time"
)

const sample = "gc 7 @1.250s 3%: 0.10+2.5+0.02 ms clock, 0.20+0.5/2.0/0.25+0.04 ms cpu, 12->14->6 MB, 13 MB goal, 1 MB stacks, 2 MB globals, 2 P"

func TestParse(t *testing.T) {
	want := Cycle{
		N: 7, At: 1250 * time.Millisecond, Percent: 3,
		MarkStart: 100 * time.Microsecond, Mark: 2500 * time.Microsecond, MarkEnd: 20 * time.Microsecond,
		CPU: CPU{MarkStart: 200 * time.Microsecond, Assist: 500 * time.Microsecond, Background: 2 * time.Millisecond,
			Idle: 250 * time.Microsecond, MarkEnd: 40 * time.Microsecond},
		HeapStart: 12 << 20, HeapEnd: 14 << 20, Live: 6 << 20, Goal: 13 << 20, Stacks: 1 << 20, Globals: 2 << 20, Procs: 2,
	}
	got, err := Parse(sample)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v\nwant %+v", got, err, want)
	}
	if got.Pause() != 120*time.Microsecond || got.CPU.Busy() != 2740*time.Microsecond {
		t.Errorf("got pause %v and busy %v, want 120µs and 2.74ms", got.Pause(), got.CPU.Busy())
	}
	forced, err := Parse(sample + " (forced)")
	if err != nil || !forced.Forced {
		t.Errorf("got %+v, %v, want a forced cycle", forced, err)
	}
}

func TestParseRefuses(t *testing.T) {
	for name, line := range map[string]string{
		"nothing":            "",
		"another line":       "scvg: 8 MB released",
		"no parts":           "gc 7 @1.250s 3%: ",
		"no clock":           strings.Replace(sample, "0.10+2.5+0.02 ms clock", "0.10+2.5 ms clock", 1),
		"negative":           strings.Replace(sample, "0.10+", "-0.10+", 1),
		"not a number":       strings.Replace(sample, "0.10+", "NaN+", 1),
		"endless":            strings.Replace(sample, "12->", "1e300->", 1),
		"no processors":      strings.Replace(sample, "2 P", "0 P", 1),
		"no time":            strings.Replace(sample, "@1.250s", "1.250s", 1),
		"no percent":         strings.Replace(sample, "3%", "3", 1),
		"negative number":    strings.Replace(sample, "gc 7", "gc -7", 1),
		"without processors": strings.TrimSuffix(sample, ", 2 P"),
		"too long":           sample + strings.Repeat(" ", maxLine),
	} {
		if got, err := Parse(line); err == nil {
			t.Errorf("%s: got %+v, want an error", name, got)
		}
	}
}

func TestReadPassesOtherLinesOver(t *testing.T) {
	text := "level=INFO msg=started\n" + sample + "\n" + strings.Repeat("x", 5*maxLine) + "\n" + sample + strings.Repeat("y", maxLine) + "\n" + sample + "\n"
	got, err := Read(strings.NewReader(text))
	if err != nil || len(got) != 2 {
		t.Errorf("got %d cycles, %v, want 2", len(got), err)
	}
}

// TestRealTrace holds the parser to what this Go prints.
func TestRealTrace(t *testing.T) {
	if os.Getenv("GCTRACE_CHILD") == "1" {
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run", "^TestChurn$")
	cmd.Env = append(os.Environ(), "GODEBUG=gctrace=1", "GCTRACE_CHILD=1")
	var trace bytes.Buffer
	cmd.Stderr = &trace
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	all, err := Read(&trace)
	if err != nil || len(all) < 5 {
		t.Fatalf("got %d cycles, %v, want at least 5", len(all), err)
	}
	for i, c := range all {
		if c.N != i+1 || c.Procs < 1 || c.Goal == 0 {
			t.Errorf("got %+v as cycle %d", c, i+1)
		}
	}
}

var sink []byte

// TestChurn is the child of TestRealTrace: it makes garbage.
func TestChurn(t *testing.T) {
	if os.Getenv("GCTRACE_CHILD") != "1" {
		return
	}
	for range 1000 {
		sink = make([]byte, 1<<20)
	}
}

func TestSummarize(t *testing.T) {
	cycle := func(at, start, end time.Duration, live, heap int64) Cycle {
		return Cycle{At: at, MarkStart: start, MarkEnd: end, Live: live, HeapEnd: heap, CPU: CPU{Background: time.Second}}
	}
	all := []Cycle{
		cycle(0, time.Hour, 0, 1, 1000), // before
		cycle(10*time.Second, 3*time.Millisecond, 1*time.Millisecond, 40, 80),
		cycle(12*time.Second, 1*time.Millisecond, 1*time.Millisecond, 50, 100),
		cycle(14*time.Second, 2*time.Millisecond, 5*time.Millisecond, 45, 90),
		cycle(20*time.Second, time.Hour, 0, 1, 1000), // after
	}
	got := Summarize(all, 10*time.Second, 20*time.Second)
	want := Summary{Cycles: 3, Rate: 0.3, PauseP50: 4 * time.Millisecond, PauseP99: 7 * time.Millisecond, PauseMax: 7 * time.Millisecond,
		StartP99: 3 * time.Millisecond, EndP99: 5 * time.Millisecond, Busy: 3 * time.Second, HeapLow: 40, HeapHigh: 100, LiveMedian: 45}
	if got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if got.Swing() != 30 {
		t.Errorf("got swing %d, want 30", got.Swing())
	}
	if got := Summarize(nil, 0, time.Second); got != (Summary{}) {
		t.Errorf("got %+v for no cycles, want nothing", got)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(sample)
	f.Add(sample + " (forced)")
	f.Add("gc 1 @0.001s 0%: 0+0+0 ms clock, 0+0/0/0+0 ms cpu, 4->4->0 MB, 4 MB goal, 0 MB stacks, 0 MB globals, 8 P")
	f.Fuzz(func(t *testing.T, line string) {
		c, err := Parse(line)
		if err != nil {
			return
		}
		if c.Procs < 1 || c.At < 0 || c.Pause() < 0 || c.CPU.Busy() < 0 || c.HeapEnd < 0 || c.Goal < 0 {
			t.Errorf("got %+v from %q", c, line)
		}
	})
}
