package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime/metrics"
	"strings"
	"sync"
	"time"

	"parley/core/cluster"
	"parley/core/cluster/objects"
	"parley/core/tuning"
	"parley/plugins"
	"parley/plugins/share"
	"parley/policy/source"
)

// openCluster makes this node's place among the others that share the Redis.
func (s *server) openCluster(context.Context) (err error) {
	if s.redis == nil {
		return nil
	}
	c := cluster.Defaults()
	c.Name = s.nodeName()
	if s.nodes, err = cluster.New(c, s.redis, s.log); err != nil {
		return err
	}
	oc := objects.Defaults()
	if file := s.cfg.Cluster.SecretFile; file != "" {
		if oc.Secrets, err = objects.ReadSecrets(file); err != nil {
			return fmt.Errorf("cluster.secret_file: %w", err)
		}
		oc.StateFile = s.data("cluster-heads.json")
	}
	if s.objects, err = objects.New(oc, s.redis, s.log); err != nil {
		return err
	}
	s.nodes.OnChange(func(v cluster.View) {
		if v.Rewrite {
			s.mayHaveForgotten()
		}
	})
	s.nodes.SetInfo(infoVersion, func() any { return version })
	s.nodes.SetInfo(infoPlugins, func() any { return pluginSet(s.catalog.Digest(), s.catalog.Status()) })
	s.nodes.SetInfo(infoLoad, func() any { return s.load.read(time.Now()) })
	return nil
}

func (s *server) nodeName() string { return cmp.Or(s.cfg.Cluster.NodeName, cluster.HostName()) }

// The keys of what a node says of itself, besides source.InfoKey.
const (
	infoVersion = "version"
	infoPlugins = "plugins"
	infoLoad    = "load"
)

// nodeRow is one node in /v1/nodes.
type nodeRow struct {
	ID       cluster.NodeID    `json:"id"`
	Name     string            `json:"name"`
	Self     bool              `json:"self,omitempty"`
	Version  string            `json:"version"`
	Started  time.Time         `json:"started_at"`
	LeaseMS  int64             `json:"lease_ms"` // 0 without a cluster
	Policy   source.NodePolicy `json:"policy"`
	Plugins  pluginsInfo       `json:"plugins"`
	Load     loadInfo          `json:"load"`
	Problems []string          `json:"problems,omitempty"` // what of its record cannot be read, and what keeps its plugins from being as elsewhere
}

// pluginsInfo says which plugins judge on a node.
type pluginsInfo struct {
	Set     string            `json:"set"`     // see plugins.Catalog.Digest, 12 digits
	Plugins map[string]string `json:"plugins"` // name -> digest of the module in force, 12 digits
}

// shortDigest is how much of a digest is shown.
const shortDigest = 12

// maxPluginsTold bounds what a node's record says of plugins.
const maxPluginsTold = 64

// pluginSet sums up what judges. Two nodes with the same set judge alike.
func pluginSet(digest string, all []plugins.Status) pluginsInfo {
	set := pluginsInfo{Set: digest[:shortDigest], Plugins: map[string]string{}}
	for _, p := range all {
		if p.Digest != "" && len(set.Plugins) < maxPluginsTold {
			set.Plugins[p.Name] = p.Digest[:min(len(p.Digest), shortDigest)]
		}
	}
	return set
}

// loadInfo is how much a node has to do.
type loadInfo struct {
	Connections int     `json:"connections"`
	Rooms       int     `json:"rooms"`        // in memory
	PerSecond   float64 `json:"messages_s"`   // messages appended, since the reading before
	CPU         float64 `json:"cpu"`          // processors in use, since the reading before
	MemoryBytes uint64  `json:"memory_bytes"` // that the Go runtime holds
}

// loadMeter reads the load of this process.
type loadMeter struct {
	s *server

	mu    sync.Mutex
	at    time.Time     // of the last reading; guarded by mu
	sent  uint64        // guarded by mu
	used  time.Duration // guarded by mu
	speed loadInfo      // rates of the last reading; guarded by mu
}

// minRate is the least time that a rate is taken over.
const minRate = time.Second

func (m *loadMeter) read(now time.Time) loadInfo {
	m.mu.Lock()
	defer m.mu.Unlock()
	sent := m.s.sessions.Stats().Sent.Load()
	used, _ := tuning.CPUTime()
	if d := now.Sub(m.at); m.at.IsZero() || d >= minRate {
		if !m.at.IsZero() {
			m.speed.PerSecond = float64(sent-m.sent) / d.Seconds()
			m.speed.CPU = (used - m.used).Seconds() / d.Seconds()
		}
		m.at, m.sent, m.used = now, sent, used
	}
	l := m.speed
	l.Connections, l.Rooms, l.MemoryBytes = m.s.sessions.Open(), m.s.hub.Loaded(), memoryHeld()
	return l
}

// memoryHeld is what the Go runtime has of the system and has not given back.
func memoryHeld() uint64 {
	samples := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(samples)
	return samples[0].Value.Uint64() - samples[1].Value.Uint64()
}

// nodeTable is every node, this one alone without a cluster.
func (s *server) nodeTable() []nodeRow {
	if s.nodes == nil {
		st := s.policy.NodeInfo()
		id := cluster.NodeID(s.nodeName())
		return []nodeRow{{
			ID: id, Name: string(id), Self: true, Version: version, Started: began.UTC(),
			Policy:  source.NodePolicy{Node: id, Self: true, NodeInfo: st, OnHead: true},
			Plugins: pluginSet(s.catalog.Digest(), s.catalog.Status()), Load: s.load.read(time.Now()),
		}}
	}
	policies := map[cluster.NodeID]source.NodePolicy{}
	for _, p := range s.policy.Nodes() {
		policies[p.Node] = p
	}
	var rows []nodeRow
	for _, n := range s.nodes.Nodes() {
		r := nodeRow{ID: n.ID, Name: n.ID.Name(), Self: n.ID == s.nodes.Self(), Started: n.Started, LeaseMS: n.Lease.Milliseconds(), Policy: policies[n.ID]}
		for key, to := range map[string]any{infoVersion: &r.Version, infoPlugins: &r.Plugins, infoLoad: &r.Load} {
			if _, err := n.Decode(key, to); err != nil {
				r.Problems = append(r.Problems, fmt.Sprintf("%.200q", err))
			}
		}
		if err := r.check(); err != nil {
			r.Version, r.Plugins = "", pluginsInfo{}
			r.Problems = append(r.Problems, err.Error())
		}
		r.Problems = append(r.Problems, share.Problems(&n)...)
		rows = append(rows, r)
	}
	return rows
}

// check bounds what another node says.
func (r *nodeRow) check() error {
	if len(r.Version) > 100 || len(r.Plugins.Set) > 64 || len(r.Plugins.Plugins) > maxPluginsTold {
		return errors.New("what it says of itself is not readable")
	}
	all := r.Version + r.Plugins.Set
	for name, digest := range r.Plugins.Plugins {
		all += name + digest
	}
	if len(all) > 16<<10 || strings.ContainsFunc(all, func(c rune) bool { return c < ' ' || c == 0x7f }) {
		return errors.New("what it says of itself is not readable")
	}
	return nil
}

// pluginSkew is how many nodes do not have the set of plugins that most have.
func pluginSkew(rows []nodeRow) int {
	count, most := map[string]int{}, 0
	for i := range rows {
		count[rows[i].Plugins.Set]++
		most = max(most, count[rows[i].Plugins.Set])
	}
	return len(rows) - most
}
