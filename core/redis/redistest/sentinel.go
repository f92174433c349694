//go:build unix

package redistest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Service is what sentinels started here call their primary.
const Service = "parley"

// Sentinels watch over one primary.
type Sentinels struct {
	t   testing.TB
	All []*Server
}

// StartSentinels starts so many sentinels for a primary, whose replicas run
// already, and waits until they know each other and the replicas. More than
// half of them must agree on a failover. They speak TLS if the primary does,
// with everybody.
func StartSentinels(t testing.TB, n int, primary *Server, replicas ...*Server) *Sentinels {
	t.Helper()
	s := &Sentinels{t: t}
	args := func(s *Server) []string {
		// A sentinel rewrites its file, so it gets one of its own.
		file := filepath.Join(s.opts.Dir, "sentinel.conf")
		if err := os.WriteFile(file, []byte(sentinelConf(s, primary, n)), 0o600); err != nil {
			t.Fatalf("write the sentinel's file: %v", err)
		}
		return []string{file, "--sentinel", "--daemonize", "no"}
	}
	for range n {
		s.All = append(s.All, launch(t, Options{TLS: primary.opts.TLS}, args, "+monitor master "+Service))
	}
	for _, one := range s.All {
		one.awaitLogs(0, "+sentinel sentinel", n-1)
		one.awaitLogs(0, "+slave slave", len(replicas))
		// What a replica says of itself comes later than its name.
		Await(t, "the sentinel "+one.Addr()+" takes the replicas for good", func() bool {
			return strings.Count(one.Do("SENTINEL", "REPLICAS", Service), "master-link-status\nok") >= len(replicas)
		})
	}
	return s
}

func sentinelConf(s *Server, primary *Server, n int) string {
	tls := ""
	for _, pair := range s.tlsSettings() {
		tls += pair[0] + " " + pair[1] + "\n"
	}
	return fmt.Sprintf("port %d\nbind 127.0.0.1\ndir %s\n%ssentinel monitor %s 127.0.0.1 %d %d\n", s.port, s.opts.Dir, tls, Service, primary.peerPort(), n/2+1) +
		// One second is long for a server on the same machine and short for a test.
		fmt.Sprintf("sentinel down-after-milliseconds %s 1000\nsentinel failover-timeout %s 10000\n", Service, Service)
}

// URL is the service's address as core/redis wants it.
func (s *Sentinels) URL() string {
	if !s.All[0].speaksTLS() {
		return "redis-sentinel://" + addrs(s.All) + "/" + Service
	}
	hosts := make([]string, len(s.All))
	for i, one := range s.All {
		hosts[i] = one.TLSAddr()
	}
	return "rediss-sentinel://" + strings.Join(hosts, ",") + "/" + Service
}

// AwaitFailover waits until every sentinel has named another primary. One that
// stood still for two seconds trusts nobody for 30 more (its TILT mode), and
// Patience is longer than that.
func (s *Sentinels) AwaitFailover() {
	s.t.Helper()
	for _, one := range s.All {
		one.AwaitLog(0, "+switch-master "+Service)
	}
}
