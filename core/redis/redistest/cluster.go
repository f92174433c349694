//go:build unix

package redistest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// slots is how many slots a cluster has.
const slots = 16384

// Cluster is a Redis Cluster.
type Cluster struct {
	Masters  []*Server
	Replicas [][]*Server // by master
}

// When the nodes of a cluster take a silent one for dead, in ms. A node that stood
// still for longer takes the others for that, and refuses everything until some
// time after it has heard of them again. Where replicas wait for it a test waits
// for it too; less would be quicker, and a busy machine would do it for no reason.
// Where nobody would take over there is nothing to wait for.
const (
	nodeTimeout      = "2000"
	aloneNodeTimeout = "15000" // Redis's default
)

// StartCluster starts a cluster with so many masters, each with so many
// replicas, and waits until every node says that the cluster works.
func StartCluster(t testing.TB, masters, replicas int, o Options) *Cluster {
	t.Helper()
	c := form(t, masters, replicas, o)
	c.ready()
	return c
}

// form starts the nodes of a cluster and makes them known to each other.
func form(t testing.TB, masters, replicas int, o Options) *Cluster {
	t.Helper()
	c := &Cluster{Replicas: make([][]*Server, masters)}
	timeout := nodeTimeout
	if replicas == 0 {
		timeout = aloneNodeTimeout
	}
	node := func(n int) *Server {
		o := o
		o.Args = append([]string{
			"--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf", "--cluster-node-timeout", timeout,
			"--cluster-replica-validity-factor", "0", "--repl-diskless-sync-delay", "0",
		}, o.Args...)
		o.Dir, o.cluster = "", true
		s := Start(t, o)
		s.Do("CLUSTER", "SET-CONFIG-EPOCH", fmt.Sprint(n)) // else the nodes have to agree on them first
		return s
	}
	var all []*Server
	for i := range masters {
		s := node(i + 1)
		s.Do("CLUSTER", "ADDSLOTSRANGE", fmt.Sprint(i*slots/masters), fmt.Sprint((i+1)*slots/masters-1))
		c.Masters = append(c.Masters, s)
		all = append(all, s)
	}
	for i := range masters {
		for range replicas {
			s := node(len(all) + 1)
			c.Replicas[i] = append(c.Replicas[i], s)
			all = append(all, s)
		}
	}
	for i, a := range all {
		for _, b := range all[:i] {
			a.Do("CLUSTER", "MEET", "127.0.0.1", fmt.Sprint(b.port), fmt.Sprint(b.bus))
		}
	}
	return c
}

// ready waits until the cluster works, everybody knows everybody, and the
// replicas have everything.
func (c *Cluster) ready() {
	all := c.Nodes()
	known := fmt.Sprintf("cluster_known_nodes:%d\r\n", len(all))
	for _, s := range all {
		s.AwaitLog(0, "Cluster state changed: ok")
		Await(s.t, s.Addr()+" knows all nodes and who has which slot", func() bool { // which "ok" does not say without full coverage
			info := s.Do("CLUSTER", "INFO")
			return strings.Contains(info, known) && strings.Contains(info, fmt.Sprintf("cluster_slots_assigned:%d\r\n", slots))
		})
	}
	for i, master := range c.Masters {
		id := master.Do("CLUSTER", "MYID")
		for _, s := range c.Replicas[i] {
			s.Do("CLUSTER", "REPLICATE", id)
		}
	}
	for i := range c.Masters {
		for _, s := range c.Replicas[i] {
			s.AwaitLog(0, "MASTER <-> REPLICA sync: Finished with success")
		}
	}
}

// Nodes are the masters and the replicas.
func (c *Cluster) Nodes() []*Server {
	all := c.Masters
	for _, replicas := range c.Replicas {
		all = append(all[:len(all):len(all)], replicas...)
	}
	return all
}

// URL is the cluster's address as core/redis wants it.
func (c *Cluster) URL() string { return "redis-cluster://" + addrs(c.Nodes()) }

