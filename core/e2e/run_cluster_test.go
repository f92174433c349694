//go:build linux

package e2e

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"parley/core/client"
	"parley/core/e2e/rig"
)

// TestRunCluster runs the script behind `make run-cluster` as a terminal does,
// and ends it by Ctrl-C: three nodes on one Redis, and not a process is left.
func TestRunCluster(t *testing.T) {
	script, err := filepath.Abs("../../deploy/run-cluster.sh")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	plugins := filepath.Join(dir, "bin", "plugins")
	if err := os.MkdirAll(plugins, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(built.platform, filepath.Join(dir, "bin", "platform")); err != nil {
		t.Fatal(err)
	}
	installWordlist(t, plugins)
	examples, err := filepath.Abs("../../examples") // whose script puts the plugins into each node's folder
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(examples, filepath.Join(dir, "examples")); err != nil {
		t.Fatal(err)
	}

	// In the environment of every process that comes of it; redis-server writes
	// its title over that.
	mark := "RUN_CLUSTER_TEST=" + dir
	store, chat, tcp, admin := rig.PortsInARow(t, 1), rig.PortsInARow(t, 3), rig.PortsInARow(t, 3), rig.PortsInARow(t, 3)
	all := func() []int {
		return append(holding(t, "environ", mark), holding(t, "cmdline", fmt.Sprint("redis-server 127.0.0.1:", store))...)
	}
	// A shell cannot hear of a signal that was ignored when it began, as Ctrl-C is by
	// what runs in the background, and is not where somebody waits for it.
	ctrlC := make(chan os.Signal, 1)
	signal.Notify(ctrlC, os.Interrupt)
	t.Cleanup(func() { signal.Stop(ctrlC) })
	cmd := exec.Command("sh", script)
	cmd.Dir = dir
	cmd.Env = append(rig.CleanEnv(), mark, "DATA="+filepath.Join(dir, "data"), fmt.Sprint("REDIS_PORT=", store),
		fmt.Sprint("CHAT_PORT=", chat), fmt.Sprint("TCP_PORT=", tcp), fmt.Sprint("ADMIN_PORT=", admin))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // the terminal's foreground
	out, in := io.Pipe()
	cmd.Stdout, cmd.Stderr = in, in
	cmd.WaitDelay = patience // for who still holds the output when the script has ended
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	said := new(rig.Tail)
	up, read, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		defer close(read)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			said.Add(lines.Text())
			if lines.Text() == "Ctrl-C ends all." {
				close(up)
			}
		}
	}()
	go func() {
		err := cmd.Wait()
		in.Close()
		ended <- err
	}()
	t.Cleanup(func() {
		for _, pid := range all() { // of a test that failed
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		<-read
		if t.Failed() {
			t.Logf("the script said:\n%s", said)
		}
	})
	select {
	case <-up:
	case err := <-ended:
		t.Fatalf("the script ended with %v", err)
	case <-time.After(2 * patience):
		t.Fatal("the nodes are not up")
	}
	if n := len(all()); n < 8 { // the script, redis-server, and three times a node and who minds it
		t.Errorf("%d processes run, want 8 at least", n)
	}
	ann := visit(t, client.Options{URL: fmt.Sprintf("ws://127.0.0.1:%d/v1/ws", chat), Guest: "ann"})
	bob := visit(t, client.Options{URL: fmt.Sprintf("tcp://127.0.0.1:%d", tcp+2), Guest: "bob"})
	bob.enters("lobby")
	_, nonce := ann.says("lobby", "from node 0 to node 2")
	if got := bob.hears(nonce); got.Text != "from node 0 to node 2" {
		t.Errorf("bob got %q", got.Text)
	}

	began := time.Now()
	if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("after Ctrl-C the script ended with %v", err)
		}
	case <-time.After(patience):
		t.Fatal("Ctrl-C did not end it")
	}
	t.Logf("all ended %v after Ctrl-C", time.Since(began).Round(time.Millisecond))
	if left := all(); len(left) > 0 {
		t.Errorf("processes %v are left", left)
	}
}

// holding returns the processes that have the text in a file of /proc, from
// the beginning of one of its parts on.
func holding(t *testing.T, file, text string) (pids []int) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/" + file)
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil || !slices.ContainsFunc(bytes.Split(b, []byte{0}), func(part []byte) bool { return strings.HasPrefix(string(part), text) }) {
			continue // it has ended meanwhile, or is somebody else's
		}
		pid, err := strconv.Atoi(strings.Split(file, "/")[2])
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	return pids
}
