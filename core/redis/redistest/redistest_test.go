package redistest_test

import (
	"bufio"
	"fmt"
	"net"
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
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if got, err := answers.ReadString('\n'); err != nil || got != "+PONG\r\n" {
		t.Fatalf("after resume: got %q, %v", got, err)
	}
}
