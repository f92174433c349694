// Package gctrace reads the lines that a Go program prints with
// GODEBUG=gctrace=1, as documented in package runtime, "Environment Variables".
// All functions are pure.
package gctrace

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Cycle is one garbage collection.
type Cycle struct {
	N         int
	At        time.Duration // since the program's start
	Percent   float64       // of the CPU time available since the start that collecting took
	MarkStart time.Duration // the world stands still: sweep termination, mark begins
	Mark      time.Duration // concurrent
	MarkEnd   time.Duration // the world stands still: mark termination
	CPU       CPU
	HeapStart int64 // bytes, when the cycle began
	HeapEnd   int64 // when it ended
	Live      int64 // what was marked
	Goal      int64 // heap size the cycle was to end at
	Stacks    int64 // scannable, estimated
	Globals   int64 // scannable
	Procs     int
	Forced    bool // by runtime.GC
}

// CPU is what a cycle's phases took on all processors.
type CPU struct {
	MarkStart, Assist, Background, Idle, MarkEnd time.Duration
}

// Busy is the CPU time that the program could have used: what idle processors
// did is not counted.
func (c CPU) Busy() time.Duration { return c.MarkStart + c.Assist + c.Background + c.MarkEnd }

// Pause is how long the world stood still.
func (c Cycle) Pause() time.Duration { return c.MarkStart + c.MarkEnd }

// errNoTrace says that a line is something else.
var errNoTrace = errors.New("not a gctrace line")

// Bounds of a trace: a line is some 150 bytes, and one cycle in a millisecond
// for a quarter of an hour is more than any run has.
const (
	maxLine   = 1024
	maxCycles = 1 << 20
)

// Read returns the cycles among the lines of a program's standard error; other
// lines are passed over, also very long ones.
func Read(r io.Reader) (all []Cycle, err error) {
	in := bufio.NewReaderSize(r, maxLine)
	for {
		line, more, err := in.ReadLine()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return all, err
		}
		if c, err := Parse(string(line)); err == nil && !more {
			if len(all) == maxCycles {
				return all, fmt.Errorf("more than %d collections", maxCycles)
			}
			all = append(all, c)
		}
		for more && err == nil {
			_, more, err = in.ReadLine()
		}
	}
}

// Parse reads one line:
//
//	gc # @#s #%: #+#+# ms clock, #+#/#/#+# ms cpu, #->#-># MB, # MB goal, # MB stacks, # MB globals, # P (forced)
func Parse(line string) (c Cycle, err error) {
	if len(line) > maxLine || !strings.HasPrefix(line, "gc ") {
		return c, errNoTrace
	}
	head, rest, ok := strings.Cut(line, ": ")
	parts := strings.Split(rest, ", ")
	if !ok || len(parts) < 5 {
		return c, errNoTrace
	}
	if err := c.head(head); err != nil {
		return Cycle{}, fmt.Errorf("read %q: %w", head, err)
	}
	for _, part := range parts {
		if err := c.part(part); err != nil {
			return Cycle{}, fmt.Errorf("read %q: %w", part, err)
		}
	}
	if c.Procs == 0 {
		return Cycle{}, errNoTrace
	}
	return c, nil
}

// head reads "gc 12 @3.456s 2%".
func (c *Cycle) head(s string) error {
	words := strings.Fields(s)
	if len(words) != 4 || words[0] != "gc" || !strings.HasPrefix(words[2], "@") || !strings.HasSuffix(words[2], "s") || !strings.HasSuffix(words[3], "%") {
		return errNoTrace
	}
	n, err := strconv.Atoi(words[1])
	if err != nil || n < 0 {
		return errNoTrace
	}
	at, err := quantity(strings.TrimSuffix(words[2][1:], "s"))
	if err != nil {
		return err
	}
	percent, err := quantity(strings.TrimSuffix(words[3], "%"))
	if err != nil {
		return err
	}
	c.N, c.At, c.Percent = n, time.Duration(at*float64(time.Second)), percent
	return nil
}

