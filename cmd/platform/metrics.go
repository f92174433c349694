package main

import (
	"fmt"
	"slices"
	"time"

	"parley/core/chat"
	"parley/core/metrics"
	"parley/core/redis"
	"parley/core/transport/stream"
	"parley/core/wire"
)

// metrics lists everything /metrics shows besides the Go runtime.
func (s *server) metrics() []metrics.Metric {
	st, h := s.sessions.Stats(), s.hub.Stats()
	ms := []metrics.Metric{
		metrics.Gauge("parley_connections", "Sessions open now.", func() float64 { return float64(s.sessions.Open()) }),
		metrics.Counter("parley_connections_opened_total", "Sessions ever opened.", st.Opened.Load),
		metrics.Counter("parley_messages_total", "Messages appended.", st.Sent.Load),
		metrics.Counter("parley_put_out_total", "Times a connection was put out of a room: by a kick, a ban, or the policy.", st.PutOut.Load),
		metrics.Histogram("parley_send_seconds", "Time from a send's arrival to its answer, in seconds.", func() metrics.Buckets { return metrics.Buckets(st.Answers.Read(1e-9)) }),
		metrics.Counter("parley_resends_total", "Resends answered with the first receipt.", st.Repeats.Load),
		metrics.Counter("parley_refused_origins_total", "WebSocket upgrades refused for their Origin.", s.ws.RefusedOrigins),
		{Name: "parley_commands_total", Help: "Commands received, by type.", Read: func(e metrics.Emit) {
			st.Commands(func(t wire.Type, n uint64) { e(float64(n), "type", string(t)) })
		}},
		{Name: "parley_errors_total", Help: "Errors sent to clients, by code.", Read: func(e metrics.Emit) {
			st.Errors(func(c chat.Code, n uint64) { e(float64(n), "code", string(c)) })
		}},
		{Name: "parley_closes_total", Help: "Sessions ended, by close code.", Read: func(e metrics.Emit) {
			st.Closes(func(c wire.CloseCode, n uint64) { e(float64(n), "code", fmt.Sprint(int(c))) })
		}},
		metrics.Gauge("parley_parked_connections", "Connections that wait without a goroutine (transport.parking).", func() float64 {
			n := 0
			for _, in := range s.intakes {
				n += in.Parked()
			}
			return float64(n)
		}),
		metrics.Gauge("parley_rooms", "Rooms in memory.", func() float64 { return float64(s.hub.Loaded()) }),
		metrics.Counter("parley_pump_passes_total", "Passes of the shard pumps.", h.Passes.Load),
		metrics.Counter("parley_pump_writes_total", "Writes to connections by the pumps.", h.Writes.Load),
		metrics.Counter("parley_sent_bytes_total", "Bytes the sockets took.", h.Bytes.Load),
		metrics.Counter("parley_parked_total", "Times a connection was full and was parked.", h.Parked.Load),
		metrics.Counter("parley_slow_consumers_total", "Connections closed as slow consumers.", h.SlowClosed.Load),
		metrics.Counter("parley_room_backfills_total", "Times a room read missed entries from the journal.", h.Backfills.Load),
		metrics.Counter("parley_room_resets_total", "Times a room's log was replaced and members were reset.", h.Resets.Load),
		metrics.Counter("parley_room_restores_total", "Rooms that the store had lost, and whose settings, roles, bans and mutes were put back.", h.Restores.Load),
		metrics.Counter("parley_catch_ups_total", "Journal reads for members behind the ring.", h.CatchUps.Load),
		metrics.Counter("parley_room_conflicts_total", "Changes of a room that were decided anew, because another node made one in between.", h.Conflicts.Load),
	}
	return slices.Concat(ms, s.decisionMetrics(), s.policyGitMetrics(), s.clusterMetrics(), s.presenceMetrics(), s.absentMetrics(), pluginMetrics(s.catalog), s.shareMetrics(), s.reviewMetrics(), s.livenessMetrics(), s.certMetrics(), s.listenerMetrics(), s.diskMetrics(), s.redisMetrics(), s.runtimeMetrics())
}

// listenerMetrics are those of connections that never became a session.
func (s *server) listenerMetrics() []metrics.Metric {
	listeners := map[string]*stream.Stats{"http": s.httpLn.Stats()}
	if s.tcpLn != nil {
		listeners["tcp"] = s.tcpLn.Stats()
	}
	return []metrics.Metric{{
		Name: "parley_connections_cut_total", Help: "Connections cut before they were a session, by listener and reason.",
		Read: func(e metrics.Emit) {
			for name, st := range listeners {
				e(float64(st.Late.Load()), "listener", name, "reason", "handshake_timeout")
				e(float64(st.Headers.Load()), "listener", name, "reason", "proxy_header")
				e(float64(st.Refused.Load()), "listener", name, "reason", "connections_per_ip")
			}
		},
	}}
}

