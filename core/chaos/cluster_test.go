package chaos

import (
	"fmt"
	"strings"
	"testing"

	"parley/core/redis/redistest"
)

// TestARedisClusterFailsOver has replicas of a cluster of three masters take
// over: once on request, which loses nothing, and once because their master
// was killed, which may lose what it had not passed on. Each begins a new
// generation of the room that lies there.
func TestARedisClusterFailsOver(t *testing.T) {
	t.Parallel()
	servers := redistest.StartCluster(t, 3, 1, redistest.Options{AppendOnly: true})
	w := begin(t, "Redis Cluster fails over", plan{url: servers.URL()})
	rounds := often(1, 5)
	for k := range rounds {
		i := servers.MasterOf(fmt.Sprintf("{%s}", []string{"lobby", "kitchen"}[k%2]))
		master, replica := servers.Masters[i], servers.Replicas[i][0]
		w.goesOn(40)
		w.crowd.Midway()
		replica.TakeOver()
		w.goesOn(40)

		await(t, "the old master follows", func() bool { return info(master, "replication")["master_link_status"] == "up" })
		w.crowd.Midway()
		replica.Kill()
		await(t, "the old master has taken over again", func() bool { return info(master, "replication")["role"] == "master" })
		w.goesOn(40)
		replica.Restart()
		await(t, "the cluster is whole", func() bool {
			return info(replica, "replication")["master_link_status"] == "up" && strings.Contains(master.Do("CLUSTER", "INFO"), "cluster_state:ok")
		})
	}
	w.settleEither(2*rounds, 2*rounds)
}