// part reads what stands between two commas; what a later Go adds is passed
// over.
func (c *Cycle) part(s string) error {
	numbers, unit, _ := strings.Cut(strings.TrimSpace(s), " ")
	var clock, cpu, heap = []*time.Duration{&c.MarkStart, &c.Mark, &c.MarkEnd},
		[]*time.Duration{&c.CPU.MarkStart, &c.CPU.Assist, &c.CPU.Background, &c.CPU.Idle, &c.CPU.MarkEnd},
		[]*int64{&c.HeapStart, &c.HeapEnd, &c.Live}
	switch {
	case unit == "ms clock":
		return durations(strings.Split(numbers, "+"), clock)
	case unit == "ms cpu":
		return durations(strings.FieldsFunc(numbers, func(r rune) bool { return r == '+' || r == '/' }), cpu)
	case unit == "MB" && strings.Contains(numbers, "->"):
		return sizes(strings.Split(numbers, "->"), heap)
	case unit == "MB goal":
		return sizes([]string{numbers}, []*int64{&c.Goal})
	case unit == "MB stacks":
		return sizes([]string{numbers}, []*int64{&c.Stacks})
	case unit == "MB globals":
		return sizes([]string{numbers}, []*int64{&c.Globals})
	case unit == "P" || unit == "P (forced)":
		n, err := strconv.Atoi(numbers)
		if err != nil || n < 1 || n > 1<<20 {
			return errNoTrace
		}
		c.Procs, c.Forced = n, unit != "P"
	}
	return nil
}

func durations(words []string, to []*time.Duration) error {
	if len(words) != len(to) {
		return errNoTrace
	}
	for i, w := range words {
		v, err := quantity(w)
		if err != nil {
			return err
		}
		*to[i] = time.Duration(v * float64(time.Millisecond))
	}
	return nil
}

func sizes(words []string, to []*int64) error {
	if len(words) != len(to) {
		return errNoTrace
	}
	for i, w := range words {
		v, err := quantity(w)
		if err != nil {
			return err
		}
		*to[i] = int64(v * (1 << 20))
	}
	return nil
}

// quantity reads a number that is not negative and not absurd: ten days
// in milliseconds, thirty years in seconds, a petabyte in MB.
func quantity(s string) (float64, error) {
	v, err := strconv.ParseFloat(s, 64)
	if err != nil || !(v >= 0 && v < 1e9) {
		return 0, errNoTrace
	}
	return v, nil
}

// Summary is what cycles come to over a time.
type Summary struct {
	Cycles     int
	Rate       float64 // a second
	PauseP50   time.Duration
	PauseP99   time.Duration
	PauseMax   time.Duration
	StartP99   time.Duration // mark start alone
	EndP99     time.Duration // mark termination alone
	Busy       time.Duration // CPU time
	HeapLow    int64         // smallest live heap after marking
	HeapHigh   int64         // largest heap when a cycle ended
	LiveMedian int64
}

// Swing is how far the heap goes up and down around its middle, in bytes.
func (s Summary) Swing() int64 { return (s.HeapHigh - s.HeapLow) / 2 }

// Summarize looks at the cycles between two moments since the program's start.
func Summarize(all []Cycle, from, to time.Duration) (s Summary) {
	var pauses, starts, ends []time.Duration
	var live []int64
	for _, c := range all {
		if c.At < from || c.At >= to {
			continue
		}
		pauses, starts, ends = append(pauses, c.Pause()), append(starts, c.MarkStart), append(ends, c.MarkEnd)
		live = append(live, c.Live)
		s.Busy += c.CPU.Busy()
		s.HeapHigh = max(s.HeapHigh, c.HeapEnd)
	}
	s.Cycles = len(pauses)
	if s.Cycles == 0 || to <= from {
		return s
	}
	s.Rate = float64(s.Cycles) / (to - from).Seconds()
	s.PauseP50, s.PauseP99, s.PauseMax = rank(pauses, 50), rank(pauses, 99), slices.Max(pauses)
	s.StartP99, s.EndP99 = rank(starts, 99), rank(ends, 99)
	s.HeapLow = slices.Min(live)
	slices.Sort(live)
	s.LiveMedian = live[len(live)/2]
	return s
}

// rank is the nearest-rank percentile of values, which it sorts.
func rank(values []time.Duration, percent int) time.Duration {
	slices.Sort(values)
	at := (len(values)*percent + 99) / 100
	return values[max(at, 1)-1]
}
