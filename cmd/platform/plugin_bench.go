package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"parley/core/moderation"
	"parley/sdk/abi"
)

// chatter is what a bench judges without --text: ordinary lines of about 40 to
// 200 bytes.
var chatter = []string{
	"good morning everyone, did the release go out last night or are we still waiting?",
	"It went out at 22:40, and so far nobody has complained. Knock on wood.",
	"ok great, then I will close the ticket and update the page with the new screenshots",
	"Can somebody have a look at https://example.org/docs/setup? The second paragraph confuses people.",
	"LOL no, that is the OLD server. The new one answers on port 8443 and has a real certificate.",
	"@maria could you send me the numbers for October, please? No hurry, Thursday is fine.",
	"Ich komme heute etwas später, die Bahn steht mal wieder in der Gegend herum …",
	"we had 1,204 people in the room at once and p99 stayed below 20 ms, which I did not expect at all",
	"👍 thanks, that did it",
	"Who broke the build? (It was me. Fixed in a minute.)",
	"The quick brown fox jumps over the lazy dog while 42 students in class assess the passage, and nobody minds at all, OK?",
	"まだ会議中なので、あとで連絡します。",
}

const (
	maxBenchLines   = 100_000
	maxBenchSamples = 1_000_000
)

// benchResult is what `plugin bench` measured.
type benchResult struct {
	Plugin    string         `json:"plugin"`
	Digest    string         `json:"digest"`
	Lines     int            `json:"lines"`
	Decisions int            `json:"decisions"`
	PerSecond float64        `json:"decisions_per_second"` // on one core, without a clock read between
	ClockNS   int64          `json:"clock_ns"`             // what each time below includes
	NS        percentiles    `json:"ns"`
	Fuel      percentiles    `json:"fuel"`
	Verdicts  map[string]int `json:"verdicts"` // of the lines
	Failed    map[string]int `json:"failed,omitempty"`
}

// percentiles of a sample.
type percentiles struct {
	P50 int64 `json:"p50"`
	P90 int64 `json:"p90"`
	P99 int64 `json:"p99"`
	Max int64 `json:"max"`
}

// percentilesOf sorts values.
func percentilesOf(values []int64) percentiles {
	if len(values) == 0 {
		return percentiles{}
	}
	slices.Sort(values)
	at := func(p int) int64 { return values[(len(values)-1)*p/100] }
	return percentiles{at(50), at(90), at(99), values[len(values)-1]}
}

func pluginBenchCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "bench NAME.wasm",
		Short: "Measure what a decision costs: time, fuel, decisions a second",
		Long: "Measure what a decision costs on one core: percentiles of time and fuel, and decisions a second. It judges the lines\n" +
			"of --text again and again, or a dozen ordinary ones. Normalising the text is not part of the figures.",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: modules,
	}
	var host hostFlags
	host.add(c)
	text := c.Flags().String("text", "", "file whose lines are judged")
	duration := c.Flags().Duration("duration", 2*time.Second, "time to measure")
	asJSON := c.Flags().Bool("json", false, "print the result as JSON")
	c.RunE = func(c *cobra.Command, args []string) (err error) {
		if *duration < 10*time.Millisecond || *duration > time.Hour {
			return fmt.Errorf("--duration %v: 10ms to 1h are possible", *duration)
		}
		inputs, err := benchInputs(c, *text)
		if err != nil {
			return err
		}
		l, err := host.loadUntested(c, args[0])
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, l.close()) }()
		r := l.bench(c, inputs, *duration)
		if err := c.Context().Err(); err != nil {
			return err
		}
		if *asJSON {
			return printJSON(c.OutOrStdout(), r)
		}
		return r.show(c.OutOrStdout())
	}
	return c
}

// benchInput is one line, encoded.
type benchInput struct{ input, text, normalized []byte }

