package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"parley/core/bench/proc"
)

// Cluster says how many nodes a server of the benchmark's own has. Its zero
// value is one node with the embedded store.
type Cluster struct {
	Nodes  int    // nodes on one Redis; 0 or 1 without Redis: the embedded store
	Redis  string // redis-server program; empty: nodes share none and there is one
	Fsync  string // appendfsync of that Redis: always, everysec or no
	Spread bool   // members are on every node; otherwise on all but the first, where the publishers are
}

// check says what does not fit together.
func (c Cluster) check() error {
	switch {
	case c.Nodes < 0 || c.Nodes > 64:
		return fmt.Errorf("%d nodes: 1 to 64 are possible", c.Nodes)
	case c.Fsync != "always" && c.Fsync != "everysec" && c.Fsync != "no":
		return fmt.Errorf("appendfsync %q: always, everysec or no is possible", c.Fsync)
	}
	return nil
}

// store is a redis-server of our own.
type store struct {
	addr string
	cmd  *exec.Cmd
	done chan struct{}
	err  error // of cmd, once done is closed
	dir  string
}

// startStore starts a redis-server on a free port, with its append-only file in
// a folder of its own, and waits until it takes connections.
func startStore(ctx context.Context, program, fsync, data string) (*store, error) {
	dir, err := os.MkdirTemp(data, "parley-bench-redis-")
	if err != nil {
		return nil, fmt.Errorf("make a folder for Redis: %w", err)
	}
	addrs, err := freePorts(ctx, 1)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	_, port, _ := net.SplitHostPort(addrs[0])
	s := &store{addr: addrs[0], dir: dir, done: make(chan struct{})}
	s.cmd = exec.Command(program, "--port", port, "--bind", "127.0.0.1", "--dir", dir, "--save", "",
		"--appendonly", "yes", "--appendfsync", fsync, "--maxmemory-policy", "noeviction", "--daemonize", "no")
	s.cmd.SysProcAttr = childAttr()
	log, err := os.Create(filepath.Join(dir, "redis.log"))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make the log of Redis: %w", err), os.RemoveAll(dir))
	}
	defer log.Close() // the process has its own
	s.cmd.Stdout, s.cmd.Stderr = log, log
	if err := s.cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w; install redis-server, or name it with --redis", program, err), os.RemoveAll(dir))
	}
	go func() { // ends with the process, which stop waits for
		s.err = s.cmd.Wait()
		close(s.done)
	}()
	if err := s.await(ctx); err != nil {
		return nil, errors.Join(err, s.stop())
	}
	return s, nil
}

// await returns once the server takes connections.
func (s *store) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var dialer net.Dialer
	for {
		if conn, err := dialer.DialContext(ctx, "tcp", s.addr); err == nil {
			return conn.Close()
		}
		select {
		case <-tick.C:
		case <-s.done:
			log, _ := os.ReadFile(filepath.Join(s.dir, "redis.log"))
			return fmt.Errorf("redis-server ended before it was ready (%w): %s", s.err, tail(log))
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// stop ends the process and removes its folder.
func (s *store) stop() error {
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.done:
	case <-time.After(patience):
		_ = s.cmd.Process.Kill()
		<-s.done
	}
	return os.RemoveAll(s.dir)
}

// StartCluster starts Redis and the nodes. The server returned is the first
// node, which stands for all: its Stop stops all, its Usage sums all.
func StartCluster(ctx context.Context, c Cluster, set Settings) (_ *Server, err error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	redis, err := startStore(ctx, c.Redis, c.Fsync, set.Data)
	if err != nil {
		return nil, err
	}
	var nodes []*Server
	defer func() {
		if err != nil {
			for _, n := range nodes {
				err = errors.Join(err, n.Stop())
			}
			err = errors.Join(err, redis.stop())
		}
	}()
	keys := map[string]string{"redis.url": "redis://" + redis.addr}
	for k, v := range set.Keys {
		keys[k] = v
	}
	set.Keys = keys
	for range max(c.Nodes, 1) {
		n, err := StartServer(ctx, set)
		if err != nil {
			return nil, err
		}
		nodes = append(nodes, n)
	}
	first := nodes[0]
	first.others, first.redis, first.spread = nodes[1:], redis, c.Spread
	first.Parts = []Part{{Name: "publishing node", PID: first.PIDs[0]}}
	for i, n := range first.others {
		name := "other node"
		if len(first.others) > 1 {
			name = fmt.Sprintf("node %d", i+2)
		}
		first.Parts = append(first.Parts, Part{Name: name, PID: n.PIDs[0]})
		first.PIDs = append(first.PIDs, n.PIDs...)
	}
	first.Parts = append(first.Parts, Part{Name: "Redis", PID: redis.cmd.Process.Pid})
	first.PIDs = append(first.PIDs, redis.cmd.Process.Pid)
	return first, nil
}

// Part is one process of a server that has several.
type Part struct {
	Name string
	PID  int
}

// parts is the usage of each part, in their order.
func (s *Server) parts() (all []proc.Usage, err error) {
	for _, p := range s.Parts {
		u, err := proc.Of(p.PID)
		if err != nil {
			return nil, err
		}
		all = append(all, u)
	}
	return all, nil
}

// homes are the servers that members connect to.
func (s *Server) homes() []*Server {
	switch {
	case len(s.others) == 0:
		return []*Server{s}
	case s.spread:
		return append([]*Server{s}, s.others...)
	}
	return s.others
}

// describe says what the server consists of, for the title of a figure.
func (c Cluster) describe() string {
	if c.Redis == "" {
		return ""
	}
	where := "publishers on one, members on the others"
	if c.Spread || c.Nodes < 2 {
		where = "members on all"
	}
	return strings.TrimSpace(fmt.Sprintf("%d nodes on one Redis (appendfsync %s), %s", max(c.Nodes, 1), c.Fsync, where))
}
