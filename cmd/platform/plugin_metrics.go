package main

import (
	"parley/core/metrics"
	"parley/plugins"
)

// pluginMetrics are those of the plugins. Their labels are the plugin's name,
// of which plugins.max bounds the number, and its role: in_force or candidate.
func pluginMetrics(c *plugins.Catalog) []metrics.Metric {
	each := func(name, help string, gauge bool, read func(metrics.Emit, plugins.Counters)) metrics.Metric {
		return metrics.Metric{Name: name, Help: help, Gauge: gauge, Read: func(e metrics.Emit) {
			for _, k := range c.Counters() {
				read(e, k)
			}
		}}
	}
	counter := func(name, help string, value func(plugins.Counters) uint64) metrics.Metric {
		return each(name, help, false, func(e metrics.Emit, k plugins.Counters) { e(float64(value(k)), "plugin", k.Plugin) })
	}
	histogram := func(name, help string, value func(plugins.Usage) plugins.Histogram) metrics.Metric {
		return metrics.Metric{Name: name, Help: help, Histograms: func(e metrics.EmitBuckets) {
			for _, k := range c.Counters() {
				for _, u := range k.Usage {
					e(metrics.Buckets(value(u)), "plugin", k.Plugin, "role", u.Role)
				}
			}
		}}
	}
	return []metrics.Metric{
		{Name: "parley_plugins", Help: "Plugins, by state; trial counts versions on trial beside or before one in force; absent ones must judge and are not loaded.", Gauge: true, Read: func(e metrics.Emit) {
			s := c.Stats()
			e(float64(s.Active), "state", plugins.StateActive)
			e(float64(s.Quarantined), "state", plugins.StateQuarantined)
			e(float64(s.Trial), "state", plugins.StateTrial)
			e(float64(s.Refused), "state", plugins.StateRefused)
			e(float64(s.Absent), "state", plugins.StateAbsent)
		}},
		each("parley_plugin_decisions_total", "Decisions, by plugin, role (in_force, candidate) and verdict; error is a failure.", false, func(e metrics.Emit, k plugins.Counters) {
			for _, u := range k.Usage {
				for verdict, n := range u.Verdicts {
					e(float64(n), "plugin", k.Plugin, "role", u.Role, "verdict", verdict)
				}
			}
		}),
		each("parley_plugin_faults_total", "Failed decisions, by plugin and role.", false, func(e metrics.Emit, k plugins.Counters) {
			for _, u := range k.Usage {
				e(float64(u.Verdicts["error"]), "plugin", k.Plugin, "role", u.Role)
			}
		}),
		histogram("parley_plugin_fuel", "Fuel of a decision, by plugin and role.", func(u plugins.Usage) plugins.Histogram { return u.Fuel }),
		histogram("parley_plugin_decision_seconds", "Wall time of a decision, by plugin and role.", func(u plugins.Usage) plugins.Histogram { return u.Seconds }),
		each("parley_plugin_rollout_stage", "Stage of the version on trial: 0 none, 1 shadow, 2 canary.", true, func(e metrics.Emit, k plugins.Counters) {
			e(map[string]float64{plugins.StageShadow: 1, plugins.StageCanary: 2}[k.Stage], "plugin", k.Plugin)
		}),
		each("parley_plugin_rollout_percent", "Share of people the version on trial decides about, in percent.", true, func(e metrics.Emit, k plugins.Counters) {
			e(float64(k.Percent), "plugin", k.Plugin)
		}),
		counter("parley_plugin_compared_total", "Messages that the version on trial and the one in force both judged.", func(k plugins.Counters) uint64 { return k.Compared }),
		counter("parley_plugin_disagreements_total", "Of the compared messages, those they would have treated differently.", func(k plugins.Counters) uint64 { return k.Disagreed }),
		counter("parley_plugin_promotions_total", "Times a version on trial came to the next stage or into force.", func(k plugins.Counters) uint64 { return k.Promotions }),
		counter("parley_plugin_rollbacks_total", "Versions on trial that were taken back.", func(k plugins.Counters) uint64 { return k.Rollbacks }),
		counter("parley_plugin_quarantines_total", "Times the plugin was put into quarantine.", func(k plugins.Counters) uint64 { return k.Quarantines }),
		counter("parley_plugin_unasked_total", "Messages that met the plugin in quarantine, or not loaded, so that its on_error decided.", func(k plugins.Counters) uint64 { return k.Unasked }),
	}
}

// shareMetrics are those of keeping the plugins of several nodes the same.
func (s *server) shareMetrics() []metrics.Metric {
	if s.share == nil {
		return nil
	}
	return []metrics.Metric{
		{Name: "parley_plugin_share_problems", Help: "What stands in the way of judging with the plugins of the other nodes, or of sharing this node's; absent before this node has looked.", Gauge: true, Read: func(e metrics.Emit) {
			if st := s.share.Stats(); st.Judged {
				e(float64(st.Problems))
			}
		}},
		{Name: "parley_plugin_share_diverged", Help: "Versions that the nodes share and this one cannot judge with; it is not ready then. Absent before this node has looked.", Gauge: true, Read: func(e metrics.Emit) {
			if st := s.share.Stats(); st.Judged {
				e(float64(st.Diverged))
			}
		}},
		{Name: "parley_plugin_share_unjudged", Help: "Versions that the nodes share and this one has neither taken nor refused yet; absent before this node has looked.", Gauge: true, Read: func(e metrics.Emit) {
			if st := s.share.Stats(); st.Judged {
				e(float64(st.Unjudged))
			}
		}},
		metrics.Gauge("parley_plugin_share_stuck", "Of the pending rollbacks, those of which the others could not be told in many attempts.", func() float64 { return float64(s.share.Stats().Stuck) }),
		metrics.Gauge("parley_plugin_share_pending", "Rollbacks of this node that the others do not know of yet.", func() float64 { return float64(s.share.Stats().Pending) }),
	}
}
