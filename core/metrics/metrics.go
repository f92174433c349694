// Package metrics turns the counters that Parley's packages keep into
// Prometheus metrics. The packages count with atomics of their own and know
// nothing of Prometheus; a Source reads them when /metrics is scraped.
package metrics

import (
	"fmt"
	"log/slog"
	"net/http"
	"regexp"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Emit takes one value. labels are name, value, name, value, ...
type Emit func(value float64, labels ...string)

// Metric is one metric family and how to read it.
type Metric struct {
	Name  string // "parley_messages_total"; counters end in _total
	Help  string // one sentence
	Gauge bool   // may fall; else a counter
	Read  func(Emit)
	// Buckets is read instead of Read for a histogram.
	Buckets func() Buckets
	// Histograms is read instead of Read for a histogram with labels.
	Histograms func(EmitBuckets)
}

// EmitBuckets takes one histogram. labels are as for Emit.
type EmitBuckets func(b Buckets, labels ...string)

// Buckets are a histogram's values.
type Buckets struct {
	Bounds []float64 // upper bounds, rising; the last bucket has none
	Counts []uint64  // len(Bounds)+1, not cumulative
	Sum    float64
	Count  uint64
}

// Counter is a counter without labels.
func Counter(name, help string, read func() uint64) Metric {
	return Metric{Name: name, Help: help, Read: func(e Emit) { e(float64(read())) }}
}

// Gauge is a gauge without labels.
func Gauge(name, help string, read func() float64) Metric {
	return Metric{Name: name, Help: help, Gauge: true, Read: func(e Emit) { e(read()) }}
}

// Histogram is a histogram without labels. Its name ends in its unit, in base
// units: "_seconds", "_bytes", "_ratio".
func Histogram(name, help string, read func() Buckets) Metric {
	return Metric{Name: name, Help: help, Buckets: read}
}

// Registry holds the metrics of one server.
type Registry struct {
	reg *prometheus.Registry
	log *slog.Logger
}

// created is the runtime's count of goroutines ever started, which tells a
// server that starts one for each request from one that keeps them
// (go_sched_goroutines_created_goroutines_total).
var created = regexp.MustCompile(`^/sched/goroutines-created:goroutines$`)

// New returns a registry with the Go runtime's and the process's own metrics.
func New(log *slog.Logger) *Registry {
	r := &Registry{reg: prometheus.NewRegistry(), log: log}
	goroutines := collectors.GoRuntimeMetricsRule{Matcher: created}
	r.reg.MustRegister(collectors.NewGoCollector(collectors.WithGoCollectorRuntimeMetrics(goroutines)), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// Add registers metrics. Read is called on each scrape, from any goroutine.
func (r *Registry) Add(ms ...Metric) error {
	for _, m := range ms {
		if err := r.reg.Register(family{m}); err != nil {
			return fmt.Errorf("register metric %s: %w", m.Name, err)
		}
	}
	return nil
}

// Handler serves the metrics in the Prometheus text format.
func (r *Registry) Handler() http.Handler {
	return promhttp.HandlerFor(r.reg, promhttp.HandlerOpts{ErrorLog: slog.NewLogLogger(r.log.Handler(), slog.LevelWarn)})
}

// family is a prometheus.Collector. It describes nothing, which Prometheus
// calls unchecked: which labels there are is known only when it is read.
type family struct{ m Metric }

// Describe implements prometheus.Collector.
func (family) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (f family) Collect(ch chan<- prometheus.Metric) {
	if f.m.Buckets != nil {
		ch <- f.histogram(f.m.Buckets())
		return
	}
	if f.m.Histograms != nil {
		f.m.Histograms(func(b Buckets, labels ...string) { ch <- f.histogram(b, labels...) })
		return
	}
	kind := prometheus.CounterValue
	if f.m.Gauge {
		kind = prometheus.GaugeValue
	}
	f.m.Read(func(value float64, labels ...string) {
		names, values := split(labels)
		m, err := prometheus.NewConstMetric(prometheus.NewDesc(f.m.Name, f.m.Help, names, nil), kind, value, values...)
		if err != nil {
			m = prometheus.NewInvalidMetric(prometheus.NewDesc(f.m.Name, f.m.Help, names, nil), err)
		}
		ch <- m
	})
}

// split takes the names and the values of labels apart.
func split(labels []string) (names, values []string) {
	for i := 0; i+1 < len(labels); i += 2 {
		names, values = append(names, labels[i]), append(values, labels[i+1])
	}
	return names, values
}

// histogram turns buckets into Prometheus' cumulative ones.
func (f family) histogram(b Buckets, labels ...string) prometheus.Metric {
	names, values := split(labels)
	desc := prometheus.NewDesc(f.m.Name, f.m.Help, names, nil)
	if len(b.Counts) != len(b.Bounds)+1 {
		return prometheus.NewInvalidMetric(desc, fmt.Errorf("%d counts for %d bounds", len(b.Counts), len(b.Bounds)))
	}
	upTo := make(map[float64]uint64, len(b.Bounds))
	var n uint64
	for i, bound := range b.Bounds {
		n += b.Counts[i]
		upTo[bound] = n
	}
	m, err := prometheus.NewConstHistogram(desc, b.Count, b.Sum, upTo, values...)
	if err != nil {
		return prometheus.NewInvalidMetric(desc, err)
	}
	return m
}