func benchInputs(c *cobra.Command, path string) ([]benchInput, error) {
	lines := chatter
	if path != "" {
		f, err := os.Open(path)
		if err != nil {
			return nil, fmt.Errorf("read the lines: %w", err)
		}
		defer f.Close()
		lines = nil
		err = eachLine(c.Context(), io.LimitReader(f, 64<<20), func(line string) error {
			if len(lines) < maxBenchLines {
				lines = append(lines, line)
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("read the lines of %s: %w", path, err)
		}
	}
	var out []benchInput
	for _, line := range lines {
		clean, err := moderation.Clean(line, abi.MaxInput/2)
		if err != nil {
			continue // no server would take it
		}
		form, err := moderation.Normalize(clean, abi.MaxInput/2)
		if err != nil {
			continue
		}
		input := abi.AppendInput(nil, &abi.Input{TimeMS: time.Now().UnixMilli(), Text: []byte(clean), Normalized: form.Bytes(),
			User: "ann", Room: "lobby", Kind: "message", Signals: abi.Signals{RecentPerMinute: 1, AccountAgeHours: 1000}})
		t, _ := abi.FieldBytes(input, abi.FieldText) // encoded just now
		n, _ := abi.FieldBytes(input, abi.FieldNormalized)
		out = append(out, benchInput{input, t, n})
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s has no line that a server would take", path)
	}
	return out, nil
}

// bench measures for about d: half of it without reading a clock between two
// decisions, half with.
func (l *loaded) bench(c *cobra.Command, inputs []benchInput, d time.Duration) benchResult {
	r := benchResult{Plugin: l.Name(), Digest: l.Digest(), Lines: len(inputs), Verdicts: map[string]int{}, Failed: map[string]int{}}
	for _, in := range inputs { // also warms up
		v, _, _, err := l.Decide(in.input, in.text, in.normalized)
		r.Verdicts[v.String()]++
		if err != nil {
			r.Failed[err.Error()]++
		}
	}
	began, n := time.Now(), 0
	for time.Since(began) < d/2 && c.Context().Err() == nil {
		for range 64 {
			in := inputs[n%len(inputs)]
			_, _, _, _ = l.Decide(in.input, in.text, in.normalized) // failures were counted above; they repeat
			n++
		}
	}
	r.PerSecond = float64(n) / time.Since(began).Seconds()
	r.Decisions = n

	var ns, fuel []int64
	for last, end := time.Now(), time.Now().Add(d/2); last.Before(end) && len(ns) < maxBenchSamples; {
		in := inputs[len(ns)%len(inputs)]
		_, _, used, _ := l.Decide(in.input, in.text, in.normalized)
		now := time.Now()
		ns, fuel = append(ns, now.Sub(last).Nanoseconds()), append(fuel, int64(used))
		last = time.Now()
		if len(ns)%1024 == 0 && c.Context().Err() != nil {
			break
		}
	}
	r.Decisions += len(ns)
	r.NS, r.Fuel, r.ClockNS = percentilesOf(ns), percentilesOf(fuel), clockNS()
	return r
}

// clockNS is what two readings of the clock, one after the other, differ by.
func clockNS() int64 {
	const times = 1000
	began := time.Now()
	for range times {
		_ = time.Now()
	}
	return time.Since(began).Nanoseconds() / times
}

func (r *benchResult) show(out io.Writer) error {
	fmt.Fprintf(out, "%s %s: %.0f decisions/s on one core (%d lines, %d decisions)\n", r.Plugin, r.Digest[:12], r.PerSecond, r.Lines, r.Decisions)
	fmt.Fprintf(out, "          %10s %10s %10s %10s\n", "p50", "p90", "p99", "max")
	fmt.Fprintf(out, "time ns   %10d %10d %10d %10d   (with %d ns for the clock)\n", r.NS.P50, r.NS.P90, r.NS.P99, r.NS.Max, r.ClockNS)
	fmt.Fprintf(out, "fuel      %10d %10d %10d %10d\n", r.Fuel.P50, r.Fuel.P90, r.Fuel.P99, r.Fuel.Max)
	for _, v := range []string{"allow", "flag", "redact", "hold", "deny", "error"} {
		if n := r.Verdicts[v]; n > 0 {
			fmt.Fprintf(out, "%-9s %10d of the lines\n", v, n)
		}
	}
	for text, n := range r.Failed {
		fmt.Fprintf(out, "failed    %10d: %s\n", n, plain(text))
	}
	return nil
}
