// Package metrics turns the counters that Parley's packages keep into
// Prometheus metrics. The packages count with atomics of their own and know
// nothing of Prometheus; a Source reads them when /metrics is scraped.
package metrics

import (
	"fmt"
	"log/slog"
	"net/http"

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
}

// Counter is a counter without labels.
func Counter(name, help string, read func() uint64) Metric {
	return Metric{Name: name, Help: help, Read: func(e Emit) { e(float64(read())) }}
}

// Gauge is a gauge without labels.
func Gauge(name, help string, read func() float64) Metric {
	return Metric{Name: name, Help: help, Gauge: true, Read: func(e Emit) { e(read()) }}
}

// Registry holds the metrics of one server.
type Registry struct {
	reg *prometheus.Registry
	log *slog.Logger
}

// New returns a registry with the Go runtime's and the process's own metrics.
func New(log *slog.Logger) *Registry {
	r := &Registry{reg: prometheus.NewRegistry(), log: log}
	r.reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
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
	kind := prometheus.CounterValue
	if f.m.Gauge {
		kind = prometheus.GaugeValue
	}
	f.m.Read(func(value float64, labels ...string) {
		var names, values []string
		for i := 0; i+1 < len(labels); i += 2 {
			names, values = append(names, labels[i]), append(values, labels[i+1])
		}
		m, err := prometheus.NewConstMetric(prometheus.NewDesc(f.m.Name, f.m.Help, names, nil), kind, value, values...)
		if err != nil {
			m = prometheus.NewInvalidMetric(prometheus.NewDesc(f.m.Name, f.m.Help, names, nil), err)
		}
		ch <- m
	})
}