// certMetrics are those of the TLS certificate, where there is one.
func (s *server) certMetrics() []metrics.Metric {
	if s.certs == nil {
		return nil
	}
	return []metrics.Metric{
		metrics.Gauge("parley_tls_certificate_not_after_seconds", "When the certificate in force ends, in Unix time.",
			func() float64 { return float64(s.certs.NotAfter().Unix()) }),
		metrics.Counter("parley_tls_reloads_total", "Changed certificates taken into force.", s.certs.Reloads),
		metrics.Counter("parley_tls_reload_failures_total", "Changed certificates that could not be used.", s.certs.Failures),
	}
}

// livenessMetrics are those of heartbeats and of the sweep over TCP_INFO.
func (s *server) livenessMetrics() []metrics.Metric {
	stats := s.wheel.Stats
	return []metrics.Metric{
		metrics.Counter("parley_pings_total", "Heartbeats sent.", func() uint64 { return stats().Pings }),
		metrics.Histogram("parley_heartbeat_rtt_seconds", "Round trip of answered heartbeats.", func() metrics.Buckets { return metrics.Buckets(stats().RTT) }),
		metrics.Gauge("parley_heartbeat_suspects", "Connections with an overdue pong.", func() float64 { return float64(stats().Suspects) }),
		metrics.Counter("parley_heartbeats_late_total", "Times the heartbeat wheel itself ran late.", func() uint64 { return stats().Late }),
		{Name: "parley_dead_connections_total", Help: "Connections taken for dead, by evidence.", Read: func(e metrics.Emit) {
			for cause, n := range stats().Dead {
				e(float64(n), "evidence", string(cause))
			}
		}},
		{Name: "parley_heartbeats_excused_total", Help: "Times a suspect was given more time, by reason.", Read: func(e metrics.Emit) {
			for excuse, n := range stats().Excused {
				e(float64(n), "reason", string(excuse))
			}
		}},
		metrics.Counter("parley_tcp_swept_total", "Connections whose TCP_INFO was read.", func() uint64 { return stats().Swept.Looks }),
		metrics.Counter("parley_tcp_poor_total", "Of them, those on a poor path.", func() uint64 { return stats().Swept.Poor }),
		metrics.Histogram("parley_tcp_rtt_seconds", "Smoothed round trip of swept connections.", func() metrics.Buckets { return metrics.Buckets(stats().Swept.KernelRTT) }),
		metrics.Histogram("parley_tcp_loss_ratio", "Share of segments sent again, of swept connections.", func() metrics.Buckets { return metrics.Buckets(stats().Swept.LossShare) }),
		metrics.Histogram("parley_tcp_unacked_segments", "Segments in flight, of swept connections.", func() metrics.Buckets { return metrics.Buckets(stats().Swept.Unacked) }),
	}
}

// status is the answer of /v1/status.
func (s *server) status() any {
	return map[string]any{
		"version":     version,
		"started_at":  began,
		"uptime_s":    int(time.Since(began).Seconds()),
		"connections": s.sessions.Open(),
		"rooms":       s.hub.Loaded(),
		"draining":    s.sessions.Draining(),
		"store":       map[bool]string{true: "redis", false: "embedded"}[s.runJournal != nil],
		"redis_mode":  redis.ModeOf(s.cfg.Redis.URL), // empty for the embedded store
		"node":        s.nodeName(),
		"policy":      s.policy.Live().Engine().Revision(),
		"runtime":     s.tuner.Status(),
	}
}

// runtimeMetrics are those of core/tuning; the collector's own figures are the
// Go runtime's go_gc_ metrics.
func (s *server) runtimeMetrics() []metrics.Metric {
	return []metrics.Metric{
		metrics.Gauge("parley_tuning_gomaxprocs", "GOMAXPROCS in force.", func() float64 { return float64(s.tuner.Status().MaxProcs) }),
		metrics.Gauge("parley_tuning_gomaxprocs_bound", "The most that quota, cpuset and runtime.smt let GOMAXPROCS be.", func() float64 { return float64(s.tuner.Status().Bound.Procs) }),
		metrics.Gauge("parley_tuning_cpu_quota", "CPUs that the cgroup may use; 0 is no bound.", func() float64 { return s.tuner.Status().Quota.CPUs }),
		metrics.Gauge("parley_tuning_gogc_percent", "GOGC in force; -1 is off.", func() float64 { return float64(s.tuner.Status().GOGC) }),
		metrics.Gauge("parley_tuning_memory_limit_bytes", "Soft memory limit in force; 0 is none.", func() float64 { return float64(s.tuner.Status().MemoryLimit) }),
		{Name: "parley_tuning_decisions_total", Help: "Decisions of the controllers, by setting and cause, also where nothing was changed.", Read: func(e metrics.Emit) {
			for _, c := range s.tuner.Status().Governor.Counts {
				e(float64(c.Count), "setting", c.Setting, "cause", c.Cause)
			}
		}},
	}
}
