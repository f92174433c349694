package e2e

import (
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"parley/core/e2e/rig"
)

// mute accepts connections and says nothing; came is told of the first bytes of each.
func mute(t *testing.T) (addr string, came <-chan struct{}) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	heard := make(chan struct{}, 64)
	var work sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn
	work.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, c)
			mu.Unlock()
			work.Go(func() {
				b := make([]byte, 1)
				if _, err := c.Read(b); err == nil {
					select {
					case heard <- struct{}{}:
					default:
					}
				}
				for {
					if _, err := c.Read(b); err != nil {
						return
					}
				}
			})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		mu.Lock()
		for _, c := range conns {
			_ = c.Close()
		}
		mu.Unlock()
		work.Wait()
	})
	return ln.Addr().String(), heard
}

// TestSIGTERMWhileStarting stops nodes that wait for something at their start: each
// ends with code 0, says at what, and lets the next start have its files.
func TestSIGTERMWhileStarting(t *testing.T) {
	t.Parallel()
	redis, redisAsked := mute(t)
	gitAsked, release := make(chan struct{}, 64), make(chan struct{})
	git := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		gitAsked <- struct{}{}
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(git.Close)
	t.Cleanup(func() { close(release) })
	plugins := t.TempDir()
	for _, tt := range []struct {
		name string
		keys settings
		at   func(t *testing.T, out *rig.Tail)
		step string
	}{
		{"a git that does not answer", settings{"policy.git.url": git.URL + "/policy.git"}, func(t *testing.T, _ *rig.Tail) { await(t, "git is asked", took(gitAsked)) }, "loading the policy"},
		{"a redis and a git that do not answer", settings{"redis.url": "redis://" + redis, "policy.git.url": git.URL + "/policy.git", "redis.call_timeout": "20s"},
			func(t *testing.T, _ *rig.Tail) { await(t, "redis is asked", took(redisAsked)) }, "loading the policy"},
		{"a redis that does not answer", settings{"redis.url": "redis://" + redis, "plugins.dir": plugins, "redis.call_timeout": "20s"},
			func(t *testing.T, _ *rig.Tail) { await(t, "redis is asked", took(redisAsked)) }, "loading the plugins"},
		{"the first sign of life", settings{"policy.git.url": git.URL + "/policy.git"}, func(t *testing.T, out *rig.Tail) {
			await(t, "the log begins", func() bool { return out.Has("level=") })
		}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := newNode(t, tt.keys)
			drain(redisAsked)
			drain(gitAsked)
			p := startBeside(t, "run", "--config", n.Config)
			tt.at(t, p.out)
			p.stop()
			if !p.out.Has("stopped while starting") || !p.out.Has("terminated signal received") || !p.out.Has(tt.step) || p.out.Has("context canceled") {
				t.Errorf("got:\n%s", p.out)
			}
			// Nothing is left behind that the next start would stumble over.
			n.Configure(settings{"listen": n.HTTP, "tcp.listen": n.TCP, "admin.listen": n.Admin, "data_dir": n.Data()})
			n.Start()
			n.Stop()
		})
	}
	// Other commands name the signal as well.
	cmd := exec.Command(rig.Platform(), "check", "--policy.git.url", git.URL+"/policy.git", "--data_dir", filepath.Join(t.TempDir(), "data"))
	cmd.Env = rig.CleanEnv()
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	drain(gitAsked)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	await(t, "git is asked", took(gitAsked))
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 1 || strings.Contains(out.String(), "context canceled") {
		t.Errorf("platform check: got %d: %s", code, out.String())
	}
}

// took reports whether there was something.
func took(c <-chan struct{}) func() bool {
	return func() bool {
		select {
		case <-c:
			return true
		default:
			return false
		}
	}
}

func drain(c <-chan struct{}) {
	for took(c)() {
	}
}
