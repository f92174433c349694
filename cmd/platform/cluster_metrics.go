package main

import "parley/core/metrics"

// clusterMetrics are those of this node among the others, where there are any.
func (s *server) clusterMetrics() []metrics.Metric {
	if s.nodes == nil {
		return nil
	}
	nodes, objects := s.nodes.Stats, s.objects.Stats
	return []metrics.Metric{
		metrics.Gauge("parley_cluster_nodes", "Nodes alive as this one sees it, itself among them.", func() float64 { return float64(len(s.nodes.Nodes())) }),
		metrics.Gauge("parley_cluster_policy_skew", "Nodes that do not decide by the policy the nodes have agreed on.", func() float64 { return float64(s.policy.Skew()) }),
		metrics.Gauge("parley_cluster_plugin_skew", "Nodes whose set of plugins is not what most nodes have.", func() float64 { return float64(pluginSkew(s.nodeTable())) }),
		{Name: "parley_cluster_lease_renewals_total", Help: "Renewals of this node's lease, by result.", Read: func(e metrics.Emit) {
			st := nodes()
			e(float64(st.Renewed), "result", "ok")
			e(float64(st.Failed), "result", "failed")
		}},
		metrics.Counter("parley_cluster_bad_records_total", "Records of other nodes that could not be read.", func() uint64 { return nodes().BadRecords }),
		{Name: "parley_cluster_objects_total", Help: "Objects that nodes hand each other, by what this node did: put, got, damaged, swept.", Read: func(e metrics.Emit) {
			st := objects()
			e(float64(st.Put), "what", "put")
			e(float64(st.Got), "what", "got")
			e(float64(st.Damaged), "what", "damaged")
			e(float64(st.Swept), "what", "swept")
		}},
		metrics.Counter("parley_cluster_head_conflicts_total", "Shared values that another node had changed meanwhile.", func() uint64 { return objects().Conflicts }),
		{Name: "parley_cluster_heads_refused_total", Help: "Shared values that this node did not believe, by why: unsealed, wrong_seal, stale.", Read: func(e metrics.Emit) {
			st := objects()
			e(float64(st.Unsealed), "why", "unsealed")
			e(float64(st.WrongSeal), "why", "wrong_seal")
			e(float64(st.Stale), "why", "stale")
		}},
		metrics.Counter("parley_cluster_heads_restored_total", "Shared values that this node put back because what was there was not to be believed.", func() uint64 { return objects().Restored }),
		metrics.Gauge("parley_cluster_sealed", "1 where what the nodes share is sealed (cluster.secret_file).", func() float64 {
			if s.cfg.Cluster.SecretFile != "" {
				return 1
			}
			return 0
		}),
		metrics.Gauge("parley_cluster_cannot_converge", "1 while this node refuses the policy of the other nodes.", func() float64 {
			if s.policy.Status().CannotConverge != nil {
				return 1
			}
			return 0
		}),
	}
}
