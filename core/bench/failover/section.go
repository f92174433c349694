package failover

import (
	"fmt"
	"time"

	"parley/core/bench"
	"parley/core/bench/report"
	"parley/core/checker"
)

// lost and twice are the breaches in which somebody misses a message, and in
// which somebody has it twice.
var (
	lost  = []checker.Fault{checker.Lost, checker.Gap, checker.SilentEpoch}
	twice = []checker.Fault{checker.Duplicate, checker.PostedTwice}
)

// section is the result of a run.
func (r *run) section(rep *checker.Report, took time.Duration) report.Section {
	var ended int
	var calm, broken, ack time.Duration
	for _, m := range r.crowd {
		m.mu.Lock()
		ended += m.ended
		calm, broken, ack = max(calm, m.calm), max(broken, m.broken), max(ack, m.ack)
		m.mu.Unlock()
	}
	title := fmt.Sprintf("%d nodes, %d clients, %v", len(r.urls), r.Clients, took.Round(100*time.Millisecond))
	if r.own != nil {
		title += fmt.Sprintf(", kill -9 of a node %d times", r.kills)
	}
	other := 0
	for _, n := range rep.Found {
		other += n
	}
	lost, twice := count(rep, lost), count(rep, twice)
	return report.Section{Title: title, Text: bench.Machine(), Figures: []report.Figure{
		{Name: "messages", Value: float64(rep.Sends)},
		{Name: "acknowledged", Value: float64(rep.Acked)},
		{Name: "refused", Value: float64(rep.Refused)},
		{Name: "outcome unknown", Value: float64(rep.Unknown)},
		{Name: "deliveries", Value: float64(rep.Delivered), Note: "each checked"},
		{Name: "connections lost", Value: float64(ended), Note: "each resumed elsewhere"},
		{Name: "sent again", Value: float64(rep.Resends), Note: fmt.Sprintf("%d had been posted and got their first answer", rep.Repeats)},
		{Name: "longest silence, node died", Value: milliseconds(broken), Unit: "ms", Note: "between two deliveries to one client"},
		{Name: "longest silence, others", Value: milliseconds(calm), Unit: "ms"},
		{Name: "longest wait for an ack", Value: milliseconds(ack), Unit: "ms", Note: "sending again included"},
		{Name: "resets", Value: float64(rep.Resets)},
		{Name: "lost", Value: float64(lost)},
		{Name: "duplicated", Value: float64(twice)},
		{Name: "otherwise wrong", Value: float64(other - lost - twice), Note: "order, answers"},
	}}
}

func count(rep *checker.Report, faults []checker.Fault) (n int) {
	for _, f := range faults {
		n += rep.Found[f]
	}
	return n
}

func milliseconds(d time.Duration) float64 { return float64(d.Round(100*time.Microsecond)) / 1e6 }
