package redistest_test

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"parley/core/redis/redistest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestDataSurvivesWhatItShould(t *testing.T) {
	tests := []struct {
		name string
		opts redistest.Options
		end  func(*redistest.Server)
		want string
	}{
		{"stop, append-only", redistest.Options{AppendOnly: true}, (*redistest.Server).Stop, "v"},
		{"kill, append-only", redistest.Options{AppendOnly: true}, (*redistest.Server).Kill, "v"},
		{"wipe, append-only", redistest.Options{AppendOnly: true}, (*redistest.Server).Wipe, ""},
		{"stop, no file", redistest.Options{}, (*redistest.Server).Stop, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := redistest.Start(t, tt.opts)
			if got := s.Do("SET", "k", "v"); got != "OK" {
				t.Fatalf("SET: got %q, want OK", got)
			}
			addr := s.Addr()
			tt.end(s)
			s.Restart()
			if s.Addr() != addr {
				t.Errorf("address after the restart: got %s, want %s", s.Addr(), addr)
			}
			if got := s.Do("GET", "k"); got != tt.want {
				t.Errorf("GET after the restart: got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestPauseHoldsAnswersBack(t *testing.T) {
	s := redistest.Start(t, redistest.Options{MaxMemory: "64mb"})
	if got := s.Do("CONFIG", "GET", "maxmemory-policy"); got != "maxmemory-policy\nnoeviction" {
		t.Errorf("policy: got %q", got)
	}
	c, err := net.Dial("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s.Pause()
	if _, err := fmt.Fprint(c, "PING\r\n"); err != nil {
		t.Fatal(err)
	}
	answers := bufio.NewReader(c)
	if err := c.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if b, err := answers.Peek(1); err == nil {
		t.Fatalf("a paused server answered %q", b)
	}
	s.Resume()
	if err := c.SetReadDeadline(time.Now().Add(redistest.Patience)); err != nil {
		t.Fatal(err)
	}
	if got, err := answers.ReadString('\n'); err != nil || got != "+PONG\r\n" {
		t.Fatalf("after resume: got %q, %v", got, err)
	}
}

func TestProxy(t *testing.T) {
	s := redistest.Start(t, redistest.Options{})
	p := redistest.StartProxy(t, s.Addr())
	dial := func() (net.Conn, *bufio.Reader) {
		c, err := net.Dial("tcp", strings.TrimPrefix(p.URL(), "redis://"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c, bufio.NewReader(c)
	}
	ask := func(c net.Conn, r *bufio.Reader, wait time.Duration) (string, error) {
		if err := c.SetDeadline(time.Now().Add(wait)); err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Fprint(c, "INCR n\r\n"); err != nil {
			return "", err
		}
		return r.ReadString('\n')
	}
	const long = redistest.Patience
	c, r := dial()
	if got, err := ask(c, r, long); got != ":1\r\n" {
		t.Fatalf("through the proxy: got %q, %v", got, err)
	}
	p.Silence()
	if got, err := ask(c, r, 50*time.Millisecond); err == nil {
		t.Errorf("silenced: got %q", got)
	}
	redistest.Await(t, "what was asked has reached the server", func() bool { return s.Do("GET", "n") == "2" })
	c, r = dial()
	if got, err := ask(c, r, long); got != ":3\r\n" {
		t.Errorf("a new connection: got %q, %v, want the third number", got, err)
	}
	p.Cut()
	if got, err := ask(c, r, long); err == nil {
		t.Errorf("cut: got %q", got)
	}
	s.Kill()
	c, r = dial()
	if got, err := ask(c, r, long); err == nil {
		t.Errorf("without a server: got %q", got)
	}
}

func TestReplyTypes(t *testing.T) {
	s := redistest.Start(t, redistest.Options{Args: []string{"--databases", "3"}})
	s.Do("RPUSH", "list", "a", "b")
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"LRANGE", "list", "0", "-1"}, "a\nb"},
		{[]string{"LLEN", "list"}, "2"},
		{[]string{"GET", "none"}, ""},
		{[]string{"CONFIG", "GET", "databases"}, "databases\n3"},
		{[]string{"CONFIG", "GET", "dir"}, "dir\n" + s.Dir()},
	} {
		if got := s.Do(tt.args...); got != tt.want {
			t.Errorf("%v: got %q, want %q", tt.args, got, tt.want)
		}
	}
}

func TestCluster(t *testing.T) {
	c := redistest.StartCluster(t, 3, 1, redistest.Options{})
	for _, s := range c.Nodes() {
		if info := s.Do("CLUSTER", "INFO"); !strings.Contains(info, "cluster_state:ok") || !strings.Contains(info, "cluster_known_nodes:6") {
			t.Errorf("node %s: got %q", s.Addr(), info)
		}
	}
	before := c.Replicas[1][0].Logged()
	c.Masters[1].Kill()
	c.Replicas[1][0].AwaitLog(before, "Failover election won")
	if got := c.Replicas[1][0].Do("ROLE"); !strings.HasPrefix(got, "master") {
		t.Errorf("role of the replica after the failover: got %q", got)
	}
}

func TestSentinels(t *testing.T) {
	primary := redistest.Start(t, redistest.Options{})
	replica := redistest.StartReplica(t, primary, redistest.Options{})
	s := redistest.StartSentinels(t, 3, primary, replica)
	primary.Kill()
	s.AwaitFailover()
	if got := replica.Do("ROLE"); !strings.HasPrefix(got, "master") {
		t.Errorf("role of the replica after the failover: got %q", got)
	}
}
