//go:build linux

package experiments

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"strconv"

	"parley/core/bench/gctrace"
	"parley/core/bench/report"
)

// trigger shows when the first collections come in a program that keeps
// nothing.
func trigger(ctx context.Context, l *Lab) ([]report.Section, error) {
	t := &report.Table{Columns: []string{"GOGC", "4 MB x GOGC/100", "goal of the first collection", "heap when it began", "collections for 64 MB of garbage"}}
	settings := []int{25, 50, 100, 200, 400}
	var counts []int // of collections
	for _, gogc := range settings {
		count := func(c []gctrace.Cycle) float64 { return float64(len(c)) }
		cycles, err := median(l, count, func() ([]gctrace.Cycle, error) {
			var done struct{ Bytes int64 }
			trace, err := l.child(ctx, "churn", []string{"GODEBUG=gctrace=1", "GOGC=" + strconv.Itoa(gogc)}, churnOrders{Bytes: 64 << 20, Block: 4 << 10}, &done)
			if err != nil {
				return nil, err
			}
			return gctrace.Read(bytes.NewReader(trace))
		})
		if err != nil {
			return nil, err
		}
		row := []string{strconv.Itoa(gogc), mib(4 << 20 * int64(gogc) / 100), "none", "", strconv.Itoa(len(cycles))}
		if len(cycles) > 0 {
			row[2], row[3] = mib(cycles[0].Goal), mib(cycles[0].HeapStart)
		}
		t.Rows = append(t.Rows, row)
		counts = append(counts, len(cycles))
	}
	text := paragraphs(
		"Claimed: the collector starts when the heap has doubled (GOGC=100).",
		"A heap that is nearly empty doubles all the time, so the runtime has a minimum: 4 MB times GOGC/100 (heapMinimum in runtime/mgcpacer.go). The program here makes 64 MB of garbage in blocks of 4 KB and keeps nothing of it. The collection begins somewhat before the goal, so that marking can end at it; gctrace rounds to whole MB.",
		fmt.Sprintf("The same garbage took %d collections with GOGC=%d and %d with GOGC=%d.", counts[0], settings[0], counts[len(counts)-1], settings[len(settings)-1]),
		"The minimum is no setting of its own: a ballast (a large allocation that is never touched) or GOMEMLIMIT with GOGC=off raises it.",
		l.medianOf("the number of collections"),
	)
	return []report.Section{{Title: "The first collection and the minimum heap", Text: text, Table: t}}, nil
}

type churnOrders struct {
	Bytes int64 // garbage to make
	Block int   // bytes of each piece
}

func churnChild(_ context.Context, in io.Reader, out io.Writer) error {
	var o churnOrders
	if err := ordered(in, &o); err != nil {
		return err
	}
	if o.Block < 1 || o.Bytes < 0 || o.Bytes > 1<<40 {
		return fmt.Errorf("make %d bytes in blocks of %d: out of bounds", o.Bytes, o.Block)
	}
	var made int64
	for ; made < o.Bytes; made += int64(o.Block) {
		piece := make([]byte, o.Block)
		runtime.KeepAlive(piece) // or the compiler would leave it out
	}
	return json.NewEncoder(out).Encode(map[string]int64{"Bytes": made})
}
