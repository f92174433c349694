package metrics

import (
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"
)

func scrape(t *testing.T, r *Registry) string {
	t.Helper()
	w := httptest.NewRecorder()
	r.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != 200 {
		t.Fatalf("scrape: got status %d, want 200: %s", w.Code, w.Body)
	}
	return w.Body.String()
}

func TestRegistry(t *testing.T) {
	r := New(slog.New(slog.DiscardHandler))
	n := uint64(3)
	err := r.Add(
		Counter("parley_things_total", "Things.", func() uint64 { return n }),
		Gauge("parley_now", "Now.", func() float64 { return 1.5 }),
		Histogram("parley_wait_seconds", "Waits.", func() Buckets {
			return Buckets{Bounds: []float64{0.5, 1}, Counts: []uint64{2, 0, 1}, Sum: 4.5, Count: 3}
		}),
		Metric{Name: "parley_errors_total", Help: "Errors.", Read: func(e Emit) {
			e(1, "code", "denied")
			e(2, "code", "unavailable")
		}},
		Metric{Name: "parley_fuel", Help: "Fuel.", Histograms: func(e EmitBuckets) {
			for _, plugin := range []string{"links", "pii"} {
				e(Buckets{Bounds: []float64{10}, Counts: []uint64{1, 1}, Sum: 25, Count: 2}, "plugin", plugin)
			}
		}},
	)
	if err != nil {
		t.Fatal(err)
	}
	n = 4 // read at each scrape, not at registration
	got := scrape(t, r)
	for _, want := range []string{
		"# TYPE go_sched_goroutines_created_goroutines_total counter\n",
		"# TYPE parley_things_total counter\nparley_things_total 4\n",
		"# TYPE parley_now gauge\nparley_now 1.5\n",
		`parley_errors_total{code="denied"} 1`,
		`parley_wait_seconds_bucket{le="0.5"} 2`, `parley_wait_seconds_bucket{le="1"} 2`, `parley_wait_seconds_bucket{le="+Inf"} 3`,
		"parley_wait_seconds_sum 4.5\n", "parley_wait_seconds_count 3\n",
		`parley_errors_total{code="unavailable"} 2`,
		"# TYPE parley_fuel histogram\n", `parley_fuel_bucket{plugin="links",le="10"} 1`, `parley_fuel_count{plugin="pii"} 2`,
		"go_goroutines ",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("got no %q in:\n%s", want, got)
		}
	}
}

func TestBadMetricFailsTheScrapeNotTheProcess(t *testing.T) {
	for _, m := range []Metric{
		{Name: "parley_bad_total", Help: "x", Read: func(e Emit) { e(1, "", "v") }},
		Histogram("parley_bad_seconds", "x", func() Buckets { return Buckets{Bounds: []float64{1}, Counts: []uint64{1}} }),
		Histogram("", "x", func() Buckets { return Buckets{Counts: []uint64{1}, Count: 1} }),
	} {
		t.Run(m.Name, func(t *testing.T) {
			r := New(slog.New(slog.DiscardHandler))
			if err := r.Add(m); err != nil {
				return
			}
			w := httptest.NewRecorder()
			r.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
			if w.Code != 500 {
				t.Errorf("got status %d, want 500", w.Code)
			}
		})
	}
}