// FlushAll deletes every key.
func (c *Cluster) FlushAll() {
	for _, s := range c.Masters {
		s.Do("FLUSHALL")
	}
}

// BeginMove puts a slot on its way to another master: what is not at the first
// any more, and what is new, is asked for at the second.
func (c *Cluster) BeginMove(slot int, from, to *Server) {
	from.t.Helper()
	to.Do("CLUSTER", "SETSLOT", fmt.Sprint(slot), "IMPORTING", from.Do("CLUSTER", "MYID"))
	from.Do("CLUSTER", "SETSLOT", fmt.Sprint(slot), "MIGRATING", to.Do("CLUSTER", "MYID"))
}

// MoveKeys takes the keys of a slot that is on its way along.
func (c *Cluster) MoveKeys(slot int, from, to *Server) {
	from.t.Helper()
	for {
		keys := from.Do("CLUSTER", "GETKEYSINSLOT", fmt.Sprint(slot), "100")
		if keys == "" {
			return
		}
		args := []string{"MIGRATE", "127.0.0.1", fmt.Sprint(to.port), "", "0", "5000", "KEYS"}
		from.Do(append(args, strings.Split(keys, "\n")...)...)
	}
}

// Move ends the way of a slot: it is the other master's now.
func (c *Cluster) Move(slot int, from, to *Server) {
	from.t.Helper()
	id := to.Do("CLUSTER", "MYID")
	for _, s := range append([]*Server{to, from}, c.Masters...) {
		s.Do("CLUSTER", "SETSLOT", fmt.Sprint(slot), "NODE", id)
	}
}

// Announce has the cluster name a proxy as the address of a master, and waits
// until every master does.
func (c *Cluster) Announce(master int, p *Proxy) {
	_, port, _ := strings.Cut(p.l.Addr().String(), ":")
	s := c.Masters[master]
	s.t.Helper()
	s.Do("CONFIG", "SET", "cluster-announce-port", port)
	for _, other := range c.Masters {
		Await(s.t, other.Addr()+" knows of the proxy", func() bool { // by a whole line: an id may have the digits too
			return slices.Contains(strings.Split(other.Do("CLUSTER", "SLOTS"), "\n"), port)
		})
	}
}

// StartReplica starts a replica of a server and waits until it has everything.
// Its options name files for TLS if the server's do.
func StartReplica(t testing.TB, of *Server, o Options) *Server {
	t.Helper()
	o.Args = append([]string{"--replicaof", "127.0.0.1 " + fmt.Sprint(of.peerPort()), "--repl-diskless-sync-delay", "0"}, o.Args...)
	s := Start(t, o)
	s.AwaitLog(0, "MASTER <-> REPLICA sync: Finished with success")
	return s
}

// AwaitReplica waits until a replica has all that this server was told so far,
// by whomever. (WAIT asks only about the writes of its own connection.)
func (s *Server) AwaitReplica() {
	s.t.Helper()
	// number is the first one after a name in INFO replication, -1 without it.
	number := func(info, name string) int64 {
		_, rest, ok := strings.Cut(info, name)
		if !ok {
			return -1
		}
		var n int64
		if _, err := fmt.Sscan(strings.FieldsFunc(rest, func(c rune) bool { return c < '0' || c > '9' })[0], &n); err != nil {
			s.t.Fatalf("read %q: %v", rest, err)
		}
		return n
	}
	want := number(s.Do("INFO", "replication"), "master_repl_offset:")
	Await(s.t, "a replica has everything", func() bool {
		_, replica, _ := strings.Cut(s.Do("INFO", "replication"), "slave0:")
		return number(replica, "offset=") >= want
	})
}

// addrs joins the addresses of servers.
func addrs(servers []*Server) string {
	list := make([]string, len(servers))
	for i, s := range servers {
		list[i] = s.Addr()
	}
	return strings.Join(list, ",")
}
